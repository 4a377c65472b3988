//! What a variable may not change: who gets mail.
//!
//! Where the file sets one of these keys, a variable or a flag may only say the same. So neither can
//! make production of QA, nor anything else of production, nor turn mail to another portal.

use url::{Host, Url};

use super::ConfigError;
use super::account::HUBSPOT;
use super::raw::{Place, Raw, pattern_of};

/// Keys, and sections by their dot at the end. A pattern that no key has guards nothing.
const ALWAYS: &[&str] = &[
    "environment",
    "delivery.",
    "accounts.NAME.portal_id",
    "accounts.NAME.account_type",
];
/// As well, where the file names its environment.
const WITH_ENVIRONMENT: &[&str] = &["accounts.NAME.base_url"];
/// What cannot be added either, where the file says production: whoever answers there gets the mail
/// and the token, and says that it is the pinned portal.
const OF_PRODUCTION: &[(&str, IsHarmless)] = &[
    ("accounts.NAME.base_url", is_harmless),
    ("accounts.NAME.ca_file", |_| false),
];

type IsHarmless = fn(&str) -> bool;

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

/// Refuses what leads production's calls elsewhere, and is not in the file that says production.
pub(super) fn refuse_added(raw: &Raw) -> Result<(), ConfigError> {
    let says = raw.of_file("environment");
    if says.is_none_or(|entry| entry.text != "production") {
        return Ok(());
    }
    let mut added = raw.entries().filter(|(key, entry)| {
        let pattern = pattern_of(key);
        let leads = |(it, is_harmless): &(&str, IsHarmless)| {
            *it == pattern && !entry.place.is_file() && !is_harmless(&entry.text)
        };
        OF_PRODUCTION.iter().any(leads)
    });
    match added.next() {
        None => Ok(()),
        Some((key, entry)) => Err(ConfigError::new(
            format!(
                "{key} is not in the file, which says production, and {} sets it",
                entry.place
            ),
            "it guards where mail goes: write it into the file, or take it away",
        )),
    }
}

/// HubSpot itself, or a sandbox that is tried on this machine, where nobody else hears what is said.
fn is_harmless(text: &str) -> bool {
    if text.trim_end_matches('/') == HUBSPOT {
        return true;
    }
    let url = Url::parse(text).ok();
    match url.as_ref().and_then(Url::host) {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
