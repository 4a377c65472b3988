//! `postrider auth`: how accounts get their access to HubSpot, and how they give it up.

mod callback;
mod login;
mod logout;
mod migrate;
mod status;

use std::sync::Arc;

pub(super) use self::status::Login;
use super::failure::{Exit, Failure};
use super::open::{account_name, account_of};
use super::output::Output;
use crate::config::{AccountConfig, Config, OAuthConfig, Sources, TokenSource};
use crate::message::AccountName;
use crate::oauth::{self, OAuthError};

/// Log accounts in and out with OAuth, and lead away from API keys
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Login(login::Args),
    Status(status::Args),
    Logout(logout::Args),
    /// Print a new random key, for `oauth.key_file`
    Key,
    /// Lead step by step from an API key (hapikey) to a service key
    Migrate,
}

pub(super) async fn run(
    command: Command,
    sources: &Sources,
    output: &mut Output,
) -> Result<(), Failure> {
    let config = || Config::load(sources);
    match command {
        Command::Login(args) => login::run(&config()?, &args, output).await,
        Command::Status(args) => status::run(&config()?, &args, output).await,
        Command::Logout(args) => logout::run(&config()?, &args, output).await,
        // Both have their place where the configuration is not complete yet.
        Command::Key => key(output),
        Command::Migrate => migrate::run(sources, output),
    }
}

fn key(output: &mut Output) -> Result<(), Failure> {
    let key = oauth::new_key().ok_or_else(no_chance)?;
    if output.json {
        return Ok(output.object(&serde_json::json!({ "key": key }))?);
    }
    Ok(output.line(key)?)
}

fn no_chance() -> Failure {
    Failure::bug("the system gives no random numbers")
}

/// The account of this name, and the app that it uses.
fn app_of<'a>(
    config: &'a Config,
    name: &AccountName,
) -> Result<(&'a AccountConfig, Arc<OAuthConfig>), Failure> {
    let account = account_of(config, name)?;
    match &account.token {
        TokenSource::OAuth(app) => Ok((account, Arc::clone(app))),
        TokenSource::Given(_)
        | TokenSource::File(_)
        | TokenSource::Command(_)
        | TokenSource::Missing => Err(Failure::usage(format!(
            "account `{name}` does not use OAuth"
        ))
        .hint(format!(
            "set accounts.{name}.oauth = true and the keys of [oauth]; docs/accounts.md tells how"
        ))),
    }
}

fn failure(error: &OAuthError, account: &AccountName) -> Failure {
    Failure::new(exit_of(error), error.to_string()).hint(error.hint(account))
}

/// What may pass is no matter of the configuration.
pub(super) fn exit_of(error: &OAuthError) -> Exit {
    if error.may_pass() {
        Exit::Unavailable
    } else {
        Exit::Usage
    }
}
