//! What must hold of any configuration. Asked by the tests and by the fuzzer.
#![allow(clippy::unwrap_used, reason = "it is part of the tests alone")]

use std::path::Path;

use super::raw::Raw;
use super::{Config, ConfigError, typed};

/// What a problem and its hint may have at most, of names that are escaped sign by sign.
const TOLD_BYTES_MAX: usize = 3000;

/// The text of a file, and variables: they are a configuration, or the problem names its place in a
/// line that can be printed. Of the secrets, which are told apart by `marker`, it holds none.
pub fn settings(text: &str, variables: &[(String, String)], marker: &str) {
    let read = || -> Result<Config, ConfigError> {
        let mut raw = Raw::default();
        raw.read_text(Path::new("postrider.toml"), text)?;
        for (name, value) in variables {
            raw.read_variable(name, value)?;
        }
        typed::config(&raw)
    };
    match read() {
        Ok(config) => {
            assert!(!config.accounts.is_empty());
            assert!(config.retry.max >= config.retry.initial);
            let shown = format!("{config:?} {:?}", config.shown());
            assert!(!shown.contains(marker), "{shown}");
        }
        Err(ConfigError { problem, hint }) => {
            let told = format!("{problem} {hint}");
            assert!(told.len() <= TOLD_BYTES_MAX, "{told}");
            assert!(!told.contains(char::is_control), "{told:?}");
            assert!(!told.contains(marker), "{told}");
            assert!(!hint.is_empty());
        }
    }
}

#[cfg(test)]
mod tests;
