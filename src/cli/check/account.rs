//! What of one account is as it should be: each token, its portal, its scopes, its day, an email.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit};

use super::{Finding, Verdict};
use crate::cli::auth::{self, Login};
use crate::cli::failure::Exit;
use crate::clock::Clock;
use crate::config::{AccountConfig, TokenSource};
use crate::message::AccountName;
use crate::outcome::{Failure as Refusal, PauseReason};
use crate::provider::hubspot::{HubSpot, Letter, TOKEN};
use crate::provider::{Portal, Probe};

/// One line for each thing that was found.
pub(super) async fn check(
    name: &AccountName,
    config: &AccountConfig,
    email_id: Option<i64>,
) -> Vec<Finding> {
    let check = format!("account {name}");
    let clock = Clock::system();
    let hubspot = match HubSpot::new(name, config, clock) {
        Ok(hubspot) => hubspot,
        Err(error) => {
            return vec![Finding::bad(&check, Exit::Usage, error.to_string()).hint(error.hint())];
        }
    };
    let mut findings = Vec::new();
    let mut good = None;
    for (key, probe) in hubspot.probe_each().await {
        let is_open = matches!(probe, Probe::Open(_));
        let found = of_token(&check, key, config, probe, clock.now());
        findings.extend(found.into_iter().map(|finding| match good {
            Some(better) => needless(finding, name, config, better),
            None => finding,
        }));
        good = good.or(is_open.then_some(key));
    }
    if let (Some(_), TokenSource::OAuth(app)) = (good, &config.token) {
        let check = format!("{check} login");
        let stands = match Login::read(name, config, app).await {
            Ok(login) => login.stands().await,
            Err(error) => Err(error),
        };
        findings.push(match stands {
            Ok(()) => Finding::good(&check, "HubSpot takes it, and gives the next access tokens"),
            Err(error) => {
                let exit = auth::exit_of(&error);
                Finding::bad(&check, exit, error.to_string()).hint(error.hint(name))
            }
        });
    }
    if let Some(id) = email_id
        && let Some(key) = good
    {
        findings.push(email(&check, &hubspot, id, key).await);
    }
    findings
}

/// A worker uses a better token: one that is refused does no harm, and no good.
fn needless(finding: Finding, name: &AccountName, config: &AccountConfig, better: &str) -> Finding {
    if finding.verdict != Verdict::Bad(Exit::Usage) {
        return finding;
    }
    let key = match &config.token {
        TokenSource::File(_) => "token_file",
        TokenSource::Command(_) => "token_command",
        TokenSource::OAuth(_) => "oauth",
        TokenSource::Given(_) | TokenSource::Missing => TOKEN,
    };
    Finding {
        verdict: Verdict::Risky,
        ..finding.hint(format!(
            "{better} is good and goes before it: put that one in the place of accounts.{name}.{key}, \
             and remove {better}"
        ))
    }
}

fn of_token(
    check: &str,
    key: &str,
    config: &AccountConfig,
    probe: Probe,
    now: Timestamp,
) -> Vec<Finding> {
    let check = &match key {
        TOKEN => check.to_owned(),
        key => format!("{check} {key}"),
    };
    let place = config.place();
    let place = place.as_str();
    match probe {
        Probe::Open(portal) => opened(check, portal, place, now),
        Probe::Wrong(portal, problem) => vec![Finding {
            portal: Some(portal),
            ..Finding::bad(check, Exit::Usage, problem).hint(
                "set the token to one of the configured account, or correct what the account pins",
            )
        }],
        Probe::Shut(refusal) => {
            let exit = exit_of(&refusal);
            // HubSpot's refusal knows no key, and names the one that most accounts have.
            let hint = (refusal.hint)
                .replace("NAME.token", &format!("NAME.{key}"))
                .replace("its token_file", &format!("its {key}_file"));
            vec![Finding::bad(check, exit, said(&refusal, place)).hint(hint)]
        }
        Probe::Inconclusive(refusal) => {
            let verdict = match refusal.words.status {
                // HubSpot does not offer the question for every kind of token.
                Some(status) if status < 429 => Verdict::Unsure,
                None if refusal.pause == Some(PauseReason::Unproven) => Verdict::Unsure,
                _ => Verdict::Bad(Exit::Unavailable),
            };
            let hint = if config.is_pinned() {
                format!(
                    "{}; no mail leaves while the account is not proven",
                    refusal.hint
                )
            } else {
                refusal.hint.clone()
            };
            vec![Finding {
                verdict,
                ..Finding::good(check, said(&refusal, place)).hint(hint)
            }]
        }
        // Only where a token is to take the place of another.
        Probe::Kept => Vec::new(),
    }
}

