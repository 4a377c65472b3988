//! Tells an outage of HubSpot from the trouble of single messages.

use std::collections::BTreeSet;

use crate::message::MessageId;

/// This many different requests failing in a row, with nothing between them that HubSpot answered
/// by itself, are an outage.
const CERTAIN: usize = 8;
/// This many failures in a row, be it of one request, are reason enough to ask HubSpot.
const SUSPECT: u32 = 3;
/// While there is an outage, and HubSpot's probes let a request through now and then to see whether
/// it is over, this many failures without [`CERTAIN`] different requests among them are those
/// requests' own trouble: nothing else waits, and it would be tried for ever.
const FEW: u32 = 32;

/// Failures of the provider since it last answered by itself, or since they were last weighed.
#[derive(Debug)]
pub(super) struct Storm {
    failures: u32,
    requests: BTreeSet<MessageId>,
    /// [`FEW`], and twice as many each time that the outage turned out to be one all the same: the
    /// most urgent request may be the one that is tried each time.
    few: u32,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            failures: 0,
            requests: BTreeSet::new(),
            few: FEW,
        }
    }
}

/// What the failures so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Calm,
    /// A probe can tell.
    Suspect,
    Outage,
    /// There is an outage no more: only a few requests fail, time and again.
    Few,
}

impl Storm {
    /// Notes a 5xx, a time-out, or no connection. An outage that is known is proven anew by as many
    /// different requests as it took to begin, or fades.
    pub(super) fn failed(&mut self, id: &MessageId, outage: bool) -> Weather {
        self.failures = self.failures.saturating_add(1);
        if self.requests.len() < CERTAIN {
            self.requests.insert(id.clone());
        }
        let weather = if self.requests.len() >= CERTAIN {
            Weather::Outage
        } else if outage && self.failures >= self.few {
            Weather::Few
        } else if self.is_suspect() {
            Weather::Suspect
        } else {
            Weather::Calm
        };
        if weather == Weather::Few {
            self.few = self.few.saturating_mul(2);
        }
        if matches!(weather, Weather::Outage | Weather::Few) {
            self.failures = 0;
            self.requests.clear();
        }
        weather
    }

    /// Whether a probe that finds HubSpot down settles the matter.
    pub(super) fn is_suspect(&self) -> bool {
        self.failures >= SUSPECT
    }

    /// Notes an answer that HubSpot gave by itself, be it a refusal: what was before counts no more.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> MessageId {
        MessageId::parse(&format!("m-{n}")).unwrap()
    }

    #[test]
    fn one_bad_request_is_no_outage_and_eight_different_ones_are() {
        let mut storm = Storm::default();
        for _ in 0..2 {
            assert_eq!(storm.failed(&id(0), false), Weather::Calm);
        }
        for _ in 0..2 * FEW {
            assert_eq!(storm.failed(&id(0), false), Weather::Suspect);
        }
        let last = (1..CERTAIN).map(|n| storm.failed(&id(n), false)).last();
        assert_eq!(last, Some(Weather::Outage));
    }

    #[test]
    fn an_answer_ends_it() {
        let mut storm = Storm::default();
        for n in 0..CERTAIN - 1 {
            storm.failed(&id(n), false);
        }
        storm.answered();
        assert_eq!(storm.failed(&id(99), false), Weather::Calm);
    }

    #[test]
    fn an_outage_of_a_few_requests_fades_and_one_of_many_does_not() {
        let weathers = |different: usize| -> Vec<Weather> {
            let mut storm = Storm::default();
            (0..3 * FEW as usize)
                .map(|n| storm.failed(&id(n % different), true))
                .collect()
        };
        let few = weathers(CERTAIN - 1);
        let faded = few
            .iter()
            .enumerate()
            .filter(|(_, it)| **it == Weather::Few);
        let faded: Vec<_> = faded.map(|(n, _)| n).collect();
        assert_eq!(faded, [31, 95], "and less readily each time");
        assert!(!few.contains(&Weather::Outage));
        let many = weathers(CERTAIN);
        assert!(many.contains(&Weather::Outage));
        assert!(!many.contains(&Weather::Few));
    }
}
