//! The sandbox: HubSpot's Single Send, modelled once, with two faces.
//!
//! [`model`] is a pure state machine: a call and the time go in, an answer and a delay come out.
//! [`server`] puts it behind a socket, for `postrider sandbox`, for tests and for producers' own
//! CI. A simulation calls the same model directly, on its own clock.
//!
//! ```
//! use postrider::sandbox::{Call, Ending, Model, Options};
//!
//! let now = "2026-11-22T10:00:00Z".parse()?;
//! let mut hubspot = Model::new(Options::default(), now);
//! let reply = hubspot.call(now, &Call {
//!     method: "POST",
//!     path: "/marketing/transactional/2026-09/single-email/send",
//!     query: None,
//!     authorization: Some("Bearer any"),
//!     body: br#"{"emailId": 1, "message": {"to": "ada+http503x1@example.com"}}"#,
//! });
//! assert!(matches!(reply.ending, Ending::Answer(answer) if answer.status == 503));
//! # Ok::<(), jiff::Error>(())
//! ```
//!
//! The model follows HubSpot's specs and what was seen of it. Where HubSpot is silent, a comment
//! says what was chosen.
//!
#![doc = include_str!("../docs/sandbox.md")]

pub mod answer;
mod checker;
mod control;
pub mod faults;
pub mod memory;
pub mod model;
pub mod server;
pub mod status;
mod window;
mod wire;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use secrecy::SecretString;

pub use answer::{Answer, Bucket, Call};
pub use checker::{LoggedCall, Windows, check};
pub use faults::Faults;
pub use model::{Ending, Model, Reply};
pub use server::serve;

/// What the sandbox is told at its start. Every part parses from the text of its flag
/// (`Span`, `Limit`, `Faults` are `FromStr`, so clap names the flag in an error).
#[derive(Clone, Debug)]
pub struct Options {
    /// `--token`: the only bearer token that is accepted; any will do when there is none.
    ///
    /// A token that ends in `-portal-N` opens portal N, all others [`model::PORTAL`]: a `sendId`
    /// is remembered, and limits are counted, for each portal.
    pub token: Option<SecretString>,
    /// `--latency 20ms-80ms`: from the arrival, which is counted at once, to the answer.
    pub latency: Span,
    /// `--results-after 200ms-2s`: from the request to its final result.
    pub results_after: Span,
    /// `--limit 100/1s`: sends in any rolling window. HubSpot's specs exempt Single Send from
    /// its limits; a limit here is for tests.
    pub limit: Option<Limit>,
    /// `--api-limit 190/10s`: all other calls in any rolling window.
    pub api_limit: Option<Limit>,
    /// `--daily N`: all calls of a day.
    pub daily: Option<u64>,
    /// `--faults 5xx=0.05,cut=0.02,401=20s`.
    pub faults: Faults,
    /// `--seed N`: the same calls at the same times have the same chances.
    pub seed: u64,
    /// Of the account: its day ends at its midnight.
    pub time_zone: TimeZone,
    /// `--account-type SANDBOX`.
    pub account_type: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            latency: Span::default(),
            results_after: Span {
                min: Duration::from_millis(200),
                max: Duration::from_secs(2),
            },
            limit: None,
            api_limit: None,
            daily: None,
            faults: Faults::default(),
            seed: 1,
            time_zone: TimeZone::UTC,
            account_type: "DEVELOPER_TEST".to_owned(),
        }
    }
}

/// A text that an option cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadOption(String);

impl BadOption {
    fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// A range of durations that chance draws from: `20ms-80ms`, or just `50ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub min: Duration,
    pub max: Duration,
}

impl Span {
    fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.u64(micros(self.min)..=micros(self.max)))
    }
}

impl FromStr for Span {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let (min, max) = (parse_duration(min)?, parse_duration(max)?);
        if min > max {
            return Err(BadOption::new(format!("`{text}` ends before it begins")));
        }
        Ok(Self { min, max })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{:?}", self.min, self.max)
    }
}

/// At most `calls` in any `window`: `100/1s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub calls: u32,
    pub window: Duration,
}

impl FromStr for Limit {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let bad = || {
            BadOption::new(format!(
                "`{text}` is no limit: write CALLS/WINDOW, as 100/1s"
            ))
        };
        let (calls, window) = text.split_once('/').ok_or_else(bad)?;
        let calls = calls.trim().parse().map_err(|_| bad())?;
        let window = parse_duration(window)?;
        if calls == 0 || window.is_zero() {
            return Err(bad());
        }
        Ok(Self { calls, window })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.calls, self.window)
    }
}

/// No option takes a longer time than this.
const DURATION_MAX: Duration = Duration::from_hours(48);

fn parse_duration(text: &str) -> Result<Duration, BadOption> {
    text.trim()
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| {
            BadOption::new(format!(
                "`{text}` is no time up to 48 h: write 20ms, 10s or 5m"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_they_are_written() {
        let span: Span = "20ms-80ms".parse().unwrap();
        assert_eq!((span.min.as_millis(), span.max.as_millis()), (20, 80));
        assert_eq!("1s".parse::<Span>().unwrap().min, Duration::from_secs(1));
        let limit: Limit = "100/1s".parse().unwrap();
        assert_eq!((limit.calls, limit.window), (100, Duration::from_secs(1)));
        for bad in ["", "80ms-20ms", "soon", "1y"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        for bad in ["100", "0/1s", "x/1s", "100/0s"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }
}
