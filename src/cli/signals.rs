//! The operator's word to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::failure::{Exit, Failure};

/// A token that SIGINT or SIGTERM cancels; a second signal ends the process at once. Must be
/// called within the runtime.
pub(super) fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let unheard = |error| Failure::bug(format!("signals cannot be heard: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.cancel();
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("stopped at once; what was in hand is handed out again");
        std::process::exit(Exit::Interrupted as i32);
    });
    Ok(stop)
}
