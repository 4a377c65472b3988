//! The app of `[oauth]`, and API keys wherever they turn up.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use postrider::clock::Clock;
use postrider::config::{Sources, TokenSource, foreign_hapikeys, hapikey_places};
use postrider::message::AccountName;
use postrider::provider::hubspot::HubSpot;
use secrecy::ExposeSecret;

use super::{env, file, load, load_env, refused, refused_env};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const API_KEY: &str = "11111111-2222-3333-4444-555555555555";

#[test]
fn an_account_uses_the_app() {
    let config = load(&format!(
        "[oauth]\nclient_id = 'app'\nclient_secret = 'hidden'\nkey_command = 'echo {KEY}'\n\
         scopes = 'oauth content'\n[accounts.shop]\noauth = true"
    ))
    .unwrap();
    let TokenSource::OAuth(app) = &config.accounts.values().next().unwrap().token else {
        panic!("OAuth");
    };
    assert_eq!(app.client_secret().unwrap().expose_secret(), "hidden");
    assert_eq!(app.key().unwrap().expose_secret()[31], 31);
    assert_eq!((app.version.as_str(), app.scopes.len()), ("2026-09", 2));
    let shown = format!("{config:?} {:?}", config.shown());
    for hidden in ["hidden", KEY] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(shown.contains("oauth.client_secret"), "{shown}");
}

