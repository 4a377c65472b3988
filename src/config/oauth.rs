//! The app at HubSpot whose OAuth tokens accounts use: one for all of them.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use url::Url;

use super::command::output_of;
use super::raw::Entry;
use super::secret::{secret_file, token_of};
use super::section::{Secret, Section};
use super::{ConfigError, hapikey};

/// Bytes of the key that seals what is kept.
pub const KEY_BYTES: usize = 32;
/// What a key is, in words.
const KEY_TAKES: &str = "32 bytes in base64, as `postrider auth key` prints them";
/// Scopes, and characters of one, at most; HubSpot has some hundred scopes.
const SCOPES_MAX: usize = 200;
const SCOPE_BYTES_MAX: usize = 100;

/// An app at HubSpot, complete: who it is, what it asks for, and how its grants are kept.
#[derive(Debug)]
pub struct OAuthConfig {
    pub client_id: String,
    client_secret: Kept,
    /// Of the token endpoint: `2026-09`, `v3`, `v1`.
    pub version: String,
    /// What a login asks for.
    pub scopes: Vec<String>,
    /// Where the grants are kept, a sealed file for each account.
    pub folder: PathBuf,
    key: Kept,
    pub authorize_url: Url,
    /// As it is registered with the app, to the letter.
    pub redirect_url: Url,
}

/// Where a secret is. A file and a command are read each time that it is needed.
#[derive(Debug)]
enum Kept {
    Given(SecretString),
    File(PathBuf),
    /// It is secret as well: it may hold a password.
    Command(SecretString),
}

/// `[oauth]` as far as it goes: an app, or what is missing to one.
pub(super) type Found = Result<Arc<OAuthConfig>, String>;

/// Every key is read and has to be right, whether any account uses it or not.
pub(super) fn oauth(keys: &Section<'_>) -> Result<Found, ConfigError> {
    let client_id = keys.optional("client_id", "the client id of the app", |text| {
        token_of(text).map(|_| text.to_owned())
    })?;
    let client_secret = match keys.secret_or_file("client_secret", "client_secret_file")? {
        Secret::Given(entry) => Some(Kept::Given(token_of(&entry.text).ok_or_else(|| {
            let what = "is empty, or holds a space or a sign that no secret has";
            wrong("client_secret", entry, what)
        })?)),
        Secret::File(path) => Some(Kept::File(path)),
        Secret::Neither => None,
    };
    let key = key(keys)?;
    let version = keys.value(
        "version",
        "\"2026-09\", another \"20YY-MM\", \"v3\", or \"v1\" (which ends on 2027-02-16)",
        "2026-09".to_owned(),
        |text| is_version(text).then(|| text.to_owned()),
    )?;
    let scopes = keys.value(
        "scopes",
        "scopes with a space between them",
        vec!["oauth".to_owned(), "transactional-email".to_owned()],
        scopes,
    )?;
    let folder = keys.value("folder", "a folder", "postrider-oauth".into(), |text| {
        (!text.is_empty()).then(|| PathBuf::from(text))
    })?;
    let authorize_url = address(
        keys,
        "authorize_url",
        "https://app.hubspot.com/oauth/authorize",
    )?;
    let redirect_url = address(keys, "redirect_url", "http://127.0.0.1:8976/oauth/callback")?;
    let (Some(client_id), Some(client_secret), Some(key)) = (client_id.clone(), client_secret, key)
    else {
        return Ok(Err(missing(keys)));
    };
    Ok(Ok(Arc::new(OAuthConfig {
        client_id,
        client_secret,
        version,
        scopes,
        folder,
        key,
        authorize_url,
        redirect_url,
    })))
}

/// Which of the three things without a default are not there.
fn missing(keys: &Section<'_>) -> String {
    let needed: [(&str, &[&str]); 3] = [
        ("oauth.client_id", &["client_id"]),
        (
            "oauth.client_secret_file (or oauth.client_secret)",
            &["client_secret", "client_secret_file"],
        ),
        (
            "oauth.key_file (or oauth.key, oauth.key_command)",
            &["key", "key_file", "key_command"],
        ),
    ];
    let lacks = |names: &[&str]| names.iter().all(|name| keys.get(name).is_none());
    let missing: Vec<_> = needed
        .into_iter()
        .filter_map(|(told, names)| lacks(names).then_some(told))
        .collect();
    missing.join(", ")
}

