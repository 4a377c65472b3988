//! HubSpot's Single Send as a pure state machine.
//!
//! A call and the time go in; an answer, and how long it takes, come out. No I/O, no clock, no
//! log: the same calls at the same times with the same seed get the same answers.
//!
//! Where HubSpot is silent, the model chooses (and says so at the place):
//! the answer to a `sendId` used before, what a refused call counts against a limit, which checks
//! come first, whether a day's limit concerns sends, and every 404 and 405.

mod account;
mod books;
mod emails;
mod letter;
mod limits;
mod oauth;
mod sends;

use std::time::Duration;

use jiff::Timestamp;

pub use self::account::Tokens;
use self::books::Books;
pub use self::books::Stats;
use self::letter::Letter;
use self::limits::Limits;
pub use self::limits::PORTAL;
use self::oauth::OAuth;
pub use self::oauth::{Counts as OAuthCounts, OAuthControl};
use super::Options;
use super::answer::{Answer, Answers, Bucket, Call, Operation};
use super::faults::{CallFault, Faults, Strike};
use super::memory::{Key, Manner, SendIds, Tries};
use super::status::{NEVER, Results, Ticket};
use crate::clock;

/// By how much the fault `slow` delays an answer.
pub const SLOW: Duration = Duration::from_secs(10);
/// By how much the fault `late` delays a final result.
pub const LATE: Duration = Duration::from_mins(1);
/// `Retry-After` of a 477 that no time fault puts an end to.
const MIGRATION: Duration = Duration::from_secs(5);

/// All that the stand-in HubSpot knows.
#[derive(Debug)]
pub struct Model {
    options: Options,
    tokens: Tokens,
    oauth: OAuth,
    faults: Faults,
    faults_since: Timestamp,
    rng: fastrand::Rng,
    started: Timestamp,
    now: Timestamp,
    limits: Limits,
    send_ids: SendIds,
    tries: Tries,
    results: Results,
    serial: u32,
    books: Books,
}

/// What becomes of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// From the arrival to the end.
    pub after: Duration,
    pub ending: Ending,
}

/// How a call ends for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Answer(Answer),
    /// The connection is reset before a byte of an answer.
    Cut,
    /// No answer ever comes.
    Never,
}

/// One call while it is dealt with.
struct Turn<'a> {
    now: Timestamp,
    call: &'a Call<'a>,
    operation: Operation,
    bucket: Bucket,
    portal: u32,
    answers: Answers,
    /// Of a send: its body, or what is wrong with it.
    letter: Option<Result<Letter, String>>,
    /// Of an accepted send.
    accepted: Option<Accepted>,
}

#[derive(Clone, Copy)]
struct Accepted {
    ticket: Ticket,
    duplicate: bool,
}

// === impl Model ===

impl Model {
    #[must_use]
    pub fn new(options: Options, now: Timestamp) -> Self {
        let tokens = match &options.token {
            Some(token) => Tokens::These(vec![token.clone()]),
            None => Tokens::Any,
        };
        Self {
            tokens,
            oauth: OAuth::default(),
            faults: options.faults.clone(),
            faults_since: now,
            rng: fastrand::Rng::with_seed(options.seed),
            started: now,
            now,
            limits: Limits::new(&options),
            send_ids: SendIds::default(),
            tries: Tries::default(),
            results: Results::default(),
            serial: 0,
            books: Books::default(),
            options,
        }
    }

    /// Forgets everything, and begins anew with the options of the start.
    pub fn reset(&mut self, now: Timestamp) {
        *self = Self::new(self.options.clone(), now);
    }

    /// Replaces the faults; their times count from `now`.
    pub fn set_faults(&mut self, now: Timestamp, faults: Faults) {
        self.faults = faults;
        self.faults_since = now;
    }

    pub fn set_tokens(&mut self, tokens: Tokens) {
        self.tokens = tokens;
    }

    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// One call that arrives `now`. Time never runs backwards: an earlier `now` is taken for the
    /// last one.
    pub fn call(&mut self, now: Timestamp, call: &Call<'_>) -> Reply {
        self.now = now.max(self.now);
        if let Some(reply) = self.oauth_call(call) {
            return reply;
        }
        let operation = Operation::of(call.method, call.path);
        let is_send = matches!(operation, Operation::Send(_));
        let mut turn = Turn {
            now: self.now,
            call,
            bucket: operation.bucket(),
            portal: self.limits.portal_of(bearer(call).unwrap_or_default()),
            operation,
            answers: Answers {
                correlation_id: self.correlation_id(),
            },
            letter: is_send.then(|| Letter::read(call.body)),
            accepted: None,
        };
        self.limits.count(turn.now, turn.portal, turn.bucket);
        let strike = self.strike(&turn);
        let mut after = self.options.latency.draw(&mut self.rng);
        if strike.is_some_and(|strike| strike.fault == CallFault::Slow) {
            after += SLOW;
        }
        let (mut answer, manner) = self.answer(&mut turn, strike);
        answer
            .headers
            .extend(self.limits.headers(turn.portal, turn.bucket));
        self.books.record(&turn, answer.status, manner);
        let ending = match manner {
            Manner::Cut | Manner::CutBefore => Ending::Cut,
            Manner::Never => Ending::Never,
            Manner::Answered => Ending::Answer(answer),
        };
        Reply { after, ending }
    }

