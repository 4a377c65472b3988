//! Stage two of the environment: who gets mail in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::raw::Raw;
use super::section::Section;
use super::{AccountConfig, ConfigError};
use crate::delivery::{AllowList, Mode, Rules};
use crate::hint;
use crate::message::{AccountName, Environment, Recipient};

const MODES: [&str; 4] = ["hold", "allow", "sink", "sandbox"];
/// Where HubSpot is, under any name of its own.
const HUBSPOT: [&str; 2] = ["hubapi.com", "hubspot.com"];

pub(super) fn rules(
    raw: &Raw,
    accounts: &BTreeMap<AccountName, AccountConfig>,
) -> Result<Rules, ConfigError> {
    let environment = environment(raw)?;
    let keys = Section::new(raw, "delivery");
    if environment.is_production() {
        refuse_in_production(&keys)?;
        return Ok(Rules::default());
    }
    let takes = "\"hold\", \"allow\", \"sink\" or \"sandbox\"";
    let known = |text: &str| MODES.into_iter().find(|mode| *mode == text);
    let mode = keys.value("mode", takes, "hold", known)?;
    for key in ["allow", "sink"] {
        if let Some(entry) = keys.get(key).filter(|_| key != mode) {
            return Err(ConfigError::new(
                format!(
                    "delivery.{key} ({}) is set, and delivery.mode is \"{mode}\"",
                    entry.place
                ),
                format!("set delivery.mode = \"{key}\", or remove delivery.{key}"),
            ));
        }
    }
    let mode = match mode {
        "allow" => Mode::Allow(Arc::new(allow_list(&keys)?)),
        "sink" => Mode::Sink(sink(&keys)?),
        "sandbox" => {
            refuse_hubspot(accounts)?;
            Mode::Sandbox
        }
        _ => Mode::Hold,
    };
    Ok(Rules { environment, mode })
}

fn environment(raw: &Raw) -> Result<Environment, ConfigError> {
    let Some(entry) = raw.get("environment") else {
        return Ok(Environment::default());
    };
    Environment::parse(&entry.text).map_err(|_| {
        ConfigError::new(
            format!(
                "environment is \"{}\" ({})",
                hint::shown(&entry.text),
                entry.place
            ),
            "it takes 1 to 30 lower-case letters, digits and `-`, such as \"qa\"",
        )
    })
}

fn refuse_in_production(keys: &Section<'_>) -> Result<(), ConfigError> {
    let mut set = ["mode", "allow", "sink"]
        .into_iter()
        .filter_map(|key| Some((key, keys.get(key)?)));
    match set.next() {
        None => Ok(()),
        Some((key, entry)) => Err(ConfigError::new(
            format!(
                "delivery.{key} ({}) is set, and the environment is production, where mail goes to \
                 whom the request says",
                entry.place
            ),
            // Where a variable was set for another environment, production is not what is wrong.
            match &entry.place {
                place if place.is_file() => {
                    "set environment to another name, such as \"qa\", or remove it".to_owned()
                }
                place => format!(
                    "unset {place}; or, if this is not production, set environment to another name, \
                     such as \"qa\""
                ),
            },
        )),
    }
}

fn allow_list(keys: &Section<'_>) -> Result<AllowList, ConfigError> {
    let takes = "it takes addresses and domains, such as \"ada@example.com, example.org\"";
    let Some(entry) = keys.get("allow") else {
        return Err(ConfigError::new(
            "delivery.mode is \"allow\", and delivery.allow is not set",
            takes,
        ));
    };
    // An address is not repeated, not even one of ours.
    AllowList::parse(&entry.text).map_err(|number| {
        let place = &entry.place;
        let problem = match number {
            0 => format!("delivery.allow ({place}) allows nobody"),
            number => {
                format!(
                    "entry {number} of delivery.allow ({place}) is neither an address nor a domain"
                )
            }
        };
        ConfigError::new(problem, takes)
    })
}

fn sink(keys: &Section<'_>) -> Result<Recipient, ConfigError> {
    let takes = "it takes the address of a person, such as \"qa@example.com\"";
    let Some(entry) = keys.get("sink") else {
        return Err(ConfigError::new(
            "delivery.mode is \"sink\", and delivery.sink is not set",
            takes,
        ));
    };
    Recipient::parse(&entry.text).map_err(|_| {
        ConfigError::new(
            format!(
                "delivery.sink ({}) is not one address that HubSpot takes",
                entry.place
            ),
            takes,
        )
    })
}

fn refuse_hubspot(accounts: &BTreeMap<AccountName, AccountConfig>) -> Result<(), ConfigError> {
    for (name, account) in accounts {
        let host = account.base_url.host_str().unwrap_or_default();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_at = |domain: &str| {
            let above = host.strip_suffix(domain);
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        };
        if HUBSPOT.into_iter().any(is_at) {
            return Err(ConfigError::new(
                format!(
                    "delivery.mode is \"sandbox\", and accounts.{name}.base_url is at HubSpot: {host}"
                ),
                format!(
                    "set accounts.{name}.base_url to the address that `postrider sandbox` prints"
                ),
            ));
        }
    }
    Ok(())
}
