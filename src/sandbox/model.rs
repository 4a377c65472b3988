//! HubSpot's Single Send as a pure state machine.
//!
//! A call and the time go in; an answer, and how long it takes, come out. No I/O, no clock, no
//! log: the same calls at the same times with the same seed get the same answers.
//!
//! Where HubSpot is silent, the model chooses (and says so at the place):
//! the answer to a `sendId` used before, what a refused call counts against a limit, which checks
//! come first, whether a day's limit concerns sends, and every 404 and 405.

mod letter;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};

use self::letter::Letter;
use super::answer::{APP_ID, Answer, Answers, Bucket, Call, Operation};
use super::faults::{CallFault, Faults, MailFault, Strike};
use super::memory::{
    Attempt, CallLog, CallRecord, Forgotten, Key, Mail, MailBook, Manner, SendIds, Tries,
};
use super::status::{NEVER, SEND_RESULTS, Ticket, is_mailed, millis};
use super::window::Window;
use super::{Limit, Options};
use crate::clock;

/// The portal that a token opens, unless it ends in `-portal-N`.
pub const PORTAL: u32 = 62_515;
/// By how much the fault `slow` delays an answer.
pub const SLOW: Duration = Duration::from_secs(10);
/// By how much the fault `late` delays a final result.
pub const LATE: Duration = Duration::from_mins(1);
/// `Retry-After` of a 477 that no time fault puts an end to.
const MIGRATION: Duration = Duration::from_secs(5);
/// Over what calls are counted where no limit is set: HubSpot's own window.
const WINDOW: Duration = Duration::from_secs(10);
/// The day's limit that `api-usage` tells where none is set: HubSpot's professional tier.
const DAILY: u64 = 625_000;
/// Portals with windows of their own; more share the first.
const PORTALS_MAX: usize = 1_000;
/// Different `X_…` results; more than that are `VALIDATION_FAILED`.
const NEW_RESULTS_MAX: usize = 1_000;

/// All that the stand-in HubSpot knows.
#[derive(Debug)]
pub struct Model {
    options: Options,
    tokens: Tokens,
    faults: Faults,
    faults_since: Timestamp,
    rng: fastrand::Rng,
    started: Timestamp,
    now: Timestamp,
    portals: BTreeMap<u32, Portal>,
    send_ids: SendIds,
    tries: Tries,
    mails: MailBook,
    calls: CallLog,
    new_results: Vec<String>,
    serial: u32,
    tally: Tally,
}

/// Which bearer tokens are accepted.
#[derive(Clone, Debug)]
pub enum Tokens {
    Any,
    /// None of them, when the list is empty.
    These(Vec<SecretString>),
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

/// The limits of one portal.
#[derive(Debug)]
struct Portal {
    send: Window,
    api: Window,
    day_ends: Timestamp,
    day_used: u64,
}

/// Counts since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tally {
    /// Calls of all kinds; those for sends; all others.
    calls: u64,
    send_calls: u64,
    api_calls: u64,
    /// Sends that were answered 200, or would have been.
    accepted: u64,
    /// Emails that left (`SENT` or `QUEUED`).
    mails: u64,
    /// Different `sendId`s among them.
    send_ids_mailed: u64,
    /// Accepted sends that mailed nothing since their `sendId` had been used.
    duplicates: u64,
    /// Accepted sends that mailed nothing for another reason.
    refused: u64,
    throttled: u64,
    unauthorized: u64,
    cut: u64,
    never: u64,
    /// By HTTP status; calls that were cut or never answered are not among them.
    answers: BTreeMap<u16, u64>,
    forgotten: Forgotten,
}

