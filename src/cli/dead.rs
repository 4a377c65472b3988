//! `postrider dead`: the dead letters, looked at, sent again, or thrown away.
//!
//! Everything goes through [`DeadLetters::sweep`], one letter at a time: a hundred thousand of
//! them are never in memory at once.

mod filter;
mod groups;
mod show;

use std::ops::ControlFlow;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use self::filter::{Filter, Selection};
use self::groups::Groups;
use super::failure::{Exit, Failure};
use super::open::{Purpose, with_queue};
use super::output::{Output, confirm, count as counted, progress, talk};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::journal::{Entry, Then};
use crate::outcome::DeadReason;
use crate::queue::{DeadLetter, DeadLetters, Fate, Queue, Tally};

pub(super) use self::filter::time;
pub(super) use self::show::key;

/// List, show, replay and discard dead letters
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Replay(ReplayArgs),
    Discard(DiscardArgs),
}

/// List dead letters, oldest first
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Count by reason and template, with the oldest and the newest
    #[arg(long, conflicts_with = "limit")]
    group: bool,
}

/// Show all that is known of one dead letter, its body too
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// As `dead list` prints it
    id: String,
}

/// Send dead letters again, under the same id: what was mailed is not mailed twice
///
/// Only one whose final result was a refusal takes a new sendId, ID.r2, since HubSpot has used up
/// the first one.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    selection: Selection,
}

/// Throw dead letters away for good
#[derive(Debug, Args)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    selection: Selection,
}

/// What is done with the letters that are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Replay,
    Discard,
}

/// What a sweep came upon.
struct Swept {
    /// How many letters were selected.
    count: u64,
    tally: Tally,
    /// The ids that were named and that no letter has.
    unknown: Vec<String>,
}

pub(super) async fn run(
    config: &Config,
    command: Command,
    output: &mut Output,
) -> Result<(), Failure> {
    with_queue!(config, Purpose::Inspect, |queue| match command {
        Command::List(args) => list(&queue, &args, output).await,
        Command::Show(args) => show(&queue, &args.id, output).await,
        Command::Replay(ReplayArgs { selection }) => {
            let standing = standing(&queue, &config.queue.prefix).await?;
            act(&queue, standing, Deed::Replay, &selection, output).await
        }
        Command::Discard(DiscardArgs { selection }) => {
            let standing = standing(&queue, &config.queue.prefix).await?;
            act(&queue, standing, Deed::Discard, &selection, output).await
        }
    })
}

async fn list(
    queue: &impl DeadLetters,
    args: &ListArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let now = Clock::system().now();
    let mut groups = Groups::default();
    let mut printed = 0;
    let mut written = Ok(());
    if !args.group && !output.json {
        output.line(show::HEAD)?;
    }
    queue
        .sweep(|letter| {
            if !args.filter.takes(letter, now) {
                return ControlFlow::Continue(Fate::Keep);
            }
            if args.group {
                groups.add(letter);
                return ControlFlow::Continue(Fate::Keep);
            }
            if args.limit.is_some_and(|limit| printed >= limit) {
                return ControlFlow::Break(());
            }
            printed += 1;
            written = show::row(letter, output);
            if written.is_ok() {
                ControlFlow::Continue(Fate::Keep)
            } else {
                ControlFlow::Break(())
            }
        })
        .await?;
    written?;
    if args.group {
        groups.print(output)?;
    }
    Ok(())
}

