//! `postrider send`: publishes requests, and ends well only when all are durable.

mod input;
mod report;

use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::input::{Defaults, Ready, Requests};
use self::report::Report;
use super::failure::{Exit, Failure};
use super::open::{Purpose, with_queue};
use super::output::{Output, progress, talk};
use crate::clock::Clock;
use crate::config::Config;
use crate::journal::{Entry, Then};
use crate::message::{AccountName, MessageId, Priority};
use crate::queue::{Parcel, Queue, QueueError};

/// How many publishes wait for their confirm at a time: enough to fill a commit or a broker's
/// window, and 64 MiB at most of the largest bodies.
const IN_FLIGHT_MAX: usize = 256;
/// How long an interrupted command waits for the confirms of what is in flight.
const INTERRUPT_GRACE: Duration = Duration::from_secs(10);
/// How many requests are read ahead.
const READ_AHEAD_MAX: usize = 16;
/// The waits between the tries of one publish; under the same id, so a second one is harmless.
const PUBLISH_WAITS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(9),
];

/// Publish requests: a JSON object, or JSON Lines
///
/// Each request is checked as a worker would check it. Of a regular file everything is checked
/// before anything is published. A request without `message.sendId` gets an id of its own.
/// Ends with 0 only when all requests are durable in the queue.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The input; `-` or nothing is standard input
    file: Option<PathBuf>,
    /// The account for requests whose `dispatch.account` says none
    #[arg(long, default_value = "default", value_parser = super::open::account_name)]
    account: AccountName,
    /// The priority for requests whose `dispatch.priority` says none
    #[arg(long, default_value = "normal", value_parser = priority)]
    priority: Priority,
}

pub(super) async fn run(config: &Config, args: Args, output: &mut Output) -> Result<(), Failure> {
    let defaults = Defaults {
        account: args.account,
        priority: args.priority,
        environment: config.delivery.environment.clone(),
    };
    let file = args.file.filter(|path| path != Path::new("-"));
    let mut report = Report::new(config.queue.url.place());
    let entries = if let Some(path) = &file {
        let mut input = open(path)?;
        let metadata = input
            .metadata()
            .map_err(|error| Failure::unreadable(path, &error))?;
        if metadata.is_dir() {
            return Err(Failure::unreadable(
                path,
                &io::ErrorKind::IsADirectory.into(),
            ));
        }
        let mut length = None;
        if metadata.is_file() {
            length = Some(check_all(path, input, &defaults, output)?);
            input = open(path)?;
        }
        report.show(progress(length, "publishing"));
        read(BufReader::new(input), defaults)
    } else {
        if io::stdin().is_terminal() {
            talk("reading requests from the terminal; end with Ctrl-D");
        } else {
            report.show(progress(None, "publishing"));
        }
        read(BufReader::new(io::stdin()), defaults)
    };
    with_queue!(config, Purpose::Publish, |queue| publish_all(
        &queue,
        entries,
        &mut report,
        output
    )
    .await)?;
    report.end(output)
}

/// Reads a regular file to its end and tells all that is wrong with it; else how many requests
/// it holds.
fn check_all(
    path: &Path,
    input: File,
    defaults: &Defaults,
    output: &mut Output,
) -> Result<u64, Failure> {
    let mut good = 0;
    let mut report = Report::new(String::new());
    for entry in Requests::new(BufReader::new(input), defaults.clone()) {
        let entry = entry.map_err(|error| Failure::unreadable(path, &error))?;
        match entry.request {
            Ok(_) => good += 1,
            Err(malformed) => report.refused(entry.line, &malformed, output),
        }
    }
    if report.refused == 0 {
        return Ok(good);
    }
    report.tell_omitted(output.json);
    Err(Failure::new(
        Exit::Data,
        format!(
            "{} of {} requests in {} are bad; nothing was published",
            report.refused,
            report.refused + good,
            path.display()
        ),
    )
    .hint("correct them and send the file again"))
}

/// Reads on a thread of its own, no further ahead than the channel holds.
fn read(
    reader: impl io::BufRead + Send + 'static,
    defaults: Defaults,
) -> mpsc::Receiver<io::Result<input::Entry>> {
    let (sender, entries) = mpsc::channel(READ_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        for entry in Requests::new(reader, defaults) {
            let failed = entry.is_err();
            // The receiver is gone when publishing has ended before the input.
            if sender.blocking_send(entry).is_err() || failed {
                return;
            }
        }
    });
    entries
}

/// Publishes until the input ends, the queue fails or the operator says stop, and then waits for
/// what is in flight.
async fn publish_all(
    queue: &impl Queue,
    mut entries: mpsc::Receiver<io::Result<input::Entry>>,
    report: &mut Report,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut in_flight = FuturesUnordered::new();
    let mut reading = true;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut grace = std::pin::pin!(tokio::time::sleep(INTERRUPT_GRACE));
    while reading || !in_flight.is_empty() {
        tokio::select! {
            biased;
            _ = &mut interrupted, if !report.interrupted => {
                report.interrupted = true;
                reading = false;
                grace.as_mut().reset(Instant::now() + INTERRUPT_GRACE);
            }
            () = &mut grace, if report.interrupted => {
                report.give_up(in_flight.len());
                break;
            }
            Some((line, id, taken)) = in_flight.next() => match taken {
                Ok(()) => report.durable(line, &id, output),
                Err(error @ QueueError::Unroutable { .. }) => {
                    report.unroutable(line, &id, &error, output);
                }
                Err(error) => {
                    // The others would fare alike.
                    reading = false;
                    report.unconfirmed(line, &id, error, output);
                }
            },
            entry = entries.recv(), if reading && in_flight.len() < IN_FLIGHT_MAX => match entry {
                None => reading = false,
                Some(Err(error)) => {
                    reading = false;
                    report.unreadable(&error);
                }
                Some(Ok(input::Entry { line, request })) => match request {
                    Ok(ready) => in_flight.push(publish(queue, line, ready)),
                    Err(malformed) => report.refused(line, &malformed, output),
                }
            },
        }
    }
    Ok(())
}

/// Publishes one request, again and under the same id when nobody knows whether it arrived.
async fn publish(
    queue: &impl Queue,
    line: u64,
    ready: Ready,
) -> (u64, MessageId, Result<(), QueueError>) {
    let mut waits = PUBLISH_WAITS.into_iter();
    let Parcel {
        account, priority, ..
    } = &ready.parcel;
    loop {
        // Before anybody can take it up: the steps of a story stand in the order of time.
        let now = Clock::system().now();
        let taken = queue.publish(ready.parcel.clone()).await;
        if taken.is_ok() {
            let then = Then::Published {
                priority: *priority,
            };
            queue.note(Entry::new(ready.id.as_str(), now, account, then));
        }
        match (&taken, waits.next()) {
            (
                Err(
                    QueueError::Lost | QueueError::NotTaken { .. } | QueueError::Unreachable { .. },
                ),
                Some(wait),
            ) => tokio::time::sleep(wait).await,
            _ => return (line, ready.id, taken),
        }
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::unreadable(path, &error))
}

fn priority(name: &str) -> Result<Priority, String> {
    Priority::ALL
        .into_iter()
        .find(|priority| priority.as_str() == name)
        .ok_or_else(|| "it is high, normal or low".to_owned())
}
