//! Stage one: what was typed, where. Every value is text here; a file's and a variable's are read
//! alike in stage two.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, DEFAULT_FILE, Sources, guard, hapikey};
use crate::hint;

/// Every key there is; `NAME` stands for an account's name.
pub const KEYS: &[&str] = &[
    "environment",
    "delivery.mode",
    "delivery.allow",
    "delivery.sink",
    "queue.url",
    "queue.url_file",
    "queue.ca_file",
    "queue.cert_file",
    "queue.key_file",
    "queue.prefix",
    "server.listen",
    "server.stop_timeout",
    "server.token",
    "server.token_file",
    "accounts.NAME.token",
    "accounts.NAME.token_file",
    "accounts.NAME.token_command",
    "accounts.NAME.next_token",
    "accounts.NAME.next_token_file",
    "accounts.NAME.oauth",
    "accounts.NAME.portal_id",
    "accounts.NAME.account_type",
    "accounts.NAME.base_url",
    "accounts.NAME.ca_file",
    "accounts.NAME.api",
    "accounts.NAME.api_version",
    "accounts.NAME.results",
    "accounts.NAME.concurrency",
    "accounts.NAME.low_share",
    "accounts.NAME.timeout",
    "accounts.NAME.quota.tier",
    "accounts.NAME.quota.send.limit",
    "accounts.NAME.quota.send.window",
    "accounts.NAME.quota.send.adaptive",
    "accounts.NAME.quota.send.floor",
    "accounts.NAME.quota.send.ceiling",
    "accounts.NAME.quota.api.limit",
    "accounts.NAME.quota.api.window",
    "accounts.NAME.quota.daily",
    "accounts.NAME.quota.daily_reserve",
    "retry.max_attempts",
    "retry.max_age",
    "retry.initial",
    "retry.max",
    "retry.multiplier",
    "retry.jitter",
    "oauth.client_id",
    "oauth.client_secret",
    "oauth.client_secret_file",
    "oauth.version",
    "oauth.scopes",
    "oauth.folder",
    "oauth.key",
    "oauth.key_file",
    "oauth.key_command",
    "oauth.authorize_url",
    "oauth.redirect_url",
    // Known only to be refused, with the way out.
    HAPIKEY,
];

const HAPIKEY: &str = "accounts.NAME.hapikey";

/// More words than any key has: what a message repeats of one that nobody knows.
const KEY_WORDS_MAX: usize = 8;
/// Longer than the name of any variable of ours.
const VARIABLE_CHARS_MAX: usize = 150;
/// The first word of every variable that is ours.
pub(super) const ENV_PREFIX: &str = "POSTRIDER_";

/// Everything that was typed. A later place overrules an earlier one.
#[derive(Default)]
pub(super) struct Raw {
    entries: BTreeMap<String, Entry>,
    /// Accounts that were named, with or without a key.
    accounts: BTreeSet<String>,
}

/// One value, as text, and where it stands.
pub(super) struct Entry {
    pub(super) text: String,
    pub(super) place: Place,
}

/// Where a value was typed.
#[derive(Clone, Debug)]
pub(super) enum Place {
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(&'static str),
}

impl Raw {
    pub(super) fn gather(sources: &Sources) -> Result<Self, ConfigError> {
        let mut raw = Self::default();
        match &sources.file {
            Some(path) => raw.read_file(path)?,
            None if Path::new(DEFAULT_FILE).exists() => raw.read_file(Path::new(DEFAULT_FILE))?,
            None => {}
        }
        for (name, value) in &sources.env {
            raw.read_variable(name, value)?;
        }
        for flag in &sources.flags {
            raw.set(flag.key.to_owned(), &flag.value, Place::Flag(flag.name))?;
        }
        Ok(raw)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn of_file(&self, key: &str) -> Option<&Entry> {
        self.get(key).filter(|entry| entry.place.is_file())
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn accounts(&self) -> &BTreeSet<String> {
        &self.accounts
    }

    // === file ===

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(
                format!("the file {} cannot be read: {error}", path.display()),
                "name a readable TOML file with --config",
            )
        })?;
        self.read_text(path, &text)
    }

    pub(super) fn read_text(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let document = DeTable::parse(text).map_err(|error| {
            // The error's own text shows the line as it stands, which may hold a secret.
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            ConfigError::new(
                format!(
                    "{} line {line} is not TOML: {}",
                    path.display(),
                    error.message()
                ),
                "write `key = \"value\"` below a `[section]`",
            )
        })?;
        self.read_table(path, text, "", document.get_ref())
    }

