//! The way from an API key, and the key that seals.

use super::desk::{desk, run};

const API_KEY: &str = "11111111-2222-3333-4444-555555555555";

#[tokio::test]
async fn the_way_from_an_api_key_is_told_where_it_stands() {
    let world = desk(&[]).await.set("accounts.default.hapikey", API_KEY);
    let told = run(&world, &["queue"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(told.contains("`postrider auth migrate`"), "{told}");
    std::fs::write(world.path("old.toml"), "[accounts.shop]\nhapikey = 'x'\n").unwrap();
    let told = run(&world, &["auth", "migrate", "--config", "old.toml"]).await;
    assert!(told.starts_with("exit 0"), "{told}");
    for words in [
        "died on 2022-11-30",
        "old.toml line 2",
        "variable POSTRIDER_ACCOUNTS__DEFAULT__HAPIKEY",
        "Service keys",
        "transactional-email: to send",
        "token_file",
        "postrider check",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("1111"), "{told}");
    let told = run(&world, &["auth", "migrate", "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(told.lines().nth(1).unwrap()).unwrap();
    assert_eq!(told["found"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn another_programs_api_key_is_warned_of() {
    let world = desk(&[])
        .await
        .unset("accounts.default.oauth")
        .set("accounts.default.token", "pat-na1-test");
    let mut command = world.command(&["worker"]);
    let log = std::fs::File::create(world.path("worker.log")).unwrap();
    command.env("HUBSPOT_HAPIKEY", API_KEY).stderr(log);
    let mut worker = command.spawn().unwrap();
    let log = || std::fs::read_to_string(world.path("worker.log")).unwrap();
    let started = async || log().contains("worker started");
    crate::whole::world::eventually(std::time::Duration::from_secs(20), "it starts", started).await;
    worker.start_kill().unwrap();
    worker.wait().await.unwrap();
    assert!(
        log().contains("HUBSPOT_HAPIKEY") && log().contains("auth migrate"),
        "{}",
        log()
    );
    assert!(!log().contains(API_KEY));
}

#[tokio::test]
async fn a_new_key_is_a_key() {
    let world = desk(&[]).await;
    let told = |text: String| text.lines().nth(1).unwrap().to_owned();
    let one = told(run(&world, &["auth", "key"]).await);
    let other = told(run(&world, &["auth", "key"]).await);
    assert_ne!(one, other);
    std::fs::write(world.path("key"), one).unwrap();
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.contains("is not logged in"), "{told}");
}
