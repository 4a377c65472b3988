//! The words of the fault language.

use crate::sandbox::status::known_result;

/// What goes wrong with one call, whatever it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// Answered with this status before anything was processed.
    Http(u16),
    /// Answered with 500, 502, 503 or 504 before anything was processed.
    ServerError,
    /// Processed, yet answered with 502 or 504.
    ServerErrorAfter,
    /// 400 with the plain text that HubSpot answers at times.
    PlainText,
    /// 429 of the day's limit.
    Daily,
    /// Processed, then the connection is reset before a byte of an answer.
    Cut,
    /// The connection is reset before anything was processed.
    CutBefore,
    /// Processed, and no answer ever comes.
    Never,
    /// Processed and answered, [`SLOW`](super::super::model::SLOW) late.
    Slow,
}

/// What becomes of the mail of one accepted send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailFault {
    /// The final result takes [`LATE`](super::super::model::LATE) longer.
    Late,
    /// The final result never comes: `PENDING` for good.
    Lost,
    /// The final result is this `sendResult`.
    Result(String),
}

/// A word of the fault language that is not `NNN` (a status) or a `sendResult`.
pub(super) struct Word {
    pub name: &'static str,
    fault: Fault,
    /// For the page.
    meaning: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Call(CallFault),
    Mail(MailFault),
}

pub(super) static WORDS: [Word; 10] = [
    Word::call(
        "5xx",
        CallFault::ServerError,
        "500, 502, 503 or 504; nothing is sent",
    ),
    Word::call(
        "5xx-sent",
        CallFault::ServerErrorAfter,
        "502 or 504, although the mail is sent",
    ),
    Word::call(
        "400-text",
        CallFault::PlainText,
        "400 with the plain text `Invalid request`",
    ),
    Word::call("daily", CallFault::Daily, "429 of the day's limit"),
    Word::call(
        "cut",
        CallFault::Cut,
        "the mail is sent, then the connection is reset",
    ),
    Word::call(
        "cut-before",
        CallFault::CutBefore,
        "the connection is reset; nothing is sent",
    ),
    Word::call(
        "never",
        CallFault::Never,
        "the mail is sent and no answer ever comes",
    ),
    Word::call("slow", CallFault::Slow, "the answer takes 10 s longer"),
    Word::mail(
        "late",
        MailFault::Late,
        "the final result takes a minute longer",
    ),
    Word::mail("lost", MailFault::Lost, "the final result never comes"),
];

impl Word {
    const fn call(name: &'static str, fault: CallFault, meaning: &'static str) -> Self {
        Self {
            name,
            fault: Fault::Call(fault),
            meaning,
        }
    }
    const fn mail(name: &'static str, fault: MailFault, meaning: &'static str) -> Self {
        Self {
            name,
            fault: Fault::Mail(fault),
            meaning,
        }
    }
}

/// Tags that are more than a word.
const PATTERNS: [(&str, &str); 3] = [
    (
        "RESULT",
        "accepted; the final result is this one of HubSpot's 51, or any `X_…`: one nobody has seen",
    ),
    ("httpNNN", "answered with this status; nothing is sent"),
    (
        "TAGxN",
        "`http503x2`, `cutx1` …: the first N times, then all is well",
    ),
];

/// The tags of an address, `ada+TAG@example.com`, and what each does: for the page.
pub fn tags() -> impl Iterator<Item = (&'static str, &'static str)> {
    let words = WORDS.iter().map(|word| (word.name, word.meaning));
    PATTERNS.into_iter().chain(words)
}

impl Fault {
    /// Reads one word: `5xx`, `cut`, `503`, `http503`, `PREVIOUSLY_BOUNCED`, `X_NEW` … in any case,
    /// since some producers write addresses in lower case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if let Some(word) = WORDS
            .iter()
            .find(|word| word.name.eq_ignore_ascii_case(name))
        {
            return Some(word.fault.clone());
        }
        let name = name.to_ascii_uppercase();
        if let Ok(status) = name.strip_prefix("HTTP").unwrap_or(&name).parse::<u16>() {
            return (300..600)
                .contains(&status)
                .then_some(Self::Call(CallFault::Http(status)));
        }
        if name == "TIMEOUT" {
            return Some(Self::Call(CallFault::Never));
        }
        let result = known_result(&name).is_some() || name.starts_with("X_");
        result.then_some(Self::Mail(MailFault::Result(name)))
    }
}
