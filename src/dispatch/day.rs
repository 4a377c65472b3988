//! The day: counted here, told by HubSpot, and taken up by the next owner.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use super::{Dispatcher, pause_for};
use crate::message::Priority;
use crate::outcome::{PauseReason, Words};
use crate::pause::Covers;
use crate::provider::Provider;
use crate::queue::{DayCalls, Lease, Queue, Word};
use crate::quota::Standing;

/// How often the next owner is told of the day, where anything was called: so many calls it may not
/// know of after a crash.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    /// Takes up what the owners before counted.
    pub(super) fn resume_day(&self, lease: &Lease) {
        if let Some(DayCalls { calls, ends }) = lease.day {
            let now = self.clock.now();
            let news = self.account.day().resume((calls, ends), now);
            self.day_is_spent(news, now);
        }
    }

    /// Tells the next owner of the day, until the term ends. Returns what it was told last.
    pub(super) async fn keep_day(
        &self,
        lease: &Lease,
        term: &CancellationToken,
    ) -> Option<DayCalls> {
        let mut told = lease.day;
        loop {
            pause_for(term, TELL_EVERY).await;
            tokio::select! {
                biased;
                // What is told last is told anew then.
                () = term.cancelled() => return told,
                now = self.tell_day(lease, told) => told = now,
            }
        }
    }

    /// Tells the next owner of the day, unless that is what it was told.
    pub(super) async fn tell_day(&self, lease: &Lease, told: Option<DayCalls>) -> Option<DayCalls> {
        let counted = self.account.day().counted(self.clock.now());
        let day = counted.map(|(calls, ends)| DayCalls { calls, ends });
        match day.filter(|day| Some(*day) != told) {
            Some(day) if lease.tell(Word::Day(day)).await => Some(day),
            Some(_) | None => told,
        }
    }

    /// Counts a call against the account's day, and pauses what that leaves none for.
    pub(super) fn count_call(&self) {
        let now = self.clock.now();
        let news = self.account.day().spend(now);
        self.day_is_spent(news, now);
    }

    /// HubSpot told the account's time zone: where the day ends otherwise than was thought, so do the
    /// pauses for it.
    pub(super) fn learn_zone(&self, zone: TimeZone, now: Timestamp) {
        let news = self.account.day().lies_in(zone, now);
        if let Some(news) = news {
            let pauses = &self.account.pauses;
            let ended = pauses.end(|pause| pause.reason == PauseReason::Daily);
            self.ended(
                &ended,
                "the account's time zone is known, and its day ends otherwise",
            );
            self.day_is_spent(news, now);
        }
    }

    /// The rate limits that HubSpot's answers told since the last time.
    pub(super) fn heed_limits(&self, now: Timestamp) {
        let limits = self.provider.rate_limits();
        self.account.heed(limits);
        if let Some(day) = limits.day {
            let news = self.account.day().heed(day, now);
            self.day_is_spent(news, now);
        }
    }

    /// Pauses what the day has no calls for: look-ups first, then what is less urgent, and then
    /// everything.
    fn day_is_spent(&self, news: Vec<(Standing, Timestamp)>, now: Timestamp) {
        for (standing, midnight) in news {
            let (covers, what) = match standing {
                Standing::Free => continue,
                Standing::SendsOnly => (
                    Covers::Results,
                    "the last tenth of quota.daily is left to sends; results are looked up tomorrow",
                ),
                Standing::NoLow => (
                    Covers::Below(Priority::Normal),
                    "the last twentieth of quota.daily is left to mail that is not low",
                ),
                Standing::HighOnly => (
                    Covers::Below(Priority::High),
                    "the last fiftieth of quota.daily is left to high mail",
                ),
                Standing::Spent => (Covers::Both, "quota.daily is spent"),
            };
            let words = Words {
                message: Some(what.into()),
                ..Words::default()
            };
            let pauses = &self.account.pauses;
            if pauses.begin(PauseReason::Daily, covers, now, Some(midnight), words) {
                tracing::warn!(
                    account = %self.account.name, reason = PauseReason::Daily.label(), until = %midnight,
                    what, "paused; nothing is lost"
                );
            }
        }
    }
}