#[test]
fn an_app_that_is_not_complete_says_what_is_missing() {
    insta::assert_snapshot!(refused("[oauth]\nclient_id = 'app'\n[accounts.shop]\noauth = true"), @"
    accounts.shop.oauth is true, and the app is not complete: oauth.client_secret_file (or oauth.client_secret), oauth.key_file (or oauth.key, oauth.key_command) is missing
    hint: docs/accounts.md tells where each of them comes from
    ");
    insta::assert_snapshot!(refused("[accounts.shop]\noauth = true\ntoken_file = 'x'"), @"
    accounts.shop.oauth is true, and accounts.shop.token_file (FILE line 3) is set
    hint: keep one of the two
    ");
    insta::assert_snapshot!(refused("[oauth]\nversion = '2026'"), @r#"
    oauth.version is "2026" (FILE line 2)
    hint: it takes "2026-09", another "20YY-MM", "v3", or "v1" (which ends on 2027-02-16)
    "#);
    insta::assert_snapshot!(refused("[oauth]\nkey = 'dG9vIHNob3J0'"), @"
    oauth.key (FILE line 2) is not 32 bytes in base64, as `postrider auth key` prints them
    hint: correct it, or use oauth.key_file
    ");
    // Nobody uses it: it may be half made.
    load("[oauth]\nclient_id = 'app'").unwrap();
}

#[test]
fn a_key_that_cannot_be_had_is_told_and_not_shown() {
    for (key, told) in [
        (
            "key_command = 'echo hidden; exit 1'",
            "the command of oauth.key_command failed",
        ),
        (
            "key_command = 'echo hidden'",
            "oauth.key_command holds no key",
        ),
        (
            "key_file = '/nowhere/key'",
            "the file of oauth.key_file, /nowhere/key, cannot be read",
        ),
    ] {
        let text = format!("[oauth]\nclient_id = 'a'\nclient_secret = 's'\n{key}");
        let error = load(&text).unwrap().oauth.unwrap().key().unwrap_err();
        assert!(error.problem.starts_with(told), "{error}");
        assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
    }
}

#[test]
fn a_file_that_holds_no_secret_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "hidden twice").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let path = path.display();
    let text =
        format!("[oauth]\nclient_id = 'a'\nclient_secret_file = '{path}'\nkey_file = '{path}'");
    let app = load(&text).unwrap().oauth.unwrap();
    let key = app.key().unwrap_err();
    assert_eq!(
        key.problem,
        format!("the file of oauth.key_file, {path}, holds no key")
    );
    let secret = app.client_secret().unwrap_err();
    assert_eq!(
        secret.problem,
        format!("the file of oauth.client_secret_file, {path}, holds no client secret")
    );
    assert!(!format!("{key:?} {secret:?}").contains("hidden"));
}

#[test]
fn an_api_key_is_refused_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, format!("{API_KEY}\n")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    // Only who needs the token refuses it: an operator's commands go on beside a running worker.
    let file = format!("[accounts.default]\ntoken_file = '{}'", path.display());
    let config = load(&file).unwrap();
    let account = AccountName::default();
    let error = HubSpot::new(&account, &config.accounts[&account], Clock::system()).unwrap_err();
    let of_file = format!("{error}; {}", error.hint());
    let given = format!("[accounts.default]\ntoken = '{API_KEY}'");
    for told in [
        of_file,
        refused(&given),
        refused("hapikey = '11111111'"),
        refused("[retry]\nhapi_key = '11111111'"),
        refused("[accounts.default]\nbase_url = 'https://api.hubapi.com?hapikey=11111111'"),
        refused("[queue]\nurl = 'amqp://rabbit/?hapikey=11111111'"),
        refused_env("POSTRIDER_HAPIKEY", "11111111"),
        refused_env("POSTRIDER_ACCOUNTS__DEFAULT__TOKEN", API_KEY),
    ] {
        assert!(told.contains("since 2022-11-30"), "{told}");
        assert!(told.contains("`postrider auth migrate`"), "{told}");
        assert!(!told.contains("11111111"), "{told}");
    }
}

#[test]
fn every_place_of_an_api_key_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, API_KEY).unwrap();
    std::fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let path = file(
        &folder,
        &format!(
            "[accounts.one]\nhapikey = 'x'\n[accounts.two]\ntoken = '{API_KEY}'\n[accounts.three]\n\
             base_url = 'https://api.hubapi.com?hapikey=x'\n[accounts.four]\ntoken_file = '{}'\n\
             [accounts.five]\ntoken = 'pat-na1-{API_KEY}'",
            token.display()
        ),
    );
    let mut sources = Sources {
        file: Some(path.clone()),
        env: env(&[
            ("POSTRIDER_ACCOUNTS__SIX__TOKEN", API_KEY),
            ("HUBSPOT_HAPIKEY", "x"),
            ("HAPIKEY", ""),
            ("HUBSPOT_API_KEY", API_KEY),
            ("HUBSPOT_TOKEN", "pat-na1-x"),
            ("TEMPLATES", "https://api.hubapi.com/x?hapikey=x"),
        ]),
        flags: Vec::new(),
    };
    let found = hapikey_places(&sources).found.join("\n");
    let found = found.replace(path.to_str().unwrap(), "FILE");
    let found = found.replace(token.to_str().unwrap(), "TOKEN_FILE");
    insta::assert_snapshot!(found, @"
    the file of accounts.four.token_file, TOKEN_FILE
    FILE line 2
    FILE line 4
    FILE line 6
    variable POSTRIDER_ACCOUNTS__SIX__TOKEN
    variable HUBSPOT_HAPIKEY (which Postrider does not read; another program may)
    variable HUBSPOT_API_KEY (which Postrider does not read; another program may)
    variable TEMPLATES (which Postrider does not read; another program may)
    ");
    assert_eq!(
        foreign_hapikeys(&sources),
        ["HUBSPOT_HAPIKEY", "HUBSPOT_API_KEY", "TEMPLATES"]
    );
    std::fs::write(&path, "hapikey = x = 1\n").unwrap();
    sources.env.clear();
    let places = hapikey_places(&sources);
    assert_eq!(places.found.len(), 1, "of a broken file too");
    assert_eq!(places.unread.len(), 1, "and not all of it was read");
    // Another program's variable is no reason to refuse.
    load_env(&[("HUBSPOT_HAPIKEY", API_KEY)]).unwrap();
}
