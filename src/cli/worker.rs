//! `postrider worker`: the dispatcher, its admin server, and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::failure::{Exit, Failure};
use super::open::amqp_options;
use super::signals::stop_on_signal;
use crate::admin::{self, Admin};
use crate::clock::Clock;
use crate::config::{AccountConfig, Config, Flag, QueueUrl};
use crate::dispatch::{Dispatcher, Parts, Settings};
use crate::message::AccountName;
use crate::metrics::Metrics;
use crate::provider::hubspot::HubSpot;
use crate::provider::{Probe, Provider};
use crate::queue::amqp::AmqpQueue;
use crate::queue::sqlite::{Mode, SqliteQueue};
use crate::queue::{Queue, QueueError};
use crate::retry::RetryPolicy;

/// How long a configured portal is asked for before the worker starts all the same: then nothing
/// leaves until it is proven.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end waits for those who talk to the admin server.
const ADMIN_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Run the dispatcher
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Address of /metrics, /healthz and /readyz [default: server.listen]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

impl Args {
    pub(super) fn flags(&self) -> Vec<Flag> {
        let listen = self.listen.iter();
        listen
            .map(|listen| Flag {
                key: "server.listen",
                name: "--listen",
                value: listen.to_string(),
            })
            .collect()
    }
}

/// Runs until SIGTERM or Ctrl-C, and then to an orderly end.
pub(super) async fn run(config: &Config) -> Result<(), Failure> {
    let providers = providers(config)?;
    match &config.queue.url {
        QueueUrl::Sqlite(path) => {
            let accounts = config.accounts.keys().cloned();
            let prefix = &config.queue.prefix;
            // Before the address: a second worker on one file lacks both, and the file is why.
            let queue = SqliteQueue::open(path, prefix, accounts, Clock::system(), Mode::Worker);
            let queue = queue.await?;
            let listener = listen(config.server.listen).await?;
            prove(config, &providers).await?;
            let stop = stop_on_signal()?;
            serve(config, queue, providers, listener, stop).await
        }
        QueueUrl::Amqp(_) => {
            let listener = listen(config.server.listen).await?;
            prove(config, &providers).await?;
            let stop = stop_on_signal()?;
            let queue = AmqpQueue::start(amqp_options(config));
            serve(config, queue.await?, providers, listener, stop).await
        }
    }
}

/// Dispatches every account over one queue, and serves the admin pages, until `stop`.
pub(super) async fn serve<Q: Queue>(
    config: &Config,
    queue: Q,
    providers: Vec<(AccountName, HubSpot)>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let metrics = Metrics::new();
    let dispatchers: Vec<_> = providers
        .into_iter()
        .filter_map(|(name, provider)| {
            let account = config.accounts.get(&name)?;
            Some(Arc::new(Dispatcher::new(Parts {
                account: name,
                settings: settings(account),
                queue: queue.clone(),
                provider,
                clock: Clock::system(),
                retry: RetryPolicy::new(config.retry.clone()),
                metrics: metrics.clone(),
                seed: fastrand::u64(..),
            })))
        })
        .collect();
    // Not the configured one: its port may be 0.
    let listen = listener
        .local_addr()
        .map_or_else(|error| error.to_string(), |addr| addr.to_string());
    let admin_end = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(
        listener,
        Admin {
            queue: queue.clone(),
            metrics,
            accounts: dispatchers.iter().map(|d| d.account()).collect(),
            clock: Clock::system(),
            stopping: stop.clone(),
        },
        admin_end.clone(),
    ));
    let accounts = dispatchers.len();
    tracing::info!(accounts, listen, queue = %config.queue.url.place(), "worker started");
    let runs = dispatchers
        .into_iter()
        .map(|dispatcher| dispatcher.run(stop.clone()));
    let ended = all_end(runs, &stop).await;
    queue.close().await;
    admin_end.cancel();
    match tokio::time::timeout(ADMIN_END_TIMEOUT, admin).await {
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the admin server failed"),
        Ok(Ok(Ok(())) | Err(_)) => {}
        Err(_) => tracing::debug!("somebody still talks to the admin server"),
    }
    ended?;
    tracing::info!("worker stopped in order");
    Ok(())
}

/// Runs side by side until all have ended. Whatever ends the first one, be it a panic, stops the
/// others: a worker that serves half of its accounts would look well.
async fn all_end<R>(runs: impl Iterator<Item = R>, stop: &CancellationToken) -> Result<(), Failure>
where
    R: Future<Output = Result<(), QueueError>> + Send + 'static,
{
    let tasks = runs.map(|run| {
        let stops_all = stop.clone().drop_guard();
        tokio::spawn(async move {
            let ended = run.await;
            drop(stops_all);
            ended
        })
    });
    for ended in join_all(tasks).await {
        ended.map_err(|error| Failure::bug(format!("the dispatcher stopped: {error}")))??;
    }
    Ok(())
}

/// A client for each account; without a token there is nothing to do for it.
pub(super) fn providers(config: &Config) -> Result<Vec<(AccountName, HubSpot)>, Failure> {
    let make = |(name, account): (&AccountName, &AccountConfig)| {
        HubSpot::new(name, account, Clock::system())
            .map(|provider| (name.clone(), provider))
            .map_err(|error| Failure::usage(error.to_string()).hint(error.hint()))
    };
    config.accounts.iter().map(make).collect()
}

/// Refuses a token that opens another portal than the configured one, before any mail leaves.
async fn prove(config: &Config, providers: &[(AccountName, HubSpot)]) -> Result<(), Failure> {
    for (name, provider) in providers {
        let Some(wanted) = config
            .accounts
            .get(name)
            .and_then(|account| account.portal_id)
        else {
            continue;
        };
        let probe = tokio::time::timeout(PROOF_TIMEOUT, provider.probe()).await;
        if let Ok(Probe::Open(portal)) = probe
            && let Some(opened) = portal.portal_id
            && opened != wanted
        {
            return Err(Failure::usage(format!(
                "the token of account `{name}` opens portal {opened}, and portal_id is {wanted}"
            ))
            .hint("correct accounts.NAME.portal_id or the token; nothing was sent"));
        }
    }
    Ok(())
}

fn settings(account: &AccountConfig) -> Settings {
    Settings {
        quota: account.quota,
        results: account.results,
        concurrency: account.concurrency,
        portal_id: account.portal_id,
    }
}

pub(super) async fn listen(addr: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).await.map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!("cannot listen on {addr}: {error}"),
        )
        .hint("set server.listen to a free address, such as 127.0.0.1:0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_account_that_cannot_be_served_stops_the_worker() {
        let stop = CancellationToken::new();
        let runs = [true, false].map(|well| {
            let stop = stop.clone();
            async move {
                if !well {
                    return Err(QueueError::Lost);
                }
                stop.cancelled().await;
                Ok(())
            }
        });
        let ended = tokio::time::timeout(Duration::from_mins(1), all_end(runs.into_iter(), &stop));
        assert!(ended.await.expect("it ends").is_err());
    }
}
