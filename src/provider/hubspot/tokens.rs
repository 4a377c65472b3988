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
use crate::clock::{Clock, after};
use crate::message::AccountName;
use crate::outcome::PauseReason;
use crate::provider::{TokenTrouble, TokenTroubles};

/// How often it is looked whether there is another token.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When a token that was not proven is tried again. HubSpot may not have been well.
const AGAIN_AFTER: Duration = Duration::from_mins(1);
/// How late a refresh may be before that is trouble: longer than one call for it takes.
const LATE_AFTER: Duration = Duration::from_secs(30);

/// What an account's calls may go out under.
#[derive(Debug)]
pub(super) struct Tokens {
    account: AccountName,
    /// The one that is wanted first stands first.
    sources: Vec<(&'static str, Source)>,
    state: Mutex<State>,
    /// What operators see, brought up to date whenever something is learnt.
    troubles: TokenTroubles,
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
    unproven: Vec<Unproven>,
}

/// A candidate that was not proven.
#[derive(Debug)]
struct Unproven {
    token: Token,
    /// When it was tried last.
    tried: Instant,
    /// When it was tried first.
    since: Timestamp,
    why: String,
    /// The next step.
    hint: String,
}

#[derive(Debug, Default)]
struct Known {
    token: Option<Token>,
    asked: Option<Instant>,
    /// Why it told none, when it was asked last, and since when it tells none.
    trouble: Option<(Trouble, Timestamp)>,
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
            troubles: TokenTroubles::default(),
        })
    }

    /// What is wrong with its sources, for whoever is to see it.
    pub(super) fn troubles(&self) -> TokenTroubles {
        self.troubles.clone()
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
                    Err(trouble) => ended |= self.told_none(rank, (key, source), trouble, now),
                }
            }
        }
        self.show(now);
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
        unproven.retain(|it| {
            known
                .iter()
                .any(|known| known.token.as_ref() == Some(&it.token))
        });
    }

    /// Whether that was the token in force.
    fn told_none(
        &self,
        rank: usize,
        (key, source): (&str, &Source),
        trouble: Trouble,
        now: Timestamp,
    ) -> bool {
        let mut state = self.state();
        let Some(known) = state.known.get_mut(rank) else {
            return false;
        };
        let Trouble {
            why, hint, ends, ..
        } = &trouble;
        let last = known.trouble.as_ref();
        let since = last.map_or(now, |(_, since)| *since);
        if last.is_none_or(|(last, _)| last.why != *why) {
            tracing::warn!(
                account = %self.account, key, place = source.place(), why, hint,
                "no token is told there{}",
                if *ends || known.token.is_none() {
                    ""
                } else {
                    "; the last one stays in force"
                }
            );
        }
        let ends = *ends;
        known.trouble = Some((trouble, since));
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
    pub(super) fn adopt(&self, candidate: Candidate, now: Timestamp) {
        let mut state = self.state();
        state.refused = false;
        state.had_one = true;
        // What another key tells is as unproven as before.
        state.unproven.retain(|it| it.token != candidate.token);
        let old = state.in_force.replace(candidate);
        drop(state);
        self.show(now);
        if let Some(old) = old {
            old.token.retire(&self.account);
        }
    }

    /// The key that tells a candidate, and what stands behind it, for a person.
    pub(super) fn origin_of(&self, candidate: &Candidate) -> (&'static str, String) {
        let source = self.sources.get(candidate.rank);
        source.map_or(("", String::new()), |(key, source)| (key, source.place()))
    }

    /// A candidate was not proven. Whether that is news.
    pub(super) fn put_off(
        &self,
        Candidate { token, .. }: Candidate,
        (why, hint): (&str, &str),
        now: Timestamp,
    ) -> bool {
        let mut state = self.state();
        let since = state.unproven_of(&token).map(|it| it.since);
        state.unproven.retain(|it| it.token != token);
        // As many as there are sources may stand there at a time.
        let surplus = (state.unproven.len() + 1).saturating_sub(self.sources.len());
        state.unproven.drain(..surplus);
        state.unproven.push(Unproven {
            token,
            tried: Instant::now(),
            since: since.unwrap_or(now),
            why: why.to_owned(),
            hint: hint.to_owned(),
        });
        drop(state);
        self.show(now);
        since.is_none()
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
        let told = known.find_map(|known| Some(known.trouble.as_ref()?.0.clone()));
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

    /// What each key has told, or why it told none; the one wanted first stands first.
    pub(super) fn each(&self) -> Vec<(&'static str, Result<Token, Trouble>)> {
        let state = self.state();
        let keys = self.sources.iter().map(|(key, _)| *key);
        let told = |known: &Known| match (&known.trouble, &known.token) {
            (Some((trouble, _)), _) => Some(Err(trouble.clone())),
            (None, Some(token)) => Some(Ok(token.clone())),
            (None, None) => None,
        };
        keys.zip(&state.known)
            .filter_map(|(key, known)| Some((key, told(known)?)))
            .collect()
    }

    /// Brings what operators see up to date.
    fn show(&self, now: Timestamp) {
        let state = self.state();
        let all = self.sources.iter().zip(&state.known).enumerate();
        let troubles = all.filter_map(|(rank, ((key, source), known))| {
            let (why, hint, since) = state.trouble_of(known, now)?;
            // What another key tells may take over before this token ends.
            let in_force = state.in_force.as_ref().filter(|it| it.rank == rank);
            Some(TokenTrouble {
                key,
                place: source.place(),
                why,
                hint,
                since,
                until: in_force.and_then(|it| Some(it.token.granted()?.expires_at)),
            })
        });
        self.troubles.replace(troubles.collect());
    }

    /// Never held over an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn was_put_off(&self, token: &Token) -> bool {
        let it = self.unproven_of(token);
        it.is_some_and(|it| it.tried.elapsed() < AGAIN_AFTER)
    }

    fn unproven_of(&self, token: &Token) -> Option<&Unproven> {
        self.unproven.iter().find(|it| it.token == *token)
    }

    /// What is wrong with what a source tells, the next step, and since when. That HubSpot refuses the
    /// token in force is no matter of a source: it is a pause.
    fn trouble_of(&self, known: &Known, now: Timestamp) -> Option<(String, String, Timestamp)> {
        if let Some((trouble, since)) = &known.trouble {
            return Some((trouble.why.clone(), trouble.hint.clone(), *since));
        }
        let token = known.token.as_ref()?;
        if let Some(it) = self.unproven_of(token) {
            let why = format!("it is not proven: {}", it.why);
            return Some((why, it.hint.clone(), it.since));
        }
        let due = token.granted()?.refresh_due;
        // Whoever renews it hands the old one out meanwhile, so that only the clock tells.
        (after(due, LATE_AFTER) <= now).then(|| {
            (
                "it is to be renewed, and is not".to_owned(),
                "the log says why (`the access token cannot be refreshed`), and `postrider auth \
                 status` how the login stands"
                    .to_owned(),
                due,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(key: &'static str) -> (&'static str, Source) {
        (
            key,
            Source::Given(Token::parse(&format!("{key}-text")).unwrap()),
        )
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_began_when_it_was_first_met() {
        let sources = vec![given("next_token"), given("token")];
        let tokens = Tokens::new(&AccountName::default(), sources).unwrap();
        let troubles = tokens.troubles();
        tokens.look(at(0)).await;
        assert_eq!(troubles.list(), []);
        let next = tokens.candidate().unwrap();
        assert!(tokens.put_off(next, ("no answer", "wait"), at(10)));
        assert!(tokens.candidate().is_none());
        tokio::time::advance(AGAIN_AFTER).await;
        let next = tokens.candidate().unwrap();
        assert!(!tokens.put_off(next.clone(), ("status 401", "correct it"), at(70)));
        let expected = TokenTrouble {
            key: "next_token",
            place: "the configuration".into(),
            why: "it is not proven: status 401".into(),
            hint: "correct it".into(),
            since: at(10),
            until: None,
        };
        assert_eq!(troubles.list(), std::slice::from_ref(&expected));
        // That another key's token takes over does not prove it.
        let other = Candidate {
            token: Token::parse("another").unwrap(),
            rank: 1,
        };
        tokens.adopt(other, at(80));
        assert_eq!(troubles.list(), [expected]);
        tokens.adopt(next, at(90));
        assert_eq!(troubles.list(), []);
    }
}
