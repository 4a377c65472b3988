//! The requests of a run, and what each of them has in store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::after;
use crate::message::Priority;
use crate::sandbox::status::SEND_RESULTS;

/// Statuses that HubSpot, or what stands in front of it, may answer with.
const STATUSES: [u16; 28] = [
    301, 400, 401, 402, 403, 404, 405, 407, 408, 409, 410, 413, 415, 421, 422, 423, 425, 429, 477,
    500, 502, 503, 504, 520, 521, 522, 523, 526,
];
/// The other words of the sandbox's addresses.
const WORDS: [&str; 10] = [
    "5xx",
    "5xx-sent",
    "400-text",
    "daily",
    "cut",
    "cut-before",
    "never",
    "slow",
    "late",
    "lost",
];

/// One request, and how often and where it is published.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Letter {
    pub(in crate::sim) id: String,
    /// Since the run began.
    pub(in crate::sim) at: Duration,
    /// Published a second time so much later, by a producer that is not sure.
    pub(in crate::sim) again_after: Option<Duration>,
    pub(in crate::sim) account: usize,
    pub(in crate::sim) priority: Priority,
    pub(in crate::sim) body: String,
    pub(in crate::sim) message_id: Option<String>,
    pub(in crate::sim) send_at: Option<Timestamp>,
    pub(in crate::sim) expires_at: Option<Timestamp>,
    pub(in crate::sim) flaw: Option<Flaw>,
    /// Of what comes between it and its confirms.
    pub(in crate::sim) seed: u64,
}

/// What the ids of requests begin with that were not drawn.
const FRESH: &str = "fresh-";

impl Letter {
    /// A request with nothing wrong about it, published after all was calm.
    pub(in crate::sim) fn fresh(account: usize, now: Timestamp) -> Self {
        let id = format!("{FRESH}{account}-{}", now.as_second());
        Self {
            body: format!(
                r#"{{"emailId":7,"message":{{"to":"ada@example.com","sendId":"{id}"}}}}"#
            ),
            id,
            at: Duration::ZERO,
            again_after: None,
            account,
            priority: Priority::Normal,
            message_id: None,
            send_at: None,
            expires_at: None,
            flaw: None,
            seed: 0,
        }
    }

    pub(in crate::sim) fn is_fresh(id: &str) -> bool {
        id.starts_with(FRESH)
    }
}

/// Why a request is one that no attempt is ever made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Flaw {
    /// It cannot be read, or has no id, or two.
    Malformed,
    /// It names an account that nobody has.
    NoAccount,
}

pub(super) fn draw(
    rng: &mut fastrand::Rng,
    count: usize,
    accounts: usize,
    span: Duration,
    starts_at: Timestamp,
) -> BTreeMap<String, Letter> {
    // In how many of a hundred requests there is trouble of their own.
    let trouble = rng.u32(0..60);
    let letters = (0..count).map(|number| {
        let mut letter = letter(rng, number, accounts, span, trouble);
        let now = after(starts_at, letter.at);
        letter.body = body(rng, &mut letter, trouble, now);
        (letter.id.clone(), letter)
    });
    letters.collect()
}

fn letter(
    rng: &mut fastrand::Rng,
    number: usize,
    accounts: usize,
    span: Duration,
    trouble: u32,
) -> Letter {
    // Half of them come in one moment.
    let at = if rng.bool() {
        Duration::ZERO
    } else {
        span.mul_f64(rng.f64())
    };
    Letter {
        id: format!("m-{number:03}"),
        at,
        again_after: (rng.u32(0..300) < trouble).then(|| Duration::from_millis(rng.u64(0..60_000))),
        account: rng.usize(0..accounts),
        priority: *rng.choice(&Priority::ALL).unwrap_or(&Priority::Normal),
        body: String::new(),
        message_id: None,
        send_at: None,
        expires_at: None,
        flaw: None,
        seed: rng.u64(..),
    }
}

