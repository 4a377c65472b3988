//! Secrets: given as they are, or kept in a file that is read again when asked.

use std::fs::{Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::section::{Secret, Section};
use super::{ConfigError, QueueConfig, QueueUrl, ServerConfig, TokenSource};

/// The largest secret file, in bytes: a token has about 50. A wrong path is noticed by it.
const SECRET_BYTES_MAX: u64 = 16 * 1024;
/// What nobody but the owner may do with a file that holds a secret; its group may read it.
const WRONG_MODE: u32 = 0o027;

/// A token as HTTP takes it: visible ASCII, not empty.
pub(super) fn token_of(text: &str) -> Option<SecretString> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| SecretString::from(text))
}

/// A token of a table, or the file that holds it.
pub(super) fn token(
    keys: &Section<'_>,
    (key, file): (&str, &str),
    next_step: &str,
) -> Result<TokenSource, ConfigError> {
    Ok(match keys.secret_or_file(key, file)? {
        Secret::Given(entry) => TokenSource::Given(token_of(&entry.text).ok_or_else(|| {
            ConfigError::new(
                format!(
                    "{}.{key} ({}) is empty, or holds a space or a sign that no token has",
                    keys.path, entry.place
                ),
                next_step,
            )
        })?),
        Secret::File(path) => TokenSource::File(path),
        Secret::Neither => TokenSource::Missing,
    })
}

impl ServerConfig {
    /// The token that `/api` asks for, if any; a file is read now.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn token_now(&self) -> Result<Option<SecretString>, ConfigError> {
        match &self.token {
            TokenSource::Given(token) => Ok(Some(token.clone())),
            TokenSource::Missing | TokenSource::Command(_) | TokenSource::OAuth(_) => Ok(None),
            TokenSource::File(path) => {
                let text = secret_file(path, "server.token_file")?;
                token_of(&text).map(Some).ok_or_else(|| {
                    ConfigError::new(
                        format!(
                            "the file of server.token_file, {}, is empty, or holds a space or a sign \
                             that no token has",
                            path.display()
                        ),
                        "write the token into it, and nothing else",
                    )
                })
            }
        }
    }
}

impl QueueConfig {
    /// The address as it is now: `queue.url_file` is read anew, so that a changed password reaches
    /// the next connection.
    ///
    /// # Errors
    /// When the file cannot be read or holds no address.
    pub fn reread(&self) -> Result<QueueUrl, ConfigError> {
        match &self.url_file {
            Some(path) => QueueUrl::of_file(path),
            None => Ok(self.url.clone()),
        }
    }
}

impl QueueUrl {
    /// Reads `sqlite:PATH`, `amqp://…` or `amqps://…`. The error says what is wrong with it, and
    /// does not repeat it: it may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("has no path after `sqlite:`".into()),
                ":memory:" => Err("names a memory that a crash forgets; name a file".into()),
                path => Ok(Self::Sqlite(path.into())),
            };
        }
        let url = Url::parse(text).map_err(|error| format!("is no address: {error}"))?;
        match url.scheme() {
            "amqp" => {}
            "amqps" if cfg!(feature = "amqps") => {}
            "amqps" => return Err("needs TLS, which this build was made without".into()),
            // Text without `//` has its secret part taken for a scheme, so it is not repeated.
            _ => return Err("begins with none of `sqlite:`, `amqp://`, `amqps://`".into()),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("has no host".into());
        }
        Ok(Self::Amqp(SecretString::from(text)))
    }

    pub(super) fn of_file(path: &Path) -> Result<Self, ConfigError> {
        let text = secret_file(path, "queue.url_file")?;
        Self::parse(&text).map_err(|why| {
            ConfigError::new(
                format!("the address in {} {why}", path.display()),
                "write `amqp://USER:PASSWORD@HOST:5672/VHOST` into it, and nothing else",
            )
        })
    }

    pub(super) fn is_tls(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Amqp(url) => {
                Url::parse(url.expose_secret()).is_ok_and(|url| url.scheme() == "amqps")
            }
        }
    }

    /// The address without user and password, for people. A file's is absolute: the same name in
    /// another folder is another queue.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Sqlite(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!("sqlite:{}", path.display())
            }
            Self::Amqp(url) => Url::parse(url.expose_secret()).map_or_else(
                |_| "amqp".to_owned(),
                |url| {
                    let host = url.host_str().unwrap_or_default();
                    let port = url.port().map(|port| format!(":{port}"));
                    let path = url.path().trim_end_matches('/');
                    format!(
                        "{}://{host}{}{path}",
                        url.scheme(),
                        port.unwrap_or_default()
                    )
                },
            ),
        }
    }
}

/// A secret's text, trimmed, of a file that nobody else may read.
pub(super) fn secret_file(path: &Path, key: &str) -> Result<String, ConfigError> {
    read_secret(path).map_err(|why| unreadable(path, key, &why))
}

/// The text of a file, trimmed; `bytes_max` at most.
pub(super) fn small_file(path: &Path, key: &str, bytes_max: u64) -> Result<String, ConfigError> {
    let text = text_of(path, bytes_max, |_| Ok(()));
    text.map_err(|why| unreadable(path, key, &why))
}

/// A secret's text, trimmed. Blocks.
///
/// # Errors
/// Why it is not taken, in words that follow the file's name: it cannot be read, others may read it,
/// or it is too long.
pub fn read_secret(path: &Path) -> Result<String, String> {
    text_of(path, SECRET_BYTES_MAX, well_kept)
}

fn unreadable(path: &Path, key: &str, why: &str) -> ConfigError {
    ConfigError::new(
        format!("the file of {key}, {}, {why}", path.display()),
        "name a small text file that this user may read",
    )
}

fn text_of(
    path: &Path,
    bytes_max: u64,
    may_be_read: impl Fn(&Metadata) -> Result<(), String>,
) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // A pipe is opened too, without its writer, and then refused: whoever waited for one would wait for ever.
    let at_once = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(at_once.cast_signed())
        .open(path)
        .map_err(cannot)?;
    // Of the file that was opened, which need not be the one that stands there now.
    let told = file.metadata().map_err(cannot)?;
    if !told.is_file() {
        return Err("is not taken: it is no regular file".into());
    }
    may_be_read(&told).map_err(|why| format!("is not taken: {why}"))?;
    let mut text = String::new();
    // Not what its size says: it may grow.
    file.take(bytes_max + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    if text.len() as u64 > bytes_max {
        return Err(format!(
            "has more than {bytes_max} bytes, and is not read to its end"
        ));
    }
    Ok(text.trim().to_owned())
}

/// Whether a file may hold a secret; if not, what of its mode is wrong.
fn well_kept(told: &Metadata) -> Result<(), String> {
    let mode = told.permissions().mode() & 0o777;
    if mode & WRONG_MODE == 0 {
        return Ok(());
    }
    Err(format!(
        "its mode is {mode:03o}, so that others may read or change it (chmod 600)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("token");
        let mut mkfifo = std::process::Command::new("mkfifo");
        let made = mkfifo.args(["-m", "600"]).arg(&pipe).status().unwrap();
        assert!(made.success());
        assert_eq!(
            read_secret(&pipe).unwrap_err(),
            "is not taken: it is no regular file"
        );
    }
}
