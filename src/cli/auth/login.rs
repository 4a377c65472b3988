//! `postrider auth login`: a person consents at HubSpot, and the account has its grant.

use std::io::{IsTerminal, stderr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use url::Url;

use super::callback::{self, Answer};
use super::{account_name, app_of, failure, no_chance};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Mood, Output, talk};
use crate::cli::signals::Stop;
use crate::clock::Clock;
use crate::config::{AccountConfig, Api, Config, has_display};
use crate::message::AccountName;
use crate::oauth::{App, Attempt, Grant, OAuthError, Store, Words};
use crate::provider::hubspot::missing_scope;

/// How long a person may take to consent.
const PATIENCE: Duration = Duration::from_mins(10);

/// Log an account in at HubSpot, and keep the grant
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The account's name
    #[arg(long, default_value = "default", value_parser = account_name)]
    account: AccountName,
    /// Do not listen for the browser: read the code, or the address with it, from stdin
    #[arg(long)]
    paste: bool,
    /// Only print the address, and open no browser
    #[arg(long)]
    no_browser: bool,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let name = &args.account;
    let (account, oauth) = app_of(config, name)?;
    let told = |error: OAuthError| failure(&error, name);
    // Whatever can fail without HubSpot fails before a person is asked.
    let secrets = Arc::clone(&oauth);
    let key = spawn_blocking(move || secrets.client_secret().and_then(|_| secrets.key()));
    let key = key
        .await
        .map_err(|error| Failure::bug(error.to_string()))??;
    let store = Store::new(name, &oauth.folder);
    drop(store.lock().await.map_err(told)?);
    let app = App::new(Arc::clone(&oauth), account).map_err(told)?;
    let attempt = Arc::new(Attempt::new().ok_or_else(no_chance)?);
    let stop = Stop::on_signal()?;

    let listener = if args.paste {
        None
    } else {
        listener(&oauth.redirect_url).await
    };
    let is_pasted = listener.is_none();
    show(&app.authorize_url(&attempt), args, output)?;
    let answered = async {
        match listener {
            Some(listener) => {
                callback::catch(listener, &oauth.redirect_url, Arc::clone(&attempt)).await
            }
            None => callback::pasted(&attempt).await,
        }
    };
    let answer = tokio::select! {
        biased;
        () = stop.told.cancelled() => Err(Failure::new(Exit::Interrupted, "nothing was stored")),
        () = tokio::time::sleep(PATIENCE) => Err(Failure::usage(
            "nobody has consented within 10 minutes; nothing was stored",
        ).hint("log in again; where the browser is on another machine, with --paste")),
        answer = answered => answer,
    };
    let code = code_of(answer?)?;

    let now = Clock::system().now();
    let exchanged = app.exchange(&attempt, &code, now).await;
    let grant = exchanged.map_err(|error| {
        if let OAuthError::InvalidGrant { words } = &error {
            bad_code(name, is_pasted, words)
        } else {
            told(error)
        }
    })?;
    refuse_other_portal(name, account, &grant)?;
    let lock = store.lock().await.map_err(told)?;
    let (kept, place) = (grant.clone(), store.clone());
    spawn_blocking(move || place.write(&key, &kept, &lock))
        .await
        .map_err(|error| Failure::bug(error.to_string()))?
        .map_err(told)?;
    tell(name, account, &grant, &store, output)
}

/// `None` where the code has to be pasted.
async fn listener(redirect: &Url) -> Option<TcpListener> {
    let Some(addr) = callback::loopback(redirect) else {
        talk(format_args!(
            "{redirect} is not on this machine (or no plain http): the code is pasted"
        ));
        return None;
    };
    match TcpListener::bind(addr).await {
        Ok(listener) => Some(listener),
        Err(error) => {
            talk(format_args!(
                "cannot listen on {addr} ({error}): the code is pasted"
            ));
            None
        }
    }
}

