//! What happened to each request of the demo, as HubSpot's side and the dead letters tell it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::traffic::{Expected, Sample};
use crate::cli::failure::Failure;
use crate::cli::output::{Mood, Output, count};
use crate::queue::DeadLetter;

/// The sandbox's inbox, as its `/_sandbox/mail` tells it.
#[derive(Debug, Deserialize)]
pub(super) struct Inbox {
    mail: Vec<Mail>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail {
    send_id: Option<String>,
    result: Option<String>,
    attempts_total: u64,
}

/// One line of the report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
struct Row<'a> {
    id: &'a str,
    about: &'a str,
    happened: String,
    calls: u64,
    as_expected: bool,
}

/// Prints a line for each sample that something happened to, and one for all others; says whether
/// everything ended as it must.
pub(super) fn print(
    samples: &[Sample],
    inbox: &Inbox,
    dead: &[DeadLetter],
    output: &mut Output,
) -> Result<bool, Failure> {
    let deaths: BTreeMap<&str, &str> = dead
        .iter()
        .filter_map(|letter| letter.story.death.as_ref())
        .map(|death| (death.key.as_str(), death.reason.label()))
        .collect();
    let (mut ordinary, mut good) = (0_u32, true);
    for sample in samples {
        let row = row(sample, inbox, &deaths);
        good &= row.as_expected;
        if sample.about.is_none() && row.as_expected && !output.json {
            ordinary += 1;
        } else if output.json {
            output.object(&row)?;
        } else {
            let mood = if row.as_expected {
                Mood::Good
            } else {
                Mood::Bad
            };
            let happened = output.paint(mood, &format!("{:<34}", row.happened));
            output.line(format_args!(
                "{:<15} {:<44} {happened} {}",
                row.id,
                row.about,
                count(row.calls, "call")
            ))?;
        }
    }
    if !output.json {
        output.line(format_args!(
            "{:<15} {:<44} sent once each",
            format!("{ordinary} others"),
            "nothing special"
        ))?;
    }
    Ok(good)
}

fn row<'a>(sample: &'a Sample, inbox: &Inbox, deaths: &BTreeMap<&str, &str>) -> Row<'a> {
    let replayed = format!("{}.r2", sample.id);
    let of = |id: &str| -> Vec<&Mail> {
        let mails = inbox.mail.iter();
        mails
            .filter(|mail| mail.send_id.as_deref() == Some(id))
            .collect()
    };
    let (first, second) = (of(&sample.id), of(&replayed));
    let sent = |mails: &[&Mail]| {
        let sent = mails
            .iter()
            .filter(|mail| mail.result.as_deref() == Some("SENT"));
        sent.count()
    };
    let calls = first
        .iter()
        .chain(&second)
        .map(|mail| mail.attempts_total)
        .sum();
    let death = deaths.get(sample.id.as_str());
    let (happened, as_expected) = match (sample.expected, death) {
        (Expected::Sent, None) => (told(sent(&first)), sent(&first) == 1),
        (Expected::SentByReplay, None) => (
            format!("refused, replayed, {}", told(sent(&second))),
            sent(&first) == 0 && sent(&second) == 1,
        ),
        (Expected::Dead(reason), Some(found)) => (
            format!("dead letter: {found}"),
            reason == *found && sent(&first) == 0,
        ),
        (_, Some(found)) => (format!("dead letter: {found}"), false),
        (Expected::Dead(_), None) => (told(sent(&first)), false),
    };
    Row {
        id: &sample.id,
        about: sample.about.unwrap_or("ordinary"),
        happened,
        calls,
        as_expected,
    }
}

fn told(sent: usize) -> String {
    match sent {
        0 => "not sent".into(),
        1 => "sent once".into(),
        more => format!("sent {more} times"),
    }
}
