//! Who hands out an account's access token, and refreshes it ahead of its end.
//!
//! # One owner, and nothing lost
//!
//! A refresh token may be good once: HubSpot says to store any new one. So one process at a time
//! refreshes, under the lock of the store, and whoever waited for it reads what it has stored instead
//! of asking again. The new grant stands on the disk before its access token is used.
//!
//! Between HubSpot's answer and the rename lies one write of some KiB into a file that is there
//! already, with its room taken. A crash just then leaves the old refresh token; where HubSpot has not
//! changed it (as was seen) nothing is lost, and where it has, a login is. No order of steps avoids
//! that: HubSpot is told nothing before it has answered. A caller that gives up does not make it
//! longer: the refresh is a task of its own, and a process that ends in order waits for it ([`finish`]).
//!
//! Where the disk does not take the new grant, it stays in memory, with the lock held, so that no other
//! process spends the old refresh token; the write is tried again at each call. Its access token is
//! not used until then. It would work, but a worker that goes on looks well, and loses the account at
//! its next restart; one that stops at the old token's end says what is wrong while all can be saved.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::app::{App, lost};
use super::store::{Draft, Key, Lock, Store};
use super::{Access, Grant, OAuthError};
use crate::config::{AccountConfig, OAuthConfig};
use crate::message::AccountName;

/// How often the file is read at most: a login, a logout and another process's refresh are seen
/// within it.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long a caller that could go on with the old token waits for a new one.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long HubSpot is left alone after a refresh that failed: doubled each time, up to the second.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_MAX: Duration = Duration::from_mins(1);
/// How long a file or a key that cannot be read is left alone: the key may be a command's.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// How long an end waits in silence.
const SILENCE: Duration = Duration::from_secs(2);

/// The refreshes that HubSpot may have answered and no disk has yet. One for the process: whoever ends
/// it need not know which accounts it serves.
static UNDER_WAY: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

/// Lets no refresh begin any more, and waits until those under way are on the disk; `time_max` at most.
/// A second call does nothing.
pub async fn finish(time_max: Duration) {
    if !UNDER_WAY.close() {
        return;
    }
    let silence = SILENCE.min(time_max);
    if timeout(silence, UNDER_WAY.wait()).await.is_ok() {
        return;
    }
    tracing::warn!("waits for HubSpot's answer to a refresh, so that the new grant is kept");
    if timeout(time_max.saturating_sub(silence), UNDER_WAY.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            hint = "if the account is told to log in again, this is why",
            "ended while a refresh was under way: a new refresh token may be lost"
        );
    }
}

/// The access tokens of one account.
pub struct Keeper {
    inner: Arc<Inner>,
}

struct Inner {
    account: AccountName,
    app: App,
    config: Arc<OAuthConfig>,
    store: Store,
    seen: Mutex<Option<Seen>>,
    /// Held over a read or a refresh: one at a time in this process.
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// What was last read or got, and when.
struct Seen {
    grant: Grant,
    at: Instant,
}

#[derive(Default)]
struct Turn {
    key: Option<Arc<Key>>,
    /// What no disk has taken yet, and the lock that keeps others from the old one.
    unstored: Option<Unstored>,
    /// Of the file.
    unreadable: Option<(OAuthError, Instant)>,
    refused: Option<Refused>,
}

struct Unstored {
    old: Grant,
    new: Grant,
    lock: Lock,
    tried: Instant,
    why: Option<OAuthError>,
}

/// A refresh that failed.
struct Refused {
    error: OAuthError,
    /// The grant that it failed for: a new login is tried at once.
    issued_at: Timestamp,
    times: u32,
    until: Instant,
}

impl Keeper {
    /// Reads nothing yet.
    ///
    /// # Errors
    /// Where TLS lacks what it needs.
    pub fn new(
        account: &AccountName,
        config: &Arc<OAuthConfig>,
        way: &AccountConfig,
    ) -> Result<Self, OAuthError> {
        Ok(Self {
            inner: Arc::new(Inner {
                account: account.clone(),
                app: App::new(Arc::clone(config), way)?,
                config: Arc::clone(config),
                store: Store::new(account, &config.folder),
                seen: Mutex::default(),
                turn: Arc::default(),
            }),
        })
    }

