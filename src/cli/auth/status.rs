//! `postrider auth status`: what each account's access is, without a secret. HubSpot is asked whether it
//! still takes a login, which spends nothing.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::login::{in_words, lacks};
use super::{account_name, account_of};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Mood, Output};
use crate::clock::Clock;
use crate::config::{AccountConfig, Config, OAuthConfig, TokenSource};
use crate::message::AccountName;
use crate::oauth::{App, Grant, Key, OAuthError, Store, key_of};

/// Show each account's access to HubSpot: its kind, portal, scopes and end
///
/// HubSpot is asked whether it still takes a login of OAuth. Tokens are proven by `postrider check`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only this account
    #[arg(long, value_parser = account_name)]
    account: Option<AccountName>,
    /// Do not ask HubSpot: show what is kept on the disk
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Default, Serialize)]
struct Told {
    account: String,
    /// `oauth`, `token`, `token_file`, `token_command` or `none`.
    access: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logged_in: Option<bool>,
    /// Whether HubSpot takes the login, where it was asked and has told.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portal_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    /// Of the access token; it is refreshed by whoever uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_due: Option<bool>,
    /// The grant of a login that the account does not use any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    leftover: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip)]
    found: String,
    /// What it makes of the whole command.
    #[serde(skip)]
    exit: Option<Exit>,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    if let Some(name) = &args.account {
        account_of(config, name)?;
    }
    let is_asked = |name: &AccountName| args.account.as_ref().is_none_or(|asked| asked == name);
    let mut exits = Vec::new();
    for (name, account) in &config.accounts {
        if !is_asked(name) {
            continue;
        }
        let told = match &account.token {
            TokenSource::OAuth(app) => of_login(name, account, app, args.offline).await,
            other @ (TokenSource::Given(_)
            | TokenSource::File(_)
            | TokenSource::Command(_)
            | TokenSource::Missing) => with_leftover(of_token(name, other), name, config),
        };
        exits.extend(told.exit);
        print(&told, output)?;
    }
    // A login that is over is told before a broken line: it does not heal.
    match exits.into_iter().min_by_key(|exit| *exit as u8) {
        None => Ok(()),
        Some(Exit::Usage) => Err(Failure::usage("not every login is as it should be")
            .hint("each line above that fails tells its next step")),
        Some(exit) => Err(Failure::new(exit, "HubSpot does not tell of every login")
            .hint("try again, or add --offline to see what is kept on the disk")),
    }
}

fn of_token(name: &AccountName, source: &TokenSource) -> Told {
    let of = |access, found: &str| Told {
        account: name.to_string(),
        access,
        found: found.to_owned(),
        ..Told::default()
    };
    match source {
        TokenSource::Given(_) => of("token", "a token in the configuration"),
        TokenSource::File(path) => Told {
            file: Some(path.display().to_string()),
            ..of("token_file", &format!("the token in {}", path.display()))
        },
        TokenSource::Command(_) => of("token_command", "what token_command prints"),
        TokenSource::Missing | TokenSource::OAuth(_) => Told {
            hint: Some(format!(
                "set accounts.{name}.token_file, or .oauth = true; docs/accounts.md tells how"
            )),
            problem: Some("no access".into()),
            ..of("none", "no access")
        },
    }
}

/// An account that used OAuth before may have left its grant, which HubSpot still takes.
fn with_leftover(told: Told, name: &AccountName, config: &Config) -> Told {
    let Some(app) = &config.oauth else {
        return told;
    };
    let store = Store::new(name, &app.folder);
    if !store.file().exists() {
        return told;
    }
    let logout = format!("run `postrider auth logout --account {name}`, which ends that login");
    Told {
        leftover: Some(store.file().display().to_string()),
        hint: Some(told.hint.map_or_else(
            || logout.clone(),
            |first| format!("{first}; or, where OAuth is used no more, {logout}"),
        )),
        ..told
    }
}

