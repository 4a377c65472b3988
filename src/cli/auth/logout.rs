//! `postrider auth logout`: HubSpot is told, and then the grant is forgotten.

use std::sync::Arc;

use serde_json::json;

use super::{account_name, app_of, failure};
use crate::cli::failure::Failure;
use crate::cli::open::account_of;
use crate::cli::output::{Output, confirm, talk};
use crate::config::{AccountConfig, Config, OAuthConfig, TokenSource};
use crate::message::AccountName;
use crate::oauth::{App, OAuthError, Store, key_of};

/// Revoke an account's login at HubSpot, and remove the grant from the disk
///
/// The grant is what a login is revoked with: where HubSpot cannot be told, it stays.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The account's name
    #[arg(long, default_value = "default", value_parser = account_name)]
    account: AccountName,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Remove the grant also where HubSpot cannot be told: the login stays good there
    #[arg(long)]
    forget: bool,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let name = &args.account;
    let (account, oauth) = app_or_leftover(config, name)?;
    let store = Store::new(name, &oauth.folder);
    let question = if matches!(account.token, TokenSource::OAuth(_)) {
        format!("log account `{name}` out? Its mail waits until somebody logs in again.")
    } else {
        format!("end the login that account `{name}` uses no more? Its mail goes on.")
    };
    if !args.yes && !confirm(&question).map_err(|it| it.hint("add --yes to say yes beforehand"))? {
        talk("nothing was done");
        return Ok(());
    }
    let told = |error: OAuthError| failure(&error, name);
    let lock = store.lock().await.map_err(told)?;
    let revoked = revoke(account, &oauth, &store).await;
    let may_go = match &revoked {
        Ok(()) | Err(OAuthError::InvalidGrant { .. } | OAuthError::NotLoggedIn { .. }) => true,
        Err(_) => args.forget,
    };
    let removed = may_go && store.remove(&lock).map_err(told)?;
    if output.json {
        output.object(&json!({
            "account": name,
            "removed": removed,
            "revoked": revoked.is_ok(),
            "problem": revoked.as_ref().err().map(ToString::to_string),
        }))?;
    } else if removed {
        output.line(format_args!("logged out: account {name}"))?;
    } else if may_go {
        output.line(format_args!("account {name} was not logged in"))?;
    }
    match revoked {
        Err(error) if !may_go => return Err(still_in(&error, name)),
        revoked => talk_of(&revoked),
    }
    Ok(())
}

/// The app of an account that uses it; or that has used it, and has left its grant.
fn app_or_leftover<'a>(
    config: &'a Config,
    name: &AccountName,
) -> Result<(&'a AccountConfig, Arc<OAuthConfig>), Failure> {
    let account = account_of(config, name)?;
    if let Some(app) = &config.oauth
        && Store::new(name, &app.folder).file().exists()
    {
        return Ok((account, Arc::clone(app)));
    }
    app_of(config, name).map_err(|failure| match &config.oauth {
        Some(_) => failure,
        None => failure.hint(
            "if it has used OAuth before, put [oauth] back as it was and log out then; or uninstall the \
             app at HubSpot, which ends the login, and remove the folder of oauth.folder",
        ),
    })
}

/// Reads the grant, and has HubSpot take it back. One of another app would not be heard.
async fn revoke(
    account: &AccountConfig,
    oauth: &Arc<OAuthConfig>,
    store: &Store,
) -> Result<(), OAuthError> {
    if !store.file().exists() {
        return Err(store.not_logged_in());
    }
    let key = key_of(oauth).await?;
    let grant = store.read_of(&key, &oauth.client_id)?;
    App::new(Arc::clone(oauth), account)?.revoke(&grant).await
}

/// Nothing was done, and what to do about it.
fn still_in(error: &OAuthError, name: &AccountName) -> Failure {
    let told = failure(error, name);
    let first = match error {
        // To log in again would lose the grant that is to be revoked.
        OAuthError::Store { hint, .. } => hint.split("LOGIN").next().unwrap_or_default(),
        OAuthError::Limited { .. } | OAuthError::Unreachable { .. } | OAuthError::Failed { .. } => {
            "try again"
        }
        OAuthError::NotLoggedIn { .. }
        | OAuthError::InvalidGrant { .. }
        | OAuthError::InvalidClient { .. }
        | OAuthError::Busy { .. }
        | OAuthError::Config(_) => told.hint.as_deref().unwrap_or_default(),
    };
    let first = first.trim_end_matches(", or ");
    let forget = "add --forget to remove the grant all the same, and uninstall the app at HubSpot, \
                  which ends the login as well";
    let hint = if first.is_empty() {
        forget.to_owned()
    } else {
        format!("{first}; or {forget}")
    };
    let problem = format!(
        "account `{name}` is not logged out, since HubSpot was not told: {}",
        told.problem
    );
    Failure::new(told.exit, problem).hint(hint)
}

/// Whether HubSpot knows that it is over, and how to make sure.
fn talk_of(revoked: &Result<(), OAuthError>) {
    let uninstall =
        "Settings > Integrations > Connected Apps > Uninstall, in the account at HubSpot";
    match revoked {
        Ok(()) => talk(format_args!(
            "HubSpot was told: the refresh token is revoked, and the last access token dies within 30 \
             minutes\nthe app itself stays installed: {uninstall}"
        )),
        Err(OAuthError::NotLoggedIn { .. }) => {
            talk("HubSpot was told nothing: there is no grant to revoke");
        }
        Err(OAuthError::InvalidGrant { words }) => talk(format_args!(
            "HubSpot was told, and had ended the login before: {words}"
        )),
        Err(error) => talk(format_args!(
            "warning: HubSpot was not told, and the login is still good there: {error}\n\
             hint: uninstall the app there, which ends it as well: {uninstall}"
        )),
    }
}
