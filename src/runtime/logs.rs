//! Reading the logs that the keeper writes: the last lines, and what comes after them, across rotations, with the time
//! at which each line came. Needs no supervisor: files are enough.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::compress;
use crate::keeper::{INDEX_RECORD, IndexRecord, newest_rotated};

/// How much is read at a time, in bytes.
const BLOCK: usize = 64 * 1024;
/// A line that goes on longer than this is shown in pieces, in bytes.
const LONGEST_LINE: usize = 256 * 1024;

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it came, in microseconds since 1970; 0 if unknown.
    pub micros: u64,
    /// Its bytes, without the line end.
    pub text: Vec<u8>,
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the file.
    pub seq: u64,
    /// Bytes into it.
    pub offset: u64,
}

/// Reads one log.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    position: Position,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// When that beginning came.
    partial_micros: u64,
}

impl LogReader {
    /// Of the log at `path` (`.../name.log`), standing at its end.
    #[must_use]
    pub fn at_end(path: &Path) -> Self {
        let seq = current_seq(path);
        let offset = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let position = Position { seq, offset };
        Self { path: path.to_owned(), position, partial: Vec::new(), partial_micros: 0 }
    }

    /// The directory to watch for changes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// The last `count` lines before where it stands.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<Line> {
        let index = read_index(&self.path);
        let mut lines = Vec::new();
        let mut seq = self.position.seq;
        let mut end = Some(self.position.offset);
        while lines.len() < count && seq > 0 {
            let Some((mut file, _)) = open(&self.path, seq) else { break };
            let Ok(found) = last_lines(&mut file, end, count - lines.len()) else { break };
            let dated = found.into_iter().map(|(offset, text)| Line { micros: when(&index, seq, offset), text });
            lines = dated.chain(lines).collect();
            seq -= 1;
            end = None;
        }
        lines
    }

    /// The whole lines that came since the last call.
    pub fn news(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut index = Vec::new();
        loop {
            let Some((mut file, rotated)) = open(&self.path, self.position.seq) else { return lines };
            // Somebody emptied it from outside: what is there now is new.
            if file.metadata().is_ok_and(|metadata| metadata.len() < self.position.offset) {
                self.position.offset = 0;
            }
            if file.seek(SeekFrom::Start(self.position.offset)).is_err() {
                return lines;
            }
            let mut block = vec![0; BLOCK];
            while let Ok(length @ 1..) = file.read(&mut block) {
                if index.is_empty() {
                    index = read_index(&self.path);
                }
                self.take(block.get(..length).unwrap_or_default(), &index, &mut lines);
            }
            // It was complete before it was read, so there is nothing more in it.
            if !rotated {
                return lines;
            }
            self.position = Position { seq: self.position.seq + 1, offset: 0 };
        }
    }

    fn take(&mut self, bytes: &[u8], index: &[IndexRecord], lines: &mut Vec<Line>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.partial_micros = when(index, self.position.seq, self.position.offset);
            }
            self.partial.extend_from_slice(piece);
            self.position.offset += piece.len() as u64;
            if self.partial.last() == Some(&b'\n') || self.partial.len() > LONGEST_LINE {
                let mut text = std::mem::take(&mut self.partial);
                trim_end(&mut text);
                lines.push(Line { micros: self.partial_micros, text });
            }
        }
    }
}

fn trim_end(text: &mut Vec<u8>) {
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    if text.last() == Some(&b'\r') {
        text.pop();
    }
}

/// The number that the current file gets when it is rotated.
fn current_seq(path: &Path) -> u64 {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let folder = path.parent().unwrap_or(Path::new("/"));
    newest_rotated(folder, &name).unwrap_or(0) + 1
}

fn rotated(path: &Path, seq: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{seq}"));
    name.into()
}

/// File number `seq`, and whether it was rotated before it was opened.
fn open(path: &Path, seq: u64) -> Option<(File, bool)> {
    let old = rotated(path, seq);
    if let Ok(file) = compress::open(&old) {
        return Some((file, true));
    }
    let file = File::open(path).ok()?;
    // Renamed between the two: it may be this very file, or the next one.
    match (fs::metadata(&old), file.metadata()) {
        (Ok(old_one), Ok(this)) if old_one.ino() != this.ino() => Some((File::open(&old).ok()?, true)),
        (Ok(_), _) => Some((file, true)),
        // Rotated after the first look, or an older number than any that is kept: then skip to what there is.
        (Err(_), _) if seq < current_seq(path) => {
            Some((compress::open(&old).or_else(|_| File::open("/dev/null")).ok()?, true))
        }
        (Err(_), _) => Some((file, false)),
    }
}

fn read_index(path: &Path) -> Vec<IndexRecord> {
    let bytes = fs::read(path.with_extension("idx")).unwrap_or_default();
    bytes.chunks_exact(INDEX_RECORD).filter_map(|chunk| Some(IndexRecord::from_bytes(chunk.try_into().ok()?))).collect()
}

