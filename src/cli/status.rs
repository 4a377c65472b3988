//! What the running worker says: asked for at its admin server, and told to a person.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use reqwest::StatusCode;
use secrecy::ExposeSecret;

use crate::clock;
use crate::config::ServerConfig;
use crate::crypto::init_crypto;
use crate::outcome::PauseReason;
use crate::queue::Lane;
use crate::quota::DAILY;
use crate::status::{self, PauseStatus, QuotaStatus, Status, TokenStatus};

/// The worker is on this machine or near: an answer that takes longer is none.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Far more than the status of a thousand accounts.
const STATUS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Which workers are asked.
#[derive(Debug, clap::Args)]
pub(super) struct Workers {
    /// A worker's admin server; may be given for each of several workers [default: server.listen of
    /// the configuration]
    #[arg(long = "worker", value_name = "ADDR")]
    addresses: Vec<SocketAddr>,
}

/// What workers say.
#[derive(Debug)]
pub(super) struct Told {
    /// The accounts of all that answered, each as whoever dispatches it tells; `None` where nobody did.
    pub(super) status: Option<Status>,
    /// Of the others: in words, and the next step.
    pub(super) unknown: Vec<(String, &'static str)>,
    /// Who was asked.
    asked: Vec<SocketAddr>,
}

impl Told {
    /// Who was asked, in words.
    pub(super) fn asked(&self) -> String {
        let asked: Vec<String> = self.asked.iter().map(SocketAddr::to_string).collect();
        match asked.as_slice() {
            [one] => format!("the worker at {one}"),
            several => format!("each of the workers at {}", several.join(", ")),
        }
    }
}

/// The status of each worker, asked for with this configuration's own token.
pub(super) async fn ask_all(workers: &Workers, server: &ServerConfig) -> Told {
    let asked = if workers.addresses.is_empty() {
        vec![server.listen]
    } else {
        workers.addresses.clone()
    };
    let asked: Vec<SocketAddr> = asked.into_iter().map(reachable).collect();
    let mut told = Told {
        status: None,
        unknown: Vec::new(),
        asked: asked.clone(),
    };
    let answers = join_all(asked.iter().map(|worker| ask(*worker, server))).await;
    for (worker, answer) in asked.into_iter().zip(answers) {
        match answer {
            Ok(status) => merge(told.status.get_or_insert_default(), status),
            Err(why) => told.unknown.push((why.told(worker), why.hint())),
        }
    }
    told
}

/// Each account as its owner tells, or else as the first one that has it.
fn merge(into: &mut Status, status: Status) {
    for account in status.accounts {
        let known = into.accounts.iter_mut().find(|it| it.name == account.name);
        match known {
            Some(known) if account.owner => *known = account,
            Some(_) => {}
            None => into.accounts.push(account),
        }
    }
}

/// A server that listens everywhere is asked at home.
fn reachable(listen: SocketAddr) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let home = match listen.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(home, listen.port())
}

/// Why a worker's status is not known.
#[derive(Debug)]
enum Unknown {
    /// Nobody answers as a worker does, and in a few words how.
    Silent(&'static str),
    /// There is a worker, and it does not tell us: why, and the next step.
    Refused { why: String, hint: &'static str },
}

impl Unknown {
    const NO_WORKER: Self = Self::Silent("what listens there is no worker");

    fn of(error: &reqwest::Error) -> Self {
        Self::Silent(if error.is_timeout() {
            "no answer in 2 s"
        } else {
            "nothing listens there"
        })
    }

    /// In words, for the worker at an address.
    fn told(&self, worker: SocketAddr) -> String {
        match self {
            Self::Silent(why) => format!("no worker answers at {worker} ({why})"),
            Self::Refused { why, .. } => format!("the worker at {worker} {why}"),
        }
    }

    /// The next step.
    fn hint(&self) -> &'static str {
        match self {
            Self::Silent(_) => {
                "start one with `postrider worker`, or name its address with --worker"
            }
            Self::Refused { hint, .. } => hint,
        }
    }

    fn refused(why: impl Into<String>, hint: &'static str) -> Self {
        Self::Refused {
            why: why.into(),
            hint,
        }
    }
}

/// The worker's status, asked for with this configuration's own token.
async fn ask(worker: SocketAddr, server: &ServerConfig) -> Result<Status, Unknown> {
    init_crypto();
    let client = reqwest::Client::builder()
        .timeout(STATUS_TIMEOUT)
        .no_proxy()
        .build()
        .map_err(|_| Unknown::Silent("no HTTP client"))?;
    let mut request = client.get(format!("http://{worker}{}", status::PATH));
    let token = server.token_now().map_err(|error| {
        let hint = "mend the file, or its mode: it is to hold the worker's token, and nothing else";
        Unknown::refused(format!("was not asked: {error}"), hint)
    })?;
    if let Some(token) = &token {
        request = request.bearer_auth(token.expose_secret());
    }
    let mut answer = request.send().await.map_err(|error| Unknown::of(&error))?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            let why = match token {
                Some(_) => "does not take the server.token that is set here",
                None => "asks for server.token, and none is set here",
            };
            let hint = "set server.token (or server.token_file) to the worker's here";
            return Err(Unknown::refused(why, hint));
        }
        StatusCode::FORBIDDEN => {
            let hint = "set server.token (or server.token_file), the same one there and here";
            return Err(Unknown::refused("tells nothing without a token", hint));
        }
        _ => return Err(Unknown::NO_WORKER),
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| Unknown::of(&error))? {
        if body.len() + chunk.len() > STATUS_BYTES_MAX {
            return Err(Unknown::NO_WORKER);
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|_| Unknown::NO_WORKER)
}

