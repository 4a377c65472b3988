//! The table: HubSpot's answer, or its silence, becomes a verdict.
//!
//! Pure. The HTTP status decides, because every field of HubSpot's bodies is optional and some
//! bodies are no JSON at all; the body only adds words, and tells the kinds of 429 apart.
//!
//! The question that matters most is whether a failed call may have mailed. Where that is not
//! certain the outcome is `Unknown`: the next attempt carries the same `sendId`, and HubSpot sends
//! no more than one email per `sendId`. A wrong `Unknown` costs one call, a wrong `NotSent` could
//! cost a second email.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::send_result;
use super::wire::{Answer, text};
use crate::outcome::{Accepted, Failure, FailureClass, LookUp, Outcome, PauseReason, Scope, Words};

/// A lock lasts 2 s, says HubSpot, and wants at least that much patience.
const LOCKED_WAIT: Duration = Duration::from_secs(2);
/// How long `TEN_SECONDLY_ROLLING` can last; also taken for a limit that is new to us.
const TEN_SECONDS: Duration = Duration::from_secs(10);
/// How long `SECONDLY` can last.
const ONE_SECOND: Duration = Duration::from_secs(1);
/// How many scope names a hint tells at most.
pub(super) const SCOPES_TOLD_MAX: usize = 8;
/// A scope's longest name, in bytes; HubSpot's have at most 60. What is longer is none.
pub(super) const SCOPE_BYTES_MAX: usize = 100;

/// What came back of a call.
pub type Heard = Result<Answer, Silence>;

/// No answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// No connection was made, so nothing was asked.
    NotReached(String),
    /// The same, and it fares alike whoever asks until somebody changes something: a certificate that is
    /// not trusted, a proxy that wants a password.
    Barred { why: String, hint: String },
    /// The request may have arrived.
    NotAnswered(String),
}

/// What became of a call to Single Send.
pub(super) fn send(heard: &Heard, now: Timestamp) -> Outcome {
    if let Ok(answer) = heard
        && answer.is_success()
        && let Some(status_id) = answer.status_id()
    {
        return Outcome::Accepted(Accepted {
            status_id: Some(status_id),
            words: answer.words(),
        });
    }
    let verdict = judge(heard);
    let mailed = verdict.mailed;
    let failure = verdict.failure(heard, now);
    match mailed {
        Mailed::No => Outcome::NotSent(failure),
        Mailed::Perhaps => Outcome::Unknown(failure),
    }
}

/// What a look-up found.
pub(super) fn look_up(heard: &Heard, now: Timestamp) -> LookUp {
    if let Ok(answer) = heard {
        let status = text(answer.json(), "status");
        let words = answer.words();
        if answer.is_success() && (status.is_some() || words.send_result.is_some()) {
            return send_result::settled(status.as_deref(), words);
        }
        if answer.status == 404 {
            // How soon HubSpot knows a status id that it has just given out, and for how long,
            // is documented nowhere: a 404 says nothing about the mail.
            let hint = "HubSpot does not know the status id (yet)";
            return LookUp::Failed(Verdict::later(hint).failure(heard, now));
        }
    }
    LookUp::Failed(failure(heard, now))
}

/// The failure that an answer (or silence) is, whatever was asked.
pub(super) fn failure(heard: &Heard, now: Timestamp) -> Failure {
    judge(heard).failure(heard, now)
}

// === the table ===

/// Whether a failed send may have mailed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mailed {
    No,
    Perhaps,
}

/// A failure without the words and the wait that HubSpot told.
#[derive(Debug)]
struct Verdict {
    mailed: Mailed,
    class: FailureClass,
    scope: Scope,
    pause: Option<PauseReason>,
    /// Used when HubSpot names no wait, or a shorter one.
    wait: Option<Duration>,
    hint: String,
}

fn judge(heard: &Heard) -> Verdict {
    match heard {
        Ok(answer) => by_status(answer),
        Err(Silence::NotReached(why)) => Verdict::down(format!(
            "HubSpot cannot be reached ({why}): check accounts.NAME.base_url and the network"
        )),
        Err(Silence::Barred { why, hint }) => Verdict::halted(
            PauseReason::Outage,
            format!("HubSpot cannot be reached ({why}): {hint}"),
        ),
        Err(Silence::NotAnswered(why)) => Verdict::perhaps(format!(
            "HubSpot did not answer ({why}): the same sendId settles whether it was sent"
        )),
    }
}