async fn of_login(
    name: &AccountName,
    account: &AccountConfig,
    oauth: &Arc<OAuthConfig>,
    offline: bool,
) -> Told {
    let file = Store::new(name, &oauth.folder).file().display().to_string();
    let told = match Login::read(name, account, oauth).await {
        Ok(login) => {
            let told = of_grant(name, account, &login.grant, &file);
            if offline {
                told
            } else {
                heard(told, login.stands().await, name)
            }
        }
        Err(error) => Told {
            logged_in: Some(false),
            problem: Some(error.to_string()),
            hint: Some(error.hint(name)),
            found: error.to_string(),
            exit: Some(Exit::Usage),
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

/// A grant that was read, and all that it takes to ask HubSpot about it.
pub(in crate::cli) struct Login<'a> {
    account: &'a AccountConfig,
    oauth: &'a Arc<OAuthConfig>,
    store: Store,
    key: Key,
    grant: Grant,
}

impl<'a> Login<'a> {
    /// # Errors
    /// Why there is none to ask about.
    pub(in crate::cli) async fn read(
        name: &AccountName,
        account: &'a AccountConfig,
        oauth: &'a Arc<OAuthConfig>,
    ) -> Result<Self, OAuthError> {
        let key = key_of(oauth).await?;
        let store = Store::new(name, &oauth.folder);
        let grant = store.read_of(&key, &oauth.client_id)?;
        Ok(Self {
            account,
            oauth,
            store,
            key,
            grant,
        })
    }

    /// Whether HubSpot takes the login itself, which no access token tells.
    ///
    /// # Errors
    /// Why it does not, or why that is not known.
    pub(in crate::cli) async fn stands(&self) -> Result<(), OAuthError> {
        let app = App::new(Arc::clone(self.oauth), self.account)?;
        let refused = match app.introspect(&self.grant).await {
            Err(error @ OAuthError::InvalidGrant { .. }) => error,
            other => return other,
        };
        // A worker may have spent that refresh token just now, and be about to store the next one.
        let lock = self.store.lock().await?;
        let now = self.store.read_of(&self.key, &self.oauth.client_id)?;
        drop(lock);
        if now.issued_at == self.grant.issued_at {
            Err(refused)
        } else {
            app.introspect(&now).await
        }
    }
}

/// What HubSpot says of the login, beside what the file says.
fn heard(told: Told, said: Result<(), OAuthError>, name: &AccountName) -> Told {
    let error = match said {
        Ok(()) => {
            return Told {
                accepted: Some(true),
                found: format!("{}; HubSpot takes this login", told.found),
                ..told
            };
        }
        Err(error) => error,
    };
    let hint = Some(error.hint(name));
    if error.may_pass() {
        // What the file shows to be wrong comes first.
        let wrong = told.problem.zip(told.hint);
        let (problem, hint) = wrong.unwrap_or_else(|| {
            let unknown = format!("whether HubSpot takes this login is not known: {error}");
            (
                unknown,
                "try again; if it stays so, look at status.hubspot.com".to_owned(),
            )
        });
        return Told {
            problem: Some(problem),
            hint: Some(hint),
            exit: told.exit.or(Some(Exit::Unavailable)),
            ..told
        };
    }
    let is_over = matches!(error, OAuthError::InvalidGrant { .. });
    Told {
        // Of a wrong app nothing is known of the login.
        logged_in: if is_over { Some(false) } else { told.logged_in },
        accepted: is_over.then_some(false),
        problem: Some(error.to_string()),
        hint,
        exit: Some(Exit::Usage),
        ..told
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
        told.exit = Some(Exit::Usage);
        told.problem = Some(format!(
            "it opens portal {opened}, and portal_id is {meant}"
        ));
        told.hint = Some(format!(
            "run `postrider auth login --account {name}` and choose portal {meant}, or correct portal_id"
        ));
    } else if let Some(scope) = lacks(account.api, grant.scopes.as_deref()) {
        told.problem = Some(format!("the scope {} was not granted", scope.join(" or ")));
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
    if let Some(leftover) = &told.leftover {
        output.line(format_args!(
            "            left: {leftover}, of a login that is used no more; HubSpot may still take it"
        ))?;
    }
    if let Some(problem) = told.problem.as_ref().filter(|it| **it != told.found) {
        output.line(format_args!("            problem: {problem}"))?;
    }
    if let Some(hint) = &told.hint {
        output.line(format_args!("            hint: {hint}"))?;
    }
    Ok(())
}
