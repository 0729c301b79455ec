//! The backlog of a log: what came while the log could not be written. When it is full the newest bytes are dropped, whole
//! lines, counted, and a marker says so in the log. Decides only; the bytes are put where it says.

use std::io::Write;

use super::journal::{Place, Record};
use super::spool::CHUNK;

/// Most that is kept of one log, in bytes.
pub(super) const LIMIT: u64 = 1024 * 1024;
/// Most that is kept of all logs together, in bytes.
pub(super) const LIMIT_OF_ALL: u64 = 64 * 1024 * 1024;
/// Where a backlog begins: before it there is room for one spool, whose bytes are older.
const BEGIN: u64 = CHUNK as u64;
/// Bytes of a line that is dropped to its end; a line that goes on longer is cut.
const LONGEST_REST: usize = CHUNK;
/// Longest marker, in bytes.
const MARKER: usize = 80;

impl Record {
    /// Bytes in the backlog.
    pub fn backlog(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Bytes were dropped that no marker speaks of.
    pub fn is_dropping(&self) -> bool {
        self.dropped > self.marked
    }

    /// What comes now may go straight into the log.
    pub fn is_clear(&self) -> bool {
        self.backlog() == 0 && !self.is_dropping()
    }

    /// Takes bytes that came, of which the log's backlog may keep `limit`. What is kept goes to `put`, with its offset,
    /// before the record is valid; if `put` refuses, it is dropped.
    pub fn absorb(mut self, bytes: &[u8], limit: u64, mut put: impl FnMut(u64, &[u8]) -> bool) -> Self {
        if bytes.is_empty() {
            return self;
        }
        if self.is_dropping() {
            self.drop_bytes(bytes);
            return self;
        }
        if self.backlog() == 0 {
            self.restart();
        }
        // What was written of the backlog does not make room before all of it is.
        let space = BEGIN.saturating_add(LIMIT).saturating_sub(self.end);
        let room = usize::try_from(space.min(limit.saturating_sub(self.backlog()))).unwrap_or(usize::MAX);
        let kept = match bytes.get(..room) {
            None => bytes,
            Some(_) if room == bytes.len() => bytes,
            Some(head) => match head.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => head.get(..=last).unwrap_or_default(),
                // The line that is too long for what is left goes, and so does its beginning, unless that may stand in
                // the log already.
                None if self.whole > self.start && self.unsure.seq == 0 => {
                    let beginning = self.end.saturating_sub(self.whole);
                    self.end = self.whole;
                    self.dropped = self.dropped.saturating_add(beginning);
                    &[]
                }
                None => head,
            },
        };
        let kept = if put(self.end, kept) { kept } else { &[] };
        if let Some(last) = kept.iter().rposition(|byte| *byte == b'\n') {
            self.whole = self.end.saturating_add(last as u64).saturating_add(1);
        }
        self.end = self.end.saturating_add(kept.len() as u64);
        self.drop_bytes(bytes.get(kept.len()..).unwrap_or_default());
        self
    }

