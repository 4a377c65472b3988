//! `postrider worker`: the dispatcher, its admin server, and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::failure::{Exit, Failure};
use super::open::amqp_options;
use super::signals::Stop;
use crate::admin::{self, Admin};
use crate::clock::Clock;
use crate::config::{AccountConfig, Config, Flag, QueueUrl};
use crate::delivery::Rules;
use crate::dispatch::{Account, Dispatcher, Left, Parts, Settings};
use crate::message::AccountName;
use crate::metrics::Metrics;
use crate::oauth;
use crate::provider::hubspot::HubSpot;
use crate::provider::{PROBE_CALLS, Probe, Provider};
use crate::queue::amqp::AmqpQueue;
use crate::queue::sqlite::{Mode, SqliteQueue};
use crate::queue::{Queue, QueueError};
use crate::retry::RetryPolicy;

/// How long a configured portal is asked for before the worker starts all the same: then nothing
/// leaves until it is proven.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// `token` and `next_token`.
const TOKENS_MAX: u32 = 2;
/// What the end needs when the calls are over, at most: the queue's and then the admin server's
/// good-bye, and a margin for a busy machine.
const CLOSING_TIME: Duration = Duration::from_secs(10);
/// Of a short `server.stop_timeout` it is a quarter.
const CLOSING_PART: u32 = 4;

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

/// An account that is to be dispatched.
pub(super) struct Served {
    account: AccountName,
    hubspot: HubSpot,
    /// How many calls were made for it already: they count in its quota.
    calls: u32,
}

/// Runs until SIGTERM or Ctrl-C, and then to an orderly end.
pub(super) async fn run(config: &Config) -> Result<(), Failure> {
    let mut served = served(config)?;
    match &config.queue.url {
        QueueUrl::Sqlite(path) => {
            let accounts = config.accounts.keys().cloned();
            let prefix = &config.queue.prefix;
            // Before the address: a second worker on one file lacks both, and the file is why.
            let queue = SqliteQueue::open(path, prefix, accounts, Clock::system(), Mode::Worker);
            let queue = queue.await?;
            let listener = listen(config.server.listen).await?;
            let stop = Stop::on_signal()?;
            tokio::select! {
                biased;
                () = stop.told.cancelled() => return ended_before_it_began(config).await,
                proven = prove(config, &mut served) => proven?,
            }
            serve(config, queue, served, listener, stop).await
        }
        QueueUrl::Amqp(_) => {
            let listener = listen(config.server.listen).await?;
            let stop = Stop::on_signal()?;
            let begun = async {
                prove(config, &mut served).await?;
                Ok::<_, Failure>(AmqpQueue::start(amqp_options(config)).await?)
            };
            let queue = tokio::select! {
                biased;
                // A broker that does not answer is no reason to outstay.
                () = stop.told.cancelled() => return ended_before_it_began(config).await,
                queue = begun => queue?,
            };
            serve(config, queue, served, listener, stop).await
        }
    }
}

async fn ended_before_it_began(config: &Config) -> Result<(), Failure> {
    // The proof may have begun one.
    oauth::finish(config.server.stop_timeout).await;
    tracing::info!("worker stopped before it began");
    Ok(())
}

/// Dispatches every account over one queue, and serves the admin pages, until `stop`.
pub(super) async fn serve<Q: Queue>(
    config: &Config,
    queue: Q,
    served: Vec<Served>,
    listener: TcpListener,
    stop: Stop,
) -> Result<(), Failure> {
    let stop_timeout = config.server.stop_timeout;
    let closing = CLOSING_TIME.min(stop_timeout / CLOSING_PART);
    let grace = stop_timeout.saturating_sub(closing);
    warn_of_short_grace(config, grace);
    let metrics = Metrics::new();
    let dispatchers: Vec<_> = served
        .into_iter()
        .filter_map(|it| dispatcher(config, it, &queue, &metrics, grace))
        .collect();
    // Not the configured one: its port may be 0.
    let listen = listener
        .local_addr()
        .map_or_else(|error| error.to_string(), |addr| addr.to_string());
    let accounts: Vec<_> = dispatchers.iter().map(|d| d.account()).collect();
    stop.tells_of(&accounts);
    let token = config.server.token_now()?;
    let admin_end = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(
        listener,
        Admin {
            queue: queue.clone(),
            metrics,
            accounts: accounts.clone(),
            clock: Clock::system(),
            stopping: stop.told.clone(),
            token,
        },
        admin_end.clone(),
    ));
    let Rules { environment, mode } = &config.delivery;
    tracing::info!(
        accounts = accounts.len(), listen, queue = %config.queue.url.place(),
        %environment, delivery = mode.label(), "worker started"
    );
    let runs = dispatchers
        .into_iter()
        .map(|dispatcher| dispatcher.run(stop.told.clone()));
    let told_at = async {
        stop.told.cancelled().await;
        Instant::now()
    };
    let (ended, told_at) = tokio::join!(all_end(runs, &stop.told), told_at);
    // Each step has its time, so that the end comes whatever the broker or a visitor does.
    if timeout(closing * 3 / 5, queue.close()).await.is_err() {
        tracing::warn!("the queue was not closed in order: it does not answer");
    }
    admin_end.cancel();
    match timeout(closing / 5, admin).await {
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the admin server failed"),
        Ok(Ok(Ok(())) | Err(_)) => {}
        Err(_) => tracing::debug!("somebody still talks to the admin server"),
    }
    let rest = stop_timeout.saturating_sub(told_at.elapsed());
    oauth::finish(rest.saturating_sub(closing / 10)).await;
    tell_what_is_left(&accounts, told_at.elapsed());
    ended
}

