//! Rules of the house that no linter knows: which room may name which crate and which other room,
//! and how long a file may be. They are told in `src/lib.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop at once"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// A file past this length is asking for a missing noun.
const LINES_MAX: usize = 500;
/// A list of stories may be somewhat longer.
const TEST_LINES_MAX: usize = 600;

/// Crates that are named in some rooms only.
const CRATES: &[(&str, &[&str])] = &[
    ("lapin", &["src/queue/amqp"]),
    ("rusqlite", &["src/queue/sqlite"]),
    (
        "reqwest",
        &[
            "src/client.rs",
            "src/provider/hubspot",
            "src/oauth/app.rs",
            "src/cli/",
        ],
    ),
    (
        "ring",
        &["src/crypto.rs", "src/oauth/", "src/sandbox/model/oauth"],
    ),
    ("prometheus", &["src/metrics.rs"]),
    ("backoff", &["src/retry.rs"]),
    ("governor", &["src/quota/pace.rs"]),
    ("axum", &["src/admin", "src/sandbox/", "src/cli/auth/"]),
    ("clap", &["src/cli", "src/main.rs"]),
    ("toml", &["src/config"]),
];

/// Rooms, and the rooms of ours that they may name. What is missing here may name any.
const ROOMS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("hint", &[]),
    ("journal", &["message", "outcome", "story"]),
    ("message", &["hint"]),
    ("story", &["clock", "message", "outcome"]),
    ("delivery", &["message"]),
    ("outcome", &["message", "story"]),
    ("retry", &["clock", "config", "outcome", "story", "message"]),
    ("quota", &["clock", "config", "provider"]),
    ("pause", &["message", "clock", "outcome", "queue"]),
    (
        "queue",
        &[
            "clock", "crypto", "hint", "journal", "message", "outcome", "story",
        ],
    ),
    (
        "provider",
        &[
            "client", "clock", "config", "crypto", "message", "oauth", "outcome",
        ],
    ),
    ("config", &["crypto", "delivery", "hint", "message"]),
    ("crypto", &[]),
    ("client", &["config", "crypto"]),
    ("oauth", &["client", "clock", "config", "message"]),
    (
        "sandbox",
        &["clock", "hint", "message", "outcome", "provider"],
    ),
    (
        "dispatch",
        &[
            "clock", "config", "delivery", "journal", "message", "metrics", "outcome", "pause",
            "provider", "queue", "quota", "retry", "story",
        ],
    ),
    (
        "metrics",
        &["message", "outcome", "pause", "quota", "retry"],
    ),
];

fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    walk(&root.join("tests"), &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The lines of code, comments left out.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a line names the path `name::…`.
fn names(line: &str, name: &str) -> bool {
    let path = format!("{name}::");
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| is_word(c) || c == ':')
    })
}

#[test]
fn crates_stay_in_their_rooms() {
    for (file, text) in sources()
        .iter()
        .filter(|(file, _)| file.starts_with("src/"))
    {
        for (name, rooms) in CRATES {
            if rooms.iter().any(|room| file.starts_with(room)) {
                continue;
            }
            if let Some(line) = code(text).find(|line| names(line, name)) {
                panic!("{file} names the crate {name}, which belongs to {rooms:?}: {line}");
            }
        }
    }
}

#[test]
fn arrows_between_rooms_never_turn_back() {
    for (file, text) in sources()
        .iter()
        .filter(|(file, _)| file.starts_with("src/"))
    {
        let room = file["src/".len()..].split(['/', '.']).next().unwrap();
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            continue;
        };
        let outside_tests = text.split("#[cfg(test)]").next().unwrap();
        for line in code(outside_tests) {
            let mut rest = line;
            while let Some(at) = rest.find("crate::") {
                rest = &rest[at + "crate::".len()..];
                let other: String = rest.chars().take_while(|c| is_word(*c)).collect();
                let fine = other.is_empty() || other == room || allowed.contains(&other.as_str());
                assert!(fine, "{file}: `{room}` may not name `{other}`: {line}");
            }
        }
    }
}

#[test]
fn only_the_command_line_writes_to_stdout() {
    for (file, text) in sources() {
        let free = file.starts_with("src/cli") || file.starts_with("tests/");
        let print =
            code(&text).find(|line| line.contains("println!(") || line.contains("stdout()"));
        assert!(free || print.is_none(), "{file} prints: {print:?}");
    }
}

#[test]
fn no_file_is_long() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(file, lines)| {
            let test = file.starts_with("tests/");
            *lines > if test { TEST_LINES_MAX } else { LINES_MAX }
        })
        .collect();
    assert!(long.is_empty(), "which noun is missing? {long:?}");
}

#[test]
fn nothing_is_left_for_later() {
    // Spelt apart, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
    ];
    for (file, text) in sources() {
        for mark in marks {
            assert!(!text.contains(mark), "{file} holds {mark}");
        }
    }
}

#[test]
fn every_deliberate_fault_still_fits_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join("tests/faults/list.toml")).unwrap();
    let list: toml::Table = list.parse().unwrap();
    let faults = list["fault"].as_array().unwrap();
    assert!(faults.len() >= 12);
    for fault in faults {
        let file = fault["file"].as_str().unwrap();
        let text = fs::read_to_string(root.join(file)).unwrap();
        let also = fault.get("also").and_then(|also| also.as_array());
        for edit in std::iter::once(fault).chain(also.into_iter().flatten()) {
            let times = text.matches(edit["find"].as_str().unwrap()).count();
            assert_eq!(times, 1, "{file}: {}", fault["name"]);
        }
    }
}
