//! Stage two: what was typed becomes what it means, valid, with every default filled in.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use url::Url;

use super::raw::{Entry, Raw};
use super::secret::token_of;
use super::{
    AccountConfig, AdaptiveConfig, Api, ApiVersion, Config, ConfigError, QueueConfig, QueueUrl,
    QuotaConfig, RetryConfig, ServerConfig, TokenSource, WindowConfig,
};
use crate::hint;
use crate::message::AccountName;

/// The admin server's port: the first one that Prometheus gives to nobody in particular.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// Longer than any answer of HubSpot, and far from the 30 minutes after which RabbitMQ closes a
/// channel that sits on a delivery.
const TIMEOUT_MAX: Duration = Duration::from_mins(5);
/// Longer than the longest call and everything after it.
const STOP_TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// More calls in flight than any of HubSpot's limits can feed.
const CONCURRENCY_MAX: u16 = 1000;
/// With more, urgent mail would go out no sooner than the rest.
const LOW_SHARE_MAX: f64 = 0.5;
/// Leaves room for `.send.ACCOUNT.PRIORITY` in the 255 bytes of a RabbitMQ name.
const PREFIX_BYTES_MAX: usize = 60;
/// Every tier's burst window (HubSpot's `TEN_SECONDLY_ROLLING`).
const WINDOW_DEFAULT: Duration = Duration::from_secs(10);
/// The longest window a ledger of calls is kept for.
const WINDOW_MAX: Duration = Duration::from_hours(1);
/// A learned limit climbs to so many times the one with which it begins, unless told otherwise.
const CEILING_TIMES: u32 = 10;

pub(super) fn config(raw: &Raw) -> Result<Config, ConfigError> {
    let mut names: Vec<&str> = raw.accounts().iter().map(String::as_str).collect();
    if names.is_empty() {
        names.push("default");
    }
    let mut accounts = BTreeMap::new();
    for name in names {
        let parsed = AccountName::parse(name).map_err(|malformed| {
            ConfigError::new(
                format!("`accounts.{}` is no name of an account", hint::shown(name)),
                malformed.hint.unwrap_or_default(),
            )
        })?;
        let keys = Section {
            raw,
            path: format!("accounts.{name}"),
        };
        accounts.insert(parsed, account(&keys)?);
    }
    Ok(Config {
        queue: queue(&Section::new(raw, "queue"))?,
        server: server(&Section::new(raw, "server"))?,
        accounts,
        retry: retry(&Section::new(raw, "retry"))?,
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
    })
}

fn account(keys: &Section<'_>) -> Result<AccountConfig, ConfigError> {
    let token = match keys.secret_or_file("token", "token_file")? {
        Secret::Given(entry) => TokenSource::Given(token_of(&entry.text).ok_or_else(|| {
            ConfigError::new(
                format!(
                    "{}.token ({}) is empty, or holds a space or a sign that no token has",
                    keys.path, entry.place
                ),
                "set it to the token as HubSpot shows it, or remove it",
            )
        })?),
        Secret::File(path) => TokenSource::File(path),
        Secret::Neither => TokenSource::Missing,
    };
    let (api, api_version) = api(keys)?;
    Ok(AccountConfig {
        token,
        portal_id: keys.optional("portal_id", "a portal's number, such as 6748263", |text| {
            text.parse().ok().filter(|id| *id > 0)
        })?,
        base_url: base_url(keys)?,
        api,
        api_version,
        quota: quota(keys)?,
        results: keys.value(
            "results",
            "\"all\", \"off\", or a share from 0 to 1",
            1.0,
            |text| match text {
                "all" => Some(1.0),
                "off" => Some(0.0),
                share => in_range(share, 0.0, 1.0),
            },
        )?,
        concurrency: keys.value("concurrency", "a number from 1 to 1000", 32, |text| {
            text.parse()
                .ok()
                .filter(|n| (1..=CONCURRENCY_MAX).contains(n))
        })?,
        low_share: keys.value("low_share", "a share from 0 to 0.5", 0.05, |text| {
            in_range(text, 0.0, LOW_SHARE_MAX)
        })?,
        timeout: keys.duration("timeout", Duration::from_secs(30), TIMEOUT_MAX)?,
    })
}

