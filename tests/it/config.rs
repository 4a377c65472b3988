//! Configuration: the shipped file is the defaults, later places overrule, and every error names
//! the key, the place and the next step, and never a secret.

mod environments;
mod network;
mod oauth;

use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider::config::{
    AdaptiveConfig, Api, ApiVersion, Config, ConfigError, Flag, KEYS, QueueUrl, Sources,
    TokenSource, WindowConfig,
};
use postrider::message::AccountName;
use secrecy::ExposeSecret;

use crate::support::secret;

/// Keys without a default in production: of the shipped file they are examples.
const NO_DEFAULT: [&str; 19] = [
    "url_file",
    "token",
    "token_file",
    "token_command",
    "next_token",
    "next_token_file",
    "portal_id",
    "account_type",
    "mode",
    "allow",
    "sink",
    "client_id",
    "client_secret",
    "client_secret_file",
    "ca_file",
    "cert_file",
    "key",
    "key_file",
    "key_command",
];

#[test]
fn the_shipped_file_says_exactly_the_defaults() {
    let text = std::fs::read_to_string(shipped()).unwrap();
    let defaults = format!("{:?}", load_text(""));
    assert_eq!(format!("{:?}", load_text(&text)), defaults, "as it stands");
    let all: String = text
        .lines()
        .map(uncommented)
        .filter(|line| !NO_DEFAULT.contains(&key_of(line).unwrap_or_default()))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(
        format!("{:?}", load_text(&all)),
        defaults,
        "with every comment enabled"
    );
}

#[test]
fn the_shipped_file_shows_every_key() {
    let text = std::fs::read_to_string(shipped()).unwrap();
    let mut section = String::new();
    let mut shown = Vec::new();
    for line in text.lines().map(uncommented) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').replace("default", "NAME");
        } else if let Some(key) = key_of(line) {
            shown.push(
                format!("{section}.{key}")
                    .trim_start_matches('.')
                    .to_owned(),
            );
        }
    }
    let mut known: Vec<&str> = KEYS
        .iter()
        .copied()
        .filter(|key| !key.ends_with("hapikey"))
        .collect();
    known.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, known);
}

#[test]
fn defaults_are_those_of_the_design() {
    let config = load_text("");
    assert!(
        matches!(&config.queue.url, QueueUrl::Sqlite(path) if path == Path::new("postrider.db"))
    );
    let account = &config.accounts[&AccountName::default()];
    assert!(matches!(account.token, TokenSource::Missing));
    assert_eq!(account.base_url.as_str(), "https://api.hubapi.com/");
    assert_eq!(account.api, Api::Transactional);
    assert_eq!(account.api_version, ApiVersion::V2026_09);
    assert_eq!(account.quota.send, Some(window(190, 10)));
    assert_eq!(account.quota.daily, Some(625_000));
    assert!((account.results - 1.0).abs() < f64::EPSILON);
    assert_eq!(account.timeout, Duration::from_secs(30));
    assert_eq!(config.retry.max_age, Duration::from_hours(24));
    assert_eq!(config.server.stop_timeout, Duration::from_secs(45));
}

#[test]
fn later_places_overrule_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources {
        file: Some(file(
            &folder,
            "[server]\nlisten = '127.0.0.1:1'\n[queue]\nprefix = 'one'\n[accounts.shop]\n",
        )),
        env: env(&[
            ("POSTRIDER_SERVER__LISTEN", "127.0.0.1:2"),
            ("POSTRIDER_QUEUE__PREFIX", "two"),
            ("POSTRIDER_ACCOUNTS__SHOP__TOKEN", "pat-na1-shop"),
            ("HOME", "/nowhere"),
        ]),
        flags: vec![Flag {
            key: "server.listen",
            name: "--listen",
            value: "127.0.0.1:3".into(),
        }],
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.queue.prefix, "two");
    let names: Vec<_> = config.accounts.keys().map(AccountName::as_str).collect();
    assert_eq!(names, ["shop"]);
    let TokenSource::Given(token) = &config.accounts.values().next().unwrap().token else {
        panic!("a token");
    };
    assert_eq!(token.expose_secret(), "pat-na1-shop");
}