fn key(keys: &Section<'_>) -> Result<Option<Kept>, ConfigError> {
    let command = keys
        .get("key_command")
        .filter(|entry| !entry.text.is_empty());
    let given = match keys.secret_or_file("key", "key_file")? {
        Secret::Given(entry) => {
            if key_of(&entry.text).is_none() {
                return Err(wrong("key", entry, &format!("is not {KEY_TAKES}")));
            }
            Some(Kept::Given(SecretString::from(entry.text.as_str())))
        }
        Secret::File(path) => Some(Kept::File(path)),
        Secret::Neither => None,
    };
    match (given, command) {
        (Some(_), Some(command)) => Err(ConfigError::new(
            format!(
                "oauth.key_command ({}) is set beside oauth.key or oauth.key_file",
                command.place
            ),
            "keep one of them",
        )),
        (None, Some(command)) => Ok(Some(Kept::Command(command.text.as_str().into()))),
        (given, None) => Ok(given),
    }
}

/// The value is not repeated: it may be the secret.
fn wrong(key: &str, entry: &Entry, what: &str) -> ConfigError {
    ConfigError::new(
        format!("oauth.{key} ({}) {what}", entry.place),
        format!("correct it, or use oauth.{key}_file"),
    )
}

fn address(keys: &Section<'_>, key: &str, default: &str) -> Result<Url, ConfigError> {
    let (text, place) = match keys.get(key) {
        Some(entry) => (entry.text.as_str(), entry.place.to_string()),
        None => (default, "the default".to_owned()),
    };
    let plain = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    });
    plain.ok_or_else(|| {
        ConfigError::new(
            format!("oauth.{key} ({place}) is no plain http or https address"),
            format!("leave it out, or write an address such as \"{default}\""),
        )
    })
}

fn is_version(text: &str) -> bool {
    let dated = text
        .strip_prefix("20")
        .and_then(|rest| rest.split_once('-'));
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_dated = dated.is_some_and(|(year, month)| {
        digits(year) && digits(month) && ("01"..="12").contains(&month)
    });
    is_dated || matches!(text, "v1" | "v3")
}

fn scopes(text: &str) -> Option<Vec<String>> {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = |scope: &&str| scope.len() <= SCOPE_BYTES_MAX && scope.bytes().all(is_sign);
    let scopes: Vec<&str> = text.split_whitespace().collect();
    let all = !scopes.is_empty() && scopes.len() <= SCOPES_MAX && scopes.iter().all(fits);
    all.then(|| scopes.into_iter().map(str::to_owned).collect())
}

fn key_of(text: &str) -> Option<SecretBox<[u8; KEY_BYTES]>> {
    let bytes: [u8; KEY_BYTES] = STANDARD.decode(text.trim()).ok()?.try_into().ok()?;
    Some(SecretBox::new(Box::new(bytes)))
}

// === impl OAuthConfig ===

impl OAuthConfig {
    /// The client secret, as it is now. May read a file.
    ///
    /// # Errors
    /// When the file cannot be read or holds no secret.
    pub fn client_secret(&self) -> Result<SecretString, ConfigError> {
        let text = self.client_secret.read("client_secret")?;
        token_of(text.expose_secret()).ok_or_else(|| {
            ConfigError::new(
                format!(
                    "{} holds no client secret",
                    self.client_secret.told("client_secret")
                ),
                "write the app's client secret into the file, and nothing else",
            )
        })
    }

    /// The key that seals what is kept. May read a file, or run a command for up to 30 s.
    ///
    /// # Errors
    /// When the file or the command gives no key.
    pub fn key(&self) -> Result<SecretBox<[u8; KEY_BYTES]>, ConfigError> {
        let text = self.key.read("key")?;
        key_of(text.expose_secret()).ok_or_else(|| {
            ConfigError::new(
                format!("{} holds no key", self.key.told("key")),
                format!("it takes {KEY_TAKES}, and nothing else"),
            )
        })
    }