fn opened(check: &str, portal: Portal, place: &str, now: Timestamp) -> Vec<Finding> {
    let scopes = format!("{check} scopes");
    let scopes = match &portal.scopes {
        Some(granted) => Finding::good(&scopes, granted.join(" ")),
        None => Finding::unsure(
            &scopes,
            "not told: only a send can tell whether they suffice",
        ),
    };
    let day = format!("{check} day");
    let day = match portal
        .time_zone
        .as_deref()
        .map(|name| (name, ends_at(name, now)))
    {
        Some((zone, Some(at))) => Finding::good(&day, format!("ends at {at}, midnight in {zone}")),
        Some((zone, None)) => Finding::unsure(&day, format!("no time zone is known as {zone}")),
        None => Finding::unsure(
            &day,
            "the time zone is not told: the day is counted in UTC until it is over",
        ),
    };
    vec![
        Finding {
            found: format!("{} at {place}", in_words(&portal)),
            portal: Some(portal),
            ..Finding::good(check, String::new())
        },
        scopes,
        day,
    ]
}

/// When the day of a time zone ends.
fn ends_at(zone: &str, now: Timestamp) -> Option<Timestamp> {
    let zone = TimeZone::get(zone).ok()?;
    let today = now.to_zoned(zone).round(Unit::Second).ok()?;
    let tomorrow = today.start_of_day().ok()?.checked_add(1.day()).ok()?;
    Some(tomorrow.start_of_day().ok()?.timestamp())
}

/// Whether an email is there, and made for single send.
async fn email(check: &str, hubspot: &HubSpot, id: i64, key: &str) -> Finding {
    let check = format!("{check} email {id}");
    match hubspot.letter(id, key).await {
        Letter::Ready(told) => Finding::good(&check, told),
        Letter::Doubtful { found, hint } => Finding::unsure(&check, found).hint(hint),
        Letter::Unfit { found, hint } => Finding::bad(&check, Exit::Usage, found).hint(hint),
        Letter::Unknown(refusal) => {
            let exit = exit_of(&refusal);
            Finding::bad(&check, exit, said(&refusal, "HubSpot")).hint(refusal.hint)
        }
    }
}

/// A token or an app that is not accepted is a matter of configuration; all else, of HubSpot.
fn exit_of(refusal: &Refusal) -> Exit {
    match refusal.pause {
        Some(PauseReason::Unauthorized | PauseReason::App | PauseReason::Forbidden) => Exit::Usage,
        _ => Exit::Unavailable,
    }
}

fn said(refusal: &Refusal, place: &str) -> String {
    let words = &refusal.words;
    let message = words.message.as_ref().or(words.category.as_ref());
    let of_token = matches!(
        refusal.pause,
        Some(PauseReason::Unauthorized | PauseReason::App)
    );
    let status = match (words.status, message) {
        // There was no token to call with, and the message says why.
        (None, Some(message)) if of_token => return message.clone(),
        (Some(200), _) => return "the token is accepted, and does not suffice".to_owned(),
        (Some(status), _) => format!("{place} answers {status}"),
        (None, Some(_)) => format!("{place} does not answer"),
        (None, None) => return format!("{place} does not tell enough"),
    };
    match message {
        Some(message) => format!("{status}: {message}"),
        None => status,
    }
}

fn in_words(portal: &Portal) -> String {
    let told = match portal.portal_id {
        Some(id) => format!("portal {id}"),
        None => "the token is accepted".to_owned(),
    };
    match &portal.account_type {
        Some(kind) => format!("{told} ({kind})"),
        None => told,
    }
}
