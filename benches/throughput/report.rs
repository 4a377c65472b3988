//! The tables.

use std::time::Duration;

use crate::latency::{Latency, Spread};
use crate::run::{Contestant, Figures, to_f64};

pub fn heading() {
    println!("           who       sends/s   CPU ms/1,000   of the sandbox   peak MiB");
}

pub fn line(row: &str, contestant: Contestant, figures: Figures) {
    println!(
        "{row:10} {:8} {:8.0} {:14.0} {:16.0} {:10.1}",
        name(contestant),
        figures.sends_per_second,
        figures.cpu_ms_per_send * 1_000.0,
        figures.sandbox_cpu_ms_per_send * 1_000.0,
        to_f64(figures.peak_kib) / 1_024.0,
    );
}

/// The medians of each contestant, and of the ratios within the rounds.
pub fn medians(contestants: &[Contestant], rounds: &[Vec<Figures>]) {
    for (place, contestant) in contestants.iter().enumerate() {
        let of = |figure: fn(&Figures) -> f64| {
            median(
                rounds
                    .iter()
                    .filter_map(|round| round.get(place))
                    .map(figure),
            )
        };
        let figures = Figures {
            sends_per_second: of(|figures| figures.sends_per_second),
            cpu_ms_per_send: of(|figures| figures.cpu_ms_per_send),
            sandbox_cpu_ms_per_send: of(|figures| figures.sandbox_cpu_ms_per_send),
            peak_kib: rounds
                .iter()
                .filter_map(|round| Some(round.get(place)?.peak_kib))
                .max()
                .unwrap_or_default(),
        };
        line("median", *contestant, figures);
    }
    let worker = contestants.iter().position(|c| *c == Contestant::Worker);
    for (place, other) in contestants.iter().enumerate() {
        if let Some(worker) = worker.filter(|worker| *worker != place) {
            let rate = |round: &[Figures], place: usize| Some(round.get(place)?.sends_per_second);
            let ratios = rounds
                .iter()
                .filter_map(|round| Some(rate(round, worker)? / rate(round, place)?));
            let cpu = |round: &[Figures], place: usize| Some(round.get(place)?.cpu_ms_per_send);
            let costs = rounds
                .iter()
                .filter_map(|round| Some(cpu(round, worker)? / cpu(round, place)?));
            println!(
                "worker / {}: {:.2} of the sends, {:.2} of the processor time",
                name(*other),
                median(ratios),
                median(costs)
            );
        }
    }
}

pub fn latency(contestant: Contestant, latency: Latency) {
    let spread = |spread: Spread| {
        let Spread { median, p99, most } = spread;
        format!("median {median:.2} ms, p99 {p99:.2} ms, at most {most:.2} ms")
    };
    let Latency {
        whole,
        publish,
        after,
    } = latency;
    println!("{:8} {}", name(contestant), spread(whole));
    println!("         the publish alone: {}", spread(publish));
    println!("         from its confirm:  {}", spread(after));
}

pub fn replay(title: &str, letters: u64, bare: Option<f64>, command: f64) {
    println!("\n{title}: {letters} dead letters, back in their lane\n");
    if let Some(bare) = bare {
        println!("bare      {bare:.0} a second");
        let ratio = command / bare;
        println!("replay    {command:.0} a second ({ratio:.2} of it)");
    } else {
        println!("replay    {command:.0} a second");
    }
}

pub fn start(times: Vec<f64>) {
    let starts = times.len();
    let median = median(times.into_iter());
    println!("\npostrider --version: {median:.1} ms (median of {starts})");
}

pub fn memory(queued: u64, filled: Duration, figures: Figures) {
    println!(
        "{queued:9} queued: {:6.1} MiB   ({:.0} published/s, {:.0} sends/s)",
        to_f64(figures.peak_kib) / 1_024.0,
        to_f64(queued) / filled.as_secs_f64(),
        figures.sends_per_second,
    );
}

fn name(contestant: Contestant) -> &'static str {
    match contestant {
        Contestant::Bare => "bare",
        Contestant::Worker => "worker",
        Contestant::Untraced => "untraced",
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = figures.get(middle).copied().unwrap_or(f64::NAN);
    let lower = middle.checked_sub(1).and_then(|lower| figures.get(lower));
    match lower {
        Some(lower) if figures.len().is_multiple_of(2) => f64::midpoint(*lower, upper),
        _ => upper,
    }
}
