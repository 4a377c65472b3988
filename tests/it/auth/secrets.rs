//! Nothing of OAuth that is secret is told, with every library talking.

use std::time::Duration;

use super::desk::{KEY, Login, desk, logged_in};
use crate::support::secret::assert_told_none;
use crate::whole::world::ids;

const REST_TIME_MAX: Duration = Duration::from_mins(1);
/// The beginnings of the sandbox's tokens and codes, and what the desk is told.
const SECRETS: [&str; 5] = [
    "oauth-access-",
    "oauth-refresh-",
    "code-",
    "app-secret",
    KEY,
];

#[tokio::test]
async fn nothing_that_is_written_holds_a_token_of_oauth() {
    let world = desk(&[]).await.env("RUST_LOG", "trace");
    let control = r#"{"expires_in":6,"rotate":true}"#;
    world.sandbox.tell("oauth", control).await;
    let login = Login::start(&world, &[]).await;
    // Somebody else's answer, and then the person's.
    let forged = login
        .authorize_url
        .replace("&state=", "&state=forged&nobody=");
    reqwest::get(&forged).await.unwrap();
    assert_eq!(login.consent().await.status(), 200);
    let ended = login.end().await;
    assert_eq!(ended.exit, 0, "{ended:?}");
    let mut written = vec![
        ("a login", ended.talk.into_bytes()),
        ("a login's JSON", ended.told.to_string().into_bytes()),
    ];
    let mut worker = world.worker().await;
    world.publish(&ids("told", 20)).await;
    world.sandbox.until_mailed(20, REST_TIME_MAX).await;
    world.sandbox.tell("oauth", r#"{"revoke":true}"#).await;
    worker
        .until_said_like("the access token cannot be refreshed")
        .await;
    worker.until_said("no token is told there").await;
    logged_in(&world).await;
    worker.until_said_like("another token is proven").await;
    for args in [
        &["auth", "status"][..],
        &["auth", "status", "--json"],
        &["check"],
        &["check", "--json", "--email-id", "7"],
        &["check", "--show"],
        &["auth", "logout", "--yes"],
        &["auth", "status"],
    ] {
        let output = world.run(args).await;
        written.push(("a command", [output.stdout, output.stderr].concat()));
    }
    worker.signal("-TERM").await;
    assert!(worker.ended().await.success());
    let log = std::fs::read(world.path("worker-1.log")).unwrap();
    written.push(("the worker's log", log));
    for (what, bytes) in &written {
        assert_told_none(what, bytes, &SECRETS);
    }
}
