//! HubSpot's own clients, pointed at the sandbox, understand every answer of it.
//!
//! `./test` installs them, from `tests/clients/`.

use std::path::PathBuf;
use std::time::Duration;

use postrider::sandbox::Options;
use tokio::process::Command;

use crate::sandbox::{self, Sandbox};

/// Some seventy emails and as many look-ups, beside other tests.
const SCRIPT_TIME_MAX: Duration = Duration::from_mins(2);

#[tokio::test]
async fn the_python_client_understands_every_answer() {
    let sandbox = sandbox().await;
    let mut command = Command::new(python());
    command.arg(script("hubspot_client.py")).arg(&sandbox.base);
    assert_understood(command).await;
}

#[tokio::test]
async fn the_node_client_understands_every_answer() {
    let sandbox = sandbox().await;
    let mut command = Command::new("node");
    command.arg(script("hubspot_client.js")).arg(&sandbox.base);
    command.env("NODE_PATH", node_modules());
    assert_understood(command).await;
}

/// One token, and results that are there at once.
async fn sandbox() -> Sandbox {
    sandbox::start(Options {
        token: Some("pat-na1-test".into()),
        results_after: "0s".parse().unwrap(),
        ..Options::default()
    })
    .await
}

pub fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/clients", name]
        .iter()
        .collect()
}

/// The Python that has the packages of `tests/clients/requirements.txt`.
pub fn python() -> PathBuf {
    part("POSTRIDER_TEST_PYTHON", "venv/bin/python")
}

/// The Node modules of `tests/clients/package.json`.
pub fn node_modules() -> PathBuf {
    part("POSTRIDER_TEST_NODE_MODULES", "node/node_modules")
}

/// A part of the environment that `./test` makes.
pub fn part(variable: &str, default: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(
        || {
            [env!("CARGO_MANIFEST_DIR"), "target/test-env", default]
                .iter()
                .collect()
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: run ./test once, it installs what the tests need",
        path.display()
    );
    path
}

async fn assert_understood(mut command: Command) {
    command.kill_on_drop(true);
    let output = tokio::time::timeout(SCRIPT_TIME_MAX, command.output())
        .await
        .expect("the client is done in time")
        .expect("the client starts: run ./test once, it installs what the tests need");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && out.contains("understood"),
        "{out}\n{err}"
    );
}
