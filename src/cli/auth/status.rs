//! `postrider auth status`: what each account's access is, without a call and without a secret.

use jiff::Timestamp;
use serde::Serialize;

use super::login::{in_words, lacks};
use super::{account_name, account_of};
use crate::cli::failure::Failure;
use crate::cli::output::{Mood, Output};
use crate::clock::Clock;
use crate::config::{AccountConfig, Config, TokenSource};
use crate::message::AccountName;
use crate::oauth::{Grant, Store, key_of};

/// Show each account's access to HubSpot: its kind, portal, scopes and end; calls nobody
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only this account
    #[arg(long, value_parser = account_name)]
    account: Option<AccountName>,
}

#[derive(Debug, Default, Serialize)]
struct Told {
    account: String,
    /// `oauth`, `token`, `token_file` or `none`.
    access: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logged_in: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portal_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    /// Of the access token; it is refreshed by whoever uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_due: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip)]
    found: String,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    if let Some(name) = &args.account {
        account_of(config, name)?;
    }
    let is_asked = |name: &AccountName| args.account.as_ref().is_none_or(|asked| asked == name);
    let mut all_in = true;
    for (name, account) in &config.accounts {
        if !is_asked(name) {
            continue;
        }
        let told = told(name, account).await;
        all_in &= told.logged_in != Some(false);
        print(&told, output)?;
    }
    if all_in {
        return Ok(());
    }
    Err(
        Failure::usage("not every account that uses OAuth is logged in")
            .hint("each line above that fails tells its next step"),
    )
}

async fn told(name: &AccountName, account: &AccountConfig) -> Told {
    let of = |access, found: &str| Told {
        account: name.to_string(),
        access,
        found: found.to_owned(),
        ..Told::default()
    };
    match &account.token {
        TokenSource::Given(_) => of("token", "a token in the configuration"),
        TokenSource::File(path) => Told {
            file: Some(path.display().to_string()),
            ..of("token_file", &format!("the token in {}", path.display()))
        },
        TokenSource::Command(_) => of("token_command", "what token_command prints"),
        TokenSource::Missing => Told {
            hint: Some(format!(
                "set accounts.{name}.token_file, or .oauth = true; docs/accounts.md tells how"
            )),
            problem: Some("no access".into()),
            ..of("none", "no access")
        },
        TokenSource::OAuth(oauth) => {
            let store = Store::new(name, &oauth.folder);
            let read = match key_of(oauth).await {
                Ok(key) => store.read_of(&key, &oauth.client_id),
                Err(error) => Err(error),
            };
            let file = store.file().display().to_string();
            let told = match read {
                Ok(grant) => of_grant(name, account, &grant, &file),
                Err(error) => Told {
                    logged_in: Some(false),
                    problem: Some(error.to_string()),
                    hint: Some(error.hint(name)),
                    found: error.to_string(),
                    ..Told::default()
                },
            };
            Told {
                account: name.to_string(),
                access: "oauth",
                file: Some(file),
                ..told
            }
        }
    }
}

fn of_grant(name: &AccountName, account: &AccountConfig, grant: &Grant, file: &str) -> Told {
    let now = Clock::system().now();
    let due = grant.is_due(now);
    let mut told = Told {
        logged_in: Some(true),
        portal_id: grant.hub_id,
        scopes: grant.scopes.clone(),
        expires_at: Some(grant.expires_at),
        refresh_due: Some(due),
        found: format!(
            "{}, access token until {}{}, kept in {file}",
            in_words(grant),
            grant.expires_at,
            if due { " (refresh due)" } else { "" },
        ),
        ..Told::default()
    };
    if let (Some(meant), Some(opened)) = (account.portal_id, grant.hub_id)
        && meant != opened
    {
        told.logged_in = Some(false);
        told.problem = Some(format!(
            "it opens portal {opened}, and portal_id is {meant}"
        ));
        told.hint = Some(format!(
            "run `postrider auth login --account {name}` and choose portal {meant}, or correct portal_id"
        ));
    } else if let Some(scope) = lacks(account.api, grant.scopes.as_deref()) {
        told.problem = Some(format!("the scope {scope} was not granted"));
        told.hint = Some(format!(
            "add it to the app and to oauth.scopes, and run `postrider auth login --account {name}`"
        ));
    }
    told
}

fn print(told: &Told, output: &mut Output) -> Result<(), Failure> {
    if output.json {
        return Ok(output.object(told)?);
    }
    let access = format!("{:<10}", told.access);
    let access = match told.problem {
        None => output.paint(Mood::Good, &access),
        Some(_) => output.paint(Mood::Bad, &access),
    };
    output.line(format_args!("{access}  {}: {}", told.account, told.found))?;
    if let Some(problem) = told.problem.as_ref().filter(|it| **it != told.found) {
        output.line(format_args!("            problem: {problem}"))?;
    }
    if let Some(hint) = &told.hint {
        output.line(format_args!("            hint: {hint}"))?;
    }
    Ok(())
}
