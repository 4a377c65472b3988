//! The keys of one table, read as what they mean; an error names the key, the place and what it takes.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;

use super::ConfigError;
use super::raw::{Entry, Raw};
use crate::hint;

pub(super) fn in_range(text: &str, least: f64, most: f64) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
}

/// The keys of one table.
pub(super) struct Section<'a> {
    raw: &'a Raw,
    pub(super) path: String,
}

/// A secret was given, or the file that holds it, or nothing.
pub(super) enum Secret<'a> {
    Given(&'a Entry),
    File(PathBuf),
    Neither,
}

impl<'a> Section<'a> {
    pub(super) fn new(raw: &'a Raw, path: &str) -> Self {
        Self {
            raw,
            path: path.to_owned(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Entry> {
        self.raw.get(&format!("{}.{key}", self.path))
    }

    /// The value of a key, read by `parse`, which knows what `takes` says in words.
    pub(super) fn optional<T>(
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

    pub(super) fn value<T>(
        &self,
        key: &str,
        takes: &str,
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        Ok(self.optional(key, takes, parse)?.unwrap_or(default))
    }

    pub(super) fn parsed<T: FromStr>(
        &self,
        key: &str,
        takes: &str,
        default: T,
    ) -> Result<T, ConfigError> {
        self.value(key, takes, default, |text| text.parse().ok())
    }

    /// A time above zero and at most `most`.
    pub(super) fn duration(
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
    pub(super) fn secret_or_file(
        &self,
        secret: &str,
        file: &str,
    ) -> Result<Secret<'a>, ConfigError> {
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
