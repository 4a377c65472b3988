//! What is in hand, written where the next worker finds it if this one is killed.
//!
//! A row stays in the file until it is settled, so a crash loses nothing; but whoever gets it next
//! must know that a call for it may have been made. The numbers stand in `PATH.lock`, eight bytes
//! each, written without a flush: they outlive the process and not the machine. A mark that stays
//! too long does no harm, since it only says *may*.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

/// More than were ever in hand at once: a file that holds more is not read further.
const MARKS_MAX: u64 = 1 << 17;
const MARK_BYTES: u64 = size_of::<i64>() as u64;

#[derive(Debug)]
pub(super) struct Marks {
    /// The queue's: an intake that outlives it must not keep the lock.
    file: Weak<File>,
    places: BTreeMap<i64, u64>,
    /// Places that were used and are not.
    free: Vec<u64>,
    is_kept: bool,
}

impl Marks {
    /// The marks in a file, and the rows that a worker before had in hand when it ended.
    pub(super) fn open(file: &Arc<File>) -> std::io::Result<(Self, Vec<i64>)> {
        let mut bytes = Vec::new();
        let mut from = &**file;
        from.by_ref()
            .take(MARKS_MAX * MARK_BYTES)
            .read_to_end(&mut bytes)?;
        let (marks, _) = bytes.as_chunks();
        let mut marks: Vec<i64> = marks.iter().map(|mark| i64::from_le_bytes(*mark)).collect();
        marks.retain(|number| *number > 0);
        file.set_len(0)?;
        let mut this = Self {
            file: Arc::downgrade(file),
            places: BTreeMap::new(),
            free: Vec::new(),
            is_kept: true,
        };
        for number in &marks {
            this.put(*number);
        }
        Ok((this, marks))
    }

    pub(super) fn put(&mut self, number: i64) {
        if self.places.contains_key(&number) {
            return;
        }
        let used = self.places.len() as u64;
        let place = self.free.pop().unwrap_or(used);
        self.places.insert(number, place);
        self.write(place, number);
    }

    pub(super) fn clear(&mut self, number: i64) {
        if let Some(place) = self.places.remove(&number) {
            self.free.push(place);
            self.write(place, 0);
        }
    }

    /// What cannot be written is told less of, once, and nothing more: the row itself is safe.
    fn write(&mut self, place: u64, number: i64) {
        let Some(file) = self.file.upgrade() else {
            return;
        };
        let mark = number.to_le_bytes();
        let written = file.write_all_at(&mark, place * MARK_BYTES);
        if let Err(error) = &written
            && self.is_kept
        {
            tracing::warn!(
                %error,
                "queue.not_marked: PATH.lock cannot be written: after a crash a dead letter may not say that it may have been mailed"
            );
        }
        self.is_kept = written.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_and_not_cleared_is_found() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("queue.db.lock");
        let open = || {
            let mut options = File::options();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = Arc::new(options.open(&path).unwrap());
            let (marks, found) = Marks::open(&file).unwrap();
            (file, marks, found)
        };
        let (_file, mut marks, found) = open();
        assert!(found.is_empty());
        for number in 1..=600 {
            marks.put(number);
        }
        for number in (1..=600).filter(|number| number % 100 != 0) {
            marks.clear(number);
        }
        marks.put(700);
        marks.put(700);
        let (_file, mut marks, mut found) = open();
        found.sort_unstable();
        assert_eq!(found, [100, 200, 300, 400, 500, 600, 700]);
        for number in found {
            marks.clear(number);
        }
        let (_file, _marks, found) = open();
        assert!(found.is_empty());
    }

    #[test]
    fn a_file_of_anything_is_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("queue.db.lock");
        std::fs::write(&path, [b"\xff".as_slice(), &[0; 7], &[7; 5]].concat()).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let (_marks, found) = Marks::open(&Arc::new(file)).unwrap();
        assert_eq!(found, [255]);
    }
}
