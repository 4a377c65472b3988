//! Every metric, with its labels, and the functions that record them. The only room that names
//! the `prometheus` crate. No label takes an unbounded value.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::message::{AccountName, Priority};
use crate::outcome::{DeadReason, Outcome, PauseReason, Words};
use crate::pause::Pause;
use crate::retry::FinalResult;

/// Seconds: from a loopback answer to HubSpot's 100 s limit.
const CALL_BUCKETS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 100.0,
];
/// Seconds: from at once to a day behind.
const LATENCY_BUCKETS: [f64; 12] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0,
];
/// Seconds that a call waited for room in its window.
const WAIT_BUCKETS: [f64; 8] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// What a call to HubSpot was for. The label `operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Send,
    LookUp,
    Probe,
}

/// All metrics of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    received: IntCounterVec,
    attempts: IntCounterVec,
    results: IntCounterVec,
    dead_letters: IntCounterVec,
    replayed: IntCounter,
    call_seconds: HistogramVec,
    latency_seconds: HistogramVec,
    queue_messages: IntGaugeVec,
    oldest_age_seconds: GaugeVec,
    quota_limit: IntGaugeVec,
    quota_used_ratio: GaugeVec,
    quota_wait_seconds: Histogram,
    in_flight: IntGaugeVec,
    owner: IntGaugeVec,
    pause: IntGaugeVec,
    responses: IntCounterVec,
    token_trouble: IntGaugeVec,
    trace_dropped: IntCounter,
}