    fn read_table(
        &mut self,
        path: &Path,
        text: &str,
        above: &str,
        table: &DeTable<'_>,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = if above.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{above}.{}", name.get_ref())
            };
            let place = Place::File {
                path: path.to_owned(),
                line: line_of(text, name.span().start),
            };
            let DeValue::Table(inner) = value.get_ref() else {
                self.set(key, &text_of(value), place)?;
                continue;
            };
            known_section(&key, &place)?;
            if let Some(account) = account_of(&key) {
                self.accounts.insert(account.to_owned());
            }
            self.read_table(path, text, &key, inner)?;
        }
        Ok(())
    }

    // === environment ===

    pub(super) fn read_variable(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else {
            return Ok(());
        };
        if is_service_link(path) {
            return Ok(());
        }
        let key = path.replace("__", ".").to_lowercase();
        self.set(key, value, Place::Variable(name.to_owned()))
    }

    // === all ===

    fn set(&mut self, key: String, text: &str, place: Place) -> Result<(), ConfigError> {
        refuse_hapikey(&key, text, &place)?;
        let pattern = pattern_of(&key);
        if !KEYS.contains(&pattern.as_str()) {
            return Err(unknown(&key, &place));
        }
        if let Some(stands) = self.of_file(&key)
            && !place.is_file()
            && guard::guards(&pattern, self.of_file("environment").is_some())
        {
            // The file's word stands, so that what comes after this place is held against it too.
            return if stands.text == text {
                Ok(())
            } else {
                Err(guard::overruled(&shown(&key), &stands.place, &place))
            };
        }
        if let Some(account) = account_of(&key) {
            self.accounts.insert(account.to_owned());
        }
        let text = text.to_owned();
        self.entries.insert(key, Entry { text, place });
        Ok(())
    }
}

impl Place {
    /// Of two places, the higher one overrules.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::File { .. } => 0,
            Self::Variable(_) => 1,
            Self::Flag(_) => 2,
        }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Variable(name) => {
                let name: String = name.escape_debug().take(VARIABLE_CHARS_MAX).collect();
                write!(f, "variable {name}")
            }
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A scalar as one would type it into a variable. Arrays and dates are no value of ours: they
/// fail in stage two, where the key tells what it takes.
fn text_of(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string()),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

/// Kubernetes gives every container of a namespace `POSTRIDER_PORT`, `POSTRIDER_SERVICE_HOST` and
/// so on for a service called `postrider`: not typed by anybody, and none can be a key of ours.
fn is_service_link(path: &str) -> bool {
    !path.contains("__")
        && (path == "PORT" || path.starts_with("PORT_") || path.starts_with("SERVICE_"))
}

fn account_of(key: &str) -> Option<&str> {
    let name = key.strip_prefix("accounts.")?.split('.').next()?;
    (!name.is_empty()).then_some(name)
}

/// The key with `NAME` for its account.
pub(super) fn pattern_of(key: &str) -> String {
    match account_of(key) {
        Some(account) => key.replacen(&format!("accounts.{account}"), "accounts.NAME", 1),
        None => key.to_owned(),
    }
}

/// By its name, or in an address that is the value.
fn refuse_hapikey(key: &str, value: &str, place: &Place) -> Result<(), ConfigError> {
    if hapikey::is_name(key) || hapikey::is_in(value) {
        return Err(hapikey::refusal(&format!("{} ({place})", shown(key))));
    }
    Ok(())
}

fn known_section(key: &str, place: &Place) -> Result<(), ConfigError> {
    let section = format!("{}.", pattern_of(key));
    refuse_hapikey(key, "", place)?;
    if key == "accounts" || KEYS.iter().any(|known| known.starts_with(&section)) {
        Ok(())
    } else {
        Err(unknown(key, place))
    }
}

/// Says that nobody knows this key, and which one may have been meant.
fn unknown(key: &str, place: &Place) -> ConfigError {
    if KEYS.contains(&pattern_of(key).as_str()) {
        return ConfigError::new(
            format!("`{}` ({place}) is no section", shown(key)),
            "it is a key: write it as `key = value`",
        );
    }
    let account = account_of(key).unwrap_or("NAME");
    let known: Vec<String> = KEYS
        .iter()
        .filter(|known| **known != HAPIKEY)
        .map(|known| known.replacen("NAME", account, 1))
        .collect();
    // Within a section that exists only the last word can be wrong.
    let siblings = key.rsplit_once('.').map_or(Vec::new(), |(section, _)| {
        let section = format!("{section}.");
        known
            .iter()
            .filter(|known| known.starts_with(&section))
            .collect()
    });
    let meant = if siblings.is_empty() {
        hint::nearest(key, known.iter().map(String::as_str))
    } else {
        let skip = key.len() - key.rsplit('.').next().map_or(0, str::len);
        let last = |key: &str| key.get(skip..).unwrap_or_default().to_owned();
        let leaves: Vec<String> = siblings.iter().map(|known| last(known)).collect();
        hint::nearest(&last(key), leaves.iter().map(String::as_str)).and_then(|leaf| {
            siblings
                .iter()
                .find(|known| last(known) == leaf)
                .map(|known| known.as_str())
        })
    };
    let hint = match (meant, place) {
        (Some(known), Place::Variable(_)) => {
            format!("did you mean {}?", variable_of(&shown(known)))
        }
        (Some(known), _) => format!("did you mean `{}`?", shown(known)),
        (None, _) => "config/postrider.toml shows every key".to_owned(),
    };
    ConfigError::new(format!("unknown key `{}` ({place})", shown(key)), hint)
}

/// What of a key that somebody typed may stand in a message, word by word.
fn shown(key: &str) -> String {
    let words = key.split('.').take(KEY_WORDS_MAX).map(hint::shown);
    words.collect::<Vec<_>>().join(".")
}

/// The variable that sets a key.
fn variable_of(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}
