//! Keeps entries off the sending path: many callers that never wait, and one task that writes page
//! by page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Entry, Gap, Record};

/// Entries that wait while nothing is kept, in about 20 MiB (measured); what comes then is dropped. An account
/// at 25 calls a second, the most that HubSpot lets any make, fills it in six minutes.
const WAITING_MAX: usize = 10_000;
/// Entries of one page, in about 150 KB: more would hold up mail on the same connection.
const PAGE_ENTRIES_MAX: usize = 500;
/// How long the first entry of a page waits for others: what a killed worker's journal may lack.
const LINGER: Duration = Duration::from_millis(50);
/// The wait after a page that was not kept; doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// How long the end waits for what is not kept yet: a courtesy must not hold up the end.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Where pages are kept.
pub trait Keeper: Send + 'static {
    /// Keeps a page, all of it or nothing; an empty one makes the place where pages are kept. Called again with the same page when nobody knows
    /// whether it was kept: readers pass over an entry that is the same to the millisecond.
    ///
    /// # Errors
    /// Why it was not kept, for the log.
    fn keep(&mut self, page: &[Record]) -> impl Future<Output = Result<(), String>> + Send;
}

/// Where entries go in; dropping it keeps what it has.
#[derive(Debug)]
pub struct Journal {
    line: mpsc::Sender<Entry>,
    dropped: Arc<Dropped>,
    closing: CancellationToken,
    ended: CancellationToken,
    _close_on_drop: DropGuard,
}

/// What could not be kept.
#[derive(Debug, Default)]
struct Dropped {
    all: AtomicU64,
    /// Since the last page.
    gap: Mutex<Option<Gap>>,
}

struct Scribe<K> {
    keeper: K,
    line: mpsc::Receiver<Entry>,
    dropped: Arc<Dropped>,
    closing: CancellationToken,
    /// A worker's: it makes the place, and warns of trouble. A command's tells whoever debugs.
    makes: bool,
    failing: bool,
}

// === impl Journal ===

impl Journal {
    /// Writes by `keeper` in the background, until it is closed or dropped. A worker's makes the
    /// place where pages are kept at once, and warns when that cannot be.
    #[must_use]
    pub fn start(keeper: impl Keeper, is_worker: bool) -> Self {
        let (line, entries) = mpsc::channel(WAITING_MAX);
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        let dropped = Arc::new(Dropped::default());
        let scribe = Scribe {
            keeper,
            line: entries,
            dropped: Arc::clone(&dropped),
            closing: closing.clone(),
            makes: is_worker,
            failing: false,
        };
        let ends = ended.clone().drop_guard();
        tokio::spawn(async move {
            scribe.run().await;
            drop(ends);
        });
        Self {
            line,
            dropped,
            _close_on_drop: closing.clone().drop_guard(),
            closing,
            ended,
        }
    }

    /// Never waits: what there is no room for is dropped and counted. What has no id is nobody's
    /// story.
    pub fn note(&self, entry: Entry) {
        if entry.id.is_empty() {
            return;
        }
        if let Err(error) = self.line.try_send(entry) {
            self.dropped.count(&error.into_inner());
        }
    }

    /// How many entries were dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.all.load(Ordering::Relaxed)
    }

    /// Keeps what is left, if that takes no longer than 2 s, and nothing that comes later.
    pub async fn close(&self) {
        self.closing.cancel();
        if timeout(CLOSE_MAX, self.ended.cancelled()).await.is_err() {
            tracing::debug!("the end of the trace was not kept");
        }
    }
}

// === impl Dropped ===

impl Dropped {
    fn count(&self, entry: &Entry) {
        self.all.fetch_add(1, Ordering::Relaxed);
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        match gap.as_mut() {
            Some(gap) => gap.widen(entry.at),
            None => *gap = Some(Gap::at(entry.at)),
        }
    }

    fn take(&self) -> Option<Gap> {
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        gap.take()
    }
}

// === impl Scribe ===

impl<K: Keeper> Scribe<K> {
    async fn run(mut self) {
        let mut entries = Vec::new();
        if self.makes {
            // At once, so that commands find it.
            self.keep(&[]).await;
        }
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled(), if !self.line.is_closed() => {
                    // What is in it still comes out.
                    self.line.close();
                    continue;
                }
                count = self.line.recv_many(&mut entries, PAGE_ENTRIES_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
            }
            if entries.len() < PAGE_ENTRIES_MAX {
                rest(LINGER, &self.closing).await;
                while entries.len() < PAGE_ENTRIES_MAX
                    && let Ok(entry) = self.line.try_recv()
                {
                    entries.push(entry);
                }
            }
            let gap = (self.dropped.take()).map(|gap| Record::Gap { gap });
            let page = gap.into_iter().chain(entries.drain(..).map(Record::Entry));
            let page: Vec<_> = page.collect();
            self.keep(&page).await;
        }
    }

    /// Tries until the page is kept, or until the end.
    async fn keep(&mut self, page: &[Record]) {
        let mut wait = RETRY_FIRST;
        while let Err(why) = self.keeper.keep(page).await {
            if !std::mem::replace(&mut self.failing, true) {
                if self.makes {
                    tracing::warn!(
                        why,
                        "trace.not_kept: no trace is kept for now: {why}; mail goes on"
                    );
                } else {
                    tracing::debug!(why, "trace.not_kept: {why}");
                }
            }
            if self.closing.is_cancelled() {
                for record in page {
                    if let Record::Entry(entry) = record {
                        self.dropped.count(entry);
                    }
                }
                return;
            }
            rest(wait, &self.closing).await;
            wait = (wait * 2).min(RETRY_LAST);
        }
        if std::mem::take(&mut self.failing) && self.makes {
            tracing::info!("trace.kept: a trace is kept again");
        }
    }
}