impl Metrics {
    /// # Panics
    /// Never: the names below are valid and registered once each, which a test holds.
    #[expect(
        clippy::expect_used,
        reason = "the names are constants; a test builds them all"
    )]
    pub fn new() -> Self {
        Self::build().expect("metric names are valid")
    }

    #[expect(clippy::too_many_lines, reason = "one list, a metric after the other")]
    fn build() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("postrider".into()), None)?;
        let r = &registry;
        let metrics = Self {
            received: counters(
                r,
                "requests_received_total",
                "Requests seen for the first time",
                &["account", "priority"],
            )?,
            attempts: counters(
                r,
                "attempts_total",
                "Calls to Single Send, by what became of them",
                &["account", "outcome"],
            )?,
            results: counters(
                r,
                "results_total",
                "Final results of accepted sends",
                &["account", "result"],
            )?,
            dead_letters: counters(
                r,
                "dead_letters_total",
                "Requests moved to the dead-letter queue",
                &["account", "reason"],
            )?,
            replayed: added(
                r,
                IntCounter::new("replayed_total", "Dead letters that came back by replay")?,
            )?,
            call_seconds: histograms(
                r,
                "hubspot_request_duration_seconds",
                "Duration of calls to HubSpot",
                &["account", "operation"],
                &CALL_BUCKETS,
            )?,
            latency_seconds: histograms(
                r,
                "dispatch_latency_seconds",
                "From publish to HubSpot's acceptance",
                &["account", "priority"],
                &LATENCY_BUCKETS,
            )?,
            queue_messages: gauges(
                r,
                "queue_messages",
                "Messages that stand in a queue",
                &["queue"],
            )?,
            oldest_age_seconds: added(
                r,
                GaugeVec::new(
                    Opts::new(
                        "oldest_message_age_seconds",
                        "Age of the oldest message of a queue, where known",
                    ),
                    &["queue"],
                )?,
            )?,
            quota_limit: gauges(
                r,
                "quota_limit",
                "Calls that a rolling window allows; 0 is no ceiling",
                &["account", "bucket"],
            )?,
            quota_used_ratio: added(
                r,
                GaugeVec::new(
                    Opts::new(
                        "quota_used_ratio",
                        "Share of the rolling window that is used",
                    ),
                    &["account", "bucket"],
                )?,
            )?,
            quota_wait_seconds: added(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "quota_wait_seconds",
                        "How long a call waited for room in its window",
                    )
                    .buckets(WAIT_BUCKETS.to_vec()),
                )?,
            )?,
            in_flight: gauges(r, "in_flight", "Calls to HubSpot under way", &["account"])?,
            owner: gauges(
                r,
                "owner",
                "1 while this worker dispatches the account, 0 while it stands by",
                &["account"],
            )?,
            pause: gauges(
                r,
                "pause",
                "1 while dispatch is held back",
                &["account", "scope", "reason"],
            )?,
            responses: counters(
                r,
                "hubspot_responses_total",
                "HubSpot's answers by HTTP status; `none` when none came",
                &["account", "status"],
            )?,
            token_trouble: gauges(
                r,
                "token_trouble",
                "1 while what this key tells is no token, is not proven, or is not renewed in time",
                &["account", "key"],
            )?,
            trace_dropped: added(
                r,
                IntCounter::new(
                    "trace_dropped_total",
                    "Steps of requests that could not be kept for `postrider trace`",
                )?,
            )?,
            registry,
        };
        let build = gauges(
            &metrics.registry,
            "build_info",
            "1, with the version",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
    }

    /// Makes an account's series exist from the start, at zero.
    pub fn declare(&self, account: &AccountName) {
        let account = account.as_str();
        for priority in Priority::ALL {
            let labels = [account, priority.as_str()];
            self.received.with_label_values(&labels);
            self.latency_seconds.with_label_values(&labels);
        }
        for operation in [Operation::Send, Operation::LookUp, Operation::Probe] {
            self.call_seconds
                .with_label_values(&[account, operation.label()]);
        }
        for outcome in [
            "accepted",
            "transient",
            "permanent",
            "throttled",
            "unknown",
            "halted",
        ] {
            self.attempts.with_label_values(&[account, outcome]);
        }
        for result in [
            FinalResult::Sent,
            FinalResult::Refused,
            FinalResult::Unknown,
        ] {
            self.results.with_label_values(&[account, result.label()]);
        }
        for reason in DeadReason::ALL {
            self.dead_letters
                .with_label_values(&[account, reason.label()]);
        }
        self.in_flight.with_label_values(&[account]);
        self.owner.with_label_values(&[account]);
    }

    pub fn received(&self, account: &AccountName, priority: Priority) {
        self.received
            .with_label_values(&[account.as_str(), priority.as_str()])
            .inc();
    }

    pub fn replayed(&self) {
        self.replayed.inc();
    }

    /// Shows how many steps were dropped so far.
    pub fn trace_dropped(&self, all: u64) {
        let told = self.trace_dropped.get();
        self.trace_dropped.inc_by(all.saturating_sub(told));
    }

    pub fn attempt(&self, account: &AccountName, outcome: &Outcome) {
        self.attempts
            .with_label_values(&[account.as_str(), outcome.label()])
            .inc();
    }

    pub fn result(&self, account: &AccountName, result: FinalResult) {
        self.results
            .with_label_values(&[account.as_str(), result.label()])
            .inc();
    }

    pub fn dead_letter(&self, account: &AccountName, reason: DeadReason) {
        self.dead_letters
            .with_label_values(&[account.as_str(), reason.label()])
            .inc();
    }

    pub fn called(
        &self,
        account: &AccountName,
        operation: Operation,
        took: Duration,
        words: &Words,
    ) {
        self.took(account, operation, took);
        self.answered(account, words.status);
    }

    /// A probe's calls take their time together.
    pub fn took(&self, account: &AccountName, operation: Operation, took: Duration) {
        self.call_seconds
            .with_label_values(&[account.as_str(), operation.label()])
            .observe(took.as_secs_f64());
    }

    /// One call's status, if an answer came.
    pub fn answered(&self, account: &AccountName, status: Option<u16>) {
        let status = status.map_or_else(|| "none".into(), |status| status.to_string());
        self.responses
            .with_label_values(&[account.as_str(), &status])
            .inc();
    }

    pub fn accepted_after(&self, account: &AccountName, priority: Priority, latency: Duration) {
        self.latency_seconds
            .with_label_values(&[account.as_str(), priority.as_str()])
            .observe(latency.as_secs_f64());
    }

    /// `bucket`: `send`, `api` or `daily`.
    pub fn quota(&self, account: &AccountName, bucket: &str, limit: u64, used_ratio: f64) {
        let labels = [account.as_str(), bucket];
        self.quota_limit
            .with_label_values(&labels)
            .set(i64::try_from(limit).unwrap_or(i64::MAX));
        self.quota_used_ratio
            .with_label_values(&labels)
            .set(used_ratio);
    }

    pub fn quota_waited(&self, wait: Duration) {
        self.quota_wait_seconds.observe(wait.as_secs_f64());
    }

    pub fn in_flight(&self, account: &AccountName, change: i64) {
        self.in_flight
            .with_label_values(&[account.as_str()])
            .add(change);
    }

    pub fn owner(&self, account: &AccountName, yes: bool) {
        self.owner
            .with_label_values(&[account.as_str()])
            .set(yes.into());
    }

    /// Shows the account's pauses; those that are over fall to 0.
    pub fn pauses(&self, account: &AccountName, active: &[Pause]) {
        for reason in PauseReason::ALL {
            let on = active.iter().any(|pause| pause.reason == reason);
            self.pause
                .with_label_values(&[account.as_str(), reason.scope().label(), reason.label()])
                .set(on.into());
        }
    }

    /// `key`: `token` or `next_token`.
    pub fn token_trouble(&self, account: &AccountName, key: &str, yes: bool) {
        self.token_trouble
            .with_label_values(&[account.as_str(), key])
            .set(yes.into());
    }

    pub fn queue(&self, queue: &str, messages: u64, oldest: Option<Duration>) {
        self.queue_messages
            .with_label_values(&[queue])
            .set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.oldest_age_seconds
            .with_label_values(&[queue])
            .set(oldest.unwrap_or_default().as_secs_f64());
    }

    /// Everything in Prometheus' text format, the process's own figures among it.
    pub fn render(&self) -> String {
        let mut families = self.registry.gather();
        families.extend(prometheus::gather());
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::LookUp => "look_up",
            Self::Probe => "probe",
        }
    }
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    added(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    added(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    added(registry, HistogramVec::new(opts, labels)?)
}

fn added<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_begin_with_the_prefix_and_stand_at_zero() {
        let metrics = Metrics::new();
        metrics.declare(&AccountName::default());
        let text = metrics.render();
        assert!(
            text.contains("postrider_attempts_total{account=\"default\",outcome=\"accepted\"} 0")
        );
        assert!(
            text.contains(
                "postrider_dead_letters_total{account=\"default\",reason=\"malformed\"} 0"
            )
        );
        assert!(text.contains("postrider_replayed_total 0"));
        assert!(text.contains("postrider_build_info{version="));
    }
}
