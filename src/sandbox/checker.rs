//! Whether a log of calls kept to a rolling window, told from the outside and afterwards.
//!
//! It knows nothing of who called and how, and shares no code with whatever kept the limit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Limit;
use super::answer::Bucket;

const TOO_MANY: u16 = 429;

/// A line of `/_sandbox/calls`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct LoggedCall {
    /// When it arrived, in milliseconds since 1970; exact to the microsecond.
    pub at: f64,
    #[serde(default)]
    pub portal: u32,
    pub bucket: Bucket,
    pub status: u16,
}

/// The calls of one portal in one bucket, held against a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Windows {
    pub portal: u32,
    pub bucket: Bucket,
    pub calls: usize,
    /// How many of them were answered with 429.
    pub refused: usize,
    /// From the first call to the last one.
    pub seconds: f64,
    /// The most calls that any window held.
    pub fullest: usize,
    /// How many calls came while a window held as many as it may.
    pub over: usize,
    /// The fewest that any window held which lies between the first call and the last one; `None`
    /// where they are closer together. It tells something only of a time with a backlog.
    pub emptiest: Option<usize>,
    /// The longest, in seconds, from a call to the one that is as many later as the limit allows: with
    /// a backlog, the window at its least used. `None` where there are fewer calls.
    pub slowest: Option<f64>,
}

/// Holds every portal's calls of each bucket against a limit.
#[must_use]
pub fn check(calls: &[LoggedCall], limit: Limit) -> Vec<Windows> {
    let mut by_bucket: BTreeMap<(u32, Bucket), Vec<&LoggedCall>> = BTreeMap::new();
    for call in calls {
        let of = by_bucket.entry((call.portal, call.bucket)).or_default();
        of.push(call);
    }
    let of = |((portal, bucket), calls): ((u32, Bucket), Vec<&LoggedCall>)| {
        let mut at: Vec<i64> = calls.iter().map(|call| microseconds(call.at)).collect();
        at.sort_unstable();
        let span = i64::try_from(limit.window.as_micros()).unwrap_or(i64::MAX);
        let (fullest, over) = fullest(&at, span, limit.calls as usize);
        Windows {
            portal,
            bucket,
            calls: calls.len(),
            refused: (calls.iter().filter(|call| call.status == TOO_MANY)).count(),
            seconds: took(&at),
            fullest,
            over,
            emptiest: emptiest(&at, span),
            slowest: slowest(&at, limit.calls as usize),
        }
    };
    by_bucket.into_iter().map(of).collect()
}

/// The most arrivals in any window, and how many of them came on top of `limit` others. Two that are
/// exactly a window apart are not in one.
fn fullest(at: &[i64], span: i64, limit: usize) -> (usize, usize) {
    let (mut oldest, mut most, mut over) = (at.iter().peekable(), 0, 0);
    let mut held = 0;
    for arrival in at {
        while (oldest.next_if(|oldest| **oldest <= arrival - span)).is_some() {
            held -= 1;
        }
        held += 1;
        most = most.max(held);
        over += usize::from(held > limit);
    }
    (most, over)
}

/// The fewest arrivals in a window that begins just behind one and ends no later than the last one.
fn emptiest(at: &[i64], span: i64) -> Option<usize> {
    let last = *at.last()?;
    let starts = (at.iter().enumerate()).take_while(|(_, start)| **start + span <= last);
    let held = |(index, start): (usize, &i64)| {
        at.partition_point(|arrival| *arrival <= start + span) - (index + 1)
    };
    starts.map(held).min()
}

fn slowest(at: &[i64], limit: usize) -> Option<f64> {
    let later = at.get(limit..)?;
    let took = at.iter().zip(later).map(|(first, last)| last - first);
    took.max().map(seconds)
}

/// Within what a number of milliseconds tells exactly: some 285 years.
const MICROS_MAX: f64 = 9e15;

#[expect(clippy::cast_possible_truncation, reason = "it is in its range")]
fn microseconds(at: f64) -> i64 {
    (at * 1_000.0).round().clamp(-MICROS_MAX, MICROS_MAX) as i64
}

fn took(at: &[i64]) -> f64 {
    let (Some(first), Some(last)) = (at.first(), at.last()) else {
        return 0.0;
    };
    seconds(last - first)
}

#[expect(clippy::cast_precision_loss, reason = "for a person")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sends(at: &[f64]) -> Vec<LoggedCall> {
        let call = |at: &f64| LoggedCall {
            at: 1_764_000_000_000.0 + at,
            portal: 1,
            bucket: Bucket::Send,
            status: 200,
        };
        at.iter().map(call).collect()
    }

    fn of(at: &[f64], limit: &str) -> Windows {
        check(&sends(at), limit.parse().unwrap()).remove(0)
    }

    #[test]
    fn a_window_is_exact_at_its_edges() {
        let even = of(&[0.0, 500.0, 1_000.0, 1_500.0, 2_000.0], "2/1s");
        assert_eq!((even.fullest, even.over, even.emptiest), (2, 0, Some(2)));
        let close = of(&[0.0, 500.0, 999.999, 1_500.0, 2_100.0], "2/1s");
        assert_eq!((close.fullest, close.over, close.emptiest), (3, 1, Some(1)));
        assert_eq!((even.slowest, close.slowest), (Some(1.0), Some(1.100_001)));
        let short = of(&[0.0, 999.0], "2/1s");
        assert_eq!((short.emptiest, short.slowest), (None, None));
        let absurd = of(&[-1e30, 0.0, 1e30], "2/1s");
        assert_eq!((absurd.fullest, absurd.over), (1, 0));
    }

    #[test]
    fn portals_and_buckets_have_windows_of_their_own() {
        let mut calls = sends(&[0.0, 1.0]);
        calls[1].portal = 2;
        calls.push(LoggedCall {
            bucket: Bucket::Api,
            status: 429,
            ..calls[0]
        });
        let told = check(&calls, "1/1s".parse().unwrap());
        let told: Vec<_> = (told.iter())
            .map(|it| (it.portal, it.bucket, it.fullest, it.refused))
            .collect();
        assert_eq!(
            told,
            [
                (1, Bucket::Send, 1, 0),
                (1, Bucket::Api, 1, 1),
                (2, Bucket::Send, 1, 0)
            ]
        );
    }

    proptest! {
        #[test]
        fn it_counts_as_one_would_by_hand(gaps in prop::collection::vec(0_u16..400, 1..60)) {
            let mut now = 0.0;
            let at: Vec<f64> = gaps.iter().map(|gap| { now += f64::from(*gap); now }).collect();
            let told = of(&at, "3/1s");
            // Everything here is a whole number of milliseconds.
            let held = |from: f64| at.iter().filter(|it| **it > from && **it <= from + 1_000.0).count();
            let most = at.iter().map(|last| held(last - 1_000.0)).max().unwrap();
            prop_assert_eq!(told.fullest, most);
            let whole = at.iter().filter(|from| *from + 1_000.0 <= now);
            prop_assert_eq!(told.emptiest, whole.map(|from| held(*from)).min());
        }
    }
}