#[test]
fn kubernetes_service_links_are_not_ours() {
    let config = load_env(&[
        ("POSTRIDER_PORT", "tcp://10.0.0.1:9464"),
        ("POSTRIDER_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("POSTRIDER_SERVICE_HOST", "10.0.0.1"),
    ]);
    assert!(config.is_ok());
}

#[test]
fn tiers_set_what_is_not_set() {
    for (tier, burst, daily) in [
        ("free", 100, Some(250_000)),
        ("starter", 100, Some(250_000)),
        ("professional", 190, Some(625_000)),
        ("enterprise", 190, Some(1_000_000)),
        ("limit-increase", 250, Some(2_000_000)),
        ("marketplace", 110, None),
    ] {
        let quota = load_text(&format!("[accounts.default.quota]\ntier = '{tier}'"))
            .accounts
            .remove(&AccountName::default())
            .unwrap()
            .quota;
        assert_eq!(quota.send, Some(window(burst, 10)), "{tier}");
        assert_eq!(quota.api, Some(window(burst, 10)), "{tier}");
        assert_eq!(quota.daily, daily, "{tier}");
    }
    let text = "[accounts.default.quota]\ntier = 'starter'\nsend.limit = 0\n\
                api = { limit = 50, window = '1s' }\ndaily = 0";
    let quota = load_text(text).accounts[&AccountName::default()].quota;
    assert_eq!(quota.send, None);
    assert_eq!(quota.api, Some(window(50, 1)));
    assert_eq!(quota.daily, None);
}

#[test]
fn a_learned_limit_has_a_floor_and_a_ceiling() {
    let quota = |text: &str| {
        let text = format!("[accounts.default.quota]\n{text}");
        load_text(&text).accounts[&AccountName::default()].quota
    };
    let range = |floor, ceiling| Some(AdaptiveConfig { floor, ceiling });
    assert_eq!(quota("send.adaptive = false").adaptive, None);
    assert_eq!(quota("send.adaptive = true").adaptive, range(190, 1_900));
    let given = "send = { adaptive = true, limit = 50, floor = 5, ceiling = 60 }";
    assert_eq!(quota(given).adaptive, range(5, 60));
    for wrong in [
        "send = { adaptive = true, limit = 0 }",
        "send = { adaptive = 'yes' }",
        "send = { adaptive = true, floor = 191 }",
        "send = { adaptive = true, floor = 0 }",
        "send = { adaptive = true, ceiling = 189 }",
    ] {
        let error = refused(&format!("[accounts.default.quota]\n{wrong}"));
        assert!(error.contains("accounts.default.quota.send."), "{error}");
    }
}

#[test]
fn the_three_ways_to_write_results() {
    for (written, share) in [
        ("'all'", 1.0),
        ("'off'", 0.0),
        ("0.25", 0.25),
        ("'0.25'", 0.25),
    ] {
        let config = load_text(&format!("[accounts.default]\nresults = {written}"));
        let results = config.accounts[&AccountName::default()].results;
        assert!((results - share).abs() < f64::EPSILON, "{written}");
    }
}

#[test]
fn secrets_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("url");
    secret::keep(&url, "amqp://ada:pw1@rabbit/mail\n");
    let config = load_env(&[
        ("POSTRIDER_QUEUE__URL_FILE", url.to_str().unwrap()),
        ("POSTRIDER_ACCOUNTS__DEFAULT__TOKEN_FILE", "/run/token"),
    ])
    .unwrap();
    assert_eq!(config.queue.url.place(), "amqp://rabbit/mail");
    let token = &config.accounts[&AccountName::default()].token;
    assert!(matches!(token, TokenSource::File(path) if path == Path::new("/run/token")));
    secret::keep(&url, "amqp://ada:pw2@rabbit/mail\n");
    let QueueUrl::Amqp(again) = config.queue.reread().unwrap() else {
        panic!("an amqp address");
    };
    assert!(again.expose_secret().contains("pw2"));
}

#[test]
fn what_is_shown_is_read_back_as_the_same() {
    let text = "[accounts.shop]\ntoken = 'pat-na1-hidden'\nresults = 0.5\n\
                quota.send.limit = 0\n[retry]\nmax_age = '36h'";
    let config = load_text(text);
    let shown: String = config
        .shown()
        .into_iter()
        .fold(String::new(), |all, (key, value)| {
            all + &format!("{key} = {value}\n")
        });
    assert!(!shown.contains("hidden"), "{shown}");
    assert_eq!(
        format!("{:?}", load_text(&shown)),
        format!("{config:?}"),
        "{shown}"
    );
}

// === what is refused ===

