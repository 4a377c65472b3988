//! What the sandbox tells about itself: counts, mails, calls.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::limits::WINDOW;
use super::{Letter, Model, Turn, millis_of};
use crate::sandbox::Limit;
use crate::sandbox::answer::{Bucket, Operation};
use crate::sandbox::memory::{
    Attempt, CallLog, CallRecord, Forgotten, Key, Mail, MailBook, Manner,
};

/// All that is kept for whoever looks in.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub tally: Tally,
    mails: MailBook,
    calls: CallLog,
}

/// Counts since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tally {
    /// Calls of all kinds; those for sends; all others.
    calls: u64,
    send_calls: u64,
    api_calls: u64,
    /// Sends that were answered 200, or would have been.
    pub accepted: u64,
    /// Emails that left (`SENT` or `QUEUED`).
    pub mails: u64,
    /// Different `sendId`s among them.
    pub send_ids_mailed: u64,
    /// Accepted sends that mailed nothing since their `sendId` had been used.
    pub duplicates: u64,
    /// Accepted sends that mailed nothing for another reason.
    pub refused: u64,
    throttled: u64,
    unauthorized: u64,
    cut: u64,
    never: u64,
    /// By HTTP status; calls that were cut or never answered are not among them.
    answers: BTreeMap<u16, u64>,
    pub forgotten: Forgotten,
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
    window_ms: u32,
    /// The most calls that any window of one portal held.
    most: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct DayStats {
    limit: Option<u64>,
    used: u64,
}

impl Books {
    /// Writes down a call that is over.
    pub(super) fn record(&mut self, turn: &Turn<'_>, status: u16, manner: Manner) {
        let tally = &mut self.tally;
        tally.calls += 1;
        match turn.bucket {
            Bucket::Send => tally.send_calls += 1,
            Bucket::Api => tally.api_calls += 1,
        }
        match manner {
            Manner::Answered => *tally.answers.entry(status).or_default() += 1,
            Manner::Never => tally.never += 1,
            Manner::Cut | Manner::CutBefore => tally.cut += 1,
        }
        tally.throttled += u64::from(status == 429);
        tally.unauthorized += u64::from(status == 401);
        let call = CallRecord {
            at: turn.now.as_microsecond(),
            portal: turn.portal,
            bucket: turn.bucket,
            status,
        };
        tally.forgotten.calls += self.calls.push(call) as u64;
        if let Some(Ok(letter)) = &turn.letter {
            self.record_mail(turn, letter, status, manner);
        }
    }

    fn record_mail(&mut self, turn: &Turn<'_>, letter: &Letter, status: u16, manner: Manner) {
        let Operation::Send(api) = turn.operation else {
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
                ending: manner,
                duplicate,
            });
            mail.ticket = mail
                .ticket
                .or(turn.accepted.map(|accepted| accepted.ticket));
        }
        self.tally.forgotten.mails += forgotten as u64;
    }
}

impl Model {
    /// Every call, oldest first, as far as it is kept.
    #[must_use]
    pub fn calls(&self) -> Vec<CallRecord> {
        self.books.calls.all()
    }

    /// Mails: oldest first from behind `after`, or the newest ones first.
    #[must_use]
    pub fn mails(&self, now: Timestamp, after: Option<u64>, limit: usize) -> Vec<Value> {
        let book = &self.books.mails;
        match after {
            Some(seq) => book
                .after(seq, limit)
                .map(|mail| self.mail(now, mail))
                .collect(),
            None => book
                .newest(limit)
                .map(|mail| self.mail(now, mail))
                .collect(),
        }
    }

    fn mail(&self, now: Timestamp, mail: &Mail) -> Value {
        let view = mail
            .ticket
            .map(|ticket| ticket.view(now, self.results.name(ticket.result)));
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
        let window = |bucket: Bucket| {
            let (limit, most) = self.limits.most(bucket);
            (bucket.name(), WindowStats::new(limit, most))
        };
        Stats {
            started_at: self.started,
            now,
            tally: self.books.tally.clone(),
            windows: BTreeMap::from([window(Bucket::Send), window(Bucket::Api)]),
            today: DayStats {
                limit: self.limits.daily,
                used: self.limits.most_today(),
            },
            faults: self.faults.to_string(),
        }
    }
}

impl WindowStats {
    fn new(limit: Option<Limit>, most: usize) -> Self {
        let window = limit.map_or(WINDOW, |limit| limit.window);
        Self {
            limit: limit.map(|limit| limit.calls),
            window_ms: millis_of(window),
            most,
        }
    }
}