/// When the byte at `offset` of file `seq` came.
fn when(index: &[IndexRecord], seq: u64, offset: u64) -> u64 {
    let after = index.partition_point(|record| (record.seq, record.offset) <= (seq, offset));
    after.checked_sub(1).and_then(|at| index.get(at)).map_or(0, |record| record.micros)
}

/// The last `count` lines before `end`, with their offsets, read from behind.
fn last_lines(file: &mut File, end: Option<u64>, count: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let end = end.unwrap_or(file.metadata()?.len());
    let mut start = end;
    let mut tail: Vec<u8> = Vec::new();
    let is_end = |byte: &&u8| **byte == b'\n';
    while start > 0 && tail.iter().filter(is_end).count() <= count {
        let length = start.min(BLOCK as u64);
        start -= length;
        let mut block = vec![0; usize::try_from(length).unwrap_or(BLOCK)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&tail);
        tail = block;
    }
    let mut offset = start;
    let mut lines = Vec::new();
    for piece in tail.split_inclusive(|byte| *byte == b'\n') {
        let mut text = piece.to_vec();
        trim_end(&mut text);
        lines.push((offset, text));
        offset += piece.len() as u64;
    }
    // The first piece is the end of a line that began earlier, unless it is the beginning of the file.
    let skip = usize::from(start > 0).max(lines.len().saturating_sub(count));
    Ok(lines.split_off(skip.min(lines.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::LogFile;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("laneway-read-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn log(&self, max_size: u64, max_files: u32) -> LogFile {
            LogFile::new(File::open(&self.0).unwrap().into(), "a", max_size, max_files).unwrap()
        }

        fn path(&self) -> PathBuf {
            self.0.join("a.log")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8(line.text.clone()).unwrap()).collect()
    }

    #[test]
    fn the_last_lines_are_found_across_rotations_with_their_times() {
        let folder = Folder::new("last");
        let mut log = folder.log(30, 50);
        for number in 1..=40_u64 {
            log.write(format!("line {number}\n").as_bytes(), number * 1_000_000).unwrap();
        }
        let reader = LogReader::at_end(&folder.path());
        let lines = reader.last(12);
        assert_eq!(texts(&lines), (29..=40).map(|n| format!("line {n}")).collect::<Vec<_>>());
        assert_eq!(lines[0].micros, 29_000_000);
        assert_eq!(reader.last(1000).len(), 40);
    }

    #[test]
    fn news_come_whole_once_and_in_order_however_often_it_rotates() {
        let folder = Folder::new("news");
        let mut log = folder.log(50, 1000);
        log.write(b"old\n", 1).unwrap();
        let mut reader = LogReader::at_end(&folder.path());
        let mut seen = Vec::new();
        let mut written = Vec::new();
        for number in 0..300 {
            let line = format!("{number:0width$}", width = number % 40 + 1);
            log.write(format!("{line}\n").as_bytes(), 2 + number as u64).unwrap();
            written.push(line);
            if number % 7 == 0 {
                seen.extend(texts(&reader.news()));
            }
        }
        log.write(b"no end yet", 1000).unwrap();
        seen.extend(texts(&reader.news()));
        assert_eq!(seen, written);
        log.write(b"... now\n", 1001).unwrap();
        assert_eq!(texts(&reader.news()), ["no end yet... now"]);
        assert_eq!(reader.news(), []);
    }

    #[test]
    fn compressed_files_are_read_like_others() {
        let folder = Folder::new("compressed");
        let mut log = folder.log(30, 50);
        let mut reader = LogReader::at_end(&folder.path());
        let mut write = |numbers: std::ops::RangeInclusive<u64>| {
            for number in numbers {
                log.write(format!("line {number}\n").as_bytes(), number * 1_000_000).unwrap();
            }
        };
        write(1..=20);
        let expected: Vec<_> = (1..=20).map(|number| format!("line {number}")).collect();
        for seq in 1..current_seq(&folder.path()) {
            compress::compress(&rotated(&folder.path(), seq)).unwrap();
        }
        assert!(!folder.0.join("a.log.1").exists());
        assert_eq!(texts(&reader.news()), expected);
        let lines = LogReader::at_end(&folder.path()).last(100);
        assert_eq!(texts(&lines), expected);
        assert_eq!(lines[0].micros, 1_000_000);
        write(21..=21);
        assert_eq!(texts(&reader.news()), ["line 21"]);
    }

    #[test]
    fn a_reader_that_fell_behind_goes_on_with_what_is_kept() {
        let folder = Folder::new("behind");
        let mut log = folder.log(20, 2);
        log.write(b"first\n", 1).unwrap();
        let mut reader = LogReader::at_end(&folder.path());
        for number in 0..100 {
            log.write(format!("line {number:04}\n").as_bytes(), 2).unwrap();
        }
        let seen = texts(&reader.news());
        assert_eq!(seen.last().unwrap(), "line 0099");
        assert!(seen.len() >= 2 && seen.len() <= 4, "{seen:?}");
    }
}
