//! What a variable may not change: who gets mail.
//!
//! Where the file sets one of these keys, a variable or a flag may only say the same. So neither can
//! make production of QA, nor anything else of production, nor turn mail to another portal.

use super::ConfigError;
use super::raw::Place;

/// Keys, and sections by their dot at the end. A pattern that no key has guards nothing.
const ALWAYS: &[&str] = &[
    "environment",
    "delivery.",
    "accounts.NAME.portal_id",
    "accounts.NAME.account_type",
];
/// As well, where the file names its environment.
const WITH_ENVIRONMENT: &[&str] = &["accounts.NAME.base_url"];

/// Whether what the file says of a key stands; `pattern` is the key with `NAME` for its account.
pub(super) fn guards(pattern: &str, names_environment: bool) -> bool {
    let is_in = |list: &[&str]| {
        let fits = |it: &&str| *it == pattern || it.ends_with('.') && pattern.starts_with(*it);
        list.iter().any(fits)
    };
    is_in(ALWAYS) || names_environment && is_in(WITH_ENVIRONMENT)
}

/// Neither value is repeated: one may hold an address or a password.
pub(super) fn overruled(key: &str, stands: &Place, by: &Place) -> ConfigError {
    ConfigError::new(
        format!("{key} is set in {stands}, and {by} sets it to something else"),
        "it guards who gets mail: change it in the file, or take the other one away",
    )
}
