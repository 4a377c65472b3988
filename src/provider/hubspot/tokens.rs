//! The token in force, and the one that stands ready to take its place.
//!
//! Where a token comes from may tell another one at any time. That one is a *candidate*: it is used
//! only after a probe has proven it, and until then every call goes out under the one in force. A
//! call keeps the token with which it went out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::source::{Source, Trouble};
use super::token::Token;
use crate::clock::Clock;
use crate::message::AccountName;
use crate::outcome::PauseReason;

/// How often it is looked whether there is another token.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When a token that was not proven is tried again. HubSpot may not have been well.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// What an account's calls may go out under.
#[derive(Debug)]
pub(super) struct Tokens {
    account: AccountName,
    /// The one that is wanted first stands first.
    sources: Vec<(&'static str, Source)>,
    state: Mutex<State>,
}

/// A token of one of the sources.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) token: Token,
    /// Of its source: 0 is wanted first.
    rank: usize,
}

#[derive(Debug, Default)]
struct State {
    in_force: Option<Candidate>,
    /// There has been one.
    had_one: bool,
    /// HubSpot has refused the one in force.
    refused: bool,
    /// What each source told last, and when it was asked.
    known: Vec<Known>,
    /// Candidates that were not proven, and when.
    unproven: Vec<(Token, Instant)>,
}

#[derive(Debug, Default)]
struct Known {
    token: Option<Token>,
    asked: Option<Instant>,
    /// Why it told none, when it was asked last.
    trouble: Option<Trouble>,
}

impl Tokens {
    /// # Errors
    /// Which source holds no token and never will, and why.
    pub(super) fn new(
        account: &AccountName,
        sources: Vec<(&'static str, Source)>,
    ) -> Result<Self, (String, String)> {
        let mut state = State::default();
        for (_, source) in &sources {
            let token = match source.at_once() {
                Some(told) => Some(told.map_err(|why| (source.place(), why))?),
                None => None,
            };
            let asked = token.is_some().then(Instant::now);
            let trouble = None;
            state.known.push(Known {
                token,
                asked,
                trouble,
            });
        }
        // The last one is what stood there before: it works until another one is proven.
        let known = state.known.iter().enumerate().rev();
        state.in_force = known
            .filter_map(|(rank, known)| Some((rank, known.token.clone()?)))
            .map(|(rank, token)| Candidate { token, rank })
            .next();
        state.had_one = state.in_force.is_some();
        Ok(Self {
            account: account.clone(),
            sources,
            state: Mutex::new(state),
        })
    }

    /// The token for the next call.
    pub(super) fn in_force(&self) -> Option<Token> {
        let state = self.state();
        state.in_force.as_ref().map(|it| it.token.clone())
    }

    /// Asks each source that is due for what it holds `now`. Whether the token in force is good no more.
    pub(super) async fn look(&self, now: Timestamp) -> bool {
        let mut ended = false;
        for (rank, (key, source)) in self.sources.iter().enumerate() {
            if self.is_due(rank, source) {
                match source.ask(now).await {
                    Ok(token) => self.told(rank, token),
                    Err(trouble) => ended |= self.told_none(rank, (key, source), trouble),
                }
            }
        }
        ended
    }

    fn told(&self, rank: usize, token: Token) {
        let mut state = self.state();
        let Some(known) = state.known.get_mut(rank) else {
            return;
        };
        known.token = Some(token);
        if known.trouble.take().is_some() {
            tracing::info!(account = %self.account, "a token is told again");
        }
        // What stands nowhere any more is news when it comes back.
        let State {
            known, unproven, ..
        } = &mut *state;
        unproven.retain(|(other, _)| known.iter().any(|it| it.token.as_ref() == Some(other)));
    }

    /// Whether that was the token in force.
    fn told_none(&self, rank: usize, (key, source): (&str, &Source), trouble: Trouble) -> bool {
        let mut state = self.state();
        let Some(known) = state.known.get_mut(rank) else {
            return false;
        };
        let Trouble {
            why, hint, ends, ..
        } = &trouble;
        if known.trouble.as_ref().is_none_or(|last| last.why != *why) {
            tracing::warn!(
                account = %self.account, key, place = source.place(), why, hint,
                "no token is told there{}",
                if *ends { "" } else { "; the last one stays in force" }
            );
        }
        let ends = *ends;
        known.trouble = Some(trouble);
        if !ends {
            return false;
        }
        known.token = None;
        let was_in_force = state.in_force.as_ref().is_some_and(|it| it.rank == rank);
        if was_in_force {
            state.in_force = None;
        }
        was_in_force
    }

    /// Whether it is time to ask; one caller at a time is told so.
    fn is_due(&self, rank: usize, source: &Source) -> bool {
        let mut state = self.state();
        let refused = state.refused || state.in_force.is_none();
        let Some(known) = state.known.get_mut(rank) else {
            return false;
        };
        let due = source.is_due(known.asked, refused);
        if due {
            known.asked = Some(Instant::now());
        }
        due
    }

    /// What is wanted rather than the token in force, and was not found wanting just now. Once that one
    /// is refused, any other will do.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        let state = self.state();
        let in_force = state.in_force.as_ref();
        let last = match in_force {
            Some(it) if !state.refused => it.rank,
            Some(_) | None => usize::MAX,
        };
        let known = state.known.iter().enumerate();
        known
            .filter(|(rank, _)| *rank <= last)
            .filter_map(|(rank, known)| Some((rank, known.token.clone()?)))
            .map(|(rank, token)| Candidate { token, rank })
            .filter(|other| in_force.is_none_or(|it| it.token != other.token))
            .find(|other| !state.was_put_off(&other.token))
    }