async fn show(queue: &impl DeadLetters, id: &str, output: &mut Output) -> Result<(), Failure> {
    let mut found: Option<DeadLetter> = None;
    queue
        .sweep(|letter| {
            if key(letter) == id {
                found = Some(letter.clone());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(Fate::Keep)
        })
        .await?;
    match found {
        Some(letter) => Ok(show::whole(&letter, output)?),
        None => Err(none_with(id)),
    }
}

/// Replays or discards what was selected, after asking where it is more than one.
async fn act(
    queue: &(impl DeadLetters + Queue),
    standing: Option<u64>,
    deed: Deed,
    selection: &Selection,
    output: &mut Output,
) -> Result<(), Failure> {
    selection.check(deed.word())?;
    if selection.dry_run {
        let Swept { count, unknown, .. } =
            sweep(queue, standing, selection, Some(output), |_| Fate::Keep).await?;
        talk(format_args!("{count} would be {}", deed.past()));
        return all_known(&unknown);
    }
    if !selection.yes && (deed == Deed::Discard || !selection.is_one()) {
        let Swept { count, unknown, .. } =
            sweep(queue, standing, selection, None, |_| Fate::Keep).await?;
        if count == 0 {
            return nothing(deed, &unknown);
        }
        for id in &unknown {
            talk(format_args!("there is no dead letter {id}"));
        }
        let question = format!("{} {}?", deed.capital(), counted(count, "dead letter"));
        if !confirm(&question)? {
            talk("nothing was done");
            return Ok(());
        }
    }
    let now = Clock::system().now();
    let by = config::operator();
    let mut renamed = Vec::new();
    let mut refused: u64 = 0;
    let Swept {
        count,
        tally,
        unknown,
    } = sweep(queue, standing, selection, None, |letter| match deed {
        Deed::Discard => {
            queue.note(entry(letter, now, Then::Discard { by: by.clone() }));
            Fate::Discard
        }
        Deed::Replay => {
            let (send_id, by) = (show::next_send_id(letter), by.clone());
            queue.note(entry(letter, now, Then::Replay { send_id, by }));
            if is_refused(letter) {
                refused += 1;
                renamed.extend((refused == 1).then(|| show::next_send_id(letter)));
            }
            Fate::Replay(Box::new(letter.replay()))
        }
    })
    .await?;
    if count == 0 {
        return nothing(deed, &unknown);
    }
    if output.json {
        output.object(&tally)?;
    }
    let done = match deed {
        Deed::Replay => tally.replayed,
        Deed::Discard => tally.discarded,
    };
    talk(format_args!("{done} {}", deed.past()));
    if let Some(example) = renamed.first() {
        talk(format_args!(
            "{refused} had a final refusal: HubSpot has used their sendId up, so they take a new \
             one, such as {example}"
        ));
    }
    all_known(&unknown)
}

/// For the journal: that it was asked for. Whether it was done, the letter itself tells.
fn entry(letter: &DeadLetter, now: Timestamp, then: Then) -> Entry {
    Entry {
        published_at: letter.story.published_at,
        ..Entry::new(key(letter), now, &letter.replay().account, then)
    }
}

/// How many dead letters there are, selected or not: the length of a progress bar.
async fn standing(queue: &impl Queue, prefix: &str) -> Result<Option<u64>, Failure> {
    let name = format!("{prefix}.dead");
    let depths = queue.depths().await?;
    let dead = depths.into_iter().find(|depth| depth.queue == name);
    Ok(dead.map(|depth| depth.messages))
}

/// Visits what is selected, shows it on `rows` if given, and gives it the fate of `choose`.
async fn sweep(
    queue: &impl DeadLetters,
    standing: Option<u64>,
    selection: &Selection,
    mut rows: Option<&mut Output>,
    mut choose: impl FnMut(&DeadLetter) -> Fate + Send,
) -> Result<Swept, Failure> {
    let now = Clock::system().now();
    let bar = progress(standing, "dead letters");
    let mut count = 0;
    let mut unknown = selection.ids.clone();
    let mut written = Ok(());
    let swept = queue.sweep(|letter| {
        bar.inc(1);
        unknown.retain(|id| id != key(letter));
        if !selection.takes(letter, now) {
            return ControlFlow::Continue(Fate::Keep);
        }
        count += 1;
        if let Some(output) = &mut rows {
            written = show::row(letter, output);
            if written.is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(choose(letter))
    });
    let tally = swept.await.map_err(|error| {
        let hint = format!("{}; what was not done still stands", error.hint());
        Failure::from(error).hint(hint)
    });
    bar.finish_and_clear();
    written?;
    Ok(Swept {
        count,
        tally: tally?,
        unknown,
    })
}

fn nothing(deed: Deed, unknown: &[String]) -> Result<(), Failure> {
    all_known(unknown)?;
    talk(format_args!("no dead letter matches; 0 {}", deed.past()));
    Ok(())
}

fn all_known(unknown: &[String]) -> Result<(), Failure> {
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(none_with(&unknown.join(", ")))
    }
}

fn none_with(id: &str) -> Failure {
    Failure::new(Exit::Data, format!("there is no dead letter {id}"))
        .hint("`postrider dead list` prints the ids of those that stand")
}

fn is_refused(letter: &DeadLetter) -> bool {
    let death = letter.story.death.as_ref();
    death.is_some_and(|death| death.reason == DeadReason::Refused)
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    fn capital(self) -> &'static str {
        match self {
            Self::Replay => "Replay",
            Self::Discard => "Discard",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Discard => "discarded",
        }
    }
}
