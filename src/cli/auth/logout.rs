//! `postrider auth logout`: HubSpot is told, and the grant is forgotten.

use std::sync::Arc;

use serde_json::json;

use super::{account_name, app_of, failure};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, confirm, talk};
use crate::config::Config;
use crate::message::AccountName;
use crate::oauth::{App, OAuthError, Store, key_of};

/// Revoke an account's login at HubSpot, and remove the grant from the disk
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The account's name
    #[arg(long, default_value = "default", value_parser = account_name)]
    account: AccountName,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let name = &args.account;
    let (account, oauth) = app_of(config, name)?;
    let store = Store::new(name, &oauth.folder);
    let question =
        format!("log account `{name}` out? Its mail waits until somebody logs in again.");
    if !args.yes && !confirm(&question).map_err(|it| it.hint("add --yes to say yes beforehand"))? {
        talk("nothing was done");
        return Ok(());
    }
    let told = |error: OAuthError| failure(&error, name);
    let lock = store.lock().await.map_err(told)?;
    // What cannot be read can be removed all the same.
    let grant = match key_of(&oauth).await {
        Ok(key) => store.read(&key),
        Err(error) => Err(error),
    };
    let revoked = match &grant {
        Ok(grant) => match App::new(Arc::clone(&oauth), account) {
            Ok(app) => app.revoke(grant).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error.clone()),
    };
    let removed = store.remove(&lock).map_err(told)?;
    if output.json {
        output.object(&json!({
            "account": name,
            "removed": removed,
            "revoked": revoked.is_ok(),
            "problem": revoked.as_ref().err().map(ToString::to_string),
        }))?;
    } else if removed {
        output.line(format_args!("logged out: account {name}"))?;
    } else {
        output.line(format_args!("account {name} was not logged in"))?;
    }
    if removed {
        match &revoked {
            Ok(()) => {
                talk("the refresh token is revoked; the last access token dies within 30 minutes");
            }
            Err(error) => talk(format_args!(
                "warning: the refresh token could not be revoked at HubSpot: {error}\n\
                 hint: uninstall the app there, which ends it as well"
            )),
        }
        talk(
            "the app itself stays installed: Settings > Integrations > Connected Apps > Uninstall, \
             in the account at HubSpot",
        );
    }
    Ok(())
}
