//! Dead letters counted by reason and template.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::output::Output;
use crate::queue::DeadLetter;

/// How many groups are kept apart; a producer that makes more templates than this has its rest
/// counted as one.
const GROUPS_MAX: usize = 10_000;

/// Reason and template. `None` where a letter tells none.
type Key = (Option<&'static str>, Option<i64>);

#[derive(Default)]
pub(super) struct Groups {
    groups: BTreeMap<Key, Group>,
    others: u64,
}

#[derive(Serialize)]
struct Group {
    reason: Option<&'static str>,
    email_id: Option<i64>,
    count: u64,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
}

impl Groups {
    pub(super) fn add(&mut self, letter: &DeadLetter) {
        let death = letter.story.death.as_ref();
        let key = (
            death.map(|death| death.reason.label()),
            death.and_then(|death| death.email_id),
        );
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            self.others += 1;
            return;
        }
        let group = self.groups.entry(key).or_insert(Group {
            reason: key.0,
            email_id: key.1,
            count: 0,
            oldest: None,
            newest: None,
        });
        let at = death.map(|death| death.at);
        group.count += 1;
        group.oldest = group.oldest.min(at).or(at);
        group.newest = group.newest.max(at);
    }

    /// The largest group first.
    pub(super) fn print(self, output: &mut Output) -> io::Result<()> {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        if output.json {
            return groups.iter().try_for_each(|group| output.object(group));
        }
        output.line("   COUNT  REASON     TEMPLATE       OLDEST                NEWEST")?;
        for group in &groups {
            output.line(format_args!(
                "{:>8}  {:<9}  {:<13}  {:<20}  {:<20}",
                group.count,
                group.reason.unwrap_or("-"),
                or_dash(group.email_id),
                seconds(group.oldest),
                seconds(group.newest),
            ))?;
        }
        if self.others > 0 {
            output.line(format_args!("{:>8}  of further templates", self.others))?;
        }
        Ok(())
    }
}

pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// RFC 3339 in UTC, in whole seconds.
pub(super) fn seconds(at: Option<Timestamp>) -> String {
    or_dash(at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ")))
}
