//! The operator's word to stop.

use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::failure::{Exit, Failure};
use crate::dispatch::Account;

/// What SIGINT and SIGTERM mean: the first one cancels `told`, a second one ends the process at
/// once.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    pub(super) told: CancellationToken,
    /// Whose calls a sudden end leaves behind.
    accounts: Arc<OnceLock<Vec<Arc<Account>>>>,
}

impl Stop {
    /// Listens from now on. Must be called within the runtime.
    pub(super) fn on_signal() -> Result<Self, Failure> {
        let unheard = |error| Failure::bug(format!("signals cannot be heard: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
        let stop = Self {
            told: CancellationToken::new(),
            accounts: Arc::default(),
        };
        let told = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            told.told.cancel();
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            told.at_once();
        });
        Ok(stop)
    }

    /// A sudden end tells how many of their calls it has left.
    pub(super) fn tells_of(&self, accounts: &[Arc<Account>]) {
        // The first ones stay: a process serves its accounts once.
        let _ = self.accounts.set(accounts.to_vec());
    }

    fn at_once(&self) -> ! {
        if let Some(accounts) = self.accounts.get() {
            let unanswered: i64 = accounts.iter().map(|account| account.in_flight()).sum();
            tracing::warn!(
                unanswered,
                "stopped at once; what was in hand is handed out again, under the same sendId"
            );
        }
        crate::config::end_commands();
        std::process::exit(Exit::Interrupted as i32);
    }
}
