//! Logouts: HubSpot is told, or it is said that it was not.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::desk::{KEY, OTHER_KEY, counts, desk, logged_in, run};
use crate::whole::world::World;

fn is_kept(world: &World) -> bool {
    world.path("postrider-oauth/default.grant").exists()
}

#[tokio::test]
async fn a_logout_revokes_and_forgets() {
    let world = desk(&[]).await;
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(
        told.contains("run `postrider auth login --account default`"),
        "{told}"
    );
    for version in ["2026-09", "v1"] {
        let world = desk(&[]).await.set("oauth.version", version);
        logged_in(&world).await;
        let told = run(&world, &["auth", "logout"]).await;
        assert!(told.contains("nobody is there to answer"), "{told}");
        let told = run(&world, &["auth", "logout", "--yes"]).await;
        assert!(told.starts_with("exit 0\nlogged out"), "{told}");
        assert!(told.contains("HubSpot was told"), "{told}");
        assert!(told.contains("Connected Apps"), "{told}");
        assert_eq!(counts(&world).await["revocations"], 1);
        assert!(!is_kept(&world));
        let told = run(&world, &["auth", "logout", "--yes"]).await;
        assert!(
            told.starts_with("exit 0\naccount default was not logged in"),
            "{told}"
        );
        assert!(told.contains("HubSpot was told nothing"), "{told}");
        assert_eq!(counts(&world).await["revocations"], 1);
    }
}

/// The grant is the only thing with which the login can be revoked.
#[tokio::test]
async fn a_grant_that_hubspot_could_not_be_told_of_stays() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    world.sandbox.tell("oauth", r#"{"answer":503}"#).await;
    let told = run(&world, &["auth", "logout", "--yes"]).await;
    assert!(told.starts_with("exit 69"), "{told}");
    assert!(
        told.contains("is not logged out, since HubSpot was not told")
            && told.contains("HTTP 503")
            && told.contains("hint: try again; or add --forget"),
        "{told}"
    );
    assert!(is_kept(&world));
    world.sandbox.tell("oauth", r#"{"answer":0}"#).await;

    let grant = world.path("postrider-oauth/default.grant");
    let mode = |mode| std::fs::set_permissions(&grant, std::fs::Permissions::from_mode(mode));
    mode(0o644).unwrap();
    let told = run(&world, &["auth", "logout", "--yes"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(told.contains("hint: chmod 600 "), "{told}");
    mode(0o600).unwrap();

    // Of another app: HubSpot would say yes to whatever it does not know.
    let world = world.set("oauth.client_id", "another");
    let told = run(&world, &["auth", "logout", "--yes"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(
        told.contains("hint: give oauth.client_id its old value back; or add --forget"),
        "{told}"
    );
    let world = world.set("oauth.client_id", "app");

    std::fs::write(world.path("key"), OTHER_KEY).unwrap();
    let told = run(&world, &["auth", "logout", "--yes", "--json"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    let line: Value = serde_json::from_str(told.lines().nth(1).unwrap()).unwrap();
    assert_eq!(
        (&line["removed"], &line["revoked"]),
        (&false.into(), &false.into())
    );
    assert!(
        told.contains("hint: give oauth.key its old value back; or add --forget"),
        "{told}"
    );
    assert!(is_kept(&world));
    assert_eq!(counts(&world).await["revocations"], 1, "that of the 503");

    std::fs::write(world.path("key"), KEY).unwrap();
    let told = run(&world, &["auth", "logout", "--yes"]).await;
    assert!(told.starts_with("exit 0\nlogged out"), "{told}");
    assert_eq!(counts(&world).await["revocations"], 2);
}

#[tokio::test]
async fn a_grant_is_forgotten_without_hubspot_only_where_that_is_asked_for() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    std::fs::write(world.path("key"), OTHER_KEY).unwrap();
    let told = run(&world, &["auth", "logout", "--yes", "--forget"]).await;
    assert!(told.starts_with("exit 0\nlogged out"), "{told}");
    assert!(
        told.contains("warning: HubSpot was not told, and the login is still good there")
            && told.contains("hint: uninstall the app"),
        "{told}"
    );
    assert!(!is_kept(&world));
    assert_eq!(counts(&world).await["revocations"], 0);
}

#[tokio::test]
async fn what_an_account_has_left_of_oauth_can_still_be_revoked() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    let world = world
        .unset("accounts.default.oauth")
        .set("accounts.default.token", "pat-na1-test");
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 0\ntoken "), "{told}");
    assert!(
        told.contains("left: postrider-oauth/default.grant")
            && told.contains("hint: run `postrider auth logout --account default`"),
        "{told}"
    );
    let told = run(&world, &["auth", "status", "--json"]).await;
    let line: Value = serde_json::from_str(told.lines().nth(1).unwrap()).unwrap();
    assert_eq!(line["leftover"], "postrider-oauth/default.grant");

    // Without the app it cannot be revoked, and what to do is said.
    let world = world.unset("oauth.client_id");
    let told = run(&world, &["auth", "logout", "--yes"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(told.contains("put [oauth] back as it was"), "{told}");
    assert!(is_kept(&world));

    let world = world.set("oauth.client_id", "app");
    let told = run(&world, &["auth", "logout", "--yes"]).await;
    assert!(told.starts_with("exit 0\nlogged out"), "{told}");
    assert_eq!(counts(&world).await["revocations"], 1);
    assert!(!is_kept(&world));
    let told = run(&world, &["auth", "status"]).await;
    assert!(!told.contains("left:"), "{told}");
    let told = run(&world, &["auth", "logout", "--yes"]).await;
    assert!(told.contains("does not use OAuth"), "{told}");
}
