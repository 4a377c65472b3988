//! Tells an outage of HubSpot from the trouble of single messages.

use std::collections::BTreeSet;

use crate::message::MessageId;

/// This many different requests failing in a row, with nothing between them that HubSpot answered
/// by itself, are an outage.
const CERTAIN: usize = 8;
/// This many failures in a row, be it of one request, are reason enough to ask HubSpot.
const SUSPECT: u32 = 3;

/// Failures of the provider since it last answered by itself.
#[derive(Debug, Default)]
pub(super) struct Storm {
    failures: u32,
    requests: BTreeSet<MessageId>,
}

/// What the failures so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Calm,
    /// A probe can tell.
    Suspect,
    Outage,
}

impl Storm {
    /// Notes a 5xx, a time-out, or no connection.
    pub(super) fn failed(&mut self, id: &MessageId) -> Weather {
        self.failures = self.failures.saturating_add(1);
        if self.requests.len() < CERTAIN {
            self.requests.insert(id.clone());
        }
        if self.requests.len() >= CERTAIN {
            Weather::Outage
        } else if self.is_suspect() {
            Weather::Suspect
        } else {
            Weather::Calm
        }
    }

    /// Whether a probe that finds HubSpot down settles the matter.
    pub(super) fn is_suspect(&self) -> bool {
        self.failures >= SUSPECT
    }

    /// Notes an answer that HubSpot gave by itself, be it a refusal.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
        self.requests.clear();
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
            assert_eq!(storm.failed(&id(0)), Weather::Calm);
        }
        for _ in 0..20 {
            assert_eq!(storm.failed(&id(0)), Weather::Suspect);
        }
        let last = (1..CERTAIN).map(|n| storm.failed(&id(n))).last();
        assert_eq!(last, Some(Weather::Outage));
    }

    #[test]
    fn an_answer_ends_it() {
        let mut storm = Storm::default();
        for n in 0..CERTAIN - 1 {
            storm.failed(&id(n));
        }
        storm.answered();
        assert_eq!(storm.failed(&id(99)), Weather::Calm);
    }
}
