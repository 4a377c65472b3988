//! The boxes of work that is done, for work to come: a future has room for each of its steps, which is
//! more than an allocator gives and takes back at no cost.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::ReusableBoxFuture;

/// What is kept for each lane, of some 20 KiB a box: one comes back for each that is taken, when there
/// is much to do.
const BOXES_MAX: usize = 8;

/// One piece of work, boxed.
pub(super) type Work = ReusableBoxFuture<'static, ()>;

#[derive(Default)]
pub(super) struct Boxes(Mutex<Vec<Work>>);

impl Boxes {
    pub(super) fn filled(&self, work: impl Future<Output = ()> + Send + 'static) -> Work {
        match self.lock().pop() {
            Some(mut used) => {
                used.set(work);
                used
            }
            None => Work::new(work),
        }
    }

    pub(super) fn keep(&self, done: Work) {
        let mut boxes = self.lock();
        if boxes.len() < BOXES_MAX {
            boxes.push(done);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
