//! Rolling windows and the day, of each portal.
//!
//! HubSpot's burst limits belong to an app, the daily one to an account; here both are the
//! portal's. Its specs exempt sends from both. Where the options set a limit for sends all the
//! same it holds, and the day counts all calls: the stricter reading.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::sandbox::answer::{Answer, Answers, Bucket};
use crate::sandbox::window::Window;
use crate::sandbox::{Limit, Options};

/// The portal that a token opens, unless it ends in `-portal-N`.
pub const PORTAL: u32 = 62_515;
/// Over what calls are counted where no limit is set: HubSpot's own window.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Portals with windows of their own; more share the first.
const PORTALS_MAX: usize = 1_000;

/// The limits of all portals.
#[derive(Debug)]
pub(super) struct Limits {
    send: Option<Limit>,
    api: Option<Limit>,
    pub daily: Option<u64>,
    time_zone: TimeZone,
    portals: BTreeMap<u32, Portal>,
}

#[derive(Debug)]
struct Portal {
    send: Window,
    api: Window,
    day: Day,
}

/// The day of a portal, from midnight to midnight in its own time zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day {
    pub ends: Timestamp,
    pub used: u64,
}

impl Limits {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            send: options.limit,
            api: options.api_limit,
            daily: options.daily,
            time_zone: options.time_zone.clone(),
            portals: BTreeMap::new(),
        }
    }

    /// The portal that a token opens.
    pub(super) fn portal_of(&self, token: &str) -> u32 {
        token
            .rsplit_once("-portal-")
            .and_then(|(_, portal)| portal.parse().ok())
            .filter(|portal| self.portals.len() < PORTALS_MAX || self.portals.contains_key(portal))
            .unwrap_or(PORTAL)
    }

    /// Every call counts at its arrival, whatever becomes of it, a refused one too.
    pub(super) fn count(&mut self, now: Timestamp, portal: u32, bucket: Bucket) {
        let portal = self.portals.entry(portal).or_insert_with(|| Portal {
            send: Window::new(self.send, WINDOW),
            api: Window::new(self.api, WINDOW),
            day: Day {
                ends: Timestamp::MIN,
                used: 0,
            },
        });
        if now >= portal.day.ends {
            portal.day = Day {
                ends: day_end(now, &self.time_zone),
                used: 0,
            };
        }
        portal.day.used += 1;
        match bucket {
            Bucket::Send => portal.send.arrive(now),
            Bucket::Api => portal.api.arrive(now),
        }
    }

    /// The 429 of the call that was counted last, if it is one too many.
    pub(super) fn refusal(&self, portal: u32, bucket: Bucket, answers: &Answers) -> Option<Answer> {
        let limits = self.portals.get(&portal)?;
        if self.daily.is_some_and(|daily| limits.day.used > daily) {
            return Some(answers.daily_limit());
        }
        let window = limits.window(bucket);
        window
            .is_over()
            .then(|| answers.rolling_limit(window.span(), portal))
    }

    /// The rate limit headers: on calls that are not exempt, for the limits that are set.
    pub(super) fn headers(&self, portal: u32, bucket: Bucket) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        let Some(portal) = self.portals.get(&portal).filter(|_| bucket == Bucket::Api) else {
            return headers;
        };
        if let Some(daily) = self.daily {
            let remaining = daily.saturating_sub(portal.day.used);
            headers.push(("x-hubspot-ratelimit-daily", daily.to_string()));
            headers.push(("x-hubspot-ratelimit-daily-remaining", remaining.to_string()));
        }
        if let (Some(limit), Some(remaining)) = (self.api, portal.api.remaining()) {
            let interval = limit.window.as_millis();
            headers.push((
                "x-hubspot-ratelimit-interval-milliseconds",
                interval.to_string(),
            ));
            headers.push(("x-hubspot-ratelimit-max", limit.calls.to_string()));
            headers.push(("x-hubspot-ratelimit-remaining", remaining.to_string()));
        }
        headers
    }

    pub(super) fn day(&self, portal: u32) -> Option<Day> {
        self.portals.get(&portal).map(|portal| portal.day)
    }

    /// Calls of today, of the busiest portal.
    pub(super) fn most_today(&self) -> u64 {
        self.portals
            .values()
            .map(|portal| portal.day.used)
            .max()
            .unwrap_or(0)
    }

    /// The limit of a bucket, and the most calls that any window of one portal held.
    pub(super) fn most(&self, bucket: Bucket) -> (Option<Limit>, usize) {
        let limit = match bucket {
            Bucket::Send => self.send,
            Bucket::Api => self.api,
        };
        let most = self
            .portals
            .values()
            .map(|portal| portal.window(bucket).most())
            .max();
        (limit, most.unwrap_or(0))
    }
}

impl Portal {
    fn window(&self, bucket: Bucket) -> &Window {
        match bucket {
            Bucket::Send => &self.send,
            Bucket::Api => &self.api,
        }
    }
}

/// The next midnight of the account.
fn day_end(now: Timestamp, time_zone: &TimeZone) -> Timestamp {
    let midnight = || now.to_zoned(time_zone.clone()).tomorrow()?.start_of_day();
    midnight().map_or(Timestamp::MAX, |midnight| midnight.timestamp())
}
