//! A folder with an embedded queue, the program run in it, and what it said.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use assert_cmd::Command as Run;
use jiff::Timestamp;
use postrider::clock::Clock;
use postrider::message::{AccountName, Priority};
use postrider::outcome::{DeadReason, Disposition, Words};
use postrider::queue::Parcel;
use postrider::queue::sqlite::{Mode, SqliteQueue};
use postrider::queue::{Intake, IntakeOptions, Lane, Queue};
use postrider::story::{Attempt, Death, Story};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postrider");

/// A folder of its own, with the embedded queue that commands make there.
pub(super) struct Shop {
    folder: TempDir,
}

impl Shop {
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn command(&self, args: &[&str]) -> Run {
        let mut command = Run::from_std(self.plain(args));
        command.timeout(Duration::from_mins(1));
        command
    }

    pub(super) fn plain(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .current_dir(&self.folder)
            .env_clear()
            // Help is as wide as the terminal says.
            .env("COLUMNS", "100");
        command
    }

    pub(super) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.plain(args);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    pub(super) fn run(&self, args: &[&str]) -> String {
        told(self.command(args))
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.folder.path().join(name).exists()
    }

    pub(super) fn sandbox(&self, args: &[&str]) -> (Child, String) {
        let mut all = vec!["sandbox", "--listen", "127.0.0.1:0"];
        all.extend(args);
        let mut child = self.spawn(&all);
        let mut address = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut address).unwrap();
        (child, address.trim().to_owned())
    }

    pub(super) fn depth(&self, queue: &str) -> u64 {
        block_on(async {
            let depths = self.queue(Mode::Command).await.depths().await.unwrap();
            let name = format!("postrider.{queue}");
            let depth = depths.iter().find(|depth| depth.queue == name);
            depth.map_or(0, |depth| depth.messages)
        })
    }

    pub(super) async fn queue(&self, mode: Mode) -> SqliteQueue {
        let path = self.folder.path().join("postrider.db");
        let accounts = [AccountName::default()];
        SqliteQueue::open(path, "postrider", accounts, Clock::system(), mode)
            .await
            .unwrap()
    }

    /// Puts dead letters there, as a worker would.
    pub(super) fn bury(&self, letters: &[(&str, DeadReason)]) {
        block_on(async {
            let queue = self.queue(Mode::Worker).await;
            bury(&queue, letters).await;
            queue.close().await;
        });
    }
}

/// Publishes requests and settles each as a dead letter.
pub(super) async fn bury(queue: &impl Queue, letters: &[(&str, DeadReason)]) {
    let account = AccountName::default();
    let _lease = queue.lease(&account).await.unwrap();
    let mut intake = queue
        .open(&account, Lane::Sends, IntakeOptions::holding(1))
        .await
        .unwrap();
    for (number, (id, reason)) in letters.iter().enumerate() {
        let parcel = Parcel {
            body: request(id).into(),
            message_id: None,
            account: account.clone(),
            priority: Priority::Normal,
            story: Story::default(),
        };
        queue.publish(parcel).await.unwrap();
        let delivery = intake.receive().await.unwrap();
        let story = Box::new(death(id, *reason, number));
        queue
            .settle(delivery, Disposition::DeadLetter { story })
            .await
            .unwrap();
    }
}

pub(super) fn death(id: &str, reason: DeadReason, number: usize) -> Story {
    let at: Timestamp = format!("2026-05-01T12:00:{number:02}Z").parse().unwrap();
    let words = Words {
        status: Some(200),
        correlation_id: Some("aaaaaaaa-1111".into()),
        send_result: (reason == DeadReason::Refused).then(|| "PREVIOUSLY_BOUNCED".into()),
        ..Words::default()
    };
    Story {
        published_at: Some(at),
        spent: 1,
        attempts: vec![Attempt {
            at,
            took_ms: 42,
            outcome: "accepted".into(),
            words: words.clone(),
        }],
        death: Some(Death {
            key: id.to_owned(),
            reason,
            at,
            problem: "the recipient bounced before".into(),
            hint: "correct the address, then replay".into(),
            email_id: Some(4_126_643_121),
            account: Some("default".into()),
            words,
        }),
        ..Story::default()
    }
}

pub(super) fn request(id: &str) -> String {
    format!(
        r#"{{"emailId": 4126643121, "message": {{"to": "ada@example.com", "sendId": "{id}"}}}}"#
    )
}

/// The whole run as one text; ids that were minted and the shop's folder are masked.
pub(super) fn told(mut command: Run) -> String {
    let output = command.output().unwrap();
    let mut told = format!("exit {}\n", output.status.code().unwrap());
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        let text = String::from_utf8(bytes).unwrap();
        if !text.is_empty() {
            told.push_str("--- ");
            told.push_str(name);
            told.push('\n');
            told.push_str(&text);
        }
    }
    without_folder(&masked(&told))
}

/// `sqlite:/tmp/.../postrider.db` becomes `sqlite:SHOP/postrider.db`.
fn without_folder(text: &str) -> String {
    let mut parts = text.split("sqlite:/");
    let head = parts.next().unwrap_or_default().to_owned();
    parts.fold(head, |told, part| {
        let (_, file) = part.split_once("/postrider.db").unwrap();
        told + "sqlite:SHOP/postrider.db" + file
    })
}

/// `UUIDv7`s become `UUID`.
pub(super) fn masked(text: &str) -> String {
    let is_id = |c: char| c.is_ascii_hexdigit() || c == '-';
    text.split_inclusive(|c| !is_id(c))
        .map(|word| {
            let id = word.trim_end_matches(|c| !is_id(c));
            if id.len() == 36 && id.matches('-').count() == 4 {
                word.replace(id, "UUID")
            } else {
                word.to_owned()
            }
        })
        .collect()
}

/// Ages change from run to run.
pub(super) fn without_word_after(text: &str, before: &str) -> String {
    text.lines()
        .map(|line| match line.split_once(before) {
            Some((head, tail)) => {
                let units = |word: &&str| word.ends_with(['d', 'h', 'm', 's']);
                let rest: Vec<&str> = tail.split(' ').skip_while(units).collect();
                format!("{head}{before}AGE {}", rest.join(" "))
            }
            None => line.to_owned(),
        })
        .fold(String::new(), |all, line| all + line.trim_end() + "\n")
}

/// The text without the time at which a day ends.
pub(super) fn without_midnight(text: &str) -> String {
    let of = |line: &str| match line.split_once("ends at ") {
        Some((head, tail)) => {
            let tail = tail.split_once(',').map_or("", |(_, tail)| tail);
            format!("{head}ends at …,{tail}")
        }
        None => line.to_owned(),
    };
    text.lines().map(|line| of(line) + "\n").collect()
}

/// Answers one HTTP request with this JSON.
pub(super) fn answer_once(json: impl Into<String>) -> String {
    let json = json.into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
        write!(
            stream,
            "{head}\r\ncontent-length: {}\r\n\r\n{json}",
            json.len()
        )
        .unwrap();
    });
    address
}

pub(super) fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
}

pub(super) fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "another process is waited for")]
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not come to that in 10 s");
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