    /// The keys of the file that have a value, secrets masked.
    pub(super) fn shown(&self, masked: &str) -> Vec<(String, serde_json::Value)> {
        use serde_json::json;
        let pair = |(key, value): (&str, serde_json::Value)| (format!("oauth.{key}"), value);
        let secret = |kept: &Kept, key: &str| match kept {
            Kept::File(path) => (kept.name(key), json!(path)),
            Kept::Given(_) | Kept::Command(_) => (kept.name(key), json!(masked)),
        };
        let mut shown = vec![
            pair(("client_id", json!(self.client_id))),
            secret(&self.client_secret, "client_secret"),
            secret(&self.key, "key"),
        ];
        shown.extend(
            [
                ("version", json!(self.version)),
                ("scopes", json!(self.scopes.join(" "))),
                ("folder", json!(self.folder)),
                ("authorize_url", json!(self.authorize_url)),
                ("redirect_url", json!(self.redirect_url)),
            ]
            .map(pair),
        );
        shown
    }
}

impl Kept {
    fn read(&self, key: &str) -> Result<SecretString, ConfigError> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => Ok(secret_file(path, &self.name(key))?.into()),
            Self::Command(command) => match output_of(command.expose_secret()) {
                Ok(text) => Ok(text.into()),
                Err(why) => Err(ConfigError::new(
                    format!("the command of {} {why}", self.name(key)),
                    "run it by hand: it prints the secret on stdout, and nothing else",
                )),
            },
        }
    }

    /// The key that names it, and of a file which one it is.
    fn told(&self, key: &str) -> String {
        let name = self.name(key);
        match self {
            Self::File(path) => format!("the file of {name}, {},", path.display()),
            Self::Given(_) | Self::Command(_) => name,
        }
    }

    fn name(&self, key: &str) -> String {
        match self {
            Self::Given(_) => format!("oauth.{key}"),
            Self::File(_) => format!("oauth.{key}_file"),
            Self::Command(_) => format!("oauth.{key}_command"),
        }
    }
}

/// What of an account says that it uses the app: `oauth = true`, and nothing else beside it.
pub(super) fn used_by(
    keys: &Section<'_>,
    found: &Found,
) -> Result<Option<Arc<OAuthConfig>>, ConfigError> {
    let is_used = keys.value("oauth", "true or false", false, |text| text.parse().ok())?;
    if !is_used {
        return Ok(None);
    }
    for other in [
        "token",
        "token_file",
        "next_token",
        "next_token_file",
        "token_command",
    ] {
        if let Some(entry) = keys.get(other) {
            return Err(ConfigError::new(
                format!(
                    "{0}.oauth is true, and {0}.{other} ({1}) is set",
                    keys.path, entry.place
                ),
                "keep one of the two",
            ));
        }
    }
    match found {
        Ok(app) => Ok(Some(Arc::clone(app))),
        Err(missing) => Err(ConfigError::new(
            format!(
                "{}.oauth is true, and the app is not complete: {missing} is missing",
                keys.path
            ),
            "docs/accounts.md tells where each of them comes from",
        )),
    }
}

/// Refuses an API key where a token should be. What a file holds concerns only who needs the token, and
/// may change any time: whoever reads it refuses it.
pub(super) fn refuse_api_key(
    keys: &Section<'_>,
    key: &str,
    token: &Secret<'_>,
) -> Result<(), ConfigError> {
    match token {
        Secret::Given(entry) if hapikey::is_like(&entry.text) => Err(hapikey::refusal(&format!(
            "{}.{key} ({}) has the form of an API key",
            keys.path, entry.place
        ))),
        Secret::Given(_) | Secret::File(_) | Secret::Neither => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_scopes_are_read_as_hubspot_writes_them() {
        for good in ["2026-09", "2026-03", "2027-12", "v3", "v1"] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "",
            "v2",
            "2026",
            "2026-9",
            "2026-13",
            "2026-00",
            "20x6-09",
            "2026-09/..",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
        assert_eq!(scopes(" oauth  content ").unwrap(), ["oauth", "content"]);
        for bad in ["", " ", "oauth,content", "a&b"] {
            assert!(scopes(bad).is_none(), "{bad}");
        }
    }
}