    /// Resolves when there is a candidate, or the token in force has ended.
    pub(super) async fn changed(&self, clock: Clock) {
        let still = (self.sources.iter()).all(|(_, source)| !source.may_change());
        if still && self.sources.len() < 2 {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.look(clock.now()).await || self.candidate().is_some() {
                return;
            }
        }
    }

    /// A candidate is proven: calls go out under it from now on, and those under way end under the
    /// token with which they began.
    pub(super) fn adopt(&self, candidate: Candidate) {
        let mut state = self.state();
        state.refused = false;
        state.had_one = true;
        state.unproven.clear();
        let old = state.in_force.replace(candidate);
        drop(state);
        if let Some(old) = old {
            old.token.retire(&self.account);
        }
    }

    /// A candidate was not proven. Whether that is news.
    pub(super) fn put_off(&self, Candidate { token, .. }: Candidate) -> bool {
        let mut state = self.state();
        let known = state.unproven.len();
        state.unproven.retain(|(other, _)| *other != token);
        let is_new = state.unproven.len() == known;
        // As many as there are sources may stand there at a time.
        let surplus = (state.unproven.len() + 1).saturating_sub(self.sources.len());
        state.unproven.drain(..surplus);
        state.unproven.push((token, Instant::now()));
        is_new
    }

    /// HubSpot has refused a token, or taken it.
    pub(super) fn heard(&self, token: &Token, refused: bool) {
        let mut state = self.state();
        if state.in_force.as_ref().is_some_and(|it| it.token == *token) {
            state.refused = refused;
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        let state = self.state();
        state.refused || state.in_force.is_none()
    }

    /// What a candidate is called in the log: the first one takes no other's place.
    pub(super) fn name_of_next(&self) -> &'static str {
        if self.state().had_one {
            "another token"
        } else {
            "the token"
        }
    }

    /// Why there is no token at all: what a source has told, or else that none was asked yet.
    pub(super) fn trouble(&self) -> Trouble {
        let state = self.state();
        let mut known = state.known.iter().rev();
        let told = known.find_map(|known| known.trouble.clone());
        told.unwrap_or_else(|| {
            let last = self.sources.last().map(|(_, source)| source);
            let place = last.map_or_else(String::new, Source::place);
            let step = last.map_or_else(String::new, Source::next_step);
            Trouble {
                why: format!("{place} was not asked for the token yet"),
                hint: format!("it is asked within seconds; if it stays so, {step}"),
                pause: PauseReason::Unauthorized,
                ends: false,
            }
        })
    }

    /// Every token that is known, with the key that tells it; the one wanted first stands first.
    pub(super) fn all(&self) -> Vec<(&'static str, Token)> {
        let state = self.state();
        let keys = self.sources.iter().map(|(key, _)| *key);
        keys.zip(&state.known)
            .filter_map(|(key, known)| Some((key, known.token.clone()?)))
            .collect()
    }

    /// Never held over an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn was_put_off(&self, token: &Token) -> bool {
        let tried = self.unproven.iter().find(|(other, _)| other == token);
        tried.is_some_and(|(_, at)| at.elapsed() < AGAIN_AFTER)
    }
}
