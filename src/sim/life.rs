//! The life of one process, as it meets the outside.
//!
//! A process that dies is seen by what it did before and by nothing else. So it need not be stopped
//! at each of its awaits: it is enough that it can die before and after each thing that it does to
//! the queue or to HubSpot. There its futures wait for ever; the rest of it changes nothing any more.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// One process, from its start to its end.
#[derive(Debug, Default)]
pub(super) struct Life {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a process may be several of these at once"
)]
struct State {
    /// It dies after so many steps more.
    fuse: Option<u32>,
    dead: bool,
    /// Stopped by a signal: nothing that comes in is seen, and nothing goes out.
    frozen: bool,
    /// It and the broker do not hear each other.
    cut_off: bool,
    /// And the broker has given it up.
    given_up: bool,
    /// It was asked to end in order.
    stopping: bool,
}

impl Life {
    /// A point at which it may die.
    pub(super) async fn step(&self) {
        if self.dies_here() {
            std::future::pending::<()>().await;
        }
    }

    fn dies_here(&self) -> bool {
        let mut state = self.state();
        match &mut state.fuse {
            Some(0) => state.dead = true,
            Some(steps) => *steps -= 1,
            None => {}
        }
        let dead = state.dead;
        drop(state);
        if dead {
            self.changed.notify_waiters();
        }
        dead
    }

    /// Waits until something of HubSpot's can reach it.
    pub(super) async fn reaches_hubspot(&self) {
        self.until(|state| !state.frozen).await;
    }

    /// Waits until something of the broker's can reach it.
    pub(super) async fn reaches_broker(&self) {
        self.until(|state| !state.frozen && !state.cut_off).await;
    }

    /// The same, or until the broker has given it up.
    pub(super) async fn is_answered(&self) {
        self.until(|state| !state.frozen && (!state.cut_off || state.given_up))
            .await;
    }

    pub(super) async fn died(&self) {
        self.until(|state| state.dead).await;
    }

    pub(super) async fn asked_to_stop(&self) {
        self.until(|state| state.stopping).await;
    }

    pub(super) fn dies_after(&self, steps: u32) {
        self.change(|state| state.fuse = Some(steps));
    }

    pub(super) fn freeze(&self, frozen: bool) {
        self.change(|state| state.frozen = frozen);
    }

    pub(super) fn cut_off(&self, cut_off: bool) {
        self.change(|state| {
            state.cut_off = cut_off;
            state.given_up = false;
        });
    }

    pub(super) fn give_up(&self) {
        self.change(|state| state.given_up = true);
    }

    pub(super) fn stop(&self) {
        self.change(|state| state.stopping = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