#[test]
fn unknown_keys_name_the_place_and_the_nearest_known_key() {
    insta::assert_snapshot!(refused("[queue]\nprefix = 'p'\nulr = 'x'"), @"
    unknown key `queue.ulr` (FILE line 3)
    hint: did you mean `queue.url`?
    ");
    insta::assert_snapshot!(refused("[accounts.shop]\ntokn = 'pat-na1-secret'"), @"
    unknown key `accounts.shop.tokn` (FILE line 2)
    hint: did you mean `accounts.shop.token`?
    ");
    insta::assert_snapshot!(refused("[que]\nurl = 'x'"), @"
    unknown key `que` (FILE line 1)
    hint: did you mean `queue.url`?
    ");
    insta::assert_snapshot!(refused("[retry]\nattempts = 3"), @"
    unknown key `retry.attempts` (FILE line 2)
    hint: did you mean `retry.max_attempts`?
    ");
    insta::assert_snapshot!(refused_env("POSTRIDER_QUEUE_URL", "amqp://a:secret@b"), @"
    unknown key `queue_url` (variable POSTRIDER_QUEUE_URL)
    hint: did you mean POSTRIDER_QUEUE__URL?
    ");
    insta::assert_snapshot!(refused_env("POSTRIDER_ACCOUNTS__DEFAULT__TOKE", "secret"), @"
    unknown key `accounts.default.toke` (variable POSTRIDER_ACCOUNTS__DEFAULT__TOKE)
    hint: did you mean POSTRIDER_ACCOUNTS__DEFAULT__TOKEN?
    ");
}

#[test]
fn wrong_values_name_key_value_and_place() {
    insta::assert_snapshot!(refused("[retry]\ninitial = 10"), @r#"
    retry.initial is "10" (FILE line 2)
    hint: it takes a time above zero, such as "10s" or "15m"
    "#);
    insta::assert_snapshot!(refused("[retry]\ninitial = '-1s'"), @r#"
    retry.initial is "-1s" (FILE line 2)
    hint: it takes a time above zero, such as "10s" or "15m"
    "#);
    insta::assert_snapshot!(refused("[retry]\nmax = '500ms'"), @"
    retry.max is 500ms, less than retry.initial, which is 1s
    hint: make retry.max the longer of the two
    ");
    insta::assert_snapshot!(refused("[accounts.default]\ntimeout = '1h'"), @r#"
    accounts.default.timeout is "1h" (FILE line 2)
    hint: it takes a time above zero and at most 300 s, such as "10s"
    "#);
    insta::assert_snapshot!(refused("[accounts.default]\nresults = 1.5"), @r#"
    accounts.default.results is "1.5" (FILE line 2)
    hint: it takes "all", "off", or a share from 0 to 1
    "#);
    insta::assert_snapshot!(refused("[accounts.default]\nconcurrency = 0"), @r#"
    accounts.default.concurrency is "0" (FILE line 2)
    hint: it takes a number from 1 to 1000
    "#);
    insta::assert_snapshot!(refused("[accounts.default]\nlow_share = 0.6"), @r#"
    accounts.default.low_share is "0.6" (FILE line 2)
    hint: it takes a share from 0 to 0.5
    "#);
    insta::assert_snapshot!(refused("[accounts.default.quota]\ntier = 'gold'"), @r#"
    accounts.default.quota.tier is "gold" (FILE line 2)
    hint: it takes one of free, starter, professional, enterprise, limit-increase, marketplace
    "#);
    insta::assert_snapshot!(refused("[accounts.default]\napi_version = 'v4'"), @r#"
    accounts.default.api_version is "v4", which HubSpot does not have for api = "transactional"
    hint: leave api_version out; v3 is transactional only and v4 marketing only
    "#);
    insta::assert_snapshot!(refused("[accounts.Shop]\n"), @"
    `accounts.Shop` is no name of an account
    hint: lower-case letters, digits, `-` and `_`, at most 40
    ");
    insta::assert_snapshot!(refused("[server]\nlisten = 'localhost'"), @r#"
    server.listen is "localhost" (FILE line 2)
    hint: it takes an IP address and a port, such as "127.0.0.1:9464"
    "#);
    insta::assert_snapshot!(refused("[queue]\nurl = 'sqlite::memory:'"), @"
    queue.url (FILE line 2) names a memory that a crash forgets; name a file
    hint: write `sqlite:PATH` or `amqp://USER:PASSWORD@HOST:5672/VHOST`
    ");
    insta::assert_snapshot!(refused("queue = 'sqlite:x'"), @"
    unknown key `queue` (FILE line 1)
    hint: did you mean `queue.url`?
    ");
    insta::assert_snapshot!(
        refused_env("POSTRIDER_ACCOUNTS__DEFAULT__PORTAL_ID", "my portal"), @r#"
    accounts.default.portal_id is "my portal" (variable POSTRIDER_ACCOUNTS__DEFAULT__PORTAL_ID)
    hint: it takes a portal's number, such as 6748263
    "#);
}

#[test]
fn no_error_shows_a_secret() {
    for text in [
        "[queue]\nurl = 'http://ada:secret@rabbit'",
        "[queue]\nurl = 'amqp://ada:secret@'",
        "[queue]\nurl = 'amqp://ada:secret@rabbit:port'",
        "[queue]\nurl = 'ada:secret@rabbit'",
        "[accounts.default]\ntoken = 'secret with a space'",
        "[accounts.default]\ntoken = 'secret",
        "[accounts.default]\ntoken = secret",
        "[accounts.default]\ntoken = 'secret'\ntoken_file = 'x'",
        "[accounts.default]\nhapikey = 'secret'",
        "[accounts.default.auth]\nhapiKey = 'secret'",
        "[accounts.default]\nbase_url = 'https://api.hubapi.com?hapikey=secret'",
        "[accounts.default]\nbase_url = 'https://ada:secret@api.hubapi.com'",
    ] {
        let told = refused(text);
        assert!(!told.contains("secret"), "{told}");
        assert!(told.contains("hint: "), "{told}");
    }
}

#[test]
fn an_api_key_is_refused_with_the_way_out() {
    insta::assert_snapshot!(
        refused("[accounts.shop]\nhapikey = '11111111-2222-3333-4444-555555555555'"), @"
    accounts.shop.hapikey (FILE line 2): HubSpot has not supported API keys (hapikey) since 2022-11-30, and Single Send refuses them
    hint: remove it; `postrider auth migrate` leads step by step to a service key, for accounts.NAME.token_file
    ");
    insta::assert_snapshot!(refused_env("POSTRIDER_ACCOUNTS__SHOP__HAPIKEY", "x"), @"
    accounts.shop.hapikey (variable POSTRIDER_ACCOUNTS__SHOP__HAPIKEY): HubSpot has not supported API keys (hapikey) since 2022-11-30, and Single Send refuses them
    hint: remove it; `postrider auth migrate` leads step by step to a service key, for accounts.NAME.token_file
    ");
}

#[test]
fn secrets_that_are_not_there_are_told() {
    insta::assert_snapshot!(refused("[accounts.default]\ntoken = ''"), @"
    accounts.default.token (FILE line 2) is empty, or holds a space or a sign that no token has
    hint: set it to the token as HubSpot shows it, or remove it
    ");
    insta::assert_snapshot!(refused("[queue]\nurl_file = '/nowhere/url'"), @"
    the file of queue.url_file, /nowhere/url, cannot be read: No such file or directory (os error 2)
    hint: name a small text file that this user may read
    ");
}

// === machinery ===

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/postrider.toml")
}

fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("test.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, text);
    Config::load(&Sources {
        file: Some(path.clone()),
        ..Sources::default()
    })
    .map_err(|mut error| {
        error.problem = error.problem.replace(path.to_str().unwrap(), "FILE");
        error
    })
}

fn load_text(text: &str) -> Config {
    load(text).unwrap_or_else(|error| panic!("{error}\nof\n{text}"))
}

fn load_env(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(&Sources {
        file: Some(shipped()),
        env: env(pairs),
        flags: Vec::new(),
    })
}

fn refused(text: &str) -> String {
    told(&load(text).expect_err(text))
}

fn refused_env(name: &str, value: &str) -> String {
    told(&load_env(&[(name, value)]).expect_err(name))
}

fn told(error: &ConfigError) -> String {
    format!("{}\nhint: {}", error.problem, error.hint)
}

fn window(limit: u32, seconds: u64) -> WindowConfig {
    WindowConfig {
        limit,
        window: Duration::from_secs(seconds),
    }
}

/// `# key = value` without its sign; sentences stay comments.
fn uncommented(line: &str) -> &str {
    match line.strip_prefix("# ") {
        Some(rest) if key_of(rest).is_some() => rest,
        _ => line,
    }
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    key.chars()
        .all(|c| c.is_ascii_alphanumeric() || "._".contains(c))
        .then_some(key)
}
