//! Configuration: TOML, then environment, then flags. The only reader of the environment.
//!
//! Two stages: what was typed (`raw`) and what it means (this module's types, valid and with
//! every default filled in, made by `typed`). An error names the key, the place it came from and
//! the next step, and never shows a secret.

mod account;
mod command;
mod delivery;
mod guard;
mod hapikey;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
mod oauth;
mod proxy;
mod raw;
mod secret;
mod section;
mod show;
mod tls;
mod typed;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::delivery::Rules;
use crate::message::AccountName;

pub use account::ACCOUNT_TYPES;
pub use command::{end_commands, output_of};
pub use hapikey::{
    DEAD_SINCE as HAPIKEY_DEAD_SINCE, Places as HapikeyPlaces, foreign as foreign_hapikeys,
    is_like as is_api_key, places as hapikey_places,
};
pub use oauth::{KEY_BYTES as OAUTH_KEY_BYTES, OAuthConfig};
pub use raw::KEYS;
pub use secret::read_secret;

/// Read when no file is named, if it exists.
pub const DEFAULT_FILE: &str = "config/postrider.toml";

/// Everything, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// The environment, and who gets mail in it.
    pub delivery: Rules,
    pub queue: QueueConfig,
    pub server: ServerConfig,
    /// Never empty.
    pub accounts: BTreeMap<AccountName, AccountConfig>,
    pub retry: RetryConfig,
    /// The app of the accounts that use OAuth; `None` where it is not complete.
    pub oauth: Option<Arc<OAuthConfig>>,
}

#[derive(Clone, Debug)]
pub struct QueueConfig {
    pub url: QueueUrl,
    /// Where `url` was read from, when it was a file: see [`QueueConfig::reread`].
    pub url_file: Option<PathBuf>,
    /// First word of every exchange and queue name.
    pub prefix: String,
    /// Of an amqps address: see [`QueueConfig::tls_now`].
    pub tls: TlsFiles,
}

/// The files of TLS to the broker, in PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The authorities that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where the queue is.
#[derive(Clone, Debug)]
pub enum QueueUrl {
    Sqlite(PathBuf),
    /// Whole, with user and password.
    Amqp(SecretString),
}

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// From SIGTERM to the end of the process, at most.
    pub stop_timeout: Duration,
    /// What `/api` asks for: see [`ServerConfig::token_now`].
    pub token: TokenSource,
}

/// One HubSpot account.
#[derive(Clone, Debug)]
pub struct AccountConfig {
    pub token: TokenSource,
    /// The one that takes its place once it is proven.
    pub next_token: TokenSource,
    /// The portal the token must open.
    pub portal_id: Option<u64>,
    /// The type of the account that it must open, such as `SANDBOX`.
    pub account_type: Option<String>,
    pub base_url: Url,
    /// Authorities that are trusted besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What calls go through: `HTTPS_PROXY`, unless `NO_PROXY` leads around it.
    pub proxy: Option<ProxyConfig>,
    pub api: Api,
    pub api_version: ApiVersion,
    pub quota: QuotaConfig,
    /// Which share of accepted sends has its final result looked up: 0.0 (`off`) to 1.0 (`all`).
    pub results: f64,
    /// Calls in flight.
    pub concurrency: u16,
    /// What of a call each priority that waits is owed for each call of a more urgent one.
    pub low_share: f64,
    /// One HubSpot call.
    pub timeout: Duration,
}

impl AccountConfig {
    /// Whether it is configured which account the token must open.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.portal_id.is_some() || self.account_type.is_some()
    }
}

/// An HTTP proxy.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// It may hold a user and a password.
    url: SecretString,
    /// `host:port`, for people.
    pub place: String,
}

