//! What a storm came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::fault::{Fault, Strike};

/// In per cent of the limit, at HubSpot's door. A call leaves in time and arrives when the machine
/// gets round to it: on one that is busy with a storm, or from a worker that is stopped between its
/// decision and its write, calls bunch up on their way by more than the limiter allows for. Two
/// owners at a time would make it 200. That no window is exceeded is shown by `whole/limits`, where
/// the machine has time.
const PERCENT_MAX: usize = 150;

/// The accounts of all sides after everybody has come to rest.
pub struct Page<'a> {
    pub title: &'a str,
    pub seed: u64,
    pub took: Duration,
    /// Sends that a worker may make in a rolling second.
    pub limit: usize,
    pub strikes: &'a [Strike],
    pub calm_at: Timestamp,
    /// What was published, and how often a producer had to publish a batch again.
    pub good: BTreeSet<String>,
    pub bad: BTreeSet<String>,
    pub published_again: usize,
    /// The sandbox's counts, what it has mailed (id and recipient), and its calls.
    pub stats: Value,
    pub mails: Vec<(String, String)>,
    pub calls: Vec<Value>,
    pub dead: Vec<Value>,
}

impl Page<'_> {
    #[expect(clippy::print_stdout, reason = "for people")]
    pub fn print(&self) {
        println!("{self}");
    }

    /// Asserted after it was printed.
    pub fn assert_all_is_well(&self) {
        let lost: Vec<_> = self.lost().into_iter().take(5).collect();
        assert!(lost.is_empty(), "lost: {lost:?} …");
        assert_eq!(self.doubled(), 0, "mailed twice");
        assert_eq!(self.mailed(), self.good, "nobody published it");
        assert_eq!(self.dead_ids(), self.bad, "dead letters");
        let most = self.most().0 * 100 / self.limit;
        assert!(most <= PERCENT_MAX, "{most} % of the limit in a second");
    }

    fn mailed(&self) -> BTreeSet<String> {
        self.mails.iter().map(|(id, _)| id.clone()).collect()
    }

    fn lost(&self) -> BTreeSet<String> {
        self.good.difference(&self.mailed()).cloned().collect()
    }

    /// By recipient, since each request has one of its own: under another id, HubSpot would not know
    /// it again.
    fn doubled(&self) -> usize {
        let recipients: BTreeSet<_> = self.mails.iter().map(|(_, to)| to).collect();
        self.mails.len() - recipients.len()
    }

    fn dead_ids(&self) -> BTreeSet<String> {
        let ids = self
            .dead
            .iter()
            .map(|letter| letter["id"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    }

    fn count(&self, name: &str) -> u64 {
        self.stats[name].as_u64().unwrap()
    }

    /// When each send arrived, in microseconds, first try or not and whatever came of it.
    fn sends(&self) -> impl Iterator<Item = (i64, &Value)> {
        let sends = self.calls.iter().filter(|call| call["bucket"] == "send");
        sends.map(|call| {
            let at = call["at"].as_f64().unwrap() * 1_000.0;
            (at as i64, &call["status"])
        })
    }

    /// The most sends that arrived in any rolling second, and when it began.
    fn most(&self) -> (usize, Timestamp) {
        let sends: Vec<i64> = self.sends().map(|(at, _)| at).collect();
        let in_a_second = |(number, at): (usize, &i64)| {
            let behind = sends.partition_point(|later| *later < at + 1_000_000);
            (behind - number, Timestamp::from_microsecond(*at).unwrap())
        };
        sends.iter().enumerate().map(in_a_second).max().unwrap()
    }

    /// The longest time without a send that HubSpot accepted, between each strike and the next one;
    /// shortest first, by fault. Before the next one strikes some mail has left, always.
    fn silences(&self) -> BTreeMap<Fault, Vec<Duration>> {
        let accepted = self.sends().filter(|(_, status)| *status == 200);
        let accepted: Vec<i64> = accepted.map(|(at, _)| at).collect();
        let began = self.strikes.iter().map(|strike| strike.at.as_microsecond());
        let ended = began.clone().skip(1).chain([self.calm_at.as_microsecond()]);
        let mut silences: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
        for ((began, ended), strike) in began.zip(ended).zip(self.strikes) {
            let first = accepted.partition_point(|at| *at <= began);
            let behind = accepted.partition_point(|at| *at <= ended);
            let times = std::iter::once(began).chain(accepted[first..behind].iter().copied());
            let gaps = times.clone().zip(times.skip(1)).map(|(from, to)| to - from);
            if let Some(longest) = gaps.max() {
                let longest = Duration::from_micros(longest.unsigned_abs());
                silences.entry(strike.fault).or_default().push(longest);
            }
        }
        for took in silences.values_mut() {
            took.sort();
        }
        silences
    }

    fn times(&self, fault: Fault) -> usize {
        let strikes = self.strikes.iter();
        strikes.filter(|strike| strike.fault == fault).count()
    }
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            title, seed, limit, ..
        } = self;
        let took = self.took.as_secs();
        let mut faults = String::new();
        for (fault, silences) in self.silences() {
            let times = self.times(fault);
            let (median, most) = (silences[silences.len() / 2], silences[silences.len() - 1]);
            let (median, most) = (median.as_secs_f64(), most.as_secs_f64());
            writeln!(
                faults,
                "| {fault} | {times} | {median:.2} s | {most:.2} s |"
            )?;
        }
        let killed = [Fault::OwnerKilled, Fault::StandbyKilled, Fault::NodeKilled];
        let killed: usize = killed.iter().map(|fault| self.times(*fault)).sum();
        let published = self.good.len() + self.bad.len();
        let (mailed, dead) = (self.mails.len(), self.dead_ids().len());
        let (most, at) = self.most();
        let (lost, copies) = (self.lost().len(), self.dead.len() - dead);
        write!(
            f,
            "\n## Storm: {title}, seed {seed}, {} min {} s\n\n\
             | fault | times | no send for, median | most |\n\
             |---|--:|--:|--:|\n\
             {faults}\n\
             {published} published, {} of 200 again; {killed} killed with SIGKILL\n\
             {mailed} mailed, {dead} dead letters of {} ({copies} more stand twice)\n\
             lost {lost}, doubled {}\n\
             {} calls to send, {} of them repeats that mailed nothing\n\
             at most {most} sends in a rolling second, of {limit} (at {at:.1})\n",
            took / 60,
            took % 60,
            self.published_again,
            self.bad.len(),
            self.doubled(),
            self.count("sendCalls"),
            self.count("duplicates"),
        )
    }
}
