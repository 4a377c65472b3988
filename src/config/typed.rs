//! Stage two: what was typed becomes what it means, valid, with every default filled in.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::account::account;
use super::delivery;
use super::guard;
use super::oauth::oauth;
use super::raw::Raw;
use super::secret::token;
use super::section::{Secret, Section, in_range};
use super::{Config, ConfigError, QueueConfig, QueueUrl, RetryConfig, ServerConfig, tls};
use crate::hint;
use crate::message::AccountName;

/// The admin server's port: the first one that Prometheus gives to nobody in particular.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// Longer than the longest call and everything after it.
const STOP_TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// Leaves room for `.send.ACCOUNT.PRIORITY` in the 255 bytes of a RabbitMQ name.
const PREFIX_BYTES_MAX: usize = 60;

pub(super) fn config(raw: &Raw) -> Result<Config, ConfigError> {
    guard::refuse_added(raw)?;
    let mut names: Vec<&str> = raw.accounts().iter().map(String::as_str).collect();
    if names.is_empty() {
        names.push("default");
    }
    let app = oauth(&Section::new(raw, "oauth"))?;
    let mut accounts = BTreeMap::new();
    for name in names {
        let parsed = AccountName::parse(name).map_err(|malformed| {
            ConfigError::new(
                format!("`accounts.{}` is no name of an account", hint::shown(name)),
                malformed.hint.unwrap_or_default(),
            )
        })?;
        let keys = Section::new(raw, &format!("accounts.{name}"));
        accounts.insert(parsed, account(&keys, &app)?);
    }
    Ok(Config {
        delivery: delivery::rules(raw, &accounts)?,
        queue: queue(&Section::new(raw, "queue"))?,
        server: server(&Section::new(raw, "server"))?,
        accounts,
        retry: retry(&Section::new(raw, "retry"))?,
        oauth: app.ok(),
    })
}

fn queue(keys: &Section<'_>) -> Result<QueueConfig, ConfigError> {
    let (url, url_file) = match keys.secret_or_file("url", "url_file")? {
        Secret::Given(entry) => {
            let url = QueueUrl::parse(&entry.text).map_err(|why| {
                ConfigError::new(
                    format!("queue.url ({}) {why}", entry.place),
                    "write `sqlite:PATH` or `amqp://USER:PASSWORD@HOST:5672/VHOST`",
                )
            })?;
            (url, None)
        }
        Secret::File(path) => (QueueUrl::of_file(&path)?, Some(path)),
        Secret::Neither => (QueueUrl::Sqlite("postrider.db".into()), None),
    };
    let prefix = keys.value(
        "prefix",
        "1 to 60 letters, digits, `.`, `-` and `_`, not beginning with `amq.`",
        "postrider".to_owned(),
        |text| {
            let fits = (1..=PREFIX_BYTES_MAX).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
                && !text.starts_with("amq.");
            fits.then(|| text.to_owned())
        },
    )?;
    Ok(QueueConfig {
        tls: tls::files(keys, &url)?,
        url,
        url_file,
        prefix,
    })
}

fn server(keys: &Section<'_>) -> Result<ServerConfig, ConfigError> {
    Ok(ServerConfig {
        listen: keys.parsed(
            "listen",
            "an IP address and a port, such as \"127.0.0.1:9464\"",
            LISTEN_DEFAULT,
        )?,
        stop_timeout: keys.duration("stop_timeout", Duration::from_secs(45), STOP_TIMEOUT_MAX)?,
        token: token(
            keys,
            ("token", "token_file"),
            "set it to letters, digits and signs, or remove it",
        )?,
    })
}

fn retry(keys: &Section<'_>) -> Result<RetryConfig, ConfigError> {
    let default = RetryConfig::default();
    let retry = RetryConfig {
        max_attempts: keys.value(
            "max_attempts",
            "a number from 1",
            default.max_attempts,
            |text| text.parse().ok().filter(|n| *n > 0),
        )?,
        max_age: keys.duration("max_age", default.max_age, Duration::MAX)?,
        initial: keys.duration("initial", default.initial, Duration::MAX)?,
        max: keys.duration("max", default.max, Duration::MAX)?,
        multiplier: keys.value(
            "multiplier",
            "a number from 1 to 100",
            default.multiplier,
            |text| in_range(text, 1.0, 100.0),
        )?,
        jitter: keys.value("jitter", "a share from 0 to 1", default.jitter, |text| {
            in_range(text, 0.0, 1.0)
        })?,
    };
    if retry.max < retry.initial {
        return Err(ConfigError::new(
            format!(
                "retry.max is {:?}, less than retry.initial, which is {:?}",
                retry.max, retry.initial
            ),
            "make retry.max the longer of the two",
        ));
    }
    Ok(retry)
}
