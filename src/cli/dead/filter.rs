//! Which dead letters are meant.

use std::time::Duration;

use clap::Args;
use jiff::{Span, SpanRelativeTo, Timestamp};

use super::show;
use crate::cli::failure::Failure;
use crate::clock;
use crate::outcome::DeadReason;
use crate::queue::DeadLetter;

/// What a letter must be like; all that is given must hold.
#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// Why they died: malformed, rejected, refused, exhausted, expired or operator
    #[arg(long, value_parser = reason)]
    reason: Option<DeadReason>,
    /// The account's name
    #[arg(long)]
    account: Option<String>,
    /// The template: HubSpot's content id
    #[arg(long, value_name = "N")]
    email_id: Option<i64>,
    /// Dead for longer than this, such as 90m or 7d
    #[arg(long, value_name = "TIME", value_parser = time)]
    older_than: Option<Duration>,
    /// Dead for less than this
    #[arg(long, value_name = "TIME", value_parser = time)]
    newer_than: Option<Duration>,
}

/// Which letters something is done to.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// As `dead list` prints them
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All dead letters, or all that the filters take
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

impl Filter {
    pub(super) fn takes(&self, letter: &DeadLetter, now: Timestamp) -> bool {
        if self.is_empty() {
            return true;
        }
        // Of a message that something else put there nothing is known to match.
        let Some(death) = &letter.story.death else {
            return false;
        };
        let age = clock::until(death.at, now);
        self.reason.is_none_or(|reason| death.reason == reason)
            && (self.account.is_none() || self.account == death.account)
            && (self.email_id.is_none() || self.email_id == death.email_id)
            && self.older_than.is_none_or(|than| age > than)
            && self.newer_than.is_none_or(|than| age < than)
    }

    fn is_empty(&self) -> bool {
        self.reason.is_none()
            && self.account.is_none()
            && self.email_id.is_none()
            && self.older_than.is_none()
            && self.newer_than.is_none()
    }
}

impl Selection {
    /// Nothing said is not everything meant.
    pub(super) fn check(&self, word: &str) -> Result<(), Failure> {
        if self.ids.is_empty() && self.filter.is_empty() && !self.all {
            return Err(Failure::usage(format!("dead {word}: which ones?"))
                .hint("name ids, or filters such as --reason rejected, or --all"));
        }
        Ok(())
    }

    pub(super) fn is_one(&self) -> bool {
        self.ids.len() == 1
    }

    pub(super) fn takes(&self, letter: &DeadLetter, now: Timestamp) -> bool {
        let named = self.ids.is_empty() || self.ids.iter().any(|id| *id == show::key(letter));
        named && self.filter.takes(letter, now)
    }
}

fn reason(text: &str) -> Result<DeadReason, String> {
    DeadReason::ALL
        .into_iter()
        .find(|reason| reason.label() == text)
        .ok_or_else(|| {
            let known: Vec<_> = DeadReason::ALL.into_iter().map(DeadReason::label).collect();
            format!("it is one of {}", known.join(", "))
        })
}

/// Units from seconds to weeks; a day has 24 hours here.
pub(in crate::cli) fn time(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .and_then(Duration::try_from)
        .map_err(|_| "write a time such as 90m, 36h or 7d".to_owned())
}
