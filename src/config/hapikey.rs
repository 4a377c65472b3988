//! HubSpot's API keys (hapikey), which are dead: what looks like one, what is said of it, and where
//! it stands. The value is never repeated.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::raw::{ENV_PREFIX, line_of};
use super::secret::read_secret;
use super::{ConfigError, DEFAULT_FILE, Sources};

/// The last day of HubSpot's API keys; none could be made since 2022-07-15.
pub const DEAD_SINCE: &str = "2022-11-30";
/// How long the parts of an API key are; it is a bare UUID. A service key begins with `pat-`.
const PARTS: [usize; 5] = [8, 4, 4, 4, 12];
/// Tables within tables of a file, at most.
const DEPTH_MAX: usize = 16;

/// Whether a key or a variable is named after one: `hapikey`, `hapi_key`, `HUBSPOT_HAPIKEY`.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: &char| c.is_ascii_alphanumeric();
    let name: String = name.chars().filter(plain).collect();
    name.to_ascii_lowercase().contains("hapikey")
}

/// Whether a value carries one in an address: `https://api.hubapi.com?hapikey=…`.
pub(super) fn is_in(value: &str) -> bool {
    value.to_ascii_lowercase().contains("hapikey=")
}

/// Whether a token is none but an API key, by its form, or by what stands before it: `HAPIKEY=…`.
#[must_use]
pub fn is_like(token: &str) -> bool {
    if is_in(token) {
        return true;
    }
    let mut parts = token.trim().split('-');
    let fits = |length: usize| {
        let part = parts.next();
        part.is_some_and(|part| part.len() == length && is_hex(part))
    };
    PARTS.into_iter().all(fits) && parts.next().is_none()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `what` names the key and its place.
pub(super) fn refusal(what: &str) -> ConfigError {
    ConfigError::new(
        format!(
            "{what}: HubSpot has not supported API keys (hapikey) since {DEAD_SINCE}, and Single \
             Send refuses them"
        ),
        "remove it; `postrider auth migrate` leads step by step to a service key, for \
         accounts.NAME.token_file",
    )
}

/// The variables of other programs that hold an API key, by their names or by its form. Postrider
/// reads none of them; whoever set one may believe that it does.
#[must_use]
pub fn foreign(sources: &Sources) -> Vec<String> {
    let named = |(name, value): &&(String, String)| {
        let of_hubspot = ["HUBSPOT", "HS_"].iter().any(|it| name.contains(it));
        let is_one =
            (is_name(name) && !value.is_empty()) || is_in(value) || (of_hubspot && is_like(value));
        is_one && !name.starts_with(ENV_PREFIX)
    };
    let found = sources.env.iter().filter(named);
    found.map(|(name, _)| shown(name)).collect()
}

/// Where API keys stand, in words.
#[derive(Debug, Default)]
pub struct Places {
    pub found: Vec<String>,
    /// What could not be looked through, and why: one may stand there.
    pub unread: Vec<String>,
}

/// Every place of the configuration where an API key stands. It loads nothing, since an API key is
/// what keeps a configuration from being loaded.
#[must_use]
pub fn places(sources: &Sources) -> Places {
    let mut places = Places::default();
    let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
    if let Some(path) = sources.file.clone().or_else(default) {
        places.in_file(&path);
    }
    for (name, value) in &sources.env {
        let Some(key) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let key = key.replace("__", ".").to_lowercase();
        if places.holds_one(&key, value) {
            places.found.push(format!("variable {}", shown(name)));
        }
    }
    let foreign = foreign(sources).into_iter().map(|name| {
        format!("variable {name} (which Postrider does not read; another program may)")
    });
    places.found.extend(foreign);
    places
}

impl Places {
    /// The text of a file whose TOML is broken is looked through line by line.
    fn in_file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let place = path.display();
                self.unread
                    .push(format!("the file {place} cannot be read: {error}"));
                return;
            }
        };
        let mut lines = Vec::new();
        match DeTable::parse(&text) {
            Ok(document) => self.in_table(&text, "", document.get_ref(), 0, &mut lines),
            Err(error) => {
                let named = text.lines().enumerate().filter(|(_, line)| is_name(line));
                lines.extend(named.map(|(index, _)| index + 1));
                let line = error.span().map_or(1, |span| line_of(&text, span.start));
                self.unread.push(format!(
                    "{} line {line} is not TOML: {}",
                    path.display(),
                    error.message()
                ));
            }
        }
        lines.sort_unstable();
        lines.dedup();
        let told = lines
            .into_iter()
            .map(|line| format!("{} line {line}", path.display()));
        self.found.extend(told);
    }

    fn in_table(
        &mut self,
        text: &str,
        above: &str,
        table: &DeTable<'_>,
        depth: usize,
        lines: &mut Vec<usize>,
    ) {
        for (name, value) in table {
            let key = format!("{above}.{}", name.get_ref());
            let value = value.get_ref();
            let mut here = is_name(&key);
            if let DeValue::String(value) = value {
                here = self.holds_one(&key, value);
            } else if let DeValue::Table(inner) = value
                && depth < DEPTH_MAX
                && !here
            {
                self.in_table(text, &key, inner, depth + 1, lines);
            }
            if here {
                lines.push(line_of(text, name.span().start));
            }
        }
    }

    /// Whether this key and its value are or hold an API key. A token file is told by itself.
    fn holds_one(&mut self, key: &str, value: &str) -> bool {
        let last = key.rsplit('.').next().unwrap_or_default();
        let is_one = is_name(key) || is_in(value) || (last.ends_with("token") && is_like(value));
        if last.ends_with("token_file") && !is_one {
            self.in_token_file(key, Path::new(value));
        }
        is_one
    }

    fn in_token_file(&mut self, key: &str, path: &Path) {
        match read_secret(path) {
            Ok(text) => {
                if is_like(&text) {
                    let (key, place) = (shown(key.trim_start_matches('.')), path.display());
                    self.found.push(format!("the file of {key}, {place}"));
                }
            }
            Err(why) => {
                let (key, place) = (shown(key.trim_start_matches('.')), path.display());
                self.unread
                    .push(format!("the file of {key}, {place}, {why}"));
            }
        }
    }
}

fn shown(name: &str) -> String {
    name.escape_debug().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_key_is_known_by_its_name_its_form_and_in_an_address() {
        for name in [
            "hapikey",
            "hapiKey",
            "HUBSPOT_HAPI_KEY",
            "accounts.x.hapi-key",
        ] {
            assert!(is_name(name), "{name}");
        }
        assert!(!is_name("accounts.shop.key"));
        assert!(is_in("https://api.hubapi.com/?limit=1&HAPIKEY=x"));
        assert!(!is_in("https://api.hubapi.com/hapikeys"));
        for (token, like) in [
            ("11111111-2222-3333-4444-55555555abCD", true),
            (" 11111111-2222-3333-4444-555555555555\n", true),
            ("pat-na1-11111111-2222-3333-4444-555555555555", false),
            ("11111111-2222-3333-4444-55555555555g", false),
            ("11111111-2222-3333-4444-555555555555-1", false),
            ("11111111222233334444555555555555", false),
            ("", false),
        ] {
            assert_eq!(is_like(token), like, "{token}");
        }
    }
}
