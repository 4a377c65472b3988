//! The provider: whoever sends the mail. HubSpot, or a scripted one in a simulation.

pub mod hubspot;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

pub use crate::client::{Departure, Fence, NotLeft, connecting};
use crate::message::SendRequest;
use crate::outcome::{Failure, LookUp, Outcome};

/// How many calls one probe makes at most: each one counts against the account's quota.
pub const PROBE_CALLS: u32 = 2;
/// The keys that may tell an account's tokens.
pub const TOKEN_KEYS: [&str; 2] = [hubspot::TOKEN, hubspot::NEXT_TOKEN];

/// One account at HubSpot: its address, its token, its API.
pub trait Provider: Send + Sync + 'static {
    /// One call to Single Send under this `send_id`. Never retries by itself.
    fn send(&self, request: &SendRequest, send_id: &str) -> impl Future<Output = Outcome> + Send;

    /// Asks for the final result of an accepted send.
    fn look_up(&self, status_id: &str) -> impl Future<Output = LookUp> + Send;

    /// Asks whether the account works, without sending mail. Where another token stands ready to take
    /// the place of the one in force, it is that one that is asked about, and used from then on if it
    /// is good.
    fn probe(&self) -> impl Future<Output = Probe> + Send;

    /// Resolves when another token stands ready.
    fn token_changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// What is wrong with where its tokens come from: a view that changes as that does.
    fn token_troubles(&self) -> TokenTroubles {
        TokenTroubles::default()
    }

    /// The statuses that probes heard since the last time, one for each call; `None` where no answer
    /// came.
    fn probe_answers(&self) -> Vec<Option<u16>> {
        Vec::new()
    }

    /// The rate limits that the answers since the last time told.
    fn rate_limits(&self) -> RateLimits {
        RateLimits::default()
    }
}

/// Why a token that should take over does not, or may not be told any more. The one in force may do its
/// work meanwhile. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTrouble {
    /// Of [`TOKEN_KEYS`].
    pub key: &'static str,
    /// What tells it, for a person: a file, a command.
    pub place: String,
    pub why: String,
    /// The next step.
    pub hint: String,
    pub since: Timestamp,
    /// When the token in force ends, where that is known and only this key can renew it.
    pub until: Option<Timestamp>,
}

/// The troubles of an account's tokens as they stand. All clones show the same.
#[derive(Clone, Debug, Default)]
pub struct TokenTroubles(Arc<Mutex<Vec<TokenTrouble>>>);

impl TokenTroubles {
    #[must_use]
    pub fn list(&self) -> Vec<TokenTrouble> {
        self.lock().clone()
    }

    /// What stands now, in the place of what stood.
    pub fn replace(&self, troubles: Vec<TokenTrouble>) {
        *self.lock() = troubles;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<TokenTrouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// HubSpot's limits as an answer told them, which counts everybody who calls. Its specs exempt
/// sends from them, so that an answer to a send may tell none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Of the window that a send counted in.
    pub send: Option<RollingLimit>,
    /// Of the window that any other call counted in.
    pub api: Option<RollingLimit>,
    pub day: Option<DailyLimit>,
}

/// A rolling window: `X-HubSpot-RateLimit-Max`, `-Remaining` and `-Interval-Milliseconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollingLimit {
    pub max: u32,
    pub remaining: u32,
    pub window: Duration,
}

/// The day: `X-HubSpot-RateLimit-Daily` and `-Daily-Remaining`; OAuth apps are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyLimit {
    pub max: u64,
    pub remaining: u64,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// The token opens this account.
    Open(Portal),
    /// The token opens an account that is not the configured one; in words, which.
    Wrong(Portal, String),
    /// HubSpot answered and the account does not work.
    Shut(Failure),
    /// Nothing could be learnt this way: only a real send can tell, and must not where an account is
    /// pinned.
    Inconclusive(Failure),
    /// Another token stood ready and is none to use: the one in force stays, and was not asked about.
    Kept,
}

/// Which account a token must open, as far as that is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    pub portal_id: Option<u64>,
    pub account_type: Option<String>,
}

/// Whether an account is the pinned one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// In words, what is another one.
    Differs(String),
    /// HubSpot did not tell what is pinned.
    Untold,
}

impl Pinned {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn fit(&self, portal: &Portal) -> Fit {
        if let (Some(wanted), Some(opened)) = (self.portal_id, portal.portal_id)
            && wanted != opened
        {
            return Fit::Differs(format!(
                "the token opens portal {opened}, and portal_id is {wanted}"
            ));
        }
        if let (Some(wanted), Some(opened)) = (&self.account_type, &portal.account_type)
            && wanted != opened
        {
            return Fit::Differs(format!(
                "the token opens an account of the type {opened}, and account_type is {wanted}"
            ));
        }
        let portal_is_told = self.portal_id.is_none() || portal.portal_id.is_some();
        let type_is_told = self.account_type.is_none() || portal.account_type.is_some();
        if portal_is_told && type_is_told {
            Fit::Fits
        } else {
            Fit::Untold
        }
    }
}

/// The HubSpot account that a token opens.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Portal {
    pub portal_id: Option<u64>,
    /// `STANDARD`, `DEVELOPER_TEST`, `SANDBOX`, `APP_DEVELOPER`.
    pub account_type: Option<String>,
    /// IANA name of the account's time zone: its day ends at its midnight.
    pub time_zone: Option<String>,
    /// What the token may do; `None` when HubSpot did not tell.
    pub scopes: Option<Vec<String>>,
}
