//! The way from an API key, and the key that seals.

use super::desk::{desk, run};
use crate::support::secret::{keep, keep_with_mode};

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

/// What could not be looked at is no place where none was found.
#[tokio::test]
async fn what_cannot_be_looked_through_is_told() {
    let world = desk(&[]).await;
    let exit_64 = async |args: &[&str], words: &[&str]| {
        let args = [&["auth", "migrate"], args].concat();
        let told = run(&world, &args).await;
        assert!(told.starts_with("exit 64"), "{told}");
        assert!(!told.contains("None was found in"), "{told}");
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
    };
    let missing = ["--config", "nowhere.toml"];
    exit_64(&missing, &["the file nowhere.toml cannot be read"]).await;
    // The steps are told all the same.
    exit_64(&missing, &["Make a service key"]).await;

    std::fs::write(world.path("broken.toml"), "a = \nhapikey = 'x'\n").unwrap();
    let broken = ["--config", "broken.toml"];
    let found = ["broken.toml line 1 is not TOML", "broken.toml line 2\n"];
    exit_64(&broken, &found).await;

    let file = |name: &str| {
        let text = format!("[accounts.shop]\ntoken_file = '{name}'\n");
        std::fs::write(world.path("shop.toml"), text).unwrap();
        ["--config", "shop.toml"]
    };
    let key = "the file of accounts.shop.token_file, ";
    exit_64(
        &file("no-token"),
        &[key, "no-token, cannot be read: No such file"],
    )
    .await;
    exit_64(&file("."), &[key, "is no regular file"]).await;
    keep_with_mode(&world.path("open-token"), API_KEY, 0o644);
    exit_64(&file("open-token"), &[key, "its mode is 644"]).await;
    keep(&world.path("open-token"), API_KEY);
    let told = run(&world, &["auth", "migrate", "--config", "shop.toml"]).await;
    assert!(told.starts_with("exit 0"), "{told}");
    assert!(
        told.contains("the file of accounts.shop.token_file, open-token") && !told.contains("1111"),
        "{told}"
    );
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