async fn rest(time: Duration, closing: &CancellationToken) {
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio::sync::Semaphore;

    use super::super::Then;
    use super::*;
    use crate::message::AccountName;

    /// Keeps a page for each permit, and fails while `broken`.
    #[derive(Clone, Default)]
    struct Shelf {
        pages: Arc<Mutex<Vec<Vec<Record>>>>,
        tries: Arc<AtomicU64>,
        broken: Arc<std::sync::atomic::AtomicBool>,
        turns: Option<Arc<Semaphore>>,
    }

    impl Keeper for Shelf {
        async fn keep(&mut self, page: &[Record]) -> Result<(), String> {
            self.tries.fetch_add(1, Ordering::Relaxed);
            if let Some(turns) = &self.turns {
                turns.acquire().await.unwrap().forget();
            }
            if self.broken.load(Ordering::Relaxed) {
                return Err("it is broken".into());
            }
            self.pages.lock().unwrap().push(page.to_vec());
            Ok(())
        }
    }

    impl Shelf {
        fn records(&self) -> Vec<Record> {
            let pages = self.pages.lock().unwrap();
            pages.concat()
        }
    }

    fn entry(number: usize) -> Entry {
        let at = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
        let account = AccountName::default();
        Entry::new(format!("m-{number}"), at, &account, Then::Complete)
    }

    #[tokio::test(start_paused = true)]
    async fn entries_share_pages_in_their_order_and_close_keeps_them() {
        let shelf = Shelf::default();
        let journal = Journal::start(shelf.clone(), false);
        for number in 0..PAGE_ENTRIES_MAX + 7 {
            journal.note(entry(number));
        }
        journal.close().await;
        assert_eq!(shelf.pages.lock().unwrap().len(), 2);
        let all = (0..PAGE_ENTRIES_MAX + 7).map(|number| Record::Entry(entry(number)));
        assert_eq!(shelf.records(), all.collect::<Vec<_>>());
        journal.note(entry(1));
        assert_eq!(journal.dropped(), 1, "nothing is kept after the end");
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_is_no_room_for_is_a_gap_in_the_next_page() {
        let turns = Arc::new(Semaphore::new(0));
        let shelf = Shelf {
            turns: Some(Arc::clone(&turns)),
            ..Shelf::default()
        };
        let journal = Journal::start(shelf.clone(), false);
        journal.note(entry(0));
        tokio::time::sleep(2 * LINGER).await;
        // The first page is being written and takes for ever.
        for number in 1..=WAITING_MAX + 5 {
            journal.note(entry(number));
        }
        assert_eq!(journal.dropped(), 5);
        turns.add_permits(1_000);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = WAITING_MAX + 1;
        let gap = Gap {
            lost: 5,
            since: entry(first).at,
            until: entry(first + 4).at,
        };
        let records = shelf.records();
        assert_eq!(records[0], Record::Entry(entry(0)));
        assert_eq!(records[1], Record::Gap { gap });
        assert_eq!(records.len(), WAITING_MAX + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_was_not_kept_is_tried_again_as_it_was() {
        let shelf = Shelf::default();
        shelf.broken.store(true, Ordering::Relaxed);
        let journal = Journal::start(shelf.clone(), false);
        journal.note(entry(1));
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(shelf.tries.load(Ordering::Relaxed), 3, "after 0, 1 and 3 s");
        shelf.broken.store(false, Ordering::Relaxed);
        tokio::time::sleep(RETRY_LAST).await;
        assert_eq!(shelf.records(), [Record::Entry(entry(1))]);
        assert_eq!(journal.dropped(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_does_not_wait_for_a_keeper_that_fails_or_hangs() {
        for hangs in [true, false] {
            let shelf = Shelf {
                turns: hangs.then(|| Arc::new(Semaphore::new(0))),
                ..Shelf::default()
            };
            shelf.broken.store(true, Ordering::Relaxed);
            let journal = Journal::start(shelf.clone(), false);
            journal.note(entry(1));
            tokio::time::sleep(2 * LINGER).await;
            let began = tokio::time::Instant::now();
            journal.close().await;
            assert!(began.elapsed() <= CLOSE_MAX, "{:?}", began.elapsed());
            assert_eq!(journal.dropped(), u64::from(!hangs));
        }
    }
}