/// The numbers of `/_sandbox/stats`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    started_at: Timestamp,
    now: Timestamp,
    #[serde(flatten)]
    tally: Tally,
    windows: BTreeMap<&'static str, WindowStats>,
    /// Calls of today, of the busiest portal.
    today: DayStats,
    faults: String,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WindowStats {
    limit: Option<u32>,
    window_ms: u64,
    /// The most calls that any window of one portal held.
    most: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct DayStats {
    limit: Option<u64>,
    used: u64,
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
            faults: options.faults.clone(),
            faults_since: now,
            rng: fastrand::Rng::with_seed(options.seed),
            started: now,
            now,
            portals: BTreeMap::new(),
            send_ids: SendIds::default(),
            tries: Tries::default(),
            mails: MailBook::default(),
            calls: CallLog::default(),
            new_results: Vec::new(),
            serial: 0,
            tally: Tally::default(),
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

    /// Every call, oldest first, as far as it is kept.
    #[must_use]
    pub fn calls(&self) -> Vec<CallRecord> {
        self.calls.all()
    }

    /// One call that arrives `now`. Time never runs backwards: an earlier `now` is taken for the
    /// last one.
    pub fn call(&mut self, now: Timestamp, call: &Call<'_>) -> Reply {
        self.now = now.max(self.now);
        let operation = Operation::of(call.method, call.path);
        let is_send = matches!(operation, Operation::Send(_));
        let mut turn = Turn {
            now: self.now,
            call,
            bucket: operation.bucket(),
            portal: self.portal_of(bearer(call).unwrap_or_default()),
            operation,
            answers: Answers {
                correlation_id: self.correlation_id(),
            },
            letter: is_send.then(|| Letter::read(call.body)),
            accepted: None,
        };
        self.count(&turn);
        let strike = self.strike(&turn);
        let mut after = self.options.latency.draw(&mut self.rng);
        if strike.is_some_and(|strike| strike.fault == CallFault::Slow) {
            after += SLOW;
        }
        let (answer, word) = self.answer(&mut turn, strike);
        let answer = self.with_rate_headers(&turn, answer);
        self.record(&turn, answer.status, word);
        let ending = match word {
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
            if letter
                .magic
                .times
                .is_none_or(|times| self.tries.count(key) <= times)
            {
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
        if !is_token_info && !bearer(turn.call).is_some_and(|token| self.tokens.accept(token)) {
            return turn.answers.unauthorized();
        }
        if let Some(refusal) = self.over_limit(turn) {
            return refusal;
        }
        match turn.operation.clone() {
            Operation::Send(_) => self.send(turn),
            Operation::Status(id) => self.look_up(turn, &id),
            Operation::AccountDetails => turn.answers.json(200, &self.account(turn)),
            Operation::ApiUsage => turn.answers.json(200, &self.usage(turn)),
            Operation::TokenInfo => self.token_info(turn),
            Operation::WrongMethod => turn.answers.wrong_method(),
            Operation::Unknown => turn.answers.no_such_path(),
        }
    }

    // === sends and their results ===

    fn send(&mut self, turn: &mut Turn<'_>) -> Answer {
        let letter = match &turn.letter {
            Some(Ok(letter)) => letter,
            Some(Err(problem)) => return turn.answers.invalid(problem),
            None => return turn.answers.plain_invalid(),
        };
        let key = letter
            .send_id
            .as_deref()
            .map(|id| Key::new(turn.portal, id));
        let used = key.and_then(|key| self.send_ids.get(key));
        // What HubSpot answers to a used `sendId` is not documented, nor for how long it knows
        // one. Inferred: since the call is asynchronous, 200 with a new `statusId`, whose result
        // is IDEMPOTENT_IGNORE after a mail, and IDEMPOTENT_FAIL after none.
        let (result, delay) = match used {
            Some(true) => ("IDEMPOTENT_IGNORE".to_owned(), self.delay()),
            Some(false) => ("IDEMPOTENT_FAIL".to_owned(), self.delay()),
            None => self.fate(letter),
        };
        self.serial = self.serial.wrapping_add(1);
        let ticket = Ticket {
            serial: self.serial,
            result: self.result_place(&result),
            delay_ms: delay,
            requested_ms: turn.now.as_millisecond(),
            portal: turn.portal,
        };
        turn.accepted = Some(Accepted {
            ticket,
            duplicate: used.is_some(),
        });
        self.tally.accepted += 1;
        let mailed = used.is_none() && is_mailed(&result);
        match used {
            Some(_) => self.tally.duplicates += 1,
            None if mailed => self.tally.mails += 1,
            None => self.tally.refused += 1,
        }
        if let (Some(key), None) = (key, used) {
            self.tally.send_ids_mailed += u64::from(mailed);
            self.tally.forgotten.send_ids += self.send_ids.insert(key, mailed) as u64;
        }
        turn.answers.json(200, &ticket.view(turn.now, &result))
    }

    /// The final result of a first send, and its delay in milliseconds.
    fn fate(&mut self, letter: &Letter) -> (String, u32) {
        let age = self.faults_age();
        let fault = letter
            .flaw()
            .map(|result| MailFault::Result(result.to_owned()))
            .or_else(|| letter.magic.mail.clone())
            .or_else(|| self.faults.mail(age, &mut self.rng));
        let delay = self.delay();
        match fault {
            None => ("SENT".to_owned(), delay),
            Some(MailFault::Result(result)) => (result, delay),
            Some(MailFault::Late) => ("SENT".to_owned(), delay.saturating_add(millis_of(LATE))),
            Some(MailFault::Lost) => ("SENT".to_owned(), NEVER),
        }
    }

    fn look_up(&self, turn: &Turn<'_>, id: &str) -> Answer {
        match Ticket::decode(id).filter(|ticket| ticket.portal == turn.portal) {
            Some(ticket) => turn
                .answers
                .json(200, &ticket.view(turn.now, self.result_name(ticket.result))),
            None => turn.answers.not_found(),
        }
    }

    fn delay(&mut self) -> u32 {
        millis_of(self.options.results_after.draw(&mut self.rng))
    }

    /// The place of a result in the list that a [`Ticket`] points into: HubSpot's, then ours.
    fn result_place(&mut self, result: &str) -> u16 {
        let ours = SEND_RESULTS.len();
        let place = if let Some(place) = SEND_RESULTS.iter().position(|known| *known == result) {
            place
        } else if let Some(place) = self.new_results.iter().position(|known| known == result) {
            ours + place
        } else if self.new_results.len() < NEW_RESULTS_MAX {
            self.new_results.push(result.to_owned());
            ours + self.new_results.len() - 1
        } else {
            ours - 1
        };
        u16::try_from(place).unwrap_or_default()
    }

    fn result_name(&self, place: u16) -> &str {
        let place = usize::from(place);
        let known = SEND_RESULTS.get(place).copied();
        let new = || self.new_results.get(place.checked_sub(SEND_RESULTS.len())?);
        known
            .or_else(|| new().map(String::as_str))
            .unwrap_or("VALIDATION_FAILED")
    }

    // === the account ===

    /// HubSpot's `PortalInformationResponse`.
    fn account(&self, turn: &Turn<'_>) -> Value {
        let offset = self.options.time_zone.to_offset(turn.now);
        let minutes = offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        json!({
            "portalId": turn.portal,
            "accountType": "DEVELOPER_TEST",
            "timeZone": self.options.time_zone.iana_name().unwrap_or("UTC"),
            "companyCurrency": "USD",
            "additionalCurrencies": [],
            "utcOffset": format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60),
            "utcOffsetMilliseconds": i64::from(offset.seconds()) * 1_000,
            "uiDomain": "app.hubspot.com",
            "dataHostingLocation": "na1",
        })
    }

    fn usage(&self, turn: &Turn<'_>) -> Value {
        let portal = self.portals.get(&turn.portal);
        json!({"results": [{
            "name": "private-apps-api-calls-daily",
            "usageLimit": self.options.daily.unwrap_or(DAILY),
            "currentUsage": portal.map_or(0, |portal| portal.day_used),
            "collectedAt": millis(turn.now),
            "fetchStatus": "SUCCESS",
            "resetsAt": millis(portal.map_or(turn.now, |portal| portal.day_ends)),
        }]})
    }

    /// The token travels in the body. What HubSpot answers to an unknown one was never seen.
    fn token_info(&mut self, turn: &Turn<'_>) -> Answer {
        let body: Value = serde_json::from_slice(turn.call.body).unwrap_or_default();
        let Some(token) = body.get("tokenKey").and_then(Value::as_str) else {
            return turn
                .answers
                .invalid("Some required fields were not set: [tokenKey]");
        };
        if !self.tokens.accept(token) {
            return turn.answers.unauthorized();
        }
        let mut scopes = vec!["oauth", "marketing-email", "transactional-email"];
        let age = self.faults_age();
        let strike = self.faults.during(age);
        if strike.is_some_and(|strike| strike.fault == CallFault::Http(403)) {
            scopes.truncate(1);
        }
        turn.answers.json(
            200,
            &json!({
                "userId": 1,
                "hubId": self.portal_of(token),
                "appId": APP_ID,
                "scopes": scopes,
            }),
        )
    }

    fn portal_of(&self, token: &str) -> u32 {
        token
            .rsplit_once("-portal-")
            .and_then(|(_, portal)| portal.parse().ok())
            .filter(|portal| self.portals.len() < PORTALS_MAX || self.portals.contains_key(portal))
            .unwrap_or(PORTAL)
    }

    // === limits ===

    /// Every call counts at its arrival, whatever becomes of it, a refused one too.
    fn count(&mut self, turn: &Turn<'_>) {
        let options = &self.options;
        let portal = self.portals.entry(turn.portal).or_insert_with(|| Portal {
            send: Window::new(options.limit, WINDOW),
            api: Window::new(options.api_limit, WINDOW),
            day_ends: day_end(turn.now, &options.time_zone),
            day_used: 0,
        });
        if turn.now >= portal.day_ends {
            portal.day_ends = day_end(turn.now, &options.time_zone);
            portal.day_used = 0;
        }
        portal.day_used += 1;
        portal.window(turn.bucket).arrive(turn.now);
        self.tally.calls += 1;
        match turn.bucket {
            Bucket::Send => self.tally.send_calls += 1,
            Bucket::Api => self.tally.api_calls += 1,
        }
    }

    /// HubSpot's specs exempt sends from both limits. Where the options set one all the same, it
    /// holds; and the day counts all calls, the stricter reading.
    fn over_limit(&mut self, turn: &Turn<'_>) -> Option<Answer> {
        let portal = self.portals.get_mut(&turn.portal)?;
        if self
            .options
            .daily
            .is_some_and(|daily| portal.day_used > daily)
        {
            return Some(turn.answers.daily_limit());
        }
        let window = portal.window(turn.bucket);
        window
            .is_over()
            .then(|| turn.answers.rolling_limit(window.span(), turn.portal))
    }

    /// The rate limit headers, on calls that are not exempt and for the limits that are set.
    fn with_rate_headers(&mut self, turn: &Turn<'_>, mut answer: Answer) -> Answer {
        let Some(portal) = self
            .portals
            .get(&turn.portal)
            .filter(|_| turn.bucket == Bucket::Api)
        else {
            return answer;
        };
        if let Some(daily) = self.options.daily {
            let remaining = daily.saturating_sub(portal.day_used);
            answer = answer
                .with("x-hubspot-ratelimit-daily", daily.to_string())
                .with("x-hubspot-ratelimit-daily-remaining", remaining.to_string());
        }
        if let (Some(limit), Some(remaining)) = (portal.api.limit(), portal.api.remaining()) {
            answer = answer
                .with("x-hubspot-ratelimit-max", limit.calls.to_string())
                .with("x-hubspot-ratelimit-remaining", remaining.to_string())
                .with(
                    "x-hubspot-ratelimit-interval-milliseconds",
                    limit.window.as_millis().to_string(),
                );
        }
        answer
    }

    // === the books ===

    fn record(&mut self, turn: &Turn<'_>, status: u16, ending: Manner) {
        match ending {
            Manner::Answered => *self.tally.answers.entry(status).or_default() += 1,
            Manner::Never => self.tally.never += 1,
            Manner::Cut | Manner::CutBefore => self.tally.cut += 1,
        }
        self.tally.throttled += u64::from(status == 429);
        self.tally.unauthorized += u64::from(status == 401);
        let call = CallRecord {
            at: turn.now.as_microsecond(),
            bucket: turn.bucket,
            status,
        };
        self.tally.forgotten.calls += self.calls.push(call) as u64;
        let (Some(Ok(letter)), Operation::Send(api)) = (&turn.letter, &turn.operation) else {
            return;
        };
        let key = letter
            .send_id
            .as_deref()
            .map(|id| Key::new(turn.portal, id));
        let (forgotten, mail) = self.mails.entry(key, |seq| Mail {
            seq,
            portal: turn.portal,
            api: api.name(),
            send_id: letter.send_id.clone(),
            email_id: letter.email_id,
            to: letter.to.clone(),
            ticket: None,
            attempts: Vec::new(),
            attempts_total: 0,
        });
        if let Some(mail) = mail {
            let duplicate = turn.accepted.is_some_and(|accepted| accepted.duplicate);
            mail.attempt(Attempt {
                at: turn.now,
                status,
                ending,
                duplicate,
            });
            mail.ticket = mail
                .ticket
                .or(turn.accepted.map(|accepted| accepted.ticket));
        }
        self.tally.forgotten.mails += forgotten as u64;
    }

    /// Mails, oldest first from `after` on, or the newest ones first.
    #[must_use]
    pub fn mails(&self, now: Timestamp, after: Option<u64>, limit: usize) -> Vec<Value> {
        match after {
            Some(seq) => self
                .mails
                .after(seq, limit)
                .map(|mail| self.mail(now, mail))
                .collect(),
            None => self
                .mails
                .newest(limit)
                .map(|mail| self.mail(now, mail))
                .collect(),
        }
    }

    fn mail(&self, now: Timestamp, mail: &Mail) -> Value {
        let view = mail
            .ticket
            .map(|ticket| ticket.view(now, self.result_name(ticket.result)));
        let part = |name| view.as_ref().and_then(|view| view.get(name)).cloned();
        json!({
            "seq": mail.seq,
            "portalId": mail.portal,
            "api": mail.api,
            "sendId": mail.send_id,
            "emailId": mail.email_id,
            "to": mail.to,
            "statusId": part("statusId"),
            "status": part("status"),
            "result": part("sendResult"),
            "requestedAt": part("requestedAt"),
            "completedAt": part("completedAt"),
            "attempts": mail.attempts,
            "attemptsTotal": mail.attempts_total,
        })
    }

    #[must_use]
    pub fn stats(&self, now: Timestamp) -> Stats {
        let most = |window: fn(&Portal) -> &Window| {
            self.portals
                .values()
                .map(|portal| window(portal).most())
                .max()
                .unwrap_or(0)
        };
        Stats {
            started_at: self.started,
            now,
            tally: self.tally.clone(),
            windows: BTreeMap::from([
                (
                    "send",
                    WindowStats::new(self.options.limit, most(|portal| &portal.send)),
                ),
                (
                    "api",
                    WindowStats::new(self.options.api_limit, most(|portal| &portal.api)),
                ),
            ]),
            today: DayStats {
                limit: self.options.daily,
                used: self
                    .portals
                    .values()
                    .map(|portal| portal.day_used)
                    .max()
                    .unwrap_or(0),
            },
            faults: self.faults.to_string(),
        }
    }

    // === chance and time ===

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

impl WindowStats {
    fn new(limit: Option<Limit>, most: usize) -> Self {
        let window = limit.map_or(WINDOW, |limit| limit.window);
        Self {
            limit: limit.map(|limit| limit.calls),
            window_ms: u64::from(millis_of(window)),
            most,
        }
    }
}

impl Portal {
    fn window(&mut self, bucket: Bucket) -> &mut Window {
        match bucket {
            Bucket::Send => &mut self.send,
            Bucket::Api => &mut self.api,
        }
    }
}

impl Tokens {
    fn accept(&self, token: &str) -> bool {
        match self {
            Self::Any => !token.is_empty(),
            Self::These(tokens) => tokens.iter().any(|known| known.expose_secret() == token),
        }
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

/// The next midnight of the account.
fn day_end(now: Timestamp, time_zone: &TimeZone) -> Timestamp {
    let midnight = || now.to_zoned(time_zone.clone()).tomorrow()?.start_of_day();
    midnight().map_or(Timestamp::MAX, |midnight| midnight.timestamp())
}

fn millis_of(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests;