/// The body, which decides the rest of the letter too.
fn body(rng: &mut fastrand::Rng, letter: &mut Letter, trouble: u32, now: Timestamp) -> String {
    let id = letter.id.clone();
    let mut send_id = format!(r#","sendId":"{id}""#);
    match rng.u32(0..4) {
        0 => {
            send_id.clear();
            letter.message_id = Some(id);
        }
        1 => letter.message_id = Some(id),
        _ => {}
    }
    if rng.u32(0..400) < trouble {
        letter.flaw = Some(Flaw::Malformed);
        return malformed(rng, letter);
    }
    let to = if rng.u32(0..100) < trouble {
        format!("ada+{}@example.com", tag(rng))
    } else {
        "ada@example.com".to_owned()
    };
    let mut dispatch = String::new();
    if rng.u32(0..10) == 0 {
        let at = after(now, Duration::from_secs(rng.u64(1..3_600)));
        letter.send_at = Some(at);
        write!(dispatch, r#","sendAt":"{at}""#).ok();
    }
    if rng.u32(0..7) == 0 {
        let sooner = letter.send_at.unwrap_or(now);
        let at = after(sooner, Duration::from_secs(rng.u64(1..7_200)));
        letter.expires_at = Some(at);
        write!(dispatch, r#","expiresAt":"{at}""#).ok();
    }
    if rng.u32(0..400) < trouble {
        let priority = rng.choice(&Priority::ALL).unwrap_or(&Priority::Low);
        write!(dispatch, r#","priority":"{priority}""#).ok();
    }
    if rng.u32(0..600) < trouble {
        letter.flaw = Some(Flaw::NoAccount);
        dispatch.push_str(r#","account":"nobody""#);
    }
    let dispatch = dispatch.strip_prefix(',').unwrap_or_default();
    format!(r#"{{"emailId":7,"message":{{"to":"{to}"{send_id}}},"dispatch":{{{dispatch}}}}}"#)
}

fn malformed(rng: &mut fastrand::Rng, letter: &mut Letter) -> String {
    let id = &letter.id;
    match rng.u32(0..4) {
        0 => {
            letter.message_id = Some(id.clone());
            "no JSON".to_owned()
        }
        1 => format!(r#"{{"emailId":0,"message":{{"to":"ada@example.com","sendId":"{id}"}}}}"#),
        2 => {
            letter.message_id = Some(format!("{id}-other"));
            format!(r#"{{"emailId":7,"message":{{"to":"ada@example.com","sendId":"{id}"}}}}"#)
        }
        _ => {
            letter.message_id = Some(id.clone());
            format!(r#"{{"emailId":7,"message":{{"to":"nobody","sendId":"{id}"}}}}"#)
        }
    }
}

/// A tag of the sandbox's: what happens to this one request, once, a few times or for ever.
fn tag(rng: &mut fastrand::Rng) -> String {
    let times = match rng.u32(0..3) {
        0 => String::new(),
        _ => format!("x{}", rng.u32(1..4)),
    };
    match rng.u32(0..3) {
        0 => {
            let status = rng.choice(&STATUSES).unwrap_or(&503);
            // For ever, such an answer would keep the account from ever working again.
            let halts = matches!(status, 300..=399 | 401..=403 | 405 | 407 | 421 | 429 | 477);
            let times = if halts { "x1" } else { &times };
            format!("http{status}{times}")
        }
        1 => match *rng.choice(&WORDS).unwrap_or(&"cut") {
            "daily" => "dailyx1".to_owned(),
            word => format!("{word}{times}"),
        },
        _ if rng.u32(0..10) == 0 => format!("X_UNHEARD_OF{times}"),
        _ => {
            let result = *rng.choice(&SEND_RESULTS).unwrap_or(&"SENT");
            match result {
                // HubSpot's word on an id that was used before, which this one was not.
                "IDEMPOTENT_IGNORE" | "IDEMPOTENT_FAIL" => "late".to_owned(),
                // For ever, such a result would keep an account stopped that has no other mail.
                _ if stops_account(result) => format!("{result}x{}", rng.u32(1..9)),
                _ => format!("{result}{times}"),
            }
        }
    }
}

fn stops_account(result: &str) -> bool {
    const OTHERS: [&str; 4] = [
        "UNCONFIGURED_SENDING_DOMAIN",
        "INVALID_APP_ID_ATTRIBUTION",
        "UBB_GOVERNANCE_MISSING",
        "CANCELLED_ABUSE",
    ];
    result.starts_with("PORTAL_") || OTHERS.contains(&result)
}