/// HubSpot's error-handling page, and Cloudflare's for 52x, which stands in front of it.
fn by_status(answer: &Answer) -> Verdict {
    match answer.status {
        // Taken, and we cannot tell under which status id: no follow-up could learn the result.
        // The same sendId asks once more, and cannot mail twice.
        200..=299 => {
            Verdict::perhaps("HubSpot's answer cannot be read; the same sendId asks again")
        }
        // Somebody else answers at this address: a redirect, a path that takes no POST, a proxy that
        // wants a password, a host that does not serve the name. Every message would fare alike,
        // and only the configuration can heal it, so it is no message's fault.
        300..=399 | 405 | 407 | 421 => Verdict::halted(
            PauseReason::Outage,
            "this is not HubSpot's API: check accounts.NAME.base_url and the proxy settings",
        ),
        401 => Verdict::halted(PauseReason::Unauthorized, unauthorized(answer)),
        402 => Verdict::halted(
            PauseReason::Portal,
            "HubSpot asks for payment: check the account's subscription",
        ),
        403 => Verdict::halted(PauseReason::Forbidden, forbidden(answer)),
        // The server gave up waiting; proxies use it loosely, so the request may have gone on.
        408 => Verdict::perhaps("HubSpot timed out; the same sendId asks again"),
        423 => Verdict::later("HubSpot has locked the record for a moment").at_least(LOCKED_WAIT),
        // Too early: the server says that it did not process it (RFC 8470).
        425 => Verdict::down("HubSpot puts the request off"),
        429 => over_limit(answer),
        // HubSpot's own code; its Retry-After is in seconds, up to a day.
        477 => Verdict::halted(
            PauseReason::Migrating,
            "HubSpot moves the account to another data centre: sending goes on by itself after it",
        ),
        400..=499 => Verdict::refused(rejected(answer.status)),
        // Unavailable, or Cloudflare found no origin to hand the request to (down, unreachable,
        // TLS failed): it was not processed.
        503 | 521 | 523 => Verdict::down("HubSpot is unavailable: nothing to do, it is sent again"),
        525 | 526 => Verdict::down(
            "HubSpot's own TLS is broken: it is sent again; tell HubSpot's support if it lasts",
        ),
        // 500, 502, 504, 520, 524: HubSpot may have worked on it before it failed or the patience
        // of the gateway ended. 522 too: Cloudflare gives it also when the connection stood and
        // the request was out.
        500..=599 => Verdict::perhaps(
            "HubSpot failed on its side; the same sendId settles whether it was sent",
        ),
        _ => Verdict::perhaps("HubSpot answered with a status that HTTP does not know"),
    }
}

fn unauthorized(answer: &Answer) -> &'static str {
    match answer.words().category.as_deref() {
        Some("EXPIRED_AUTHENTICATION") => {
            "the token has expired: put a fresh one in accounts.NAME.token or its token_file"
        }
        _ => "HubSpot does not accept the token: check accounts.NAME.token or its token_file",
    }
}

fn forbidden(answer: &Answer) -> String {
    let json = answer.json();
    if text(json, "category").as_deref() == Some("BANNED") {
        return "HubSpot bars this account from the API: its message says why".into();
    }
    let scopes = missing_scopes(json);
    let asked = if scopes.is_empty() {
        String::new()
    } else {
        format!(" (HubSpot asks for {})", scopes.join(", "))
    };
    format!(
        "give the token the scope that single send needs{asked}, and check that the account has \
         the Transactional Email add-on: without it the scope is refused even when it looks granted"
    )
}

