//! Logins from the address to the file, and what refuses one.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use super::desk::{Login, OTHER_KEY, answer_of, counts, desk, logged_in, run};
use crate::clients::python;
use crate::whole::world::{World, eventually, within};

const TIME_MAX: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_login_is_caught_on_this_machine_and_kept_sealed() {
    let world = desk(&[]).await.set("accounts.default.portal_id", "42");
    let login = Login::start(&world, &[]).await;
    assert!(
        login
            .authorize_url
            .contains("&scope=oauth%20transactional-email&")
    );
    assert!(login.authorize_url.contains("&code_challenge_method=S256"));

    // Somebody else's answer is refused, and the login still waits.
    let answer = answer_of(&login.authorize_url).await;
    let (back, _) = answer.split_once('?').unwrap();
    for forged in [
        "?code=stolen&state=forged",
        "?code=stolen",
        "?error=access_denied&state=x",
        "",
    ] {
        let refused = reqwest::get(format!("{back}{forged}")).await.unwrap();
        assert_eq!(refused.status(), 400, "{forged}");
        assert!(!refused.text().await.unwrap().contains("stolen"));
    }
    let page = login.consent().await;
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(page.text().await.unwrap().contains("Go on in the terminal"));

    let ended = login.end().await;
    assert_eq!(ended.exit, 0, "{ended:?}");
    assert_eq!(ended.told["portal_id"], 42);
    assert_eq!(ended.told["missing_scope"], Value::Null);
    let file = world.path("postrider-oauth/default.grant");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.starts_with("postrider-grant 1\n") && !text.contains("oauth-"),
        "{text}"
    );
    for entry in std::fs::read_dir(world.path("postrider-oauth")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            ["default.grant", "default.lock"].contains(&&*name),
            "{name}"
        );
    }

    let told = run(&world, &["auth", "status", "--json"]).await;
    let line = told.lines().nth(1).unwrap();
    let status: Value = serde_json::from_str(line).unwrap();
    assert!(
        told.starts_with("exit 0") && !told.contains("oauth-access"),
        "{told}"
    );
    assert_eq!(status["logged_in"], true);
    assert_eq!(
        (&status["portal_id"], &status["refresh_due"]),
        (&42.into(), &false.into())
    );
    assert_eq!(
        counts(&world).await["exchanges"],
        1,
        "a forged answer asks nobody"
    );
}

#[tokio::test]
async fn a_code_can_be_pasted() {
    let world = desk(&[])
        .await
        .set("oauth.version", "v3")
        .set("oauth.scopes", "oauth");
    let mut login = Login::start(&world, &["--paste"]).await;
    let answer = answer_of(&login.authorize_url).await;
    let (back, _) = answer.split_once('?').unwrap();
    login
        .paste(&format!("{back}?code=stolen&state=forged"))
        .await;
    login.paste("two words").await;
    login.paste(&answer).await;
    let ended = login.end().await;
    assert_eq!(
        (ended.exit, &ended.told["portal_id"]),
        (0, &42.into()),
        "{ended:?}"
    );
    assert!(
        ended.talk.contains("belongs to another login"),
        "{}",
        ended.talk
    );
    assert!(
        ended
            .talk
            .contains("the scope transactional-email was not granted"),
        "{}",
        ended.talk
    );

    // The bare code: no state is with it, and PKCE still binds it to its login.
    let mut login = Login::start(&world, &["--paste"]).await;
    let answer = answer_of(&login.authorize_url).await;
    let (_, code) = answer.split_once("code=").unwrap();
    login.paste(code.split('&').next().unwrap()).await;
    assert_eq!(login.end().await.exit, 0);
    let other = Login::start(&world, &["--paste"]).await;
    let answer = answer_of(&other.authorize_url).await;
    let (_, code) = answer.split_once("code=").unwrap();
    let mut login = Login::start(&world, &["--paste"]).await;
    login.paste(code.split('&').next().unwrap()).await;
    let ended = login.end().await;
    assert_eq!(ended.exit, 64);
    assert!(ended.talk.contains("BAD_CODE_VERIFIER"), "{}", ended.talk);
}

#[tokio::test]
async fn a_code_that_hubspot_does_not_know_is_called_what_it_is() {
    let world = desk(&[]).await;
    let mut login = Login::start(&world, &["--paste"]).await;
    login.paste("na1-mistyped").await;
    let ended = login.end().await;
    assert_eq!(ended.exit, 64, "{ended:?}");
    for words in [
        "HubSpot does not take the code",
        "mistyped",
        "too old",
        "nothing was stored",
        "BAD_AUTH_CODE",
        "hint: begin anew with `postrider auth login --account default --paste`",
    ] {
        assert!(ended.talk.contains(words), "{words}: {}", ended.talk);
    }
    assert!(!ended.talk.contains("uninstalled"), "{}", ended.talk);
    assert!(!world.path("postrider-oauth/default.grant").exists());
}