fn base_url(keys: &Section<'_>) -> Result<Url, ConfigError> {
    let Some(entry) = keys.get("base_url") else {
        return Url::parse("https://api.hubapi.com").map_err(|error| {
            ConfigError::new(
                format!("the default address of HubSpot: {error}"),
                "report it",
            )
        });
    };
    let plain = Url::parse(&entry.text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    // The value is not repeated: what makes it wrong may be a password or a key in it.
    plain.ok_or_else(|| {
        ConfigError::new(
            format!(
                "{}.base_url ({}) is no plain http or https address",
                keys.path, entry.place
            ),
            "write \"https://HOST\", without user, query or fragment",
        )
    })
}

fn api(keys: &Section<'_>) -> Result<(Api, ApiVersion), ConfigError> {
    let api = keys.value(
        "api",
        "\"transactional\" or \"marketing\"",
        Api::Transactional,
        Api::parse,
    )?;
    let version = keys.value(
        "api_version",
        "\"2026-09\", \"2026-03\", \"v3\" (transactional only) or \"v4\" (marketing only)",
        ApiVersion::V2026_09,
        ApiVersion::parse,
    )?;
    match (api, version) {
        (Api::Marketing, ApiVersion::V3) | (Api::Transactional, ApiVersion::V4) => {
            Err(ConfigError::new(
                format!(
                    "{}.api_version is \"{}\", which HubSpot does not have for api = \"{}\"",
                    keys.path,
                    version.as_str(),
                    api.as_str()
                ),
                "leave api_version out; v3 is transactional only and v4 marketing only",
            ))
        }
        _ => Ok((api, version)),
    }
}

fn quota(keys: &Section<'_>) -> Result<QuotaConfig, ConfigError> {
    let (burst, daily) = keys.value(
        "quota.tier",
        "one of free, starter, professional, enterprise, limit-increase, marketplace",
        (190, Some(625_000)),
        tier,
    )?;
    let window = |bucket: &str| -> Result<Option<WindowConfig>, ConfigError> {
        // A probe makes two calls at once (`provider::PROBE_CALLS`), and beside it a look-up is to
        // have room.
        let (least, takes) = match bucket {
            "api" => (3, "at least 3 calls; 0 is no ceiling"),
            _ => (1, "a number of calls; 0 is no ceiling"),
        };
        let limit = keys.value(&format!("quota.{bucket}.limit"), takes, burst, |text| {
            text.parse()
                .ok()
                .filter(|limit| *limit == 0 || *limit >= least)
        })?;
        let window = keys.duration(
            &format!("quota.{bucket}.window"),
            WINDOW_DEFAULT,
            WINDOW_MAX,
        )?;
        Ok((limit > 0).then_some(WindowConfig { limit, window }))
    };
    let daily = keys.parsed(
        "quota.daily",
        "a number of calls a day; 0 is no ceiling",
        daily.unwrap_or(0),
    )?;
    let below = "a number of calls below quota.daily";
    let daily_reserve = keys.value("quota.daily_reserve", below, 0, |text| {
        text.parse().ok().filter(|calls| *calls < daily.max(1))
    })?;
    let send = window("send")?;
    Ok(QuotaConfig {
        send,
        adaptive: adaptive(keys, send)?,
        api: window("api")?,
        daily: (daily > 0).then_some(daily),
        daily_reserve,
    })
}

/// Within what the limit of sends is learned, where it is.
fn adaptive(
    keys: &Section<'_>,
    send: Option<WindowConfig>,
) -> Result<Option<AdaptiveConfig>, ConfigError> {
    let is_adaptive = keys.value(
        "quota.send.adaptive",
        "true, or false; true needs a quota.send.limit to begin with",
        false,
        |text| match text {
            "true" => send.map(|_| true),
            "false" => Some(false),
            _ => None,
        },
    )?;
    let limit = send.map_or(1, |send| send.limit);
    let floor = keys.value(
        "quota.send.floor",
        "a number of calls, from 1 to quota.send.limit",
        limit,
        |text| {
            text.parse()
                .ok()
                .filter(|calls| (1..=limit).contains(calls))
        },
    )?;
    let ceiling = keys.value(
        "quota.send.ceiling",
        "a number of calls, quota.send.limit or more",
        limit.saturating_mul(CEILING_TIMES),
        |text| text.parse().ok().filter(|calls| *calls >= limit),
    )?;
    Ok(is_adaptive.then_some(AdaptiveConfig { floor, ceiling }))
}

/// Calls in ten seconds and calls a day, from HubSpot's usage guidelines of 2026.
fn tier(name: &str) -> Option<(u32, Option<u64>)> {
    match name {
        "free" | "starter" => Some((100, Some(250_000))),
        "professional" => Some((190, Some(625_000))),
        "enterprise" => Some((190, Some(1_000_000))),
        "limit-increase" => Some((250, Some(2_000_000))),
        "marketplace" => Some((110, None)),
        _ => None,
    }
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

fn in_range(text: &str, least: f64, most: f64) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
}

// === impl Section ===

/// The keys of one table.
struct Section<'a> {
    raw: &'a Raw,
    path: String,
}

