//! One dead letter: as a row, and whole.

use std::io;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::groups::{or_dash, seconds};
use crate::cli::output::{Mood, Output};
use crate::message::MessageId;
use crate::outcome::Words;
use crate::queue::DeadLetter;
use crate::story::Story;

pub(super) const HEAD: &str =
    "DIED                  REASON     ACCOUNT   TEMPLATE       ID  PROBLEM";

/// What a row says, as JSON.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    reason: Option<&'static str>,
    at: Option<Timestamp>,
    account: Option<&'a str>,
    email_id: Option<i64>,
    problem: Option<&'a str>,
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a Words>,
    attempts: usize,
    replays: u32,
}

/// All of it, as JSON.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    message_id: Option<&'a str>,
    story: &'a Story,
    /// The JSON that came, or the text of what is no JSON.
    body: Value,
}

/// What names it: its death's key, or else what stands beside the body.
pub(in crate::cli) fn key(letter: &DeadLetter) -> &str {
    let death = letter.story.death.as_ref();
    death
        .map(|death| death.key.as_str())
        .or(letter.message_id.as_deref())
        .unwrap_or("-")
}

/// The `sendId` under which it goes out when it is replayed.
pub(super) fn next_send_id(letter: &DeadLetter) -> String {
    MessageId::parse(key(letter)).map_or_else(
        |_| key(letter).to_owned(),
        |id| id.generation(letter.story.replayed().generation),
    )
}

/// One line of a list.
pub(super) fn row(letter: &DeadLetter, output: &mut Output) -> io::Result<()> {
    let row = Row::of(letter);
    if output.json {
        return output.object(&row);
    }
    output.line(format_args!(
        "{:<20}  {:<9}  {:<8}  {:<13}  {}  {}",
        seconds(row.at),
        row.reason.unwrap_or("-"),
        row.account.unwrap_or("-"),
        or_dash(row.email_id),
        row.id,
        row.problem.unwrap_or("not put here by Postrider"),
    ))
}

/// Everything.
pub(super) fn whole(letter: &DeadLetter, output: &mut Output) -> io::Result<()> {
    let row = Row::of(letter);
    let body = serde_json::from_slice(&letter.body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&letter.body).into_owned()));
    if output.json {
        return output.object(&Whole {
            row,
            message_id: letter.message_id.as_deref(),
            story: &letter.story,
            body,
        });
    }
    let title = format!("{}  {}", row.id, row.reason.unwrap_or("-"));
    output.line(output.paint(Mood::Bad, &title))?;
    field("problem", row.problem, output)?;
    // What stands there was written for any of them.
    let hint = row
        .hint
        .map(|hint| hint.replace(" ID`", &format!(" {}`", row.id)));
    field("what to do", hint, output)?;
    field("died", Some(seconds(row.at)), output)?;
    let published = letter.story.published_at;
    field("published", published.map(|at| seconds(Some(at))), output)?;
    field("account", row.account, output)?;
    field("template", row.email_id, output)?;
    field("priority", Some(letter.story.priority), output)?;
    if let Some(words) = row.words {
        say(words, output)?;
    }
    if letter.story.may_have_mailed {
        field(
            "take care",
            Some("it may have been mailed; a replay asks under the same sendId"),
            output,
        )?;
    }
    let replays = (row.replays > 0).then_some(row.replays);
    field("replayed", replays.map(|n| format!("{n} times")), output)?;
    field(
        "on replay",
        Some(format!("sendId {}", next_send_id(letter))),
        output,
    )?;
    let mut number = 0;
    for attempt in &letter.story.attempts {
        let name = if attempt.is_result() {
            "result".to_owned()
        } else {
            number += 1;
            format!("attempt {number}")
        };
        let heard = [
            attempt.words.status.map(|status| status.to_string()),
            attempt.words.category.clone(),
            attempt.words.send_result.clone(),
            attempt.words.correlation_id.clone(),
        ];
        let heard: Vec<String> = heard.into_iter().flatten().collect();
        output.line(format_args!(
            "  {name:<11}    {}  {:<9}  {} ms  {}",
            seconds(Some(attempt.at)),
            attempt.outcome,
            attempt.took_ms,
            heard.join("  ")
        ))?;
    }
    field("body", Some(format!("{} bytes", letter.body.len())), output)?;
    match body.as_str() {
        Some(text) => output.line(text),
        None => output.line(serde_json::to_string_pretty(&body)?),
    }
}

/// HubSpot's own words, as they came.
fn say(words: &Words, output: &mut Output) -> io::Result<()> {
    field("HubSpot says", words.message.as_ref(), output)?;
    field("status", words.status, output)?;
    field("category", words.category.as_ref(), output)?;
    field("sub-category", words.sub_category.as_ref(), output)?;
    field("policy", words.policy_name.as_ref(), output)?;
    field("sendResult", words.send_result.as_ref(), output)?;
    field("correlation", words.correlation_id.as_ref(), output)
}

fn field(name: &str, value: Option<impl ToString>, output: &mut Output) -> io::Result<()> {
    match value {
        Some(value) => {
            let name = output.paint(Mood::Quiet, &format!("{name:<13}"));
            output.line(format_args!("  {name}  {}", value.to_string()))
        }
        None => Ok(()),
    }
}

impl<'a> Row<'a> {
    fn of(letter: &'a DeadLetter) -> Self {
        let death = letter.story.death.as_ref();
        Self {
            id: key(letter),
            reason: death.map(|death| death.reason.label()),
            at: death.map(|death| death.at),
            account: death.and_then(|death| death.account.as_deref()),
            email_id: death.and_then(|death| death.email_id),
            problem: death.map(|death| death.problem.as_str()),
            hint: death.map(|death| death.hint.as_str()),
            words: death
                .map(|death| &death.words)
                .filter(|words| !words.is_empty()),
            attempts: letter.story.attempts.len(),
            replays: letter.story.replays,
        }
    }
}
