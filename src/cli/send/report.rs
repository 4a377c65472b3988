//! What became of each request of a `send`.

use std::io;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Output, talk};
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
    /// Bad requests, and those that belong to no account.
    pub(super) refused: u64,
    unconfirmed: u64,
    /// The first error of the queue.
    error: Option<QueueError>,
    unreadable: Option<String>,
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
            unconfirmed: 0,
            error: None,
            unreadable: None,
            interrupted: false,
        }
    }

    pub(super) fn show(&mut self, progress: ProgressBar) {
        self.progress = progress;
    }

    pub(super) fn durable(
        &mut self,
        line: u64,
        id: &MessageId,
        output: &mut Output,
    ) -> io::Result<()> {
        self.durable += 1;
        self.progress.inc(1);
        self.first.get_or_insert_with(|| id.clone());
        if output.json {
            output.object(&Told {
                line,
                id: Some(id),
                status: "durable",
                problem: None,
                hint: None,
            })?;
        }
        Ok(())
    }

    /// It is no request.
    pub(super) fn refused(
        &mut self,
        line: u64,
        malformed: &Malformed,
        output: &mut Output,
    ) -> io::Result<()> {
        let told = Told {
            line,
            id: None,
            status: "refused",
            problem: Some(&malformed.problem),
            hint: malformed.hint.as_deref(),
        };
        self.tell_refused(&told, output)
    }

    /// No worker knows its account.
    pub(super) fn unroutable(
        &mut self,
        line: u64,
        id: &MessageId,
        error: &QueueError,
        output: &mut Output,
    ) -> io::Result<()> {
        let told = Told {
            line,
            id: Some(id),
            status: "refused",
            problem: Some(&error.to_string()),
            hint: Some(error.hint()),
        };
        self.tell_refused(&told, output)
    }

    fn tell_refused(&mut self, told: &Told<'_>, output: &mut Output) -> io::Result<()> {
        self.refused += 1;
        if output.json {
            return output.object(told);
        }
        if self.refused <= TOLD_MAX {
            let problem = told.problem.unwrap_or_default();
            self.progress.suspend(|| {
                talk(format_args!("line {}: {problem}", told.line));
                if let Some(hint) = told.hint {
                    talk(format_args!("  hint: {hint}"));
                }
            });
        }
        Ok(())
    }

    /// Nobody knows whether the queue has it.
    pub(super) fn unconfirmed(
        &mut self,
        line: u64,
        id: &MessageId,
        error: QueueError,
        output: &mut Output,
    ) -> io::Result<()> {
        self.unconfirmed += 1;
        if output.json {
            output.object(&Told {
                line,
                id: Some(id),
                status: "unconfirmed",
                problem: Some(&error.to_string()),
                hint: Some(error.hint()),
            })?;
        } else {
            self.progress
                .suspend(|| talk(format_args!("line {line}: {id} is not confirmed")));
        }
        self.error.get_or_insert(error);
        Ok(())
    }

    pub(super) fn unreadable(&mut self, error: &io::Error) {
        self.unreadable = Some(error.to_string());
    }

    /// How many bad lines were not told one by one.
    pub(super) fn tell_omitted(&self, json: bool) {
        if !json && self.refused > TOLD_MAX {
            let more = self.refused - TOLD_MAX;
            talk(format_args!("and {more} more; --json tells all"));
        }
    }

    /// The last word, and whether it is a good one.
    pub(super) fn end(self, json: bool) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        self.tell_omitted(json);
        let Self { place, durable, .. } = &self;
        let done = match (&self.first, durable) {
            (Some(id), 1) => format!("request {id} is durable in {place}"),
            _ => format!("{durable} requests are durable in {place}"),
        };
        if self.unconfirmed > 0 {
            let why = self.error.map(|error| error.to_string());
            return Err(Failure::new(
                Exit::Unavailable,
                format!(
                    "{}; {done}, {} are not confirmed, and what follows them was not published",
                    why.unwrap_or_default(),
                    self.unconfirmed
                ),
            )
            .hint("send those that are not confirmed again, with the id told here as sendId"));
        }
        if let Some(why) = &self.unreadable {
            return Err(Failure::new(
                Exit::Data,
                format!("the input cannot be read on: {why}; {done}"),
            )
            .hint("send what follows the last durable line again"));
        }
        if self.interrupted {
            return Err(Failure::new(
                Exit::Interrupted,
                format!("interrupted; {done}, and nothing else of the input was published"),
            ));
        }
        if self.refused > 0 {
            return Err(Failure::new(
                Exit::Data,
                format!("{} requests were not published; {done}", self.refused),
            )
            .hint("correct the lines told above and send them again"));
        }
        talk(done);
        Ok(())
    }
}
