//! What stands beside a body on the wire: the story, and what is stripped of it on the way.

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::outcome::Words;
use crate::queue::QueueError;
use crate::story::{Death, Story};

/// Carries the story as JSON text.
const STORY: &str = "x-postrider-story";
/// First words of every header of ours.
const OURS: &str = "x-postrider-";
/// A larger story is not read, and not written: all headers share one frame of 128 KiB.
const STORY_BYTES_MAX: usize = 48 * 1024;
/// More than this of the producer's own headers is not carried on, for the same reason.
const FOREIGN_BYTES_MAX: usize = 48 * 1024;
/// The plain headers are for people; the story has the whole text.
const PLAIN_BYTES_MAX: usize = 1024;
/// What is left of each word of a story that is too large with longer ones: enough to recognise it.
const WORD_BYTES_LEFT: usize = 120;
/// Some producers write milliseconds into `timestamp`, which is in seconds: 10^11 s is the year 5138.
const TIMESTAMP_SECONDS_MAX: u64 = 100_000_000_000;
/// AMQP's delivery mode of what survives a restart.
pub(super) const PERSISTENT: u8 = 2;

/// The story of a received message; an empty one when it brings none that can be read.
pub(super) fn story(properties: &BasicProperties) -> Story {
    let header = (properties.headers().as_ref()).and_then(|headers| headers.inner().get(STORY));
    let mut story = match header {
        Some(AMQPValue::LongString(text)) if text.len() <= STORY_BYTES_MAX => {
            serde_json::from_slice(text.as_bytes()).unwrap_or_default()
        }
        _ => Story::default(),
    };
    if story.published_at.is_none() {
        story.published_at = published_at(properties);
    }
    story
}

pub(super) fn message_id(properties: &BasicProperties) -> Option<String> {
    (properties.message_id().as_ref()).map(|id| id.as_str().to_owned())
}

fn published_at(properties: &BasicProperties) -> Option<Timestamp> {
    let timestamp = (*properties.timestamp())?;
    if timestamp > TIMESTAMP_SECONDS_MAX {
        Timestamp::from_millisecond(i64::try_from(timestamp).ok()?).ok()
    } else {
        Timestamp::from_second(i64::try_from(timestamp).ok()?).ok()
    }
}

/// The properties of a message that is published for the first time.
pub(super) fn first(story: &Story) -> BasicProperties {
    let mut properties = BasicProperties::default().with_content_type("application/json".into());
    if let Some(at) = story.published_at {
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        properties = properties.with_timestamp(seconds);
    }
    again(&properties, story)
}

/// # Errors
/// AMQP's short strings hold 255 bytes.
pub(super) fn with_id(
    properties: BasicProperties,
    message_id: Option<String>,
) -> Result<BasicProperties, QueueError> {
    let Some(id) = message_id else {
        return Ok(properties);
    };
    match ShortString::try_new(id) {
        Ok(id) => Ok(properties.with_message_id(id)),
        Err(error) => Err(QueueError::NotTaken {
            why: format!("the message id: {error}"),
        }),
    }
}

/// The properties of a message that is published again: the producer's own, and this story.
///
/// Left out, because each would do harm in a second queue: `expiration` (a delay would end early),
/// `user_id` (refused under any other user) and the headers that [`is_carried_on`] names.
pub(super) fn again(original: &BasicProperties, story: &Story) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers(original, story));
    macro_rules! keep {
        ($($name:ident $with:ident),*) => {
            $(if let Some(value) = original.$name() {
                properties = properties.$with(value.clone());
            })*
        };
    }
    keep!(content_type with_content_type, content_encoding with_content_encoding);
    keep!(correlation_id with_correlation_id, reply_to with_reply_to);
    keep!(message_id with_message_id, timestamp with_timestamp, kind with_type);
    keep!(app_id with_app_id, priority with_priority);
    properties
}

