//! Where a token comes from, and how it is asked for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::token::Token;
use crate::config::{AccountConfig, TokenSource, output_of, read_secret};
use crate::message::AccountName;
use crate::oauth::{Keeper, OAuthError};
use crate::outcome::PauseReason;

/// How often a file is read at most. It is small, so reading it whole is as cheap as asking
/// whether it changed, and misses no change.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long a read may take: the file may stand on a network file system.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a command is run while its token does its work. A refused token has it run at once.
const RUN_EVERY: Duration = Duration::from_mins(5);

/// Where one token comes from.
#[derive(Debug)]
pub(super) enum Source {
    Given(Token),
    File(PathBuf),
    /// The text that it prints, by `sh -c`.
    Command(SecretString),
    /// Access tokens of a grant.
    OAuth(AccountName, Keeper),
}

/// Why a source tells no token. Never holds a secret.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) why: String,
    /// The next step.
    pub(super) hint: String,
    /// What the account is held back for, once it has no token at all.
    pub(super) pause: PauseReason,
    /// The token that it told before is good no more.
    pub(super) ends: bool,
}

impl Source {
    /// The source that the configuration names, if it does.
    ///
    /// # Errors
    /// Why it can never tell a token, without a character of it. A file that cannot be read is not yet
    /// known to be wrong for ever.
    pub(super) fn new(
        account: &AccountName,
        config: &AccountConfig,
        source: &TokenSource,
    ) -> Result<Option<Self>, String> {
        Ok(match source {
            TokenSource::Given(secret) => Some(Self::Given(Token::parse(secret.expose_secret())?)),
            TokenSource::File(path) => Some(Self::File(path.clone())),
            TokenSource::Command(command) => Some(Self::Command(command.clone())),
            TokenSource::OAuth(app) => {
                let keeper = Keeper::new(account, app, config);
                let keeper = keeper.map_err(|error| error.to_string())?;
                Some(Self::OAuth(account.clone(), keeper))
            }
            TokenSource::Missing => None,
        })
    }

    /// Whether its token may become another one.
    pub(super) fn may_change(&self) -> bool {
        !matches!(self, Self::Given(_))
    }

    /// Whether it is time to ask again.
    pub(super) fn is_due(&self, asked: Option<Instant>, refused: bool) -> bool {
        let wait = match self {
            Self::Given(_) => return asked.is_none(),
            Self::Command(_) if !refused => RUN_EVERY,
            Self::File(_) | Self::Command(_) | Self::OAuth(..) => READ_EVERY,
        };
        asked.is_none_or(|asked| asked.elapsed() >= wait)
    }

    /// The token that it holds `now`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn ask(&self, now: Timestamp) -> Result<Token, Trouble> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::OAuth(account, keeper) => {
                let access = keeper.access(now).await;
                let access = access.map_err(|error| Trouble::of(&error, account))?;
                Token::of(access).map_err(Trouble::new)
            }
            Self::File(path) => {
                let token = tokio::time::timeout(READ_TIMEOUT, read(path.clone())).await;
                let token =
                    token.unwrap_or_else(|_| Err(format!("no answer within {READ_TIMEOUT:?}")));
                token.map_err(Trouble::new)
            }
            Self::Command(command) => run(command.clone()).await.map_err(Trouble::new),
        }
    }

    /// The token of a source that answers at once; `None` of one that does not.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn at_once(&self) -> Option<Result<Token, String>> {
        match self {
            Self::Given(token) => Some(Ok(token.clone())),
            Self::File(path) => Some(read_at_once(path)),
            Self::Command(_) | Self::OAuth(..) => None,
        }
    }

    /// What it is, for a person.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Given(_) => "the configuration".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Command(_) => "token_command".to_owned(),
            Self::OAuth(..) => "the grant of `postrider auth login`".to_owned(),
        }
    }
}

impl Trouble {
    /// The last token stays in force.
    fn new(why: String) -> Self {
        Self {
            why,
            hint: "see to where the account's token comes from".into(),
            pause: PauseReason::Unauthorized,
            ends: false,
        }
    }

    fn of(error: &OAuthError, account: &AccountName) -> Self {
        let pause = match error {
            OAuthError::InvalidClient { .. } => PauseReason::App,
            OAuthError::NotLoggedIn { .. }
            | OAuthError::InvalidGrant { .. }
            | OAuthError::Limited { .. }
            | OAuthError::Unreachable { .. }
            | OAuthError::Failed { .. }
            | OAuthError::Busy { .. }
            | OAuthError::Config(_)
            | OAuthError::Store { .. } => PauseReason::Unauthorized,
        };
        Self {
            why: error.to_string(),
            hint: error.hint(account),
            pause,
            // While the last one is good, the keeper hands that one out.
            ends: true,
        }
    }
}

async fn read(path: PathBuf) -> Result<Token, String> {
    let ended = tokio::task::spawn_blocking(move || read_at_once(&path)).await;
    ended.map_err(|error| error.to_string())?
}

fn read_at_once(path: &Path) -> Result<Token, String> {
    let text = SecretString::from(read_secret(path).map_err(|why| format!("it {why}"))?);
    Token::parse(text.expose_secret())
}

async fn run(command: SecretString) -> Result<Token, String> {
    let run = move || output_of(command.expose_secret()).map(SecretString::from);
    let ended = tokio::task::spawn_blocking(run).await;
    let text = ended.map_err(|error| error.to_string())?;
    let text = text.map_err(|why| format!("the command {why}; run it by hand"))?;
    Token::parse(text.expose_secret())
}
