//! `postrider simulate`: the deterministic simulation, a seed a run.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde::Serialize;
use tokio::time::Instant;

use super::failure::Failure;
use super::output::{self, Output};
use crate::sim::{self, Report};

/// Run the deterministic simulation: days of trouble in a second, all from a number
///
/// Each seed stands for one run of the real dispatcher over a model of the queue and of HubSpot:
/// requests, HubSpot's faults, kills, frozen workers, lost connections, clocks that are set. What
/// happened is then held against what Postrider promises. The same seed gives the same run.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    first_seed: u64,
    /// How many seeds; of a single one, everything that happened is printed
    #[arg(long, value_name = "K", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Run each seed twice and compare
    #[arg(long)]
    twice: bool,
}

/// What is told of a seed.
#[derive(Debug, Serialize)]
struct Told<'a> {
    seed: u64,
    held: bool,
    requests: usize,
    events: usize,
    /// How much time passed in the run.
    hours: f64,
    broken: &'a [String],
}

/// The sum over all seeds.
#[derive(Debug, Default)]
struct Sum {
    broken: Vec<u64>,
    seeds: u64,
    requests: usize,
    events: usize,
    time: Duration,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let began = Instant::now();
    let (first, last) = (args.first_seed, args.first_seed.saturating_add(args.seeds));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, ended) = (AtomicU64::new(first), AtomicBool::new(false));
    let (reports, reported) = mpsc::channel();
    let mut sum = Sum::default();
    let told = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let reports = reports.clone();
                scope.spawn(|| {
                    let reports = reports;
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= last || ended.load(Ordering::Relaxed) {
                            return;
                        }
                        if reports.send(one(seed, args.twice)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(reports);
            let progress = output::progress(Some(args.seeds), "seeds");
            for report in reported {
                progress.inc(1);
                if let Err(failure) = sum.tell(&report?, args.seeds == 1, output) {
                    ended.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
            }
            progress.finish_and_clear();
            Ok(())
        })
    });
    told?;
    output::talk(format!(
        "{} seeds, {} requests, {} events, {:.1} days in {:.1} s",
        sum.seeds,
        sum.requests,
        sum.events,
        sum.time.as_secs_f64() / 86_400.0,
        began.elapsed().as_secs_f64()
    ));
    sum.verdict()
}

/// Runs a seed; a panic of the run is a broken promise too.
fn one(seed: u64, twice: bool) -> Result<Report, Failure> {
    let run = || catch_unwind(|| sim::run(seed));
    let broken = |why: String| Report {
        broken: vec![why],
        ..Report::empty(seed)
    };
    let runtime = |error| Failure::bug(format!("the simulation cannot start: {error}"));
    let mut report = match run() {
        Ok(report) => report.map_err(runtime)?,
        Err(_) => return Ok(broken("the run panicked".into())),
    };
    if twice {
        match run() {
            Ok(second)
                if second
                    .as_ref()
                    .is_ok_and(|it| it.fingerprint == report.fingerprint) => {}
            Ok(_) | Err(_) => report.broken.push("the second run was another one".into()),
        }
    }
    Ok(report)
}

impl Sum {
    fn tell(
        &mut self,
        report: &Report,
        is_alone: bool,
        output: &mut Output,
    ) -> Result<(), Failure> {
        self.seeds += 1;
        self.requests += report.requests;
        self.events += report.events.len();
        self.time += report.took;
        if output.json {
            let told = Told {
                seed: report.seed,
                held: report.broken.is_empty(),
                requests: report.requests,
                events: report.events.len(),
                hours: report.took.as_secs_f64() / 3_600.0,
                broken: &report.broken,
            };
            output.object(&told)?;
        } else if is_alone {
            for event in &report.events {
                output.line(event)?;
            }
        }
        if !report.broken.is_empty() {
            self.broken.push(report.seed);
            if !output.json {
                output.line(format!("seed {} does not hold:", report.seed))?;
                for problem in &report.broken {
                    output.line(format!("  {problem}"))?;
                }
            }
        }
        Ok(())
    }

    fn verdict(mut self) -> Result<(), Failure> {
        self.broken.sort_unstable();
        let Some(first) = self.broken.first() else {
            output::talk("every promise held".to_owned());
            return Ok(());
        };
        let seeds: Vec<String> = self.broken.iter().map(u64::to_string).collect();
        let problem = format!("{} seeds do not hold: {}", seeds.len(), seeds.join(", "));
        let again = format!("postrider simulate --first-seed {first} --seeds 1");
        Err(Failure::bug(problem).hint(format!("see what happened: {again}")))
    }
}
