//! Stage two of one account: what was typed becomes what it means.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::oauth::{self, Found};
use super::secret;
use super::section::{Section, in_range};
use super::tls::trusted;
use super::{
    AccountConfig, AdaptiveConfig, Api, ApiVersion, ConfigError, QuotaConfig, TokenSource,
    WindowConfig,
};

/// Longer than any answer of HubSpot, and far from the 30 minutes after which RabbitMQ closes a
/// channel that sits on a delivery.
const TIMEOUT_MAX: Duration = Duration::from_mins(5);
/// More calls in flight than any of HubSpot's limits can feed.
const CONCURRENCY_MAX: u16 = 1000;
/// With more, urgent mail would go out no sooner than the rest.
const LOW_SHARE_MAX: f64 = 0.5;
/// Every tier's burst window (HubSpot's `TEN_SECONDLY_ROLLING`).
const WINDOW_DEFAULT: Duration = Duration::from_secs(10);
/// The longest window a ledger of calls is kept for.
const WINDOW_MAX: Duration = Duration::from_hours(1);
/// Where HubSpot is.
pub(super) const HUBSPOT: &str = "https://api.hubapi.com";
/// What HubSpot calls the kinds of its accounts.
pub const ACCOUNT_TYPES: [&str; 4] = ["STANDARD", "SANDBOX", "DEVELOPER_TEST", "APP_DEVELOPER"];
/// A learned limit climbs to so many times the one with which it begins, unless told otherwise.
const CEILING_TIMES: u32 = 10;

pub(super) fn account(keys: &Section<'_>, app: &Found) -> Result<AccountConfig, ConfigError> {
    let (api, api_version) = api(keys)?;
    Ok(AccountConfig {
        token: token(keys, app)?,
        next_token: token_or_file(keys, "next_token", "next_token_file")?,
        portal_id: keys.optional("portal_id", "a portal's number, such as 6748263", |text| {
            text.parse().ok().filter(|id| *id > 0)
        })?,
        account_type: keys.optional(
            "account_type",
            &format!("one of HubSpot's: {}", ACCOUNT_TYPES.join(", ")),
            |text| {
                let known = ACCOUNT_TYPES.contains(&text);
                known.then(|| text.to_owned())
            },
        )?,
        base_url: base_url(keys)?,
        ca_file: ca_file(keys)?,
        proxy: None,
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

/// Where the token comes from: one place, and which one is said.
fn token(keys: &Section<'_>, app: &Found) -> Result<TokenSource, ConfigError> {
    if let Some(app) = oauth::used_by(keys, app)? {
        return Ok(TokenSource::OAuth(app));
    }
    let token = token_or_file(keys, "token", "token_file")?;
    let Some(command) = keys.get("token_command") else {
        return Ok(token);
    };
    if !matches!(token, TokenSource::Missing) {
        return Err(ConfigError::new(
            format!(
                "{0}.token_command ({1}) is set, and so is {0}.token or {0}.token_file",
                keys.path, command.place
            ),
            "keep one of them",
        ));
    }
    if command.text.trim().is_empty() {
        return Err(ConfigError::new(
            format!("{}.token_command ({}) is empty", keys.path, command.place),
            "set it to a command line that prints the token, or remove it",
        ));
    }
    Ok(TokenSource::Command(command.text.as_str().into()))
}

/// A token, or the file that holds it; an API key is none.
fn token_or_file(keys: &Section<'_>, key: &str, file: &str) -> Result<TokenSource, ConfigError> {
    oauth::refuse_api_key(keys, key, &keys.secret_or_file(key, file)?)?;
    let next_step = "set it to the token as HubSpot shows it, or remove it";
    secret::token(keys, (key, file), next_step)
}

fn base_url(keys: &Section<'_>) -> Result<Url, ConfigError> {
    let Some(entry) = keys.get("base_url") else {
        return Url::parse(HUBSPOT).map_err(|error| {
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

/// Read once now, so that a wrong one is told at once.
fn ca_file(keys: &Section<'_>) -> Result<Option<PathBuf>, ConfigError> {
    let path = keys.get("ca_file").map(|entry| PathBuf::from(&entry.text));
    if let Some(path) = &path {
        trusted(path, &format!("{}.ca_file", keys.path))?;
    }
    Ok(path)
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
