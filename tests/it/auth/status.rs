//! What `auth status` says of a login: what HubSpot says of it, and not the file alone.

use std::time::Duration;

use postrider::message::AccountName;
use postrider::oauth::Store;
use serde_json::Value;

use super::desk::{counts, desk, logged_in, run};
use crate::whole::world::{eventually, within};

const TIME_MAX: Duration = Duration::from_secs(30);

fn line(told: &str) -> Value {
    serde_json::from_str(told.lines().nth(1).unwrap()).unwrap()
}

#[tokio::test]
async fn a_login_that_hubspot_has_revoked_is_not_called_good() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 0"), "{told}");
    assert!(told.contains("HubSpot takes this login"), "{told}");
    assert_eq!(
        line(&run(&world, &["auth", "status", "--json"]).await)["accepted"],
        true
    );

    world.sandbox.tell("oauth", r#"{"revoke":true}"#).await;
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(
        told.contains("problem: HubSpot takes this login no more")
            && told.contains("run `postrider auth login --account default`"),
        "{told}"
    );
    let told = line(&run(&world, &["auth", "status", "--json"]).await);
    assert_eq!(
        (&told["logged_in"], &told["accepted"]),
        (&false.into(), &false.into())
    );

    // The access token lives on for a while, and tells nothing of it.
    let told = run(&world, &["check"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(
        told.contains("ok      account default: portal 42")
            && told.contains("failed  account default login: HubSpot takes this login no more")
            && told.contains("run `postrider auth login --account default`"),
        "{told}"
    );
    // The file alone knows nothing of it.
    let told = run(&world, &["auth", "status", "--offline", "--json"]).await;
    assert!(told.starts_with("exit 0"), "{told}");
    assert_eq!(line(&told)["logged_in"], true);
    assert_eq!(line(&told)["accepted"], Value::Null);
    let counts = counts(&world).await;
    assert_eq!((counts["refreshes"], counts["introspections"]), (0, 5));
}

#[tokio::test]
async fn v1_is_asked_in_its_own_way() {
    let world = desk(&[]).await.set("oauth.version", "v1");
    logged_in(&world).await;
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 0"), "{told}");
    assert!(told.contains("HubSpot takes this login"), "{told}");
    // What v1 says of an unknown token may mean anything: it is not called good.
    world.sandbox.tell("oauth", r#"{"revoke":true}"#).await;
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 69"), "{told}");
    assert!(told.contains("is not known"), "{told}");
}

#[tokio::test]
async fn whose_fault_it_is_and_whether_hubspot_was_reached_is_told() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    let wrong = r#"{"client_secret":"another"}"#;
    world.sandbox.tell("oauth", wrong).await;
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(told.contains("HubSpot does not know the app"), "{told}");
    let told = line(&run(&world, &["auth", "status", "--json"]).await);
    assert_eq!(told["logged_in"], true, "nothing is known of it: {told}");
    let unwell = r#"{"client_secret":"app-secret","answer":503}"#;
    world.sandbox.tell("oauth", unwell).await;
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 69"), "{told}");
    assert!(
        told.contains("whether HubSpot takes this login is not known")
            && told.contains("--offline"),
        "{told}"
    );
    // What the file shows to be wrong is not hidden by that.
    let world = world.set("accounts.default.portal_id", "7");
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(
        told.contains("problem: it opens portal 42, and portal_id is 7")
            && told.contains("choose portal 7"),
        "{told}"
    );
}

/// A refresh token that is good once is refused just then; what takes its place is about to be stored.
#[tokio::test]
async fn a_refresh_that_is_under_way_is_no_login_that_is_over() {
    let world = desk(&[]).await;
    let file = world.path("postrider-oauth/default.grant");
    logged_in(&world).await;
    let old = std::fs::read(&file).unwrap();
    world.sandbox.tell("oauth", r#"{"revoke":true}"#).await;
    logged_in(&world).await;
    let new = std::fs::read(&file).unwrap();
    std::fs::write(&file, old).unwrap();
    let store = Store::new(&AccountName::default(), file.parent().unwrap());
    let lock = store.lock().await.unwrap();

    let mut status = world.command(&["auth", "status"]);
    let status = status.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let is_asked = async || counts(&world).await["introspections"] == 1;
    eventually(TIME_MAX, "HubSpot is asked", is_asked).await;
    std::fs::write(&file, new).unwrap();
    drop(lock);
    let ended = within(TIME_MAX, "it ends", status.wait_with_output()).await;
    let ended = ended.unwrap();
    let told = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{told}");
    assert!(told.contains("HubSpot takes this login"), "{told}");
    assert_eq!(counts(&world).await["introspections"], 2);
}