fn headers(original: &BasicProperties, story: &Story) -> FieldTable {
    let mut headers = FieldTable::default();
    if let Some(foreign) = original.headers() {
        let carried = || foreign.into_iter().filter(|(name, _)| is_carried_on(name));
        let size: usize = carried().map(|(name, value)| entry_size(name, value)).sum();
        if size <= FOREIGN_BYTES_MAX {
            for (name, value) in carried() {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
    headers.insert(STORY.into(), text(&story_text(story)));
    if let Some(death) = &story.death {
        for (name, value) in plain(death, story) {
            let name = format!("{OURS}{name}").as_str().into();
            headers.insert(name, text(cut(&value, PLAIN_BYTES_MAX)));
        }
        let attempts = i64::try_from(story.attempts.len()).unwrap_or(i64::MAX);
        let name = format!("{OURS}attempts").as_str().into();
        headers.insert(name, AMQPValue::LongLongInt(attempts));
    }
    headers
}

/// Whether a header of a received message goes with the next copy.
///
/// RabbitMQ 3.10 takes a message with an old `x-death` for one that runs in a circle, and drops it
/// or holds its queue up for good. `CC` and `BCC` would route copies to other queues.
fn is_carried_on(name: &ShortString) -> bool {
    let name = name.as_str();
    let brokers_own = name == "x-death"
        || name == "x-delivery-count"
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-");
    !brokers_own && !name.starts_with(OURS) && name != "CC" && name != "BCC"
}

/// What people and other consumers read of a dead letter without opening the story.
fn plain(death: &Death, story: &Story) -> impl Iterator<Item = (&'static str, String)> {
    let Words {
        status,
        category,
        message,
        correlation_id,
        send_result,
        ..
    } = death.words.clone();
    [
        ("reason", Some(death.reason.to_string())),
        ("problem", Some(death.problem.clone())),
        ("hint", Some(death.hint.clone())),
        ("account", death.account.clone()),
        ("priority", Some(story.priority.to_string())),
        ("category", category),
        ("message", message),
        ("correlation-id", correlation_id),
        ("send-result", send_result),
        ("status", status.map(|status| status.to_string())),
        ("died-at", Some(death.at.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// The story as JSON. Of one that is too large the middle attempts go; then all words are cut, and
/// cut again, for JSON writes one byte as six; at last every attempt goes. What says whether and
/// under which id it may be mailed always stays.
fn story_text(story: &Story) -> String {
    let mut story = std::borrow::Cow::Borrowed(story);
    let mut cuts = [PLAIN_BYTES_MAX, WORD_BYTES_LEFT].into_iter();
    loop {
        // A story is plain data: it always can be written.
        let text = serde_json::to_string(&*story).unwrap_or_default();
        if text.len() <= STORY_BYTES_MAX {
            return text;
        }
        let shorter = story.to_mut();
        if shorter.attempts.len() > 2 {
            shorter.attempts.remove(1);
        } else if let Some(bytes) = cuts.next() {
            shorten(shorter, bytes);
        } else if !shorter.attempts.is_empty() {
            shorter.attempts.clear();
        } else {
            return text;
        }
    }
}

fn shorten(story: &mut Story, bytes: usize) {
    for attempt in &mut story.attempts {
        attempt.outcome = cut(&attempt.outcome, bytes).to_owned();
        shorten_words(&mut attempt.words, bytes);
    }
    if let Some(death) = &mut story.death {
        for text in [&mut death.problem, &mut death.hint] {
            *text = cut(text, bytes).to_owned();
        }
        shorten_words(&mut death.words, bytes);
    }
}

fn shorten_words(words: &mut Words, bytes: usize) {
    for text in [
        &mut words.category,
        &mut words.sub_category,
        &mut words.message,
        &mut words.correlation_id,
        &mut words.policy_name,
        &mut words.send_result,
    ]
    .into_iter()
    .flatten()
    {
        *text = cut(text, bytes).to_owned();
    }
}

fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn entry_size(name: &ShortString, value: &AMQPValue) -> usize {
    name.as_str().len() + 6 + value_size(value)
}

/// About how many bytes a value takes on the wire.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "AMQP's numbers: at most 8 bytes each"
)]
fn value_size(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::ShortString(text) => text.as_str().len(),
        AMQPValue::LongString(text) => text.len(),
        AMQPValue::ByteArray(bytes) => bytes.len(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(|v| 5 + value_size(v)).sum(),
        AMQPValue::FieldTable(table) => table.into_iter().map(|(n, v)| entry_size(n, v)).sum(),
        _ => 8,
    }
}
