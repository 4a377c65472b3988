//! The main job, as the README shows it.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

#[test]
fn the_demo_ends_by_saying_what_happened_to_each() {
    let demo = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["demo", "--json"])
        .current_dir(tempfile::tempdir().unwrap().path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{talk}");
    assert!(talk.contains("inbox    http://127.0.0.1:"), "{talk}");
    assert!(talk.contains("metrics  http://127.0.0.1:"), "{talk}");
    // It has no margin: on a loaded machine a call may be so late at the door that the next ones are too
    // early behind it. `whole::limits` holds the windows.
    let refused = talk.split_once(" answers of 429").unwrap().0;
    let refused: u32 = refused.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(refused <= 5, "{talk}");
    let rows: Vec<Value> = String::from_utf8(demo.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 112);
    assert!(
        rows.iter().all(|row| row["as_expected"] == true),
        "{rows:?}"
    );
    let of = |id: &str| rows.iter().find(|row| row["id"] == id).unwrap();
    assert_eq!(of("hiccup")["calls"], 3);
    assert_eq!(of("lost-answer")["happened"], "sent once");
    assert_eq!(of("too-late")["calls"], 0);
    assert_eq!(
        of("wrong-template")["happened"],
        "refused, replayed, sent once"
    );
}

/// A stop in the middle is an orderly end, and soon.
#[tokio::test]
async fn a_demo_that_is_stopped_ends() {
    let mut demo = tokio::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
        .arg("demo")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut talk = tokio::io::BufReader::new(demo.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("requests published") {
        line.clear();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut talk, &mut line);
        assert_ne!(
            read.await.unwrap(),
            0,
            "the demo ended before it was stopped"
        );
    }
    let pid = demo.id().unwrap().to_string();
    Command::new("kill").args(["-INT", &pid]).status().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(45), demo.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(130));
}
