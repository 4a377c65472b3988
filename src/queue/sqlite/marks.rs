//! What is in hand, written where the next worker finds it if this one is killed.
//!
//! A row stays in the file until it is settled, so a crash loses nothing; but whoever gets it next
//! must know that a call for it may have been made. The numbers stand in `PATH.lock`, eight bytes
//! each, behind a name for the time since the machine was started: written without a flush, they
//! outlive the process and not the machine. Where the name is another one, or the file was removed,
//! nobody knows what was in hand. A mark that stays too long does no harm, since it only says *may*.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

use super::super::Spends;

/// More than were ever in hand at once: a file that holds more is not read further.
const MARKS_MAX: u64 = 1 << 17;
const MARK_BYTES: u64 = size_of::<i64>() as u64;
/// No row's number: this worker may spend the window of an account at once.
const AT_ONCE: i64 = i64::MIN;

#[derive(Debug)]
pub(super) struct Marks {
    /// The queue's: an intake that outlives it must not keep the lock.
    file: Weak<File>,
    places: BTreeMap<i64, u64>,
    /// Places that were used and are not.
    free: Vec<u64>,
    is_kept: bool,
}

/// What a worker before had in hand when it ended.
#[derive(Debug, PartialEq)]
pub(super) enum InHand {
    These(Vec<i64>),
    NobodyKnows,
}

/// What is found of the worker before.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) in_hand: InHand,
    pub(super) spends: Spends,
}

impl Marks {
    /// The marks in a file, and what they say of the worker before.
    pub(super) fn open(file: &Arc<File>) -> std::io::Result<(Self, Found)> {
        let mut bytes = Vec::new();
        let mut from = &**file;
        from.by_ref()
            .take(MARKS_MAX * MARK_BYTES)
            .read_to_end(&mut bytes)?;
        let (marks, _) = bytes.as_chunks();
        let mut marks: Vec<i64> = marks.iter().map(|mark| i64::from_le_bytes(*mark)).collect();
        let is_known = marks.first() == Some(&since_boot());
        let at_once = is_known && marks.contains(&AT_ONCE);
        marks.retain(|number| *number > 0);
        file.set_len(0)?;
        file.write_all_at(&since_boot().to_le_bytes(), 0)?;
        let mut this = Self {
            file: Arc::downgrade(file),
            places: BTreeMap::new(),
            free: Vec::new(),
            is_kept: true,
        };
        for number in &marks {
            this.put(*number);
        }
        let in_hand = if is_known {
            InHand::These(marks)
        } else {
            InHand::NobodyKnows
        };
        let spends = if at_once {
            Spends::AtOnce
        } else {
            Spends::Evenly
        };
        if at_once {
            this.put(AT_ONCE);
        }
        Ok((this, Found { in_hand, spends }))
    }

    /// How windows are spent from now on; whether that could be written.
    pub(super) fn tell(&mut self, spends: Spends) -> bool {
        match spends {
            Spends::AtOnce => self.put(AT_ONCE),
            Spends::Evenly => self.clear(AT_ONCE),
        }
        self.is_kept
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
        let written = file.write_all_at(&mark, (1 + place) * MARK_BYTES);
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

/// Names the time since the machine was started; no row has such a number.
fn since_boot() -> i64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(15)
        .collect();
    -1 - i64::from_str_radix(&digits, 16).unwrap_or_default()
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
        assert_eq!(found.in_hand, InHand::NobodyKnows, "there was no file");
        for number in 1..=600 {
            marks.put(number);
        }
        for number in (1..=600).filter(|number| number % 100 != 0) {
            marks.clear(number);
        }
        marks.put(700);
        marks.put(700);
        let (_file, mut marks, found) = open();
        assert_eq!(found.spends, Spends::Evenly);
        let InHand::These(mut found) = found.in_hand else {
            panic!("the machine was not started anew");
        };
        found.sort_unstable();
        assert_eq!(found, [100, 200, 300, 400, 500, 600, 700]);
        for number in found {
            marks.clear(number);
        }
        assert!(marks.tell(Spends::AtOnce));
        let (_file, _marks, found) = open();
        let (in_hand, spends) = (InHand::These(Vec::new()), Spends::AtOnce);
        assert_eq!(found, Found { in_hand, spends });
    }

    #[test]
    fn a_file_of_anything_is_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("queue.db.lock");
        std::fs::write(&path, [b"\xff".as_slice(), &[0; 7], &[7; 5]].concat()).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let (_marks, found) = Marks::open(&Arc::new(file)).unwrap();
        assert_eq!(
            found.in_hand,
            InHand::NobodyKnows,
            "another machine's, or another start's"
        );
    }
}
