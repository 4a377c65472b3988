//! A disk under the embedded queue that is full, that tore the last write, or that lies.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::world::{World, ids, report};

const REST_TIME_MAX: Duration = Duration::from_mins(2);
const STUCK: &str = "queue.stuck: dispatch rests: the disk of ";

// === full ===

/// A file system of 16 MiB, in memory, in a mount namespace of its own that ends with this process.
struct SmallDisk {
    keeper: Child,
    folder: TempDir,
}

impl SmallDisk {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"mount -t tmpfs -o size=16m none "$1" && echo mounted && exec cat"#;
        let mut keeper = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut told = String::new();
        let mut stdout = BufReader::new(keeper.stdout.take().unwrap());
        stdout.read_line(&mut told).await.unwrap();
        assert_eq!(
            told, "mounted\n",
            "a small file system, in a namespace of its own"
        );
        Self { keeper, folder }
    }

    /// Runs a program where the disk is seen.
    fn entered(&self) -> Vec<String> {
        let pid = self.keeper.id().unwrap();
        let entered = format!("nsenter --target {pid} --user --mount --preserve-credentials");
        entered.split(' ').map(str::to_owned).collect()
    }

    async fn run(&self, script: &str) {
        let entered = self.entered();
        let mut command = Command::new(&entered[0]);
        command.args(&entered[1..]).args(["sh", "-c", script, "sh"]);
        let ended = command.arg(self.folder.path()).output().await.unwrap();
        assert!(ended.status.success(), "{script}: {ended:?}");
    }

    async fn fill(&self) {
        self.run(r#"cat /dev/zero >"$1/ballast" 2>/dev/null || true"#)
            .await;
    }

    async fn free(&self) {
        self.run(r#"rm "$1/ballast""#).await;
    }
}

#[tokio::test]
async fn a_full_disk_stops_dispatch_tells_the_producer_and_heals_by_itself() {
    let began = Instant::now();
    let disk = SmallDisk::new().await;
    let queue = format!("sqlite:{}/queue.db", disk.folder.path().display());
    let world = World::on_sqlite(&["--latency", "10ms-30ms", "--results-after", "0s-1s"]).await;
    let world = world
        .set("queue.url", &queue)
        .set("accounts.default.results", "all")
        .set("accounts.default.quota.send.limit", "200")
        .set("accounts.default.quota.send.window", "1s")
        .through(disk.entered());
    let all = ids("full", 1_500);
    world.publish_backlog(&all).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(300, REST_TIME_MAX).await;
    disk.fill().await;
    worker.until_said_like(STUCK).await;
    let late = world
        .sent(&ids("late", 1), |_| "ada@example.com".into())
        .await;
    let told = String::from_utf8_lossy(&late.stderr);
    assert_eq!(late.status.code(), Some(69), "{told}");
    assert!(told.contains("is full"), "{told}");
    assert!(told.contains("hint: "), "{told}");
    // What was in flight has been heard; from now on no call goes out whose outcome could not be
    // kept.
    sleep(Duration::from_secs(1)).await;
    let calls = world.sandbox.count("sendCalls").await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.sandbox.count("sendCalls").await, calls);
    assert_eq!(worker.ready().await, Some(503));
    disk.free().await;
    worker
        .until_said("queue.writable: the queue takes changes again")
        .await;
    world.sandbox.until_mailed(1_500, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&all).await;
    world.assert_at_rest(0).await;
    let repeats = world.sandbox.count("duplicates").await;
    let figures =
        format!("1500 sends, full after {calls} calls, {repeats} repeats that mailed nothing");
    report("disk full", began, &figures);
}

// === torn ===

