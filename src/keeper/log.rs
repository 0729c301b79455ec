//! One log: the current file, its rotation by rename at a line end, and the index of when which byte came.
//!
//! `{name}.log` holds the server's bytes untouched; `{name}.log.{seq}` are older ones, the higher the younger. Beside
//! them `{name}.idx` holds records of (time, seq, offset), from which logs are merged in the order of time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::protocol::MAX_NAME;

/// Bytes of one index record: three little-endian numbers of 8 bytes.
pub const INDEX_RECORD: usize = 24;
/// No two records are closer than this, in microseconds: what comes in between has the time of the first.
const INDEX_GRAIN: u64 = 10_000;
/// How far a file may grow over its size in search of a line end, in bytes.
const OVERHANG: u64 = 64 * 1024;

/// From `offset` of the file that is or will be number `seq` on, the bytes came at `micros` or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRecord {
    /// Microseconds since 1970.
    pub micros: u64,
    /// Number of the file.
    pub seq: u64,
    /// Bytes into it.
    pub offset: u64,
}

impl IndexRecord {
    /// As it stands in the file.
    #[must_use]
    pub fn to_bytes(self) -> [u8; INDEX_RECORD] {
        let mut bytes = [0; INDEX_RECORD];
        for (place, number) in bytes.chunks_exact_mut(8).zip([self.micros, self.seq, self.offset]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// As read from the file.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; INDEX_RECORD]) -> Self {
        let mut numbers = bytes.chunks_exact(8).map(|chunk| chunk.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || numbers.next().unwrap_or_default();
        Self { micros: next(), seq: next(), offset: next() }
    }
}

/// One log, open for writing.
#[derive(Debug)]
pub struct LogFile {
    directory: OwnedFd,
    name: Name,
    max_size: u64,
    max_files: u32,
    file: File,
    index: File,
    /// Bytes in the current file.
    length: u64,
    /// The number that the current file gets when it is rotated.
    seq: u64,
    last_record: Option<(u64, u64)>,
    /// Bytes that could not be written since the last marker.
    dropped: u64,
    /// The last byte that came was a line end.
    ends_a_line: bool,
}

impl LogFile {
    /// Opens or makes the log `name` in `directory`.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file of the log is not a plain file of ours.
    pub fn open(directory: OwnedFd, name: &str, max_size: u64, max_files: u32) -> io::Result<Self> {
        let name = Name::new(name).ok_or_else(|| io::Error::other("the log's name is too long"))?;
        let folder = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let seq = newest_rotated(Path::new(&folder), name.log().as_str())?.saturating_add(1);
        let mut file = open_plain(directory.as_fd(), name.log().as_str())?;
        let index = open_plain(directory.as_fd(), name.index().as_str())?;
        let length = file.seek(SeekFrom::End(0))?;
        let (last_record, dropped, ends_a_line) = (None, 0, true);
        let mut log =
            Self { directory, name, max_size, max_files, file, index, length, seq, last_record, dropped, ends_a_line };
        log.remove_old();
        Ok(log)
    }

    /// New limits, from now on.
    pub fn limit(&mut self, max_size: u64, max_files: u32) {
        self.max_size = max_size;
        self.max_files = max_files;
    }

    /// Appends what came at `micros` (microseconds since 1970), rotating where a line ends. What cannot be written is
    /// counted and said in the log once it can.
    pub fn append(&mut self, mut bytes: &[u8], micros: u64) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.max_size.saturating_sub(self.length)).unwrap_or(usize::MAX);
            let (now, later) = if bytes.len() <= room { (bytes, &[][..]) } else { self.split(bytes, room) };
            self.write(now, micros);
            bytes = later;
            let is_full = !later.is_empty() || self.length >= self.max_size.saturating_add(OVERHANG);
            if is_full && !self.rotate() {
                // A file that is too long is better than lines that are not there.
                self.write(later, micros);
                return;
            }
        }
    }

    /// Where to end the current file: after the last line that fits, else after the first that ends at all. A line
    /// without end is cut when the overhang is used up.
    fn split<'a>(&self, bytes: &'a [u8], room: usize) -> (&'a [u8], &'a [u8]) {
        let is_end = |byte: &u8| *byte == b'\n';
        let fitting = bytes.get(..room).and_then(|head| head.iter().rposition(is_end));
        let end = match fitting {
            Some(last) => Some(last.saturating_add(1)),
            // The file ends with a whole line: the next one opens a new file.
            None if self.length > 0 && self.ends_a_line => Some(0),
            None => bytes.iter().position(is_end).map(|first| first.saturating_add(1)),
        };
        end.and_then(|end| bytes.split_at_checked(end)).unwrap_or((bytes, &[]))
    }

    fn write(&mut self, bytes: &[u8], micros: u64) {
        if bytes.is_empty() {
            return;
        }
        self.note(micros);
        self.ends_a_line = bytes.last() == Some(&b'\n');
        if self.dropped > 0 {
            let mut marker = [0; 80];
            let text = format_into(&mut marker, format_args!("[laneway: {} bytes of log dropped]\n", self.dropped));
            if self.write_all(text).is_err() {
                self.dropped = self.dropped.saturating_add(bytes.len() as u64);
                return;
            }
            self.dropped = 0;
        }
        if let Err(unwritten) = self.write_all(bytes) {
            self.dropped = self.dropped.saturating_add(unwritten);
        }
    }

    /// On failure says how many bytes are not in the file.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), u64> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(written) if written > 0 => {
                    self.length = self.length.saturating_add(written as u64);
                    bytes = bytes.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return Err(bytes.len() as u64),
            }
        }
        Ok(())
    }

    /// Notes when the next byte came. An index that cannot be written costs order, not lines.
    fn note(&mut self, micros: u64) {
        if self.last_record.is_some_and(|(seq, last)| seq == self.seq && micros.saturating_sub(last) < INDEX_GRAIN) {
            return;
        }
        let record = IndexRecord { micros, seq: self.seq, offset: self.length };
        if self.index.write_all(&record.to_bytes()).is_ok() {
            self.last_record = Some((self.seq, micros));
        }
    }

    /// The rename is the rotation; whatever follows it can be repeated. A file that somebody removed or moved needs no
    /// rename. Returns whether there is a new file.
    fn rotate(&mut self) -> bool {
        let directory = self.directory.as_fd();
        match renameat(directory, self.name.log().as_str(), directory, self.name.rotated(self.seq).as_str()) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(_) => return false,
        }
        let Ok(file) = open_plain(directory, self.name.log().as_str()) else { return false };
        self.file = file;
        self.seq = self.seq.saturating_add(1);
        self.length = 0;
        self.ends_a_line = true;
        self.remove_old();
        true
    }

    /// Whether what is written still stands under its name in `directory`.
    #[must_use]
    pub fn is_at(&self, directory: BorrowedFd<'_>) -> bool {
        let named = fstatat(directory, self.name.log().as_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        match (named, fstat(&self.file)) {
            (Ok(named), Ok(written)) => (named.st_dev, named.st_ino) == (written.st_dev, written.st_ino),
            _ => false,
        }
    }

    /// Removes the files beyond `max_files`, and what the index says of them.
    fn remove_old(&mut self) {
        let directory = self.directory.as_fd();
        let Some(mut old) = self.seq.checked_sub(u64::from(self.max_files.max(1))) else { return };
        let mut removed = false;
        while old > 0 && unlinkat(directory, self.name.rotated(old).as_str(), UnlinkatFlags::NoRemoveDir).is_ok() {
            removed = true;
            old = old.saturating_sub(1);
        }
        if removed {
            // Not trimmed is not wrong, only longer.
            let _ = self.trim_index();
        }
    }

    fn trim_index(&mut self) -> io::Result<()> {
        let directory = self.directory.as_fd();
        let oldest = self.seq.saturating_sub(u64::from(self.max_files.saturating_sub(1)));
        let mut old = open_plain(directory, self.name.index().as_str())?;
        old.rewind()?;
        let new_name = self.name.with(".idx.new");
        let _ = unlinkat(directory, new_name.as_str(), UnlinkatFlags::NoRemoveDir);
        let mut new = open_plain(directory, new_name.as_str())?;
        let mut record = [0; INDEX_RECORD];
        while old.read_exact(&mut record).is_ok() {
            if IndexRecord::from_bytes(&record).seq >= oldest {
                new.write_all(&record)?;
            }
        }
        renameat(directory, new_name.as_str(), directory, self.name.index().as_str())?;
        self.index = new;
        Ok(())
    }
}