/// `context.requiredScopes`, `.requiredGranularScopes`, `.missingScopes`, in the body or in one of
/// its `errors`.
fn missing_scopes(json: &Value) -> Vec<String> {
    let errors = json.get("errors").and_then(Value::as_array);
    let contexts = std::iter::once(json)
        .chain(errors.into_iter().flatten())
        .filter_map(|told| told.get("context")?.as_object());
    let mut scopes: Vec<String> = contexts
        .flatten()
        .filter(|(name, _)| name.ends_with("Scopes"))
        .filter_map(|(_, names)| names.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .filter(|scope| scope.len() <= SCOPE_BYTES_MAX)
        .map(str::to_owned)
        .collect();
    scopes.sort();
    scopes.dedup();
    scopes.truncate(SCOPES_TOLD_MAX);
    scopes
}

/// Which limit a 429 means: by its policy, or else by its message or group.
fn over_limit(answer: &Answer) -> Verdict {
    let json = answer.json();
    let limit = ["policyName", "message", "groupName"]
        .iter()
        .find_map(|field| text(json, field))
        .unwrap_or_default()
        .to_lowercase()
        .replace('-', "_");
    if limit.contains("daily") {
        return Verdict::halted(
            PauseReason::Daily,
            "the day's calls are used up: sending goes on at midnight in the account's time zone",
        );
    }
    let wait = if limit.contains("secondly") && !limit.contains("ten_secondly") {
        ONE_SECOND
    } else {
        TEN_SECONDS
    };
    Verdict {
        class: FailureClass::Throttled,
        scope: Scope::Account,
        pause: Some(PauseReason::Throttled),
        wait: Some(wait),
        ..Verdict::later(
            "a rate limit was met: HubSpot bears less than the limit that is set, or something else uses it too",
        )
    }
}

/// The hint for a status that is the message's own fault.
fn rejected(status: u16) -> &'static str {
    match status {
        400 | 422 => {
            "HubSpot finds the request invalid: check that the email is published and saved for \
             single send, that it has every property its template needs, and the addresses"
        }
        404 | 410 => {
            "HubSpot does not know what was asked for: check emailId; where every request fares \
             so, check accounts.NAME.base_url, api and api_version"
        }
        409 => "HubSpot sees a conflict: look at its message, and for the email, before a replay",
        413 | 414 => "the request is too large for HubSpot: shorten its properties",
        415 => "HubSpot wants another content type: check accounts.NAME.api_version",
        _ => "HubSpot refuses the request: its message says why",
    }
}

// === impl Verdict ===

impl Verdict {
    /// The message's own fault.
    fn refused(hint: impl Into<String>) -> Self {
        Self {
            mailed: Mailed::No,
            class: FailureClass::Permanent,
            scope: Scope::Message,
            pause: None,
            wait: None,
            hint: hint.into(),
        }
    }

    /// This message may get through later.
    fn later(hint: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Transient,
            ..Self::refused(hint)
        }
    }

    /// HubSpot is down and did nothing. One such answer pauses nothing; a storm of them does.
    fn down(hint: impl Into<String>) -> Self {
        Self {
            scope: Scope::Provider,
            ..Self::later(hint)
        }
    }

    /// HubSpot is unwell and may have done something.
    fn perhaps(hint: impl Into<String>) -> Self {
        Self {
            mailed: Mailed::Perhaps,
            ..Self::down(hint)
        }
    }

    /// The account's trouble.
    fn halted(pause: PauseReason, hint: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Halted,
            scope: Scope::Account,
            pause: Some(pause),
            ..Self::refused(hint)
        }
    }

    fn at_least(self, wait: Duration) -> Self {
        Self {
            wait: Some(wait),
            ..self
        }
    }

    fn failure(self, heard: &Heard, now: Timestamp) -> Failure {
        let asked = heard
            .as_ref()
            .ok()
            .and_then(|answer| retry_after(answer, now));
        Failure {
            class: self.class,
            scope: self.scope,
            pause: self.pause,
            retry_after: match self.class {
                // A lock: whichever is longer. A limit: HubSpot knows better than we do.
                FailureClass::Transient | FailureClass::Permanent => asked.max(self.wait),
                FailureClass::Throttled | FailureClass::Halted => asked.or(self.wait),
            },
            words: words(heard),
            hint: self.hint,
        }
    }
}

/// HubSpot's words; of a call without an answer, what stopped it.
fn words(heard: &Heard) -> Words {
    match heard {
        Ok(answer) => answer.words(),
        Err(Silence::NotReached(why) | Silence::NotAnswered(why) | Silence::Barred { why, .. }) => {
            Words {
                message: Some(format!("no answer: {why}")),
                ..Words::default()
            }
        }
    }
}

/// `Retry-After`, in seconds or as an HTTP date. HubSpot documents it for 477, in seconds.
fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let told = answer.header("retry-after")?.trim();
    if let Ok(seconds) = told.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(told)
        .ok()?;
    Some(crate::clock::until(now, date))
}

#[cfg(test)]
mod tests;
