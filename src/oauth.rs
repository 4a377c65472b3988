//! OAuth 2.0 with HubSpot: the authorization code, the grant that comes of it, and its access tokens.
//!
//! An [`App`] talks to HubSpot. A [`Store`] keeps each account's [`Grant`] on the disk, sealed. A
//! [`Keeper`] hands out access tokens, and is the one that refreshes them: in this process, and by a
//! lock beside the file among all processes of the machine.
//!
//! Time comes in as `now`. Nothing here is tried twice on its own.

mod app;
mod classify;
mod keeper;
mod pkce;
mod seal;
mod store;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

pub use self::app::App;
pub use self::keeper::{Keeper, finish, key_of};
pub use self::pkce::Attempt;
pub use self::seal::new_key;
pub use self::store::{Key, Lock, Store};
use crate::clock;
use crate::config::ConfigError;
use crate::message::AccountName;

/// How long before its end an access token is refreshed: of HubSpot's 30 minutes 5, and of a shorter
/// life the same share.
const AHEAD_MAX: Duration = Duration::from_mins(5);
const AHEAD_PART: u32 = 6;
/// A clock that was set back by more than this makes the token's end a guess.
const CLOCK_SLACK: Duration = Duration::from_mins(1);

/// What HubSpot has granted to an app for one portal.
#[derive(Clone, Debug)]
pub struct Grant {
    pub access_token: SecretString,
    /// Good until the app is uninstalled, or it is revoked.
    pub refresh_token: SecretString,
    pub issued_at: Timestamp,
    /// Of the access token.
    pub expires_at: Timestamp,
    /// The portal; older versions of the endpoint may not tell it.
    pub hub_id: Option<u64>,
    pub scopes: Option<Vec<String>>,
    /// Of the app that it was granted to.
    pub client_id: String,
}

/// What a call to HubSpot needs.
#[derive(Clone, Debug)]
pub struct Access {
    pub token: SecretString,
    /// When it is to be refreshed.
    pub refresh_due: Timestamp,
    pub expires_at: Timestamp,
    pub hub_id: Option<u64>,
    pub scopes: Option<Vec<String>>,
}

/// HubSpot's own words about a refusal, bounded, without any secret of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub status: u16,
    /// RFC 6749's word, such as `invalid_grant`.
    pub error: Option<String>,
    /// HubSpot's word, such as `BAD_REFRESH_TOKEN`.
    pub code: Option<String>,
    pub message: Option<String>,
}

/// Why there is no access token. Never holds a secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OAuthError {
    /// Nobody has logged in, or somebody has logged out.
    #[error("account `{account}` is not logged in: there is no {file}")]
    NotLoggedIn { account: AccountName, file: String },
    /// The account's own: revoked, expired, uninstalled. Only a new login helps.
    #[error("HubSpot takes this login no more: {words}")]
    InvalidGrant { words: Words },
    /// The app's configuration, whichever account met it first; no account is to blame.
    #[error("HubSpot does not know the app, or not like this: {words}")]
    InvalidClient { words: Words },
    /// Too many calls to the token endpoint.
    #[error("HubSpot's token endpoint limits its calls: {words}")]
    Limited {
        words: Words,
        retry_after: Option<Duration>,
    },
    /// No connection, or no answer. May heal.
    #[error("HubSpot's token endpoint does not answer: {why}")]
    Unreachable { why: String },
    /// Any other answer. May heal.
    #[error("HubSpot's token endpoint gives no token: {words}")]
    Failed { words: Words },
    /// Another process refreshes, or cannot store what it got. May heal.
    #[error("another process holds {file}")]
    Busy { file: String },
    /// A secret of the configuration cannot be had.
    #[error("{0}")]
    Config(ConfigError),
    /// The file cannot be read or written, or is not what it should be.
    #[error("the grant {file} {why}")]
    Store {
        file: String,
        why: String,
        hint: String,
    },
}

impl OAuthError {
    /// The next step for whoever reads the error.
    #[must_use]
    pub fn hint(&self, account: &AccountName) -> String {
        let login = format!("run `postrider auth login --account {account}`");
        match self {
            Self::NotLoggedIn { .. } => login,
            Self::InvalidGrant { .. } => format!(
                "the app was uninstalled, or the login was revoked or took too long: {login}"
            ),
            Self::InvalidClient { .. } => {
                "compare oauth.client_id, the client secret, oauth.redirect_url and oauth.scopes \
                 with the app's settings at HubSpot; logging in again does not help"
                    .into()
            }
            Self::Limited { .. } | Self::Unreachable { .. } | Self::Failed { .. } => {
                "it is tried again; if it stays so, look at status.hubspot.com".into()
            }
            Self::Busy { .. } => {
                "it is tried again; the other process tells what holds it up".into()
            }
            Self::Config(error) => error.hint.clone(),
            Self::Store { hint, .. } => hint.replace("LOGIN", &login),
        }
    }

    /// Whether it may pass without anybody's doing.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Limited { .. }
                | Self::Unreachable { .. }
                | Self::Failed { .. }
                | Self::Busy { .. }
        )
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        for word in [&self.error, &self.code, &self.message]
            .into_iter()
            .flatten()
        {
            write!(f, ", {word}")?;
        }
        Ok(())
    }
}

// === impl Grant ===

impl Grant {
    /// When its access token is to be refreshed: 5 minutes ahead, of HubSpot's 30.
    #[must_use]
    pub fn refresh_due(&self) -> Timestamp {
        let life = clock::until(self.issued_at, self.expires_at);
        let ahead = AHEAD_MAX.min(life / AHEAD_PART);
        self.expires_at.checked_sub(ahead).unwrap_or(Timestamp::MIN)
    }

    /// Whether its access token is to be refreshed before it is used.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        now >= self.refresh_due() || self.is_from_the_future(now)
    }

    /// Whether HubSpot still takes its access token, as far as the clock tells.
    #[must_use]
    pub fn is_alive(&self, now: Timestamp) -> bool {
        now < self.expires_at && !self.is_from_the_future(now)
    }

    fn is_from_the_future(&self, now: Timestamp) -> bool {
        clock::until(now, self.issued_at) > CLOCK_SLACK
    }

    #[must_use]
    pub fn access(&self) -> Access {
        Access {
            token: self.access_token.clone(),
            refresh_due: self.refresh_due(),
            expires_at: self.expires_at,
            hub_id: self.hub_id,
            scopes: self.scopes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_token_is_refreshed_ahead_of_its_end() {
        let at = |seconds: i64| Timestamp::from_second(1_790_000_000 + seconds).unwrap();
        let grant = |life| Grant {
            access_token: "a".into(),
            refresh_token: "r".into(),
            issued_at: at(0),
            expires_at: at(life),
            hub_id: None,
            scopes: None,
            client_id: "app".into(),
        };
        for (life, now, due, alive) in [
            (1800, 0, false, true),
            (1800, 1499, false, true),
            (1800, 1500, true, true),
            (1800, 1800, true, false),
            (60, 49, false, true),
            (60, 50, true, true),
            (0, 0, true, false),
            // The clock was set back: by a little, and by more.
            (1800, -59, false, true),
            (1800, -61, true, false),
        ] {
            let grant = grant(life);
            assert_eq!(grant.is_due(at(now)), due, "{life} {now}");
            assert_eq!(grant.is_alive(at(now)), alive, "{life} {now}");
        }
    }
}
