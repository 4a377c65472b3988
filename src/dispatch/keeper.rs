//! The keeper of an account's pauses: it probes whether the trouble is over.
//!
//! A probe sends no mail. Where it cannot tell, one message is let through to find out.

use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Dispatcher, sleep_until};
use crate::metrics::Operation;
use crate::outcome::{PauseReason, Scope, Words};
use crate::pause::Covers;
use crate::provider::{PROBE_CALLS, Portal, Probe, Provider};
use crate::queue::{Lane, Queue};
use crate::quota::RateLimiter;

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    /// Holds everything back until the token is proven to open the configured portal, if one is.
    pub(super) fn hold_until_proven(&self) {
        if self.settings.portal_id.is_some() {
            let now = self.clock.now();
            self.account.pauses.begin(
                PauseReason::Unproven,
                Covers::Both,
                now,
                None,
                Words::default(),
            );
        }
    }

    /// Probes once at the start, on suspicion, and while something is held back.
    pub(super) async fn keep_pauses(&self, api: &Arc<RateLimiter>, term: &CancellationToken) {
        let work = async {
            self.probe(api).await;
            loop {
                let change = self.account.pauses.change();
                let next = self.account.pauses.next_probe();
                tokio::select! {
                    biased;
                    () = self.suspicion.notified() => self.probe(api).await,
                    () = sleep_until(next) => self.probe(api).await,
                    () = change => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = term.cancelled() => {}
            () = work => {}
        }
    }

    /// One probe and what it says about each pause.
    async fn probe(&self, api: &Arc<RateLimiter>) {
        let mut tokens = Vec::new();
        for _ in 0..PROBE_CALLS {
            tokens.push(api.token().await);
        }
        // All at once, since that is how they go out: the first one may have waited for the others.
        let flights: Vec<_> = tokens.into_iter().map(|token| api.spend(token)).collect();
        for _ in &flights {
            self.count_call();
        }
        let called = Instant::now();
        let probe = self.provider.probe().await;
        drop(flights);
        let now = self.clock.now();
        if let Probe::Open(portal) = &probe {
            // Before the limits are read, which tell of that day.
            let zone = portal.time_zone.as_deref();
            if let Some(zone) = zone.and_then(|name| TimeZone::get(name).ok()) {
                self.learn_zone(zone, now);
            }
        }
        self.heed_limits(now);
        self.account.pauses.probed();
        let words = match &probe {
            Probe::Open(_) => Words {
                status: Some(200),
                ..Words::default()
            },
            Probe::Shut(failure) | Probe::Inconclusive(failure) => failure.words.clone(),
        };
        self.metrics.called(
            &self.account.name,
            Operation::Probe,
            called.elapsed(),
            &words,
        );
        match probe {
            Probe::Open(portal) => self.opened(&portal),
            Probe::Shut(failure) => self.heed(&failure, Lane::Sends, now),
            Probe::Inconclusive(failure) => {
                let down = failure.scope == Scope::Provider;
                if down && self.storm().is_suspect() {
                    self.hold(PauseReason::Outage, &failure, Lane::Sends, now);
                }
                // Where HubSpot itself is not reached there is nothing to try.
                self.account
                    .pauses
                    .allow_trial(|pause| !down && pause.reason != PauseReason::Unproven);
            }
        }
    }

    /// The token opens an account: is it the right one?
    fn opened(&self, portal: &Portal) {
        let pauses = &self.account.pauses;
        match (self.settings.portal_id, portal.portal_id) {
            (Some(wanted), Some(opened)) if wanted != opened => {
                tracing::error!(
                    account = %self.account.name, wanted, opened,
                    hint = "correct accounts.NAME.portal_id or the token; nothing is sent meanwhile",
                    "the token opens another portal than portal_id names"
                );
                return;
            }
            // HubSpot did not say which portal: still not proven.
            (Some(_), None) => {}
            (Some(_), Some(_)) | (None, _) => {
                let ended = pauses.end(|pause| pause.reason == PauseReason::Unproven);
                self.ended(&ended, "the token opens the configured portal");
            }
        }
        let ended = pauses.end(|pause| pause.reason == PauseReason::Unauthorized);
        self.ended(&ended, "HubSpot accepts the token");
        pauses.allow_trial(|pause| pause.reason != PauseReason::Unproven);
    }
}
