//! `postrider sandbox check`: what a log of calls says of a rolling window.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Mood, Output, count, talk};
use crate::sandbox::{self, Bucket, Limit, LoggedCall, Windows};

/// Hold a log of calls against a rolling limit, afterwards and from outside
///
/// The log is what `/_sandbox/calls` gives. Of each portal and bucket it tells how full the fullest
/// window was, how empty the emptiest one between the first call and the last, and the longest that
/// as many calls took as the limit allows. Any sender's calls can be checked, not Postrider's alone.
/// The exit code is 65 where a window held too many.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JSON Lines {"at":MILLISECONDS,"portal":1,"bucket":"send","status":200} [default: standard input]
    file: Option<PathBuf>,
    /// Calls in any rolling window, such as 190/10s
    #[arg(long, value_name = "CALLS/TIME")]
    limit: Limit,
    /// Only these calls: send (to Single Send) or api (all others)
    #[arg(long, value_parser = bucket)]
    bucket: Option<Bucket>,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let file = args.file.as_deref().filter(|path| *path != Path::new("-"));
    let mut calls = match file {
        Some(path) => {
            let file = File::open(path).map_err(|error| Failure::unreadable(path, &error))?;
            read(path, BufReader::new(file))?
        }
        None => read(Path::new("standard input"), io::stdin().lock())?,
    };
    calls.retain(|call| args.bucket.is_none_or(|bucket| call.bucket == bucket));
    let told = sandbox::check(&calls, args.limit);
    for one in &told {
        if output.json {
            output.object(one)?;
        } else {
            tell(one, args.limit, output)?;
        }
    }
    if told.is_empty() {
        talk("no such call");
    }
    let over: usize = told.iter().map(|one| one.over).sum();
    if over == 0 {
        return Ok(());
    }
    let problem = format!(
        "{} on top of a full window of {}",
        count(over as u64, "call"),
        args.limit
    );
    Err(Failure::new(Exit::Data, problem)
        .hint("whoever called is over the limit: HubSpot answers 429 from there on"))
}

fn tell(one: &Windows, limit: Limit, output: &mut Output) -> io::Result<()> {
    let mood = if one.over == 0 { Mood::Good } else { Mood::Bad };
    let fullest = output.paint(mood, &format!("at most {} in a window", one.fullest));
    let emptiest = one.emptiest.map_or_else(
        || "shorter than a window".to_owned(),
        |least| format!("at least {least}"),
    );
    let slowest = one.slowest.map_or_else(String::new, |seconds| {
        format!(
            "; from a call to number {} behind it at most {seconds:.3} s",
            limit.calls
        )
    });
    output.line(format_args!(
        "portal {}, {}: {} in {:.1} s, {} answered 429; of {limit} {fullest}, {emptiest}{slowest}",
        one.portal,
        one.bucket.name(),
        count(one.calls as u64, "call"),
        one.seconds,
        one.refused,
    ))
}

fn read(place: &Path, input: impl BufRead) -> Result<Vec<LoggedCall>, Failure> {
    let mut calls = Vec::new();
    for (number, line) in (1..).zip(input.lines()) {
        let line = line.map_err(|error| Failure::unreadable(place, &error))?;
        if line.trim().is_empty() {
            continue;
        }
        let call = serde_json::from_str(&line).map_err(|error| {
            let problem = format!("line {number} of {} is no call: {error}", place.display());
            Failure::new(Exit::Data, problem)
                .hint("write what http://SANDBOX/_sandbox/calls gives, unchanged")
        })?;
        calls.push(call);
    }
    Ok(calls)
}

fn bucket(name: &str) -> Result<Bucket, String> {
    let found = Bucket::ALL.into_iter().find(|bucket| bucket.name() == name);
    found.ok_or_else(|| format!("it is one of {}", Bucket::ALL.map(Bucket::name).join(", ")))
}