fn dispatcher<Q: Queue>(
    config: &Config,
    served: Served,
    queue: &Q,
    metrics: &Metrics,
    grace: Duration,
) -> Option<Arc<Dispatcher<Q, HubSpot>>> {
    let account = config.accounts.get(&served.account)?;
    let dispatcher = Dispatcher::new(Parts {
        account: served.account,
        settings: settings(account, &config.delivery, grace),
        queue: queue.clone(),
        provider: served.hubspot,
        clock: Clock::system(),
        retry: RetryPolicy::new(config.retry.clone()),
        metrics: metrics.clone(),
        seed: fastrand::u64(..),
    });
    dispatcher.account().was_called(served.calls);
    Some(Arc::new(dispatcher))
}

/// Where calls may take longer than the stop waits for them.
fn warn_of_short_grace(config: &Config, grace: Duration) {
    for (account, AccountConfig { timeout, .. }) in &config.accounts {
        if *timeout > grace {
            tracing::warn!(
                %account, timeout_s = timeout.as_secs_f64(), grace_s = grace.as_secs_f64(),
                hint = "raise server.stop_timeout, or lower accounts.NAME.timeout",
                "a stop does not wait for the longest call; it may be made again, under the same sendId"
            );
        }
    }
}

/// The last word: what was in hand when the stop was told, and what became of it.
fn tell_what_is_left(accounts: &[Arc<Account>], took: Duration) {
    let mut all = Left::default();
    for account in accounts {
        all += account.left();
    }
    let Left {
        finished,
        handed_back,
        unanswered,
        unsettled,
    } = all;
    let took_s = took.as_secs_f64();
    if unanswered + unsettled == 0 {
        tracing::info!(
            finished,
            handed_back,
            unanswered,
            unsettled,
            took_s,
            "worker stopped in order"
        );
    } else {
        tracing::warn!(
            finished,
            handed_back,
            unanswered,
            unsettled,
            took_s,
            hint = "nothing to do: their messages are handed out again, under the same sendId",
            "worker stopped, and left calls in flight"
        );
    }
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
pub(super) fn served(config: &Config) -> Result<Vec<Served>, Failure> {
    let make = |(name, account): (&AccountName, &AccountConfig)| {
        HubSpot::new(name, account, Clock::system())
            .map(|hubspot| Served {
                account: name.clone(),
                hubspot,
                calls: 0,
            })
            .map_err(|error| Failure::usage(error.to_string()).hint(error.hint()))
    };
    config.accounts.iter().map(make).collect()
}

/// Refuses a token that opens another account than the configured one, before any mail leaves.
async fn prove(config: &Config, served: &mut [Served]) -> Result<(), Failure> {
    for it in served {
        let account = config.accounts.get(&it.account);
        let Some(account) = account.filter(|account| account.is_pinned()) else {
            continue;
        };
        // Where it is a token in waiting that is not proven, the one in force is asked about next, if
        // one window has room for that.
        let window = account.quota.api.map(|api| api.limit / PROBE_CALLS);
        for _ in 0..window.map_or(TOKENS_MAX, |probes| probes.min(TOKENS_MAX)) {
            it.calls += PROBE_CALLS;
            let probe = timeout(PROOF_TIMEOUT, it.hubspot.probe()).await;
            match probe {
                Ok(Probe::Wrong(_, problem)) => {
                    let problem = format!("account `{}`: {problem}", it.account);
                    return Err(Failure::usage(problem)
                        .hint("correct what accounts.NAME pins, or the token; nothing was sent"));
                }
                Ok(Probe::Kept) => {}
                Ok(Probe::Open(_) | Probe::Shut(_) | Probe::Inconclusive(_)) | Err(_) => break,
            }
        }
    }
    Ok(())
}

fn settings(account: &AccountConfig, delivery: &Rules, grace: Duration) -> Settings {
    Settings {
        quota: account.quota,
        results: account.results,
        concurrency: account.concurrency,
        low_share: account.low_share,
        pinned: account.is_pinned(),
        delivery: delivery.clone(),
        grace,
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
        let ended = timeout(Duration::from_mins(1), all_end(runs.into_iter(), &stop));
        assert!(ended.await.expect("it ends").is_err());
    }
}