/// Where the bearer token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    Given(SecretString),
    /// Re-read when it changes.
    File(PathBuf),
    /// What a command line prints, asked again now and then. It may hold a secret itself.
    Command(SecretString),
    /// Access tokens of an app, from a grant that `postrider auth login` has stored.
    OAuth(Arc<OAuthConfig>),
    /// None was configured: commands that call HubSpot refuse to start.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Transactional,
    Marketing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVersion {
    /// `2026-09`
    V2026_09,
    /// `2026-03`
    V2026_03,
    /// `v3`, transactional only
    V3,
    /// `v4`, marketing only
    V4,
}

/// The default has no ceilings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QuotaConfig {
    /// `None` is no ceiling.
    pub send: Option<WindowConfig>,
    /// Within what the limit of sends is learned from what HubSpot bears; `None`: it stays. Only where
    /// there is one.
    pub adaptive: Option<AdaptiveConfig>,
    /// `None` is no ceiling.
    pub api: Option<WindowConfig>,
    /// Calls a day, in the account's own time zone; `None` is no ceiling.
    pub daily: Option<u64>,
    /// Calls of these that are left to other apps.
    pub daily_reserve: u64,
}

/// Within what a limit is learned, both in calls of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveConfig {
    /// At least 1, at most the limit with which it begins.
    pub floor: u32,
    /// At least that limit.
    pub ceiling: u32,
}

/// A ceiling: at most `limit` calls in any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    pub limit: u32,
    pub window: Duration,
}

/// The schedule of a message's own transient failures.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    pub max_attempts: u32,
    /// Since the first attempt.
    pub max_age: Duration,
    pub initial: Duration,
    pub max: Duration,
    pub multiplier: f64,
    /// Share of the delay that chance moves, 0 to 1.
    pub jitter: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 12,
            max_age: Duration::from_hours(24),
            initial: Duration::from_secs(1),
            max: Duration::from_mins(15),
            multiplier: 2.0,
            jitter: 0.5,
        }
    }
}

/// Where a configuration is read from, in the order in which it is overruled.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that must exist; else [`DEFAULT_FILE`] when it exists.
    pub file: Option<PathBuf>,
    /// Variables. Those that do not begin with `POSTRIDER_` are passed over, but for `HTTPS_PROXY` and
    /// `NO_PROXY`.
    pub env: Vec<(String, String)>,
    pub flags: Vec<Flag>,
}

/// A key that was set on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    pub key: &'static str,
    /// As it was typed: `--listen`.
    pub name: &'static str,
    pub value: String,
}

/// What is wrong with a configuration. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ConfigError {
    pub problem: String,
    /// The next step.
    pub hint: String,
}

impl ConfigError {
    pub(crate) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}

impl Config {
    /// # Errors
    /// [`ConfigError`] for an unknown key, a wrong value, or an unreadable file.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config = typed::config(&raw::Raw::gather(sources)?)?;
        proxy::tell(&mut config, &sources.env)?;
        Ok(config)
    }
}

impl Sources {
    /// The environment of this process.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        // `vars` panics over a variable that is not UTF-8, even over somebody else's.
        let env = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((
                    name.into_string().ok()?,
                    value.to_string_lossy().into_owned(),
                ))
            })
            .collect();
        Self { file, env, flags }
    }
}

/// What `RUST_LOG` holds.
#[must_use]
pub fn log_directives() -> Option<String> {
    std::env::var_os("RUST_LOG")
        .and_then(|value| value.into_string().ok())
        .filter(|value| !value.trim().is_empty())
}

/// Who runs this command, as far as the environment says.
#[must_use]
pub fn operator() -> Option<String> {
    ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(|name| name.to_string_lossy().into_owned())
        .find(|name| !name.is_empty())
}

/// Whether a browser can be shown to whoever runs this: on macOS, or where a display is named.
#[must_use]
pub fn has_display() -> bool {
    let named = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || named("DISPLAY") || named("WAYLAND_DISPLAY")
}

/// Whether the user takes colours: `NO_COLOR` says no (no-color.org).
#[must_use]
pub fn takes_colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
