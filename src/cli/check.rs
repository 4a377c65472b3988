//! `postrider check`: is the configuration good, does the queue answer, do the tokens open their
//! accounts? Sends no mail.

use serde::Serialize;

mod account;

use super::failure::{Exit, Failure};
use super::open::{Purpose, account_of, with_queue};
use super::output::{Mood, Output};
use super::signals::Stop;
use crate::config::{
    Config, HAPIKEY_DEAD_SINCE, ServerConfig, Sources, TokenSource, foreign_hapikeys,
};
use crate::delivery::{Mode, Rules};
use crate::message::AccountName;
use crate::provider::Portal;

/// Check the configuration, the queue and every account's token, without sending mail
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the configuration in force, secrets masked, and check nothing else
    #[arg(long)]
    show: bool,
    /// Check this account alone [default: all of them]
    #[arg(long, value_name = "NAME", value_parser = super::open::account_name)]
    account: Option<AccountName>,
    /// Whether this email exists and is made for single send: the `emailId` of a request
    #[arg(long, value_name = "ID")]
    email_id: Option<i64>,
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
    /// It works, and may not be what is meant.
    Risky,
    /// Only a real send can tell.
    Unsure,
    Bad(Exit),
}

pub(super) async fn run(
    config: &Config,
    args: &Args,
    sources: &Sources,
    output: &mut Output,
) -> Result<(), Failure> {
    if args.show {
        return show(config, output);
    }
    // Not at once: a refresh of OAuth may have begun.
    let stop = Stop::on_signal()?;
    tokio::select! {
        biased;
        ended = all(config, args, sources, output) => ended,
        () = stop.told.cancelled() => {
            Err(Failure::new(Exit::Interrupted, "interrupted; not all was checked"))
        }
    }
}

async fn all(
    config: &Config,
    args: &Args,
    sources: &Sources,
    output: &mut Output,
) -> Result<(), Failure> {
    let names: Vec<&str> = config.accounts.keys().map(AccountName::as_str).collect();
    if let Some(name) = &args.account {
        account_of(config, name)?;
    }
    let mut verdicts = Vec::new();
    let mut tell = |finding: Finding| {
        verdicts.push(finding.verdict);
        finding.print(output)
    };
    tell(Finding::good(
        "config",
        format!("valid; accounts: {}", names.join(" ")),
    ))?;
    tell(environment(&config.delivery))?;
    for variable in foreign_hapikeys(sources) {
        tell(api_key(&variable))?;
    }
    if let Some(finding) = server(&config.server) {
        tell(finding)?;
    }
    tell(queue(config).await)?;
    for (name, account) in &config.accounts {
        if args.account.as_ref().is_none_or(|only| only == name) {
            for finding in account::check(name, account, args.email_id).await {
                tell(finding)?;
            }
        }
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

/// Whose mail goes to whom.
fn environment(Rules { environment, mode }: &Rules) -> Finding {
    let mail = match mode {
        Mode::Everyone => "mail goes to whom each request says",
        Mode::Hold => "no mail is sent (delivery.mode = \"hold\")",
        Mode::Allow(_) => "mail goes to delivery.allow and to nobody else",
        Mode::Sink(_) => "all mail goes to delivery.sink",
        Mode::Sandbox => "mail goes to a sandbox (delivery.mode = \"sandbox\")",
    };
    Finding::good("environment", format!("{environment}: {mail}"))
}

/// Whoever sets another program's variable may believe that it is read here.
fn api_key(variable: &str) -> Finding {
    Finding::risky(
        &format!("variable {variable}"),
        format!(
            "it holds an API key (hapikey): Postrider does not read it, and HubSpot has taken none since \
             {HAPIKEY_DEAD_SINCE}"
        ),
    )
    .hint("run `postrider auth migrate`, and unset it")
}

/// Whether others than this machine reach the worker's pages without a token.
fn server(server: &ServerConfig) -> Option<Finding> {
    let is_local = server.listen.ip().to_canonical().is_loopback();
    if is_local || !matches!(server.token, TokenSource::Missing) {
        return None;
    }
    let finding = Finding::risky(
        "server",
        format!(
            "it listens on {} without server.token: other machines may read /metrics, and the worker's \
             status is told to nobody",
            server.listen
        ),
    );
    Some(finding.hint(
        "set server.token_file (or server.token), or set server.listen to an address of this machine \
         alone, such as 127.0.0.1:9464",
    ))
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

    fn risky(check: &str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Risky,
            ..Self::good(check, found)
        }
    }

    fn unsure(check: &str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Unsure,
            ..Self::good(check, found)
        }
    }

    fn bad(check: &str, exit: Exit, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad(exit),
            ..Self::good(check, found)
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if output.json {
            return Ok(output.object(self)?);
        }
        let word = format!("{:<6}", self.verdict.word());
        let word = match self.verdict {
            Verdict::Good => output.paint(Mood::Good, &word),
            Verdict::Unsure => output.paint(Mood::Quiet, &word),
            Verdict::Risky | Verdict::Bad(_) => output.paint(Mood::Bad, &word),
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
            Self::Risky => "warn",
            Self::Unsure => "unsure",
            Self::Bad(_) => "failed",
        }
    }

    fn exit(self) -> Option<Exit> {
        match self {
            Self::Bad(exit) => Some(exit),
            Self::Good | Self::Risky | Self::Unsure => None,
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
