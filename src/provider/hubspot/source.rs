//! Where a token comes from, and how it is asked for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::Instant;

use super::token::Token;
use crate::config::{TokenSource, well_kept};

/// How often a file is read at most. It is small, so reading it whole is as cheap as asking
/// whether it changed, and misses no change.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long a read may take: the file may stand on a network file system.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a command is run while its token does its work. A refused token has it run at once.
const RUN_EVERY: Duration = Duration::from_mins(5);
/// How long a command may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest token, in bytes. HubSpot advises to allow 512.
const TOKEN_BYTES_MAX: u64 = 8 * 1024;

/// Where one token comes from.
#[derive(Debug)]
pub(super) enum Source {
    Given(Token),
    File(PathBuf),
    /// The text that it prints, by `sh -c`.
    Command(SecretString),
}

impl Source {
    /// # Errors
    /// Why it can never be one, without a character of it. A file that cannot be read is not yet
    /// known to be wrong for ever.
    pub(super) fn new(source: &TokenSource) -> Option<Result<Self, String>> {
        match source {
            TokenSource::Given(secret) => {
                Some(Token::parse(secret.expose_secret()).map(Self::Given))
            }
            TokenSource::File(path) => Some(Ok(Self::File(path.clone()))),
            TokenSource::Command(command) => Some(Ok(Self::Command(command.clone()))),
            TokenSource::OAuth(_) | TokenSource::Missing => None,
        }
    }

    /// Whether its token may become another one.
    pub(super) fn may_change(&self) -> bool {
        !matches!(self, Self::Given(_))
    }

    /// Whether it is time to ask again.
    pub(super) fn is_due(&self, asked: Option<Instant>, refused: bool) -> bool {
        let wait = match self {
            Self::Given(_) => return asked.is_none(),
            Self::File(_) => READ_EVERY,
            Self::Command(_) if refused => READ_EVERY,
            Self::Command(_) => RUN_EVERY,
        };
        asked.is_none_or(|asked| asked.elapsed() >= wait)
    }

    /// The token that it holds now.
    ///
    /// # Errors
    /// Why there is none, without a character of it.
    pub(super) async fn ask(&self) -> Result<Token, String> {
        let (text, limit) = match self {
            Self::Given(token) => return Ok(token.clone()),
            Self::File(path) => (
                tokio::time::timeout(READ_TIMEOUT, read(path)).await,
                READ_TIMEOUT,
            ),
            Self::Command(command) => (
                tokio::time::timeout(RUN_TIMEOUT, run(command)).await,
                RUN_TIMEOUT,
            ),
        };
        let text = text.map_err(|_| format!("no answer within {limit:?}"))??;
        Token::parse(text.expose_secret())
    }

    /// The token of a source that answers at once; `None` of one that does not.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn at_once(&self) -> Option<Result<Token, String>> {
        match self {
            Self::Given(token) => Some(Ok(token.clone())),
            Self::File(path) => Some(read_at_once(path)),
            Self::Command(_) => None,
        }
    }

    /// What it is, for a person.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Given(_) => "the configuration".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Command(_) => "token_command".to_owned(),
        }
    }
}

fn read_at_once(path: &Path) -> Result<Token, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let told = file.metadata().map_err(|error| error.to_string())?;
    well_kept(&told)?;
    let mut text = String::new();
    file.take(TOKEN_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Token::parse(&text)
}

async fn read(path: &Path) -> Result<SecretString, String> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| error.to_string())?;
    let told = file.metadata().await.map_err(|error| error.to_string())?;
    well_kept(&told)?;
    let mut text = String::new();
    file.take(TOKEN_BYTES_MAX)
        .read_to_string(&mut text)
        .await
        .map_err(|error| error.to_string())?;
    Ok(text.into())
}

/// What it says besides the token is not read: an error of such a program may hold a secret.
async fn run(command: &SecretString) -> Result<SecretString, String> {
    let mut child = Command::new("sh")
        .args(["-c", command.expose_secret()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("sh cannot be run: {error}"))?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(TOKEN_BYTES_MAX)
            .read_to_string(&mut text)
            .await
            .map_err(|_| "what it prints is no text".to_owned())?;
    }
    let text = SecretString::from(text);
    let ended = child.wait().await.map_err(|error| error.to_string())?;
    if ended.success() {
        Ok(text)
    } else {
        Err(format!("it failed ({ended}); run it by hand"))
    }
}
