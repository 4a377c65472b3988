//! `postrider check`: is the configuration good, does the queue answer, do the tokens open their
//! accounts? Sends no mail.

use serde::Serialize;

use super::failure::{Exit, Failure};
use super::open::{Purpose, with_queue};
use super::output::{Mood, Output};
use crate::clock::Clock;
use crate::config::{AccountConfig, Config};
use crate::message::AccountName;
use crate::outcome::{Failure as Refusal, PauseReason};
use crate::provider::hubspot::HubSpot;
use crate::provider::{Portal, Probe, Provider};

/// Check the configuration, the queue and every account's token, without sending mail
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the configuration in force, secrets masked, and check nothing else
    #[arg(long)]
    show: bool,
}

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    #[serde(serialize_with = "as_word")]
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portal: Option<Portal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Only a real send can tell.
    Unsure,
    Bad(Exit),
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    if args.show {
        return show(config, output);
    }
    let names: Vec<&str> = config.accounts.keys().map(AccountName::as_str).collect();
    let mut verdicts = Vec::new();
    let mut tell = |finding: Finding| {
        verdicts.push(finding.verdict);
        finding.print(output)
    };
    tell(Finding::good(
        "config",
        format!("valid; accounts: {}", names.join(" ")),
    ))?;
    tell(queue(config).await)?;
    for (name, account) in &config.accounts {
        tell(self::account(name, account).await)?;
    }
    // A wrong configuration is told before a broken line: it does not heal.
    let exits = verdicts.iter().filter_map(|verdict| verdict.exit());
    match exits.min_by_key(|exit| *exit as u8) {
        Some(exit) => Err(Failure::new(exit, "not everything is as it should be")
            .hint("each line above that fails tells its next step")),
        None => Ok(()),
    }
}

fn show(config: &Config, output: &mut Output) -> Result<(), Failure> {
    let shown = config.shown();
    if output.json {
        let object: serde_json::Map<_, _> = shown.into_iter().collect();
        return Ok(output.object(&object)?);
    }
    for (key, value) in shown {
        output.line(format_args!("{key} = {value}"))?;
    }
    Ok(())
}

async fn queue(config: &Config) -> Finding {
    let place = config.queue.url.place();
    match depths(config).await {
        Ok(messages) => Finding::good(
            "queue",
            format!("{place} answers, {messages} messages stand in it"),
        ),
        Err(failure) => Finding {
            hint: failure.hint,
            ..Finding::bad("queue", failure.exit, failure.problem)
        },
    }
}

async fn depths(config: &Config) -> Result<u64, Failure> {
    let depths = with_queue!(config, Purpose::Publish, |queue| queue.depths().await)?;
    Ok(depths.iter().map(|depth| depth.messages).sum())
}

async fn account(name: &AccountName, config: &AccountConfig) -> Finding {
    let check = format!("account {name}");
    let hubspot = match HubSpot::new(name, config, Clock::system()) {
        Ok(hubspot) => hubspot,
        Err(error) => {
            return Finding {
                hint: Some(error.hint()),
                ..Finding::bad(&check, Exit::Usage, error.to_string())
            };
        }
    };
    let place = &config.base_url;
    match hubspot.probe().await {
        Probe::Open(portal) => match (config.portal_id, portal.portal_id) {
            (Some(meant), Some(opened)) if meant != opened => Finding {
                hint: Some(format!(
                    "set accounts.{name}.token to one of portal {meant}, or correct portal_id"
                )),
                portal: Some(portal),
                ..Finding::bad(
                    &check,
                    Exit::Usage,
                    format!("the token opens portal {opened}, and portal_id is {meant}"),
                )
            },
            (Some(meant), None) => Finding {
                hint: Some("no mail leaves while portal_id is set and not proven".into()),
                portal: Some(portal),
                verdict: Verdict::Unsure,
                ..Finding::good(
                    &check,
                    format!("{place} does not say whether it is portal {meant}"),
                )
            },
            _ => Finding {
                found: format!("{} at {place}", in_words(&portal)),
                portal: Some(portal),
                ..Finding::good(&check, String::new())
            },
        },
        Probe::Shut(refusal) => Finding {
            hint: Some(refusal.hint.clone()),
            ..Finding::bad(&check, exit_of(&refusal), said(&refusal, place.as_str()))
        },
        Probe::Inconclusive(refusal) => {
            let verdict = match refusal.words.status {
                // HubSpot does not offer the question for every kind of token.
                Some(status) if status < 429 => Verdict::Unsure,
                _ => Verdict::Bad(Exit::Unavailable),
            };
            Finding {
                hint: Some(refusal.hint.clone()),
                verdict,
                ..Finding::good(&check, said(&refusal, place.as_str()))
            }
        }
    }
}

/// A token that is not accepted is a matter of configuration; all else, of HubSpot.
fn exit_of(refusal: &Refusal) -> Exit {
    match refusal.pause {
        Some(PauseReason::Unauthorized | PauseReason::Forbidden) => Exit::Usage,
        _ => Exit::Unavailable,
    }
}

fn said(refusal: &Refusal, place: &str) -> String {
    let words = &refusal.words;
    let status = match words.status {
        Some(status) => format!("{place} answers {status}"),
        None => format!("{place} does not answer"),
    };
    match words.message.as_ref().or(words.category.as_ref()) {
        Some(message) => format!("{status}: {message}"),
        None => status,
    }
}

fn in_words(portal: &Portal) -> String {
    let mut told = match portal.portal_id {
        Some(id) => format!("portal {id}"),
        None => "the token is accepted".to_owned(),
    };
    let about: Vec<&str> = [&portal.account_type, &portal.time_zone]
        .into_iter()
        .filter_map(Option::as_deref)
        .collect();
    if !about.is_empty() {
        told = format!("{told} ({})", about.join(", "));
    }
    match &portal.scopes {
        Some(scopes) => format!("{told}, scopes {}", scopes.join(" ")),
        None => format!("{told}, scopes not told"),
    }
}

// === impl Finding ===

impl Finding {
    fn good(check: &str, found: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            verdict: Verdict::Good,
            found: found.into(),
            hint: None,
            portal: None,
        }
    }

    fn bad(check: &str, exit: Exit, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad(exit),
            ..Self::good(check, found)
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if output.json {
            return Ok(output.object(self)?);
        }
        let word = format!("{:<6}", self.verdict.word());
        let word = match self.verdict {
            Verdict::Good => output.paint(Mood::Good, &word),
            Verdict::Unsure => output.paint(Mood::Quiet, &word),
            Verdict::Bad(_) => output.paint(Mood::Bad, &word),
        };
        output.line(format_args!("{word}  {}: {}", self.check, self.found))?;
        if let Some(hint) = &self.hint {
            output.line(format_args!("        hint: {hint}"))?;
        }
        Ok(())
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Unsure => "unsure",
            Self::Bad(_) => "failed",
        }
    }

    fn exit(self) -> Option<Exit> {
        match self {
            Self::Bad(exit) => Some(exit),
            Self::Good | Self::Unsure => None,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn as_word<S: serde::Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.word())
}