/// A secret was given, or the file that holds it, or nothing.
enum Secret<'a> {
    Given(&'a Entry),
    File(PathBuf),
    Neither,
}

impl<'a> Section<'a> {
    fn new(raw: &'a Raw, path: &str) -> Self {
        Self {
            raw,
            path: path.to_owned(),
        }
    }

    fn get(&self, key: &str) -> Option<&'a Entry> {
        self.raw.get(&format!("{}.{key}", self.path))
    }

    /// The value of a key, read by `parse`, which knows what `takes` says in words.
    fn optional<T>(
        &self,
        key: &str,
        takes: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(entry) = self.get(key) else {
            return Ok(None);
        };
        parse(&entry.text).map(Some).ok_or_else(|| {
            ConfigError::new(
                format!(
                    "{}.{key} is \"{}\" ({})",
                    self.path,
                    hint::shown(&entry.text),
                    entry.place
                ),
                format!("it takes {takes}"),
            )
        })
    }

    fn value<T>(
        &self,
        key: &str,
        takes: &str,
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        Ok(self.optional(key, takes, parse)?.unwrap_or(default))
    }

    fn parsed<T: FromStr>(&self, key: &str, takes: &str, default: T) -> Result<T, ConfigError> {
        self.value(key, takes, default, |text| text.parse().ok())
    }

    /// A time above zero and at most `most`.
    fn duration(
        &self,
        key: &str,
        default: Duration,
        most: Duration,
    ) -> Result<Duration, ConfigError> {
        let takes = if most == Duration::MAX {
            "a time above zero, such as \"10s\" or \"15m\"".to_owned()
        } else {
            format!(
                "a time above zero and at most {} s, such as \"10s\"",
                most.as_secs()
            )
        };
        self.value(key, &takes, default, |text| {
            let time: SignedDuration = text.parse().ok()?;
            Duration::try_from(time)
                .ok()
                .filter(|time| !time.is_zero() && *time <= most)
        })
    }

    /// The later place wins; in one place only one of the two may stand.
    fn secret_or_file(&self, secret: &str, file: &str) -> Result<Secret<'a>, ConfigError> {
        match (self.get(secret), self.get(file)) {
            (None, None) => Ok(Secret::Neither),
            (Some(given), None) => Ok(Secret::Given(given)),
            (None, Some(entry)) => Ok(Secret::File(PathBuf::from(&entry.text))),
            (Some(given), Some(entry)) if given.place.rank() > entry.place.rank() => {
                Ok(Secret::Given(given))
            }
            (Some(given), Some(entry)) if given.place.rank() < entry.place.rank() => {
                Ok(Secret::File(PathBuf::from(&entry.text)))
            }
            (Some(given), Some(entry)) => Err(ConfigError::new(
                format!(
                    "{0}.{secret} ({1}) and {0}.{file} ({2}) are both set",
                    self.path, given.place, entry.place
                ),
                "keep one of the two",
            )),
        }
    }
}

// === the words of the file ===

impl Api {
    fn parse(text: &str) -> Option<Self> {
        [Self::Transactional, Self::Marketing]
            .into_iter()
            .find(|api| api.as_str() == text)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Marketing => "marketing",
        }
    }
}

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        [Self::V2026_09, Self::V2026_03, Self::V3, Self::V4]
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2026_09 => "2026-09",
            Self::V2026_03 => "2026-03",
            Self::V3 => "v3",
            Self::V4 => "v4",
        }
    }
}