#[tokio::test]
async fn a_torn_write_costs_only_what_nobody_was_told_of() {
    let began = Instant::now();
    let world = World::on_sqlite(&["--latency", "10ms-30ms"]).await;
    let (file, log) = (
        path(&world, "postrider.db"),
        path(&world, "postrider.db-wal"),
    );
    let mut all = ids("torn", 600);
    world.publish_backlog(&all).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(200, REST_TIME_MAX).await;
    worker.kill().await;
    // A write of which nothing but noise reached the disk.
    let noise: Vec<u8> = (0..5_000_u32).map(|n| (n * 7_919 % 251) as u8).collect();
    let end = fs::metadata(&log).unwrap().len();
    assert!(end > 0, "a killed worker leaves its log");
    fs::OpenOptions::new()
        .write(true)
        .open(&log)
        .unwrap()
        .write_all_at(&noise, end)
        .unwrap();

    let worker = world.worker().await;
    world.sandbox.until_mailed(600, REST_TIME_MAX).await;
    // It keeps the log, and adds nothing to it. The log begins anew, or what comes now might be
    // written into its middle.
    worker.until_idle(REST_TIME_MAX).await;
    empty_log(&file);
    worker.signal("-STOP").await;
    let more = ids("more", 30);
    world.publish(&more).await;
    let confirmed = fs::metadata(&log).unwrap().len();
    world.publish(&ids("never", 1)).await;
    let torn = fs::metadata(&log).unwrap().len();
    worker.kill().await;
    assert!(
        torn > confirmed + 4_096,
        "one request is more than a page: {confirmed} to {torn}"
    );
    assert_eq!(
        standing(&world, &file, &log, |_| {}).await,
        31,
        "untorn, all of it stands"
    );
    let mut cuts = 0;
    for end in (confirmed..torn).step_by(1_000) {
        let cut = |log: &fs::File| log.set_len(end).unwrap();
        assert_eq!(standing(&world, &file, &log, cut).await, 30, "cut at {end}");
        let garble = |log: &fs::File| log.write_all_at(&noise[..64], end + 100).unwrap();
        assert_eq!(
            standing(&world, &file, &log, garble).await,
            30,
            "garbled at {end}"
        );
        cuts += 2;
    }
    let middle = confirmed.midpoint(torn);
    fs::OpenOptions::new()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(middle)
        .unwrap();
    let worker = world.worker().await;
    all.extend(more);
    world.sandbox.until_mailed(630, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&all).await;
    world.assert_at_rest(0).await;
    let figures = format!("630 sends, a log torn in {cuts} ways: what was confirmed stands");
    report("torn write", began, &figures);
}

fn empty_log(file: &Path) {
    let connection = rusqlite::Connection::open(file).unwrap();
    let busy: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(busy, 0, "an idle worker reads nothing for long");
}

/// How many messages stand in a copy of the file and its log, spoilt in this way.
async fn standing(world: &World, file: &Path, log: &Path, spoil: impl Fn(&fs::File)) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    let copied_log = folder.path().join("copy.db-wal");
    fs::copy(file, &copy).unwrap();
    fs::copy(log, &copied_log).unwrap();
    spoil(
        &fs::OpenOptions::new()
            .write(true)
            .open(&copied_log)
            .unwrap(),
    );
    let mut command = world.command(&["queue", "--json"]);
    command.env("POSTRIDER_QUEUE__URL", format!("sqlite:{}", copy.display()));
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let depths = told["depths"].as_array().unwrap().iter();
    depths
        .map(|depth| depth["messages"].as_u64().unwrap())
        .sum()
}

// === lying ===

#[tokio::test]
async fn a_garbled_file_is_refused_and_nothing_of_it_is_sent() {
    let began = Instant::now();
    let world = World::on_sqlite(&[]).await;
    world.sandbox.tell("token", "pat-na1-another").await;
    let ids = ids("garbled", 500);
    world.publish_backlog(&ids).await;
    let file = path(&world, "postrider.db");
    let whole = fs::read(&file).unwrap();
    // The header, of a file that was closed in order; and after a crash pages in the middle, which
    // SQLite itself would come upon by and by.
    for (place, from, bytes) in [("header", 0, 64), ("middle", whole.len() / 2, 8 * 4_096)] {
        if place == "middle" {
            world.worker().await.kill().await;
        }
        let mut garbled = whole.clone();
        garbled[from..from + bytes].fill(0xa5);
        fs::write(&file, garbled).unwrap();
        let refused = world.run(&["worker"]).await;
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(69), "{place}: {told}");
        for word in [
            "postrider.db is damaged",
            "hint: check that queue.url names",
        ] {
            assert!(told.contains(word), "{place}: `{word}` is not in: {told}");
        }
        // From a backup.
        fs::write(&file, &whole).unwrap();
    }
    assert_eq!(world.sandbox.count("mails").await, 0);
    world.sandbox.tell("token", "*").await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(500, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    report(
        "file garbled",
        began,
        "refused twice, 500 sends from a backup",
    );
}

fn path(world: &World, name: &str) -> PathBuf {
    world.folder().join(name)
}