/// Opens for appending what must be a plain file of ours with one name, or makes it.
fn open_plain(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlag::O_RDWR
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_NOFOLLOW
        | OFlag::O_CLOEXEC
        | OFlag::O_NOCTTY
        | OFlag::O_NONBLOCK;
    let file = File::from(openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let status = fstat(&file)?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG || status.st_nlink > 1 {
        return Err(io::Error::other("it is not a plain file with one name"));
    }
    Ok(file)
}

/// The highest number of a rotated file of the log `name` (`.../name.log`) in `folder`; 0 if there is none.
///
/// # Errors
/// When the folder cannot be read.
pub fn newest_rotated(folder: &Path, name: &str) -> io::Result<u64> {
    let entries = std::fs::read_dir(folder)?;
    let seqs = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
    Ok(seqs.max().unwrap_or(0))
}

/// A log's name, and its files' names, without the heap.
#[derive(Clone, Copy, Debug)]
struct Name {
    text: [u8; MAX_NAME],
    length: usize,
}

impl Name {
    fn new(name: &str) -> Option<Self> {
        let mut text = [0; MAX_NAME];
        text.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self { text, length: name.len() })
    }

    fn as_str(&self) -> &str {
        self.text.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    fn with(&self, ending: &str) -> FileName {
        FileName::of(format_args!("{}{ending}", self.as_str()))
    }

    fn log(&self) -> FileName {
        self.with(".log")
    }

    fn index(&self) -> FileName {
        self.with(".idx")
    }

    fn rotated(&self, seq: u64) -> FileName {
        FileName::of(format_args!("{}.log.{seq}", self.as_str()))
    }
}

/// A file name on the stack: a log's name, an ending and a number.
struct FileName {
    text: [u8; MAX_NAME + 32],
    length: usize,
}

impl FileName {
    fn of(text: std::fmt::Arguments<'_>) -> Self {
        let mut buffer = [0; MAX_NAME + 32];
        let length = format_into(&mut buffer, text).len();
        Self { text: buffer, length }
    }

    fn as_str(&self) -> &str {
        self.text.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
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
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("laneway-log-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn open(&self, max_size: u64, max_files: u32) -> LogFile {
            LogFile::open(File::open(&self.0).unwrap().into(), "a", max_size, max_files).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        /// All that is kept, in the order of time.
        fn content(&self) -> String {
            let mut rotated: Vec<u64> =
                self.names().iter().filter_map(|n| n.strip_prefix("a.log.")?.parse().ok()).collect();
            rotated.sort_unstable();
            let files = rotated.iter().map(|seq| format!("a.log.{seq}")).chain(["a.log".to_owned()]);
            files.map(|name| fs::read_to_string(self.0.join(name)).unwrap()).collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn size(path: &Path) -> u64 {
        fs::metadata(path).unwrap().len()
    }

    #[test]
    fn it_rotates_at_line_ends_and_keeps_so_many_files() {
        let directory = Directory::new("rotate");
        let mut log = directory.open(100, 3);
        let mut all = String::new();
        for number in 0..100 {
            let line = format!("line {number:04} ........\n");
            all.push_str(&line);
            log.append(line.as_bytes(), 1_000_000 + number * 50_000);
        }
        let content = directory.content();
        assert!(all.ends_with(&content), "the end of what was written, without a hole");
        assert_eq!(directory.names().iter().filter(|name| name.contains(".log")).count(), 3);
        for name in directory.names().iter().filter(|name| name.contains(".log")) {
            let text = fs::read_to_string(directory.0.join(name)).unwrap();
            assert!(text.len() <= 100 && (text.is_empty() || text.ends_with('\n')), "{name}: {text:?}");
        }
    }

    #[test]
    fn one_large_read_may_fill_several_files() {
        let directory = Directory::new("large");
        let mut log = directory.open(64, 100);
        let all = (0..200).map(|number| format!("{number:05}\n")).collect::<Vec<_>>().concat();
        log.append(all.as_bytes(), 1);
        assert_eq!(directory.content(), all);
        assert!(directory.names().len() > 15);
    }

    #[test]
    fn a_line_without_end_is_cut_at_the_hard_cap() {
        let directory = Directory::new("endless");
        let mut log = directory.open(1000, 3);
        for _ in 0..100 {
            log.append(&[b'x'; 10_000], 1);
        }
        let largest = directory.names().iter().map(|name| size(&directory.0.join(name))).max().unwrap();
        assert!(largest <= 1000 + OVERHANG + 10_000, "{largest}");
        assert_eq!(directory.names().iter().filter(|name| name.contains(".log")).count(), 3);
    }

    #[test]
    fn it_goes_on_where_an_earlier_keeper_stopped() {
        let directory = Directory::new("goes-on");
        directory.open(10, 9).append(b"first\nsecond\nthird\n", 1);
        directory.open(10, 9).append(b"fourth\n", 2);
        assert_eq!(directory.content(), "first\nsecond\nthird\nfourth\n");
        assert!(directory.names().contains(&"a.log.3".to_owned()), "{:?}", directory.names());
    }

    #[test]
    fn the_index_says_when_which_byte_came_and_forgets_removed_files() {
        let directory = Directory::new("index");
        let mut log = directory.open(20, 2);
        for second in 1..=6 {
            log.append(b"123456789\n", second * 1_000_000);
        }
        let bytes = fs::read(directory.0.join("a.idx")).unwrap();
        let records: Vec<_> =
            bytes.chunks(INDEX_RECORD).map(|chunk| IndexRecord::from_bytes(chunk.try_into().unwrap())).collect();
        let last = records.last().unwrap();
        assert_eq!((last.micros, last.offset), (6_000_000, 10));
        assert!(records.iter().all(|record| record.seq + 1 >= last.seq), "{records:?}");
    }

    #[test]
    fn a_removed_or_moved_file_and_a_lost_directory_are_no_dead_end() {
        let directory = Directory::new("removed");
        let mut log = directory.open(20, 9);
        log.append(b"gone with the file\n", 1);
        assert!(log.is_at(File::open(&directory.0).unwrap().as_fd()));
        fs::remove_file(directory.0.join("a.log")).unwrap();
        assert!(!log.is_at(File::open(&directory.0).unwrap().as_fd()));
        log.append(b"second line\nthird line\n", 2);
        assert_eq!(directory.content(), "second line\nthird line\n");
        fs::rename(directory.0.join("a.log"), directory.0.join("elsewhere")).unwrap();
        log.append(b"fourth line\nfifth line\n", 3);
        assert_eq!(directory.content(), "second line\nfourth line\nfifth line\n");
        fs::remove_dir_all(&directory.0).unwrap();
        for _ in 0..9 {
            log.append(b"into the void, but it ends\n", 4);
        }
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let directory = Directory::new("planted");
        let victim = directory.0.join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, directory.0.join("a.log")).unwrap();
        assert!(LogFile::open(File::open(&directory.0).unwrap().into(), "a", 10, 2).is_err());
        fs::remove_file(directory.0.join("a.log")).unwrap();
        fs::hard_link(&victim, directory.0.join("a.log")).unwrap();
        assert!(LogFile::open(File::open(&directory.0).unwrap().into(), "a", 10, 2).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