#[tokio::test]
async fn a_login_that_is_not_meant_stores_nothing() {
    let world = desk(&[]).await.set("accounts.default.portal_id", "7");
    let stored = || world.path("postrider-oauth/default.grant").exists();
    let login = Login::start(&world, &[]).await;
    login.consent().await;
    let ended = login.end().await;
    assert_eq!(ended.exit, 64);
    assert!(
        ended
            .talk
            .contains("opens portal 42, and accounts.default.portal_id is 7"),
        "{}",
        ended.talk
    );

    let login = Login::start(&world, &[]).await;
    login.interrupt().await;
    let ended = login.end().await;
    assert_eq!(ended.exit, 130, "{ended:?}");

    world.sandbox.tell("oauth", r#"{"deny":true}"#).await;
    let login = Login::start(&world, &[]).await;
    assert!(
        login
            .consent()
            .await
            .text()
            .await
            .unwrap()
            .contains("says no")
    );
    let ended = login.end().await;
    assert_eq!(ended.exit, 64);
    assert!(
        ended.talk.contains("access_denied: the user denied"),
        "{}",
        ended.talk
    );

    let wrong = r#"{"deny":false,"client_secret":"another"}"#;
    world.sandbox.tell("oauth", wrong).await;
    let login = Login::start(&world, &[]).await;
    login.consent().await;
    let ended = login.end().await;
    assert_eq!(ended.exit, 64);
    assert!(ended.talk.contains("BAD_CLIENT_SECRET"), "{}", ended.talk);
    assert!(
        ended.talk.contains("hint: compare oauth.client_id"),
        "{}",
        ended.talk
    );
    assert!(!ended.talk.contains("app-secret"), "{}", ended.talk);

    world.sandbox.tell("oauth", r#"{"answer":503}"#).await;
    let login = Login::start(&world, &[]).await;
    login.consent().await;
    assert_eq!(login.end().await.exit, 69);
    assert!(!stored());
}

#[tokio::test]
async fn a_file_that_is_not_as_it_should_be_tells_the_next_step() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    let file = world.path("postrider-oauth/default.grant");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let told = run(&world, &["auth", "status"]).await;
    assert!(
        told.contains("mode 644") && told.contains("hint: chmod 600 "),
        "{told}"
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(world.path("key"), OTHER_KEY).unwrap();
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(
        told.contains("hint: give oauth.key its old value back, or run `postrider auth login"),
        "{told}"
    );
    std::fs::write(world.path("key"), "no key").unwrap();
    let told = run(&world, &["auth", "status"]).await;
    assert!(
        told.contains("the file of oauth.key_file, key, holds no key")
            && !told.contains("no key\n--"),
        "{told}"
    );
    std::fs::remove_file(world.path("key")).unwrap();
    let told = run(&world, &["auth", "login", "--account", "default"]).await;
    assert!(
        told.starts_with("exit 64"),
        "before a person is asked: {told}"
    );
}

#[tokio::test]
async fn accounts_of_one_app_have_grants_of_their_own() {
    let world = desk(&[]).await.set("accounts.shop.oauth", "true");
    let base = world.sandbox.base().to_owned();
    let world = world.set("accounts.shop.base_url", &base);
    logged_in(&world).await;
    let login = Login::start(&world, &["--account", "shop"]).await;
    login.consent().await;
    assert_eq!(login.end().await.told["account"], "shop");
    let world = world.set("accounts.plain.token", "pat-na1-test");
    let told = run(&world, &["auth", "status"]).await;
    assert!(told.starts_with("exit 0"), "{told}");
    let kinds: Vec<_> = told
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(kinds, ["exit", "oauth", "token", "oauth", "--"]);
    let told = run(&world, &["auth", "login", "--account", "plain"]).await;
    assert!(
        told.contains("account `plain` does not use OAuth"),
        "{told}"
    );
    let told = run(&world, &["auth", "login", "--account", "nobody"]).await;
    assert!(
        told.contains("hint: the accounts are: default plain shop"),
        "{told}"
    );
}

/// Every command sees a terminal.
fn at_a_terminal(world: World) -> World {
    let pty = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let python = python().to_str().unwrap().to_owned();
    world.through(vec![python, "-c".into(), pty.into()])
}

/// For a person at a terminal with a display.
#[tokio::test]
async fn a_login_opens_the_address_in_the_browser() {
    let world = desk(&[]).await;
    let (browser, opened) = (world.path("xdg-open"), world.path("opened"));
    let script = "#!/bin/sh\nprintf '%s\\n' \"$1\" >opened\n";
    std::fs::write(&browser, script).unwrap();
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", world.folder().display());
    let world = at_a_terminal(world).env("PATH", &path).env("DISPLAY", ":0");
    let login = world.command(&["auth", "login"]).spawn().unwrap();
    let address = || std::fs::read_to_string(&opened).unwrap_or_default();
    let is_open = async || address().ends_with('\n');
    eventually(TIME_MAX, "the browser is opened", is_open).await;
    assert_eq!(reqwest::get(address().trim()).await.unwrap().status(), 200);
    let ended = within(TIME_MAX, "it ends", login.wait_with_output()).await;
    assert!(ended.unwrap().status.success());
}

/// Green and red for a person, and nothing of it for a file or under `NO_COLOR`.
#[tokio::test]
async fn check_is_green_or_red_at_a_terminal() {
    let world = desk(&[]).await;
    let plain = run(&world, &["check"]).await;
    assert!(!plain.contains('\x1b'), "{plain}");
    let world = at_a_terminal(world);
    let told = run(&world, &["check"]).await;
    assert!(told.contains("\x1b[32mok"), "{told:?}");
    assert!(
        told.contains("\x1b[31mfailed"),
        "nobody has logged in: {told:?}"
    );
    let told = run(&world.env("NO_COLOR", "1"), &["check"]).await;
    assert!(
        told.contains("failed") && !told.contains('\x1b'),
        "{told:?}"
    );
}
