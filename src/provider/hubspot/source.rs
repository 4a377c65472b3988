//! Where a token comes from, and how it is asked for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
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

/// How long what nobody waited for any more is still news, from its beginning.
const KEPT_FOR: Duration = Duration::from_mins(1);

/// Where one token comes from.
#[derive(Debug)]
pub(super) enum Source {
    Given(Token),
    File(PathBuf, UnderWay),
    /// The text that it prints, by `sh -c`.
    Command(SecretString, UnderWay),
    /// Access tokens of a grant.
    OAuth(AccountName, Keeper),
}

/// A read or a run on a thread of its own, which nobody can break off: one at a time, so that a file
/// system that hangs holds up one thread, and not one more with each look.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Option<Begun>>);

#[derive(Debug)]
struct Begun {
    at: Instant,
    task: JoinHandle<Told>,
}

type Told = Result<Token, String>;

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
            TokenSource::File(path) => Some(Self::File(path.clone(), UnderWay::default())),
            TokenSource::Command(command) => {
                Some(Self::Command(command.clone(), UnderWay::default()))
            }
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
            Self::Command(..) if !refused => RUN_EVERY,
            Self::File(..) | Self::Command(..) | Self::OAuth(..) => READ_EVERY,
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
                Token::of(access).map_err(|why| self.trouble(why))
            }
            Self::File(path, under_way) => {
                let path = path.clone();
                let token = under_way.or(move || read(&path));
                let token = tokio::time::timeout(READ_TIMEOUT, token).await;
                let token =
                    token.unwrap_or_else(|_| Err(format!("no answer within {READ_TIMEOUT:?}")));
                token.map_err(|why| self.trouble(why))
            }
            Self::Command(command, under_way) => {
                let command = command.clone();
                let token = under_way.or(move || run(&command));
                token.await.map_err(|why| self.trouble(why))
            }
        }
    }

    /// The token of a source that answers at once; `None` of one that does not.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn at_once(&self) -> Option<Result<Token, String>> {
        match self {
            Self::Given(token) => Some(Ok(token.clone())),
            Self::File(path, _) => Some(read(path)),
            Self::Command(..) | Self::OAuth(..) => None,
        }
    }

    /// What it is, for a person.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Given(_) => "the configuration".to_owned(),
            Self::File(path, _) => path.display().to_string(),
            Self::Command(..) => "token_command".to_owned(),
            Self::OAuth(..) => "the grant of `postrider auth login`".to_owned(),
        }
    }

    /// What a person does where it tells no token.
    pub(super) fn next_step(&self) -> String {
        match self {
            Self::Given(_) => "set it to a service key or an app's token, as HubSpot shows it".into(),
            Self::File(path, _) => format!(
                "write a service key or an app's token into {}, and nothing else; let nobody but the \
                 worker's user read it (chmod 600)",
                path.display()
            ),
            Self::Command(..) => {
                "run the command line of accounts.NAME.token_command by hand, as the worker's user: it \
                 prints the token on stdout, and nothing else"
                    .into()
            }
            Self::OAuth(account, _) => format!(
                "run `postrider auth status --account {account}`: it tells what is wrong with the login"
            ),
        }
    }

    /// The last token stays in force.
    fn trouble(&self, why: String) -> Trouble {
        Trouble {
            why,
            hint: self.next_step(),
            pause: PauseReason::Unauthorized,
            ends: false,
        }
    }
}

impl Trouble {
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

impl UnderWay {
    /// What is under way tells, or, where nothing is, this work.
    async fn or(&self, work: impl FnOnce() -> Told + Send + 'static) -> Told {
        let mut begun = self.0.lock().await;
        begun.take_if(|last| last.task.is_finished() && last.at.elapsed() > KEPT_FOR);
        let it = begun.get_or_insert_with(|| Begun {
            at: Instant::now(),
            task: spawn_blocking(work),
        });
        // Whoever gives up leaves it where it is, for the next one.
        let ended = (&mut it.task).await;
        *begun = None;
        ended.map_err(|error| error.to_string())?
    }
}

/// Blocks.
fn read(path: &Path) -> Told {
    let text = SecretString::from(read_secret(path).map_err(|why| format!("it {why}"))?);
    Token::parse(text.expose_secret())
}

/// Blocks.
fn run(command: &SecretString) -> Told {
    let text = output_of(command.expose_secret());
    let text = text.map_err(|why| format!("the command {why}; run it by hand"))?;
    Token::parse(SecretString::from(text).expose_secret())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_hangs_holds_up_one_thread_and_tells_at_last() {
        let under_way = UnderWay::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let (free, held) = mpsc::channel::<()>();
        let mut held = Some(held);
        let mut look = || {
            let (begun, held) = (Arc::clone(&begun), held.take());
            under_way.or(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                // Only the first one has it.
                held.map(|held| held.recv());
                Token::parse("pat-na1-old")
            })
        };
        for _ in 0..3 {
            assert!(timeout(Duration::ZERO, look()).await.is_err());
        }
        drop(free);
        look().await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        look().await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }
}