fn show(url: &Url, args: &Args, output: &mut Output) -> Result<(), Failure> {
    if output.json {
        output.object(&json!({"account": args.account, "authorize_url": url}))?;
        output.flush()?;
    }
    talk(format_args!("open this address and consent:\n\n{url}\n"));
    if !args.no_browser && stderr().is_terminal() && has_display() {
        open(url);
    }
    Ok(())
}

/// Where there is no browser, the address is printed.
fn open(url: &Url) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let opened = Command::new(program)
        .arg(url.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if opened.is_err() {
        tracing::debug!(program, "no browser was opened");
    }
}

fn code_of(answer: Answer) -> Result<SecretString, Failure> {
    match answer {
        Answer::Code(code) => Ok(code),
        Answer::Denied(words) => Err(Failure::usage(format!(
            "HubSpot says no: {words}; nothing was stored"
        ))
        .hint("consent as a user who may install apps, in the portal that is meant")),
        Answer::NotOurs | Answer::Nothing => Err(Failure::bug("an answer that is none was taken")),
    }
}

/// There is no login yet that could have been revoked: it is the code.
fn bad_code(name: &AccountName, is_pasted: bool, words: &Words) -> Failure {
    let (may_be, flag) = if is_pasted {
        (
            "mistyped, too old, used before, or of another login",
            " --paste",
        )
    } else {
        ("too old, or was used before", "")
    };
    Failure::usage(format!(
        "HubSpot does not take the code, which is {may_be}: {words}; nothing was stored"
    ))
    .hint(format!(
        "begin anew with `postrider auth login --account {name}{flag}`; a code is good once, and for a \
         short time"
    ))
}

fn refuse_other_portal(
    name: &AccountName,
    account: &AccountConfig,
    grant: &Grant,
) -> Result<(), Failure> {
    match (account.portal_id, grant.hub_id) {
        (Some(meant), Some(opened)) if meant != opened => Err(Failure::usage(format!(
            "the login opens portal {opened}, and accounts.{name}.portal_id is {meant}; nothing was \
             stored"
        ))
        .hint(format!(
            "log in again and choose portal {meant} at HubSpot, or correct portal_id"
        ))),
        _ => Ok(()),
    }
}

fn tell(
    name: &AccountName,
    account: &AccountConfig,
    grant: &Grant,
    store: &Store,
    output: &mut Output,
) -> Result<(), Failure> {
    let missing = lacks(account.api, grant.scopes.as_deref());
    if output.json {
        output.object(&json!({
            "account": name,
            "portal_id": grant.hub_id,
            "scopes": grant.scopes,
            "missing_scope": missing.and_then(|needed| needed.first()),
            "expires_at": grant.expires_at,
            "file": store.file(),
        }))?;
    } else {
        let done = output.paint(Mood::Good, "logged in");
        output.line(format_args!(
            "{done}: account {name}, {}; kept in {}",
            in_words(grant),
            store.file().display()
        ))?;
    }
    if grant.hub_id.is_none() && account.portal_id.is_some() {
        talk("HubSpot did not tell the portal; no mail leaves before it is proven");
    }
    if let Some(needed) = missing {
        let scope = needed.join(" or ");
        talk(format_args!(
            "warning: the scope {scope} was not granted, and HubSpot will refuse to send\n\
             hint: add it to the app and to oauth.scopes, and log in again; the account needs \
             HubSpot's add-on for it"
        ));
    }
    Ok(())
}

/// `portal 42, scopes oauth transactional-email`.
pub(super) fn in_words(grant: &Grant) -> String {
    let portal = grant
        .hub_id
        .map_or_else(|| "portal not told".to_owned(), |id| format!("portal {id}"));
    match &grant.scopes {
        Some(scopes) => format!("{portal}, scopes {}", scopes.join(" ")),
        None => format!("{portal}, scopes not told"),
    }
}

/// The scope that sending takes, if it is not among those that were told.
pub(super) fn lacks(api: Api, scopes: Option<&[String]>) -> Option<&'static [&'static str]> {
    missing_scope(api, scopes?)
}