    /// What strikes this call: what its address asks for, or else what the faults say.
    fn strike(&mut self, turn: &Turn<'_>) -> Option<Strike> {
        if let Some(Ok(letter)) = &turn.letter
            && let Some(fault) = letter.magic.call
        {
            let key = Key::new(turn.portal, letter.send_id.as_ref().unwrap_or(&letter.to));
            let times = letter.magic.times;
            if times.is_none_or(|times| self.tries.count(key) <= times) {
                return Some(Strike {
                    fault,
                    remaining: None,
                });
            }
        }
        let strike = self.faults.call(self.faults_age(), &mut self.rng)?;
        // A scope is missing for sending only; account and token can be read without it.
        let spared = strike.fault == CallFault::Http(403) && turn.bucket == Bucket::Api;
        (!spared).then_some(strike)
    }

    /// The answer, and how the call ends.
    fn answer(&mut self, turn: &mut Turn<'_>, strike: Option<Strike>) -> (Answer, Manner) {
        let Some(Strike { fault, remaining }) = strike else {
            return (self.process(turn), Manner::Answered);
        };
        let left = remaining.unwrap_or(MIGRATION);
        let of_status = |turn: &Turn<'_>, status| {
            turn.answers
                .of_status(status, &turn.operation, turn.portal, left)
        };
        let answer = match fault {
            CallFault::Http(status) => of_status(turn, status),
            CallFault::ServerError => of_status(turn, self.one_of([500, 502, 503, 504])),
            CallFault::PlainText => turn.answers.plain_invalid(),
            CallFault::Daily => turn.answers.daily_limit(),
            CallFault::CutBefore => return (of_status(turn, 502), Manner::CutBefore),
            CallFault::Slow => self.process(turn),
            CallFault::Cut => return (self.process(turn), Manner::Cut),
            CallFault::Never => return (self.process(turn), Manner::Never),
            CallFault::ServerErrorAfter => {
                self.process(turn);
                let status = self.one_of([502, 504]);
                of_status(turn, status)
            }
        };
        (answer, Manner::Answered)
    }

    /// HubSpot at its best: who asks, how often, and then what.
    ///
    /// In which order HubSpot checks is not documented.
    fn process(&mut self, turn: &mut Turn<'_>) -> Answer {
        if turn.call.query.is_some_and(has_api_key) {
            return turn.answers.api_key();
        }
        let is_token_info = turn.operation == Operation::TokenInfo;
        if !is_token_info && let Some(refusal) = self.not_let_in(turn) {
            return refusal;
        }
        let may_send = bearer(turn.call).is_none_or(account::may_send);
        if !may_send && turn.operation.wants_scope() {
            return turn.answers.missing_scopes(turn.operation.scopes());
        }
        if let Some(refusal) = self.limits.refusal(turn.portal, turn.bucket, &turn.answers) {
            return refusal;
        }
        match turn.operation.clone() {
            Operation::Send(_) => self.send(turn),
            Operation::Status(id) => self.look_up(turn, &id),
            Operation::AccountDetails => turn.answers.json(200, &self.account(turn)),
            Operation::Email(id) => emails::answer(turn, &id),
            Operation::ApiUsage => turn.answers.json(200, &self.usage(turn)),
            Operation::TokenInfo => self.token_info(turn),
            Operation::WrongMethod => turn.answers.wrong_method(),
            Operation::Unknown => turn.answers.no_such_path(),
        }
    }

    /// Why the bearer is refused. One that was issued here is good until its end, whatever other
    /// tokens are.
    fn not_let_in(&self, turn: &Turn<'_>) -> Option<Answer> {
        let token = bearer(turn.call).unwrap_or_default();
        let needed = turn.operation.scopes();
        match self.oauth.access(token, turn.now) {
            None if self.tokens.accept(token) => None,
            None => Some(turn.answers.unauthorized()),
            Some(Err(since)) => Some(turn.answers.expired(since, turn.now)),
            Some(Ok(scopes)) => {
                let has = |scope: &&str| scopes.iter().any(|granted| granted == scope);
                let lacks = turn.bucket == Bucket::Send && !needed.iter().any(has);
                lacks.then(|| turn.answers.missing_scopes(needed))
            }
        }
    }

    fn faults_age(&self) -> Duration {
        clock::until(self.faults_since, self.now)
    }

    fn one_of<const N: usize>(&mut self, statuses: [u16; N]) -> u16 {
        statuses.get(self.rng.usize(..N)).copied().unwrap_or(500)
    }

    fn correlation_id(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes())
            .into_uuid()
            .to_string()
    }
}

fn bearer<'a>(call: &Call<'a>) -> Option<&'a str> {
    let (scheme, token) = call.authorization?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// An API key beats a token that comes with it, even an empty one (hubspot-api-ruby#181).
fn has_api_key(query: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair == "hapikey" || pair.starts_with("hapikey="))
}

fn millis_of(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests;
