//! What became of each request of a `send`.

use std::io;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Output, count, talk};
use crate::message::{Malformed, MessageId};
use crate::queue::QueueError;

/// How many bad lines are told one by one; `--json` tells all.
const TOLD_MAX: u64 = 20;

/// Counts, and tells as it goes.
pub(super) struct Report {
    /// The queue, for people.
    place: String,
    progress: ProgressBar,
    durable: u64,
    /// The only one, as long as there is one.
    first: Option<MessageId>,
    /// No requests.
    pub(super) refused: u64,
    /// Of an account that no worker has declared.
    unroutable: u64,
    unconfirmed: u64,
    /// The first error of the queue.
    error: Option<QueueError>,
    unreadable: Option<String>,
    /// Why no more lines are printed.
    unwritten: Option<io::Error>,
    pub(super) interrupted: bool,
}

/// One line of `--json`.
#[derive(Serialize)]
struct Told<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a MessageId>,
    /// `durable`, `refused` or `unconfirmed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Report {
    pub(super) fn new(place: String) -> Self {
        Self {
            place,
            progress: ProgressBar::hidden(),
            durable: 0,
            first: None,
            refused: 0,
            unroutable: 0,
            unconfirmed: 0,
            error: None,
            unreadable: None,
            unwritten: None,
            interrupted: false,
        }
    }

    pub(super) fn show(&mut self, progress: ProgressBar) {
        self.progress = progress;
    }

    pub(super) fn durable(&mut self, line: u64, id: &MessageId, output: &mut Output) {
        self.durable += 1;
        self.progress.inc(1);
        self.first.get_or_insert_with(|| id.clone());
        if output.json {
            let told = Told {
                line,
                id: Some(id),
                status: "durable",
                problem: None,
                hint: None,
            };
            self.print(&told, output);
        }
    }

    /// It is no request.
    pub(super) fn refused(&mut self, line: u64, malformed: &Malformed, output: &mut Output) {
        let told = Told {
            line,
            id: None,
            status: "refused",
            problem: Some(&malformed.problem),
            hint: malformed.hint.as_deref(),
        };
        self.refused += 1;
        self.tell_not_taken(&told, output);
    }

    /// No worker knows its account.
    pub(super) fn unroutable(
        &mut self,
        line: u64,
        id: &MessageId,
        error: &QueueError,
        output: &mut Output,
    ) {
        let told = Told {
            line,
            id: Some(id),
            status: "refused",
            problem: Some(&error.to_string()),
            hint: Some(error.hint()),
        };
        self.unroutable += 1;
        self.tell_not_taken(&told, output);
    }

    fn tell_not_taken(&mut self, told: &Told<'_>, output: &mut Output) {
        if output.json {
            self.print(told, output);
        } else if self.refused + self.unroutable <= TOLD_MAX {
            let problem = told.problem.unwrap_or_default();
            self.progress.suspend(|| {
                talk(format_args!("line {}: {problem}", told.line));
                if let Some(hint) = told.hint {
                    talk(format_args!("  hint: {hint}"));
                }
            });
        }
    }

    /// A line that cannot be written is no reason to publish less: the lines end, nothing else.
    fn print(&mut self, told: &Told<'_>, output: &mut Output) {
        if self.unwritten.is_none() {
            self.unwritten = output.object(told).err();
        }
    }

    /// Nobody knows whether the queue has it.
    pub(super) fn unconfirmed(
        &mut self,
        line: u64,
        id: &MessageId,
        error: QueueError,
        output: &mut Output,
    ) {
        self.unconfirmed += 1;
        if output.json {
            let told = Told {
                line,
                id: Some(id),
                status: "unconfirmed",
                problem: Some(&error.to_string()),
                hint: Some(error.hint()),
            };
            self.print(&told, output);
        } else {
            self.progress
                .suspend(|| talk(format_args!("line {line}: {id} is not confirmed")));
        }
        self.error.get_or_insert(error);
    }

    /// So many are left in flight.
    pub(super) fn give_up(&mut self, in_flight: usize) {
        self.unconfirmed += in_flight as u64;
    }

    pub(super) fn unreadable(&mut self, error: &io::Error) {
        self.unreadable = Some(error.to_string());
    }

    /// How many bad lines were not told one by one.
    pub(super) fn tell_omitted(&self, json: bool) {
        let more = (self.refused + self.unroutable).saturating_sub(TOLD_MAX);
        if !json && more > 0 {
            talk(format_args!("and {more} more; --json tells all"));
        }
    }

    /// The last word, and whether it is a good one.
    pub(super) fn end(mut self, output: &mut Output) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        self.tell_omitted(output.json);
        if self.unwritten.is_none() {
            self.unwritten = output.flush().err();
        }
        let done = self.done();
        if let Some(failure) = self.failure(&done) {
            return Err(failure);
        }
        talk(done);
        Ok(())
    }

    fn done(&self) -> String {
        match (&self.first, self.durable) {
            (Some(id), 1) => format!("request {id} is durable in {}", self.place),
            (None, _) => "nothing was published".to_owned(),
            (Some(_), n) => format!("{n} requests are durable in {}", self.place),
        }
    }

    /// Of several troubles, the one that says most about what was not published.
    fn failure(&self, done: &str) -> Option<Failure> {
        let unconfirmed = count(self.unconfirmed, "request");
        if let Some(error) = &self.error {
            let problem =
                format!("{error}; {done}, {unconfirmed} without a confirm, and nothing after that");
            let hint = "send those without a confirm again, under the id told here as sendId";
            return Some(Failure::new(Exit::Unavailable, problem).hint(hint));
        }
        if let Some(why) = &self.unreadable {
            let problem = format!("the input cannot be read to its end: {why}; {done}");
            let hint = "send what follows the last durable line again";
            return Some(Failure::new(Exit::Data, problem).hint(hint));
        }
        if self.interrupted {
            let problem =
                format!("interrupted; {done}, {unconfirmed} without a confirm, nothing else");
            let hint = "requests with a sendId of their own may be sent again: each mails once";
            return Some(Failure::new(Exit::Interrupted, problem).hint(hint));
        }
        if self.unroutable > 0 {
            let unroutable = count(self.unroutable, "request");
            let problem = format!("{unroutable} found no queue; {done}");
            let hint = "start a worker that has this account, or correct the account's name";
            return Some(Failure::new(Exit::Unavailable, problem).hint(hint));
        }
        if self.refused > 0 {
            let refused = count(self.refused, "bad request");
            let problem = format!("{refused} left out; {done}");
            let hint = "correct the lines told above and send them again";
            return Some(Failure::new(Exit::Data, problem).hint(hint));
        }
        let why = self.unwritten.as_ref()?;
        // A reader that went away has seen what it wanted.
        (why.kind() != io::ErrorKind::BrokenPipe).then(|| {
            let problem = format!("the output cannot be written: {why}; {done}");
            Failure::new(Exit::Unavailable, problem)
                .hint("the whole input was published; only lines of output are missing")
        })
    }
}