    fn drop_bytes(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.dropped = self.dropped.saturating_add(bytes.len() as u64);
            self.is_amid_line = *last != b'\n';
        }
    }

    /// Once the log can be written again: how many of the bytes that came are the rest of a line whose beginning was
    /// dropped, and go with it. `None` if that line goes on after them.
    pub fn rest_of_line(&self, bytes: &[u8]) -> Option<usize> {
        if !self.is_amid_line {
            return Some(0);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').map(|end| end.saturating_add(1));
        end.or_else(|| (bytes.len() >= LONGEST_REST).then_some(bytes.len()))
    }

    /// Puts the marker of what was dropped into the backlog, which is empty; the log can be written again.
    pub fn mark(mut self, ends_a_line: bool, mut put: impl FnMut(u64, &[u8]) -> bool) -> Self {
        if self.backlog() > 0 || !self.is_dropping() {
            return self;
        }
        self.restart();
        let dropped = self.dropped.saturating_sub(self.marked);
        let line_end = if ends_a_line { "" } else { "\n" };
        let mut marker = [0; MARKER];
        let text = format_into(&mut marker, format_args!("{line_end}[laneway: {dropped} bytes of log dropped]\n"));
        if put(self.end, text) {
            self.end = self.end.saturating_add(text.len() as u64);
            self.whole = self.end;
            self.marked = self.dropped;
            self.is_amid_line = false;
        }
        self
    }

    /// Puts bytes before the backlog: they came earlier, out of one spool. The log may have some of them already, from
    /// `place` on.
    pub fn put_first(mut self, bytes: &[u8], place: Place, mut put: impl FnMut(u64, &[u8]) -> bool) -> Self {
        if self.backlog() == 0 {
            self.restart();
        }
        let start = self.start.saturating_sub(bytes.len() as u64);
        if put(start, bytes) {
            self.start = start;
            self.unsure = place;
        } else {
            // No memory for 64 KiB. They are not in the log either, as far as anybody knows.
            self.drop_bytes(bytes);
        }
        self
    }

    /// Whether `put_first` was done since the backlog was last empty.
    pub fn has_first(&self) -> bool {
        self.end > 0 && self.start < BEGIN
    }

    /// So many bytes of the backlog are in the log.
    pub fn advance(mut self, bytes: u64) -> Self {
        self.start = self.start.saturating_add(bytes).min(self.end);
        if self.backlog() == 0 {
            self.restart();
        }
        self
    }

    /// The beginning of the backlog may stand in the log already, from `place` on; or surely not, without a place.
    pub fn sure_from(mut self, place: Place) -> Self {
        self.unsure = place;
        self
    }

    /// It is empty: nothing of it can stand in the log any more.
    fn restart(&mut self) {
        (self.start, self.end, self.whole) = (BEGIN, BEGIN, BEGIN);
        self.unsure = Place::default();
    }
}

