//! The bearer token: given once, or read from a file that may change.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// How often the file is read at most. It is small, so reading it whole is as cheap as asking
/// whether it changed, and misses no change.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long a read may take: the file may stand on a network file system.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest token file, in bytes. HubSpot advises to allow 512 for a token.
const FILE_BYTES_MAX: u64 = 8 * 1024;
/// HubSpot's tokens have 40 bytes and more. A shorter one is a sandbox's: no secret, and perhaps
/// part of an ordinary word of an answer.
const SECRET_BYTES_MIN: usize = 16;

/// A token that is fit for a header. Prints as nothing.
#[derive(Clone)]
pub(super) struct Token {
    /// Shared: each call has one.
    secret: Arc<SecretString>,
    header: HeaderValue,
}

/// Where the token comes from.
#[derive(Debug)]
pub(super) enum Tokens {
    Given(Token),
    File(TokenFile),
}

/// A file with one token in it, read again when it is time.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    token: Token,
    read_at: Instant,
    /// The trouble was told; it is told again only after a good read.
    warned: bool,
}

impl Tokens {
    /// The token for the next call. A file that is gone, empty or unreadable keeps the last one.
    pub(super) async fn current(&self) -> Token {
        match self {
            Self::Given(token) => token.clone(),
            Self::File(file) => file.current().await,
        }
    }
}

impl TokenFile {
    /// # Errors
    /// Why the file holds no token; there is no last one to keep yet.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| error.to_string())?;
        let last = Last {
            token: Token::parse(&text)?,
            read_at: Instant::now(),
            warned: false,
        };
        Ok(Self {
            path: path.to_owned(),
            last: Mutex::new(last),
        })
    }

    async fn current(&self) -> Token {
        if !self.is_due() {
            return self.last().token.clone();
        }
        let read = match tokio::time::timeout(READ_TIMEOUT, read(&self.path)).await {
            Ok(read) => read,
            Err(_) => Err(format!("no answer within {READ_TIMEOUT:?}")),
        };
        let mut last = self.last();
        match read {
            Ok(token) => {
                last.token = token;
                last.warned = false;
            }
            Err(why) => {
                if !last.warned {
                    tracing::warn!(
                        file = %self.path.display(), why,
                        "the token file cannot be used; the last token stays in force"
                    );
                }
                last.warned = true;
            }
        }
        last.token.clone()
    }

    /// Whether it is time to read; one caller at a time is told so, the others go on.
    fn is_due(&self) -> bool {
        let mut last = self.last();
        let due = last.read_at.elapsed() >= READ_EVERY;
        if due {
            last.read_at = Instant::now();
        }
        due
    }

    /// Never held over an await.
    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(path: &Path) -> Result<Token, String> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .await
        .map_err(|error| error.to_string())?;
    Token::parse(&text)
}

impl Token {
    /// # Errors
    /// Why it is no token, without a character of it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let token = text.trim();
        if token.is_empty() {
            return Err("it is empty".into());
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "it holds characters that no HTTP header may carry".to_owned())?;
        header.set_sensitive(true);
        Ok(Self {
            secret: Arc::new(SecretString::from(token)),
            header,
        })
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    pub(super) fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// The text without the token: a proxy's error page may show the request's headers.
    pub(super) fn hidden_in(&self, body: Vec<u8>) -> String {
        let text = String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let secret = self.expose();
        if secret.len() < SECRET_BYTES_MIN || !text.contains(secret) {
            return text;
        }
        text.replace(secret, "[token]")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}