    /// An access token that is good for some minutes yet, or, while a refresh fails or takes long, the
    /// old one up to its end.
    ///
    /// # Errors
    /// [`OAuthError`], when there is none that is good.
    pub async fn access(&self, now: Timestamp) -> Result<Access, OAuthError> {
        let inner = Arc::clone(&self.inner);
        if let Some(access) = inner.fresh(now) {
            return Ok(access);
        }
        let old = inner.alive(now);
        let turn = Arc::clone(&inner.turn).try_lock_owned().ok();
        if let (Some(old), None) = (&old, &turn) {
            // Another caller is at it.
            return Ok(old.clone());
        }
        // A caller that gives up must not break off between HubSpot's answer and the disk.
        let task = tokio::spawn(async move {
            let mut turn = match turn {
                Some(turn) => turn,
                None => Arc::clone(&inner.turn).lock_owned().await,
            };
            inner.access(&mut turn, now).await
        });
        let Some(old) = old else {
            return task.await.map_err(|error| lost(&error))?;
        };
        match timeout(WAIT_MAX, task).await {
            Ok(ended) => ended.map_err(|error| lost(&error))?,
            // It goes on; the next caller has its result.
            Err(_) => Ok(old),
        }
    }
}

impl Inner {
    /// What was read within the last second, if it is good.
    fn fresh(&self, now: Timestamp) -> Option<Access> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.as_ref()?;
        let good = seen.at.elapsed() < READ_EVERY && !seen.grant.is_due(now);
        good.then(|| seen.grant.access())
    }

