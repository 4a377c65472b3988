//! Durable delays without a plugin: binary levels.
//!
//! Level N holds a message for 2^N seconds. A delay is written into the routing key as bits, the
//! highest first: `0.1.0.1.send.default.normal`. A message enters at the highest level whose bit is
//! set; each level's exchange sends it into the level's queue where the bit is 1, and straight on
//! where it is 0. So every delay of whole seconds takes at most one hop a bit, and no message waits
//! behind another that is due later, as it would with a time-out of its own in one queue.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock;
use crate::message::{AccountName, Priority};
use crate::queue::Lane;

/// 2^18 s is a little more than 72 hours.
pub(super) const LEVELS: u32 = 18;
/// The longest delay of one pass.
pub(super) const DELAY_MAX: Duration = Duration::from_hours(72);
/// A retry's delay keeps so many leading bits, so it takes at most as many hops.
const RETRY_BITS: u32 = 4;

/// How exactly a message must come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// To the second.
    Exact,
    /// Later by at most an eighth: a retry has jitter anyway.
    Rough,
}

/// The whole seconds to wait, rounded up; 0 when it is due.
pub(super) fn seconds(now: Timestamp, due: Timestamp, precision: Precision) -> u32 {
    let wait = clock::until(now, due).min(DELAY_MAX);
    let rounded_up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let seconds = u32::try_from(rounded_up).unwrap_or(u32::MAX);
    match precision {
        Precision::Exact => seconds,
        Precision::Rough => {
            let spare_bits = (u32::BITS - seconds.leading_zeros()).saturating_sub(RETRY_BITS);
            let rough = seconds.next_multiple_of(1 << spare_bits);
            // The longest ones would need a level more.
            if rough < 1 << LEVELS { rough } else { seconds }
        }
    }
}

/// The level at which a delay begins.
pub(super) fn entry_level(seconds: u32) -> u32 {
    seconds.checked_ilog2().unwrap_or(0).min(LEVELS - 1)
}

/// The key that takes a message through the levels and then into its lane.
pub(super) fn routing_key(
    seconds: u32,
    account: &AccountName,
    lane: Lane,
    priority: Priority,
) -> String {
    let mut key = String::new();
    for level in (0..LEVELS).rev() {
        key.push(if seconds & (1 << level) == 0 {
            '0'
        } else {
            '1'
        });
        key.push('.');
    }
    key.push_str(&lane_words(account, lane, priority));
    key
}

/// What a level's exchange matches: its own bit set (or not), whatever the others say.
pub(super) fn level_pattern(level: u32, set: bool) -> String {
    let higher = "*.".repeat((LEVELS - 1 - level) as usize);
    format!("{higher}{}.#", u8::from(set))
}

/// What a lane's queue matches where delays end.
pub(super) fn due_pattern(account: &AccountName, lane: Lane, priority: Priority) -> String {
    // Words are counted, not skipped with `#`: an account may be called `results`.
    let bits = "*.".repeat(LEVELS as usize);
    format!("{bits}{}", lane_words(account, lane, priority))
}

fn lane_words(account: &AccountName, lane: Lane, priority: Priority) -> String {
    match lane {
        Lane::Sends => format!("send.{account}.{priority}"),
        Lane::Results => format!("results.{account}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn a_delay_is_rounded_up_to_whole_seconds_and_never_negative() {
        let cases = [(0, 0), (-5_000, 0), (1, 1), (1_000, 1), (1_001, 2)];
        for (wait, expected) in cases {
            assert_eq!(seconds(at(0), at(wait), Precision::Exact), expected);
        }
        let week = at(7 * 24 * 3_600_000);
        assert_eq!(seconds(at(0), week, Precision::Exact), 72 * 3_600);
    }

    #[test]
    fn a_rough_delay_keeps_four_bits_and_is_never_shorter() {
        for wait in (1..=72 * 3_600).step_by(37) {
            let rough = seconds(at(0), at(wait * 1_000), Precision::Rough);
            let exact = u32::try_from(wait).unwrap();
            assert!(rough >= exact, "{rough} < {exact}");
            assert!(rough <= exact + exact / 8, "{rough} is far over {exact}");
            assert!(rough.count_ones() <= RETRY_BITS || rough == exact);
            assert!(rough < 1 << LEVELS, "{rough} has no level");
        }
        assert_eq!(seconds(at(0), at(15_000), Precision::Rough), 15);
        assert_eq!(seconds(at(0), at(17_000), Precision::Rough), 18);
    }

    #[test]
    fn a_key_spells_the_seconds_and_the_lane() {
        let account = AccountName::default();
        let key = routing_key(5, &account, Lane::Sends, Priority::High);
        assert_eq!(key, "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.send.default.high");
        assert_eq!(entry_level(5), 2);
        assert_eq!(level_pattern(LEVELS - 1, true), "1.#");
        assert_eq!(level_pattern(LEVELS - 3, false), "*.*.0.#");
    }
}