/// One line for 3 am.
pub(super) fn told(pause: &PauseStatus, now: Timestamp) -> String {
    let ends = match pause.until {
        Some(until) if until > now => until.to_string(),
        Some(_) | None => "when a probe finds it healed".to_owned(),
    };
    let alone: Vec<_> = (pause.priorities.iter().map(|it| it.as_str())).collect();
    let alone = match (alone.as_slice(), pause.lanes.as_slice()) {
        ([], [lane]) if lane == Lane::Sends.as_str() => ", sends alone".to_owned(),
        ([], [_]) => ", look-ups alone".to_owned(),
        ([], _) => String::new(),
        (alone, _) => format!(", {} sends alone", alone.join(" and ")),
    };
    format!(
        "paused ({}), {}{alone}: began {} ago, ends {ends}; nothing is lost",
        pause.scope,
        pause.reason.label(),
        age(now, pause.since),
    )
}

/// What somebody has to do about a pause; nothing where it ends without anybody.
pub(super) fn next_step(reason: PauseReason) -> Option<&'static str> {
    match reason {
        PauseReason::Unauthorized => {
            Some("give the account a token that HubSpot takes; `postrider check` tries it")
        }
        PauseReason::App => Some("correct oauth.client_id and the client secret"),
        PauseReason::Forbidden => Some("grant at HubSpot what `postrider check` names as missing"),
        PauseReason::Portal => Some("ask HubSpot, which has stopped the account's sending"),
        PauseReason::Unproven
        | PauseReason::Migrating
        | PauseReason::Daily
        | PauseReason::Throttled
        | PauseReason::Outage => None,
    }
}

/// What is wrong with a token, in one line; without `until` nobody knows for how long the one in force
/// is good.
pub(super) fn troubled(trouble: &TokenStatus, now: Timestamp) -> String {
    let TokenStatus {
        key, place, why, ..
    } = trouble;
    let until = match trouble.until {
        Some(until) => format!("; the token in force ends at {until}"),
        None => String::new(),
    };
    let began = age(now, trouble.since);
    format!("token trouble, {key} ({place}): {why}; began {began} ago{until}")
}

/// How much of a limit is used, and who else uses it.
pub(super) fn spent(quota: &QuotaStatus) -> String {
    let QuotaStatus {
        bucket,
        limit,
        window_s,
        used,
        ..
    } = quota;
    let over = if bucket == DAILY {
        "today".to_owned()
    } else {
        format!("in {window_s} s")
    };
    let others = match (quota.share, quota.told) {
        (Some(share), Some(told)) if share == told => format!("; HubSpot tells of {told}"),
        (Some(share), _) => format!("; others call too and leave {share}"),
        (None, _) => String::new(),
    };
    let end = match (quota.spent_at, quota.ends) {
        (_, Some(ends)) if used >= limit => format!("; the next day begins at {ends}"),
        (Some(at), _) => format!("; at this rate spent at {at}"),
        (None, _) => String::new(),
    };
    format!("  {bucket:<6} {used} of {limit} calls {over} used{others}{end}")
}

/// How long ago.
pub(super) fn age(now: Timestamp, at: Timestamp) -> String {
    in_words(clock::until(at, now))
}

/// In the two largest units.
pub(super) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h")];
    let small = [(seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let told: Vec<String> = units
        .into_iter()
        .chain(small)
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if told.is_empty() {
        "0s".to_owned()
    } else {
        told.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for (seconds, told) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3_600, "1h 0m"),
            (90_061, "1d 1h"),
        ] {
            assert_eq!(age(at(1_000_000 + seconds), at(1_000_000)), told);
        }
        assert_eq!(age(at(5), at(9)), "0s");
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_at_home() {
        let everywhere: SocketAddr = "0.0.0.0:9464".parse().unwrap();
        assert_eq!(reachable(everywhere).to_string(), "127.0.0.1:9464");
    }
}