/// Writes `text` into `buffer`, as far as it goes, and returns what was written.
pub(super) fn format_into<'a>(buffer: &'a mut [u8], text: std::fmt::Arguments<'_>) -> &'a [u8] {
    let size = buffer.len();
    let mut rest = &mut *buffer;
    let _ = rest.write_fmt(text);
    let unused = rest.len();
    buffer.get(..size.saturating_sub(unused)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::any;
    use proptest::{collection, proptest};

    use super::*;

    /// A region in plain memory.
    struct Region(RefCell<Vec<u8>>);

    impl Region {
        fn new() -> Self {
            Self(RefCell::new(vec![0; 2 * 1024 * 1024]))
        }

        fn put(&self, offset: u64, bytes: &[u8]) -> bool {
            let at = usize::try_from(offset).unwrap();
            self.0.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
            true
        }

        fn text(&self, record: &Record) -> String {
            let (start, end) = (usize::try_from(record.start).unwrap(), usize::try_from(record.end).unwrap());
            String::from_utf8(self.0.borrow()[start..end].to_vec()).unwrap()
        }
    }

    #[test]
    fn what_fits_is_kept_and_the_newest_whole_lines_are_dropped() {
        let region = Region::new();
        let put = |offset: u64, bytes: &[u8]| region.put(offset, bytes);
        let mut record = Record::default();
        for bytes in ["one\ntw", "o\nthree\nfo", "ur\nfi", "ve\nsi", "x\nseven"] {
            record = record.absorb(bytes.as_bytes(), 20, put);
        }
        assert_eq!(region.text(&record), "one\ntwo\nthree\nfour\n");
        assert_eq!((record.dropped, record.is_amid_line), (14, true));
        assert_eq!(record.rest_of_line(b" and a half\neight\n"), Some(12));
        assert_eq!(record.rest_of_line(b" and"), None);
        let record = record.absorb(b" and a half\n", 20, put).advance(19).mark(true, put);
        assert_eq!(region.text(&record), "[laneway: 26 bytes of log dropped]\n");
        assert!(!record.is_dropping() && !record.is_clear());
        let record = record.absorb(b"eight\n", 100, put);
        assert!(region.text(&record).ends_with("dropped]\neight\n"));
        assert!(record.advance(record.backlog()).is_clear());
    }

    #[test]
    fn a_whole_mebibyte_is_kept() {
        let region = Region::new();
        let put = |offset: u64, bytes: &[u8]| region.put(offset, bytes);
        let (piece, pieces) = ("seven..\n".repeat(1024), LIMIT / 8192);
        let mut record = Record::default();
        for _ in 0..pieces {
            record = record.absorb(piece.as_bytes(), LIMIT, put);
        }
        assert_eq!((record.backlog(), record.dropped), (LIMIT, 0));
        assert_eq!(record.advance(8).absorb(b"x\n", LIMIT, put).dropped, 2);
    }

    #[test]
    fn a_marker_stands_on_a_line_of_its_own() {
        let region = Region::new();
        let put = |offset: u64, bytes: &[u8]| region.put(offset, bytes);
        let record = Record::default().absorb(b"endless line", 5, put);
        assert_eq!((region.text(&record).as_str(), record.dropped), ("endle", 7));
        let record = record.advance(5).mark(false, put);
        assert_eq!(region.text(&record), "\n[laneway: 7 bytes of log dropped]\n");
    }

    #[test]
    fn older_bytes_go_before_and_memory_that_is_not_there_is_counted() {
        let region = Region::new();
        let put = |offset: u64, bytes: &[u8]| region.put(offset, bytes);
        let place = Place { seq: 3, length: 9 };
        let record = Record::default().absorb(b"newer\n", 99, put);
        assert!(!record.has_first() && !Record::default().has_first());
        let record = record.put_first(b"older\n", place, put);
        assert_eq!((region.text(&record).as_str(), record.unsure), ("older\nnewer\n", place));
        assert!(record.has_first());
        let record = record.advance(12).absorb(b"lost\n", 99, |_, _| false);
        assert_eq!((record.backlog(), record.dropped), (0, 5));
    }

    proptest! {
        #[test]
        fn every_byte_is_kept_or_counted_and_lines_stay_whole(
            pieces in collection::vec(("[ab\n]{0,30}", any::<bool>()), 1..40), limit in 1_u64..60
        ) {
            let region = Region::new();
            let put = |offset: u64, bytes: &[u8]| region.put(offset, bytes);
            let mut record = Record::default();
            let (mut came, mut written) = (String::new(), String::new());
            for (piece, is_writable) in pieces {
                came.push_str(&piece);
                let mut bytes = piece.as_bytes();
                if is_writable {
                    written.push_str(&region.text(&record));
                    record = record.advance(record.backlog());
                    if let Some(rest) = record.rest_of_line(bytes) {
                        record = record.absorb(&bytes[..rest], limit, put);
                        bytes = &bytes[rest..];
                        record = record.mark(written.is_empty() || written.ends_with('\n'), put);
                        written.push_str(&region.text(&record));
                        record = record.advance(record.backlog());
                    }
                }
                record = record.absorb(bytes, limit, put);
                assert!(record.backlog() <= limit);
            }
            written.push_str(&region.text(&record));
            let mut marked = 0;
            let mut kept = 0;
            let mut added = 0;
            for line in written.split_inclusive('\n') {
                match line.strip_prefix("[laneway: ").and_then(|rest| rest.split_once(' ')) {
                    Some((number, _)) => marked += number.parse::<u64>().unwrap(),
                    None => kept += line.len() as u64,
                }
            }
            // The line end that a marker puts after a line that was cut is nobody's.
            if kept + record.dropped > came.len() as u64 {
                added = kept + record.dropped - came.len() as u64;
            }
            assert_eq!(marked, record.marked);
            assert_eq!(kept + record.dropped, came.len() as u64 + added);
            assert!(added <= written.matches("[laneway").count() as u64);
        }
    }
}