    /// What was last read, if HubSpot still takes it.
    fn alive(&self, now: Timestamp) -> Option<Access> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = &seen.as_ref()?.grant;
        grant.is_alive(now).then(|| grant.access())
    }

    fn saw(&self, grant: &Grant) -> Access {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(Seen {
            grant: grant.clone(),
            at: Instant::now(),
        });
        grant.access()
    }

    async fn access(&self, turn: &mut Turn, now: Timestamp) -> Result<Access, OAuthError> {
        if let Some(access) = self.fresh(now) {
            return Ok(access);
        }
        if let Some(unstored) = turn.unstored.take() {
            let old = unstored.old.clone();
            return match self.store_at_last(turn, unstored).await {
                Ok(grant) => Ok(self.saw(&grant)),
                Err(error) => self.make_do(&old, error, now),
            };
        }
        let old = self.read(turn).await?;
        if !old.is_due(now) {
            turn.refused = None;
            return Ok(self.saw(&old));
        }
        let refused = turn.refused.as_ref();
        let of_this = refused.filter(|refused| refused.issued_at == old.issued_at);
        let times = of_this.map_or(0, |refused| refused.times);
        if let Some(refused) = of_this.filter(|refused| Instant::now() < refused.until) {
            return self.make_do(&old, refused.error.clone(), now);
        }
        match self.refresh(turn, now).await {
            Ok(new) => {
                turn.refused = None;
                Ok(self.saw(&new))
            }
            Err(error) => {
                self.tell(&old, &error, now);
                turn.refused = Some(Refused {
                    issued_at: old.issued_at,
                    times: times + 1,
                    until: Instant::now() + patience(&error, times),
                    error: error.clone(),
                });
                self.make_do(&old, error, now)
            }
        }
    }

    /// The old token, as long as it is good, or why there is no new one.
    fn make_do(
        &self,
        old: &Grant,
        error: OAuthError,
        now: Timestamp,
    ) -> Result<Access, OAuthError> {
        if old.is_alive(now) {
            return Ok(self.saw(old));
        }
        self.forget();
        Err(error)
    }

    fn forget(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = None;
    }

    /// Refreshes, unless another process has just done it.
    async fn refresh(&self, turn: &mut Turn, now: Timestamp) -> Result<Grant, OAuthError> {
        let lock = self.store.lock().await?;
        let old = self.read(turn).await?;
        if !old.is_due(now) {
            return Ok(old);
        }
        let store = self.store.clone();
        let (draft, lock) = spawn_blocking(move || store.draft(&lock).map(|draft| (draft, lock)))
            .await
            .map_err(|error| lost(&error))??;
        // In this order: whoever closes it after that waits for this one.
        let _under_way = UNDER_WAY.token();
        if UNDER_WAY.is_closed() {
            return Err(OAuthError::Unreachable {
                why: "this process ends, and asks no more".into(),
            });
        }
        let new = self.app.refresh(&old, now).await?;
        tracing::debug!(
            account = %self.account,
            expires_at = %new.expires_at,
            new_refresh_token = new.refresh_token.expose_secret() != old.refresh_token.expose_secret(),
            "refreshed the access token"
        );
        self.write(turn, Some(draft), Unstored::new(old, new, lock))
            .await
    }

    async fn store_at_last(&self, turn: &mut Turn, it: Unstored) -> Result<Grant, OAuthError> {
        let _under_way = UNDER_WAY.token();
        if let Some(why) = it.why.clone()
            && it.tried.elapsed() < READ_EVERY
        {
            turn.unstored = Some(it);
            return Err(why);
        }
        let it = Unstored::new(it.old, it.new, it.lock);
        self.write(turn, None, it).await
    }

    /// Puts a grant on the disk, or keeps it for the next try.
    async fn write(
        &self,
        turn: &mut Turn,
        draft: Option<Draft>,
        it: Unstored,
    ) -> Result<Grant, OAuthError> {
        let written = match self.key(turn).await {
            Ok(key) => {
                let store = self.store.clone();
                let write = move || {
                    let draft = draft.map_or_else(|| store.draft(&it.lock), Ok);
                    let written = draft.and_then(|draft| store.commit(draft, &key, &it.new));
                    (written, it)
                };
                spawn_blocking(write).await.map_err(|error| lost(&error))?
            }
            Err(error) => (Err(error), it),
        };
        match written {
            (Ok(()), it) => Ok(it.new),
            (Err(error), it) => {
                tracing::error!(
                    account = %self.account, %error, hint = error.hint(&self.account),
                    "a new grant cannot be stored: it is kept in memory, and the write is tried \
                     again; do not stop this worker before"
                );
                let why = Some(error.clone());
                turn.unstored = Some(Unstored { why, ..it });
                Err(error)
            }
        }
    }

    async fn read(&self, turn: &mut Turn) -> Result<Grant, OAuthError> {
        if let Some((error, until)) = &turn.unreadable
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let read = self.read_now(turn).await;
        turn.unreadable = match &read {
            Ok(_) | Err(OAuthError::NotLoggedIn { .. }) => None,
            Err(error) => {
                // The key may have been changed together with the file.
                turn.key = None;
                Some((error.clone(), Instant::now() + READ_PATIENCE))
            }
        };
        if read.is_err() {
            self.forget();
        }
        read
    }

    async fn read_now(&self, turn: &mut Turn) -> Result<Grant, OAuthError> {
        let key = self.key(turn).await?;
        let store = self.store.clone();
        let client_id = self.config.client_id.clone();
        spawn_blocking(move || store.read_of(&key, &client_id))
            .await
            .map_err(|error| lost(&error))?
    }

    async fn key(&self, turn: &mut Turn) -> Result<Arc<Key>, OAuthError> {
        if let Some(key) = &turn.key {
            return Ok(Arc::clone(key));
        }
        let key = key_of(&self.config).await?;
        Ok(Arc::clone(turn.key.insert(Arc::new(key))))
    }

    fn tell(&self, old: &Grant, error: &OAuthError, now: Timestamp) {
        tracing::warn!(
            account = %self.account, %error, hint = error.hint(&self.account),
            old_token = if old.is_alive(now) { "good" } else { "at its end" },
            expires_at = %old.expires_at,
            "the access token cannot be refreshed"
        );
    }
}

/// The key that seals, as the configuration tells it now: it may be a file's or a command's.
///
/// # Errors
/// [`OAuthError::Config`] where there is none.
pub async fn key_of(config: &Arc<OAuthConfig>) -> Result<Key, OAuthError> {
    let config = Arc::clone(config);
    spawn_blocking(move || config.key())
        .await
        .map_err(|error| lost(&error))?
        .map_err(OAuthError::Config)
}

fn patience(error: &OAuthError, times: u32) -> Duration {
    let mut told = Duration::ZERO;
    if let OAuthError::Limited { retry_after, .. } = error {
        told = retry_after.unwrap_or_default();
    }
    let doubled = PATIENCE.saturating_mul(1 << times.min(8));
    told.max(doubled.min(PATIENCE_MAX))
}

impl Unstored {
    fn new(old: Grant, new: Grant, lock: Lock) -> Self {
        Self {
            old,
            new,
            lock,
            tried: Instant::now(),
            why: None,
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("account", &self.inner.account)
            .finish_non_exhaustive()
    }
}
