//! What goes wrong, as data: for all calls ([`Faults`]) or for one address ([`Magic`]).
//!
//! Both speak the same words. `5xx=0.05,401=20s` is a list of faults with a share or a time;
//! `ada+http503x2@example.com` is an address that brings its own.

mod magic;
mod word;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use self::magic::Magic;
pub use self::word::{CallFault, MailFault, tags};
use self::word::{Fault, WORDS};
use super::BadOption;
use super::status::SEND_RESULTS;
use crate::hint;

/// All shares together; ten times 0.1 is a little more than 1.
const SHARES_MAX: f64 = 1.0 + 1e-9;

/// Faults for all calls, as one compact text: `5xx=0.05,cut=0.02,401=10s+20s,PREVIOUSLY_BOUNCED=0.1`.
///
/// A share (`0.05`) is a probability of each call; a time (`20s`, or `10s+20s`: from 10 s on, for
/// 20 s) counts from when the faults were set and strikes every call in it. Times come first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    text: String,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    fault: Fault,
    when: When,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// Probability, 0 to 1.
    Share(f64),
    During {
        from: Duration,
        length: Duration,
    },
}

/// A fault that strikes, and for how much longer it will strike every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    pub fault: CallFault,
    pub remaining: Option<Duration>,
}

impl Faults {
    /// What strikes a call that arrives `age` after the faults were set.
    pub fn call(&self, age: Duration, rng: &mut fastrand::Rng) -> Option<Strike> {
        self.during(age).or_else(|| {
            let fault = draw(self.calls(), rng)?;
            Some(Strike {
                fault,
                remaining: None,
            })
        })
    }

    /// The time fault that strikes every call at this age.
    #[must_use]
    pub fn during(&self, age: Duration) -> Option<Strike> {
        self.calls().find_map(|(fault, when)| {
            let remaining = when.remaining(age)?;
            Some(Strike {
                fault,
                remaining: Some(remaining),
            })
        })
    }

    fn calls(&self) -> impl Iterator<Item = (CallFault, When)> {
        self.rules.iter().filter_map(|rule| match rule.fault {
            Fault::Call(fault) => Some((fault, rule.when)),
            Fault::Mail(_) => None,
        })
    }

    /// What becomes of the mail of a send that is accepted `age` after the faults were set.
    pub fn mail(&self, age: Duration, rng: &mut fastrand::Rng) -> Option<MailFault> {
        let mails = || {
            self.rules.iter().filter_map(|rule| match &rule.fault {
                Fault::Mail(fault) => Some((fault, rule.when)),
                Fault::Call(_) => None,
            })
        };
        mails()
            .find(|(_, when)| when.remaining(age).is_some())
            .map(|(fault, _)| fault)
            .or_else(|| draw(mails(), rng))
            .cloned()
    }

    fn check(&self) -> Result<(), BadOption> {
        let total = |of_call: bool| -> f64 {
            let mine = |rule: &&Rule| matches!(rule.fault, Fault::Call(_)) == of_call;
            self.rules
                .iter()
                .filter(mine)
                .map(|rule| rule.when.share())
                .sum()
        };
        if total(true) > SHARES_MAX || total(false) > SHARES_MAX {
            return Err(BadOption::new("the shares of faults add up to more than 1"));
        }
        Ok(())
    }
}

/// One draw decides among all shares, so that each gets exactly its own.
fn draw<T>(rules: impl Iterator<Item = (T, When)>, rng: &mut fastrand::Rng) -> Option<T> {
    let mut point = rng.f64();
    for (fault, when) in rules {
        point -= when.share();
        if point < 0.0 {
            return Some(fault);
        }
    }
    None
}

impl When {
    fn share(self) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::During { .. } => 0.0,
        }
    }

    fn remaining(self, age: Duration) -> Option<Duration> {
        match self {
            Self::During { from, length } if age >= from => (from.saturating_add(length))
                .checked_sub(age)
                .filter(|left| !left.is_zero()),
            Self::During { .. } | Self::Share(_) => None,
        }
    }
}

impl FromStr for When {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        if let Ok(share) = text.parse::<f64>() {
            if (0.0..=1.0).contains(&share) {
                return Ok(Self::Share(share));
            }
            return Err(BadOption::new(format!(
                "`{text}` is no share between 0 and 1 (a time has a unit: 20s)"
            )));
        }
        let (from, length) = text.split_once('+').unwrap_or(("0s", text));
        let from = super::parse_duration(from)?;
        let length = super::parse_duration(length)?;
        Ok(Self::During { from, length })
    }
}

impl FromStr for Faults {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let mut rules = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (name, when) = part.split_once('=').ok_or_else(|| {
                BadOption::new(format!(
                    "`{part}` is no fault: write NAME=SHARE or NAME=TIME"
                ))
            })?;
            let fault = Fault::parse(name).ok_or_else(|| unknown_fault(name))?;
            rules.push(Rule {
                fault,
                when: when.parse()?,
            });
        }
        let faults = Self {
            text: text.trim().to_owned(),
            rules,
        };
        faults.check()?;
        Ok(faults)
    }
}

fn unknown_fault(name: &str) -> BadOption {
    let known = WORDS.iter().map(|word| word.name).chain(SEND_RESULTS);
    BadOption::new(match hint::nearest(name, known) {
        Some(known) => format!("no fault is named `{name}`; did you mean `{known}`?"),
        None => format!(
            "no fault is named `{name}`: an HTTP status, a sendResult, or one of {}",
            WORDS
                .iter()
                .map(|word| word.name)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    })
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Faults {
        text.parse().unwrap()
    }

    #[test]
    fn a_share_strikes_as_often_as_it_says() {
        let faults = faults("5xx=0.05, cut=0.02, PREVIOUSLY_BOUNCED=0.5");
        let mut rng = fastrand::Rng::with_seed(1);
        let struck: Vec<_> = (0..10_000)
            .filter_map(|_| faults.call(Duration::ZERO, &mut rng))
            .map(|strike| strike.fault)
            .collect();
        let cuts = struck
            .iter()
            .filter(|fault| **fault == CallFault::Cut)
            .count();
        assert!((150..250).contains(&cuts), "{cuts} cuts");
        assert!(
            (600..800).contains(&struck.len()),
            "{} in all",
            struck.len()
        );
    }

    #[test]
    fn a_time_strikes_every_call_in_it_and_tells_what_is_left() {
        let faults = faults("401=10s+20s");
        let mut rng = fastrand::Rng::with_seed(1);
        let mut at = |secs| faults.call(Duration::from_secs(secs), &mut rng);
        assert_eq!(at(9), None);
        let strike = at(10).unwrap();
        assert_eq!(strike.fault, CallFault::Http(401));
        assert_eq!(strike.remaining, Some(Duration::from_secs(20)));
        assert_eq!(at(29).unwrap().remaining, Some(Duration::from_secs(1)));
        assert_eq!(at(30), None);
    }

    #[test]
    fn what_cannot_be_a_fault_is_named() {
        for (text, told) in [
            ("cutt=0.1", "did you mean `cut`?"),
            ("cut", "NAME=SHARE"),
            ("cut=2", "between 0 and 1"),
            ("cut=soon", "soon"),
            ("cut=0.6,never=0.6", "more than 1"),
        ] {
            let error = text.parse::<Faults>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
