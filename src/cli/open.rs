//! Opens the configured queue. Which backend it is, is chosen here and nowhere else.

use std::path::Path;

use super::failure::{Exit, Failure};
use super::output::talk;
use crate::clock::Clock;
use crate::config::{AccountConfig, Config, QueueUrl};
use crate::message::AccountName;
use crate::queue::amqp::{Address, AmqpOptions, AmqpQueue};
use crate::queue::sqlite::{Mode, SqliteQueue};

/// What a command does with the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Puts requests in: an embedded queue is made when there is none.
    Publish,
    /// Looks, or works on what stands there: a queue that is not there is an error, since an
    /// empty one in the wrong folder looks like good news.
    Inspect,
}

/// Runs `$body` with the configured queue, and closes it.
macro_rules! with_queue {
    ($config:expr, $purpose:expr, |$queue:ident| $body:expr) => {{
        use $crate::queue::Queue as _;
        match &$config.queue.url {
            $crate::config::QueueUrl::Sqlite(path) => {
                let $queue = $crate::cli::open::sqlite($config, path, $purpose).await?;
                let ended = $body;
                $queue.close().await;
                ended
            }
            $crate::config::QueueUrl::Amqp(_) => {
                let $queue = $crate::cli::open::amqp($config).await?;
                let ended = $body;
                $queue.close().await;
                ended
            }
        }
    }};
}
pub(super) use with_queue;

pub(super) async fn sqlite(
    config: &Config,
    path: &Path,
    purpose: Purpose,
) -> Result<SqliteQueue, Failure> {
    let place = config.queue.url.place();
    let is_new = !path.exists();
    if purpose == Purpose::Inspect && is_new {
        return Err(
            Failure::new(Exit::Unavailable, format!("there is no queue at {place}"))
                .hint("run this in the worker's folder, or set queue.url to the worker's"),
        );
    }
    let accounts = config.accounts.keys().cloned();
    let queue = SqliteQueue::open(
        path,
        &config.queue.prefix,
        accounts,
        Clock::system(),
        Mode::Command,
    );
    let queue = queue.await?;
    if is_new {
        talk(format_args!("{place} is a new queue"));
    }
    Ok(queue)
}

pub(super) async fn amqp(config: &Config) -> Result<AmqpQueue, Failure> {
    Ok(AmqpQueue::connect(amqp_options(config)).await?)
}

/// A file that holds the address is read again for each connection: a changed password needs no
/// restart.
pub(super) fn amqp_options(config: &Config) -> AmqpOptions {
    let queue = config.queue.clone();
    let url = Address::asked(move || match queue.reread() {
        Ok(QueueUrl::Amqp(url)) => Ok(url),
        Ok(QueueUrl::Sqlite(_)) => Err("queue.url_file names an embedded queue now".into()),
        Err(error) => Err(error.to_string()),
    });
    let queue = config.queue.clone();
    let url = url.with_tls(move || queue.tls_now().map_err(|error| error.to_string()));
    AmqpOptions {
        url,
        prefix: config.queue.prefix.clone(),
        accounts: config.accounts.keys().cloned().collect(),
        clock: Clock::system(),
    }
}

/// The account of this name.
pub(super) fn account_of<'a>(
    config: &'a Config,
    name: &AccountName,
) -> Result<&'a AccountConfig, Failure> {
    config.accounts.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.accounts.keys().map(AccountName::as_str).collect();
        Failure::usage(format!("there is no account `{name}`"))
            .hint(format!("the accounts are: {}", known.join(" ")))
    })
}

/// Reads the name of an account that is given on the command line.
pub(super) fn account_name(name: &str) -> Result<AccountName, String> {
    AccountName::parse(name).map_err(|malformed| malformed.hint.unwrap_or(malformed.problem))
}
