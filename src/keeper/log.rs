//! One log: the current file, and its rotation by rename at a line end.
//!
//! `{name}.log` holds the server's bytes untouched; `{name}.log.{seq}` are older ones, the higher the younger, and may be
//! compressed to `{name}.log.{seq}.gz` by somebody else. Every function here may hang with its file system: the caller
//! sees to it that nobody waits.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::uio::pread;
use nix::unistd::{UnlinkatFlags, unlinkat, write};

use super::index::{Index, IndexRecord};
use super::journal::Place;
use super::names::{Name, newest_rotated};

/// How far a file may grow over its size in search of a line end, in bytes.
const OVERHANG: u64 = 64 * 1024;

/// One log. Its files are opened when they are needed.
#[derive(Debug)]
pub struct LogFile {
    directory: OwnedFd,
    name: Name,
    max_size: u64,
    max_files: u32,
    open: Option<Open>,
}

/// The files of a log that is written.
#[derive(Debug)]
struct Open {
    file: File,
    index: Index,
    /// The number that the file gets when it is rotated, and the bytes in it.
    place: Place,
    /// It is empty, or its last byte is a line end.
    ends_a_line: bool,
}

/// So many bytes were written, and this kept the next one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unwritten {
    pub written: usize,
    pub errno: Errno,
}

impl LogFile {
    /// The log `name` in `directory`; `None` if that cannot be the name of a file.
    #[must_use]
    pub fn new(directory: OwnedFd, name: &str, max_size: u64, max_files: u32) -> Option<Self> {
        Some(Self { directory, name: Name::new(name)?, max_size, max_files, open: None })
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(super) fn limits(&self) -> (u64, u32) {
        (self.max_size, self.max_files)
    }

    /// Where the next byte goes; `None` as long as no file is open.
    pub(super) fn place(&self) -> Option<Place> {
        self.open.as_ref().map(|open| open.place)
    }

    pub(super) fn ends_a_line(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.ends_a_line)
    }

    /// Takes over what was declared later: other limits, and another directory if what is written does not stand there.
    pub(super) fn replace_by(&mut self, newer: Self) {
        let stands = self.open.as_ref().is_some_and(|open| stands_at(open, newer.directory.as_fd(), &newer.name));
        let open = self.open.take().filter(|_| stands);
        *self = Self { open, ..newer };
    }

    /// Opens or makes the current file, unless it is open and still stands under its name.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file of the log cannot be made or is not a plain file of ours.
    pub fn look(&mut self) -> io::Result<()> {
        let seq = match self.open.take() {
            Some(mut open) if stands_at(&open, self.directory.as_fd(), &self.name) => {
                // Somebody may have emptied it.
                let length = length_of(&open.file)?;
                if length != open.place.length {
                    open.place.length = length;
                    open.ends_a_line = ends_a_line(&open.file, length);
                }
                self.open = Some(open);
                return Ok(());
            }
            Some(open) => open.place.seq,
            None => 0,
        };
        let folder = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        let newest = newest_rotated(Path::new(&folder), self.name.log().as_str())?;
        self.open_file(newest.saturating_add(1).max(seq), None)?;
        self.remove_old();
        Ok(())
    }

    fn open_file(&mut self, seq: u64, index: Option<Index>) -> io::Result<()> {
        let file = open_plain(self.directory.as_fd(), self.name.log().as_str())?;
        let index = index.unwrap_or_else(|| Index::open(self.directory.as_fd(), &self.name));
        let length = length_of(&file)?;
        let ends_a_line = ends_a_line(&file, length);
        self.open = Some(Open { file, index, place: Place { seq, length }, ends_a_line });
        Ok(())
    }

    /// Appends what came at `micros` (microseconds since 1970), rotating where a line ends. `begins` is told of each
    /// file that begins meanwhile, and how many of the bytes stand before it, before anything is written into it.
    pub(super) fn append(
        &mut self,
        bytes: &[u8],
        micros: u64,
        mut begins: impl FnMut(Place, usize),
    ) -> Result<(), Unwritten> {
        let (mut written, mut is_over) = (0_usize, false);
        loop {
            let rest = bytes.get(written..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            let Some(open) = &mut self.open else { return Err(Unwritten { written, errno: Errno::EBADF }) };
            if is_over || open.place.length >= self.max_size.saturating_add(OVERHANG) {
                // The size is a promise: what does not fit into this file waits until there is a next one.
                begins(self.rotate().map_err(|errno| Unwritten { written, errno })?, written);
                is_over = false;
                // Only now: whoever comes after a kill asks the old file what was written.
                self.remove_old();
                continue;
            }
            let room = usize::try_from(self.max_size.saturating_sub(open.place.length)).unwrap_or(usize::MAX);
            let (now, later) = if rest.len() <= room { (rest, &[][..]) } else { open.split(rest, room) };
            if let Err(error) = open.write(now, micros) {
                return Err(Unwritten { written: written.saturating_add(error.written), ..error });
            }
            written = written.saturating_add(now.len());
            is_over = !later.is_empty();
        }
    }

    /// The rename is the rotation; whatever follows it can be repeated. A file that somebody removed or moved needs no
    /// rename.
    fn rotate(&mut self) -> Result<Place, Errno> {
        let Some(open) = &self.open else { return Err(Errno::EBADF) };
        let seq = open.place.seq;
        let directory = self.directory.as_fd();
        match renameat(directory, self.name.log().as_str(), directory, self.name.rotated(seq).as_str()) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        // What was open has another name now, whether or not there will be a new one.
        let index = self.open.take().map(|open| open.index);
        self.open_file(seq.saturating_add(1), index).map_err(|error| errno_of(&error))?;
        Ok(self.place().unwrap_or_default())
    }

    /// How many bytes were appended since the log was at `place`.
    pub(super) fn grown_since(&self, place: Place) -> u64 {
        let directory = self.directory.as_fd();
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let rotated = fstatat(directory, self.name.rotated(place.seq).as_str(), flags);
        // A log that somebody else touched at this very moment may double what came last, rather than lose it.
        let status = match (rotated, self.place()) {
            (Ok(status), _) => Some(status),
            (Err(_), Some(now)) if now.seq == place.seq => fstatat(directory, self.name.log().as_str(), flags).ok(),
            (Err(_), _) => None,
        };
        status.map_or(0, |status| size_of(&status)).saturating_sub(place.length)
    }

    /// Removes the files beyond `max_files`, and what the index says of them.
    fn remove_old(&mut self) {
        let directory = self.directory.as_fd();
        let Some(open) = &mut self.open else { return };
        let seq = open.place.seq;
        let Some(mut old) = seq.checked_sub(u64::from(self.max_files.max(1))) else { return };
        let remove = |name: &str| unlinkat(directory, name, UnlinkatFlags::NoRemoveDir).is_ok();
        let mut removed = false;
        while old > 0 {
            let gone = [self.name.rotated(old), self.name.compressed(old), self.name.half_compressed(old)]
                .map(|name| remove(name.as_str()));
            if !gone.contains(&true) {
                break;
            }
            removed = true;
            old = old.saturating_sub(1);
        }
        if removed {
            let oldest = seq.saturating_sub(u64::from(self.max_files.saturating_sub(1)));
            let _ = open.index.forget(directory, &self.name, oldest);
        }
    }
}

impl Open {
    /// Where to end the current file: after the last line that fits, else after the first that ends at all. A line
    /// without end is cut when the overhang is used up.
    fn split<'a>(&self, bytes: &'a [u8], room: usize) -> (&'a [u8], &'a [u8]) {
        let is_end = |byte: &u8| *byte == b'\n';
        let fitting = bytes.get(..room).and_then(|head| head.iter().rposition(is_end));
        let end = match fitting {
            Some(last) => Some(last.saturating_add(1)),
            // The file ends with a whole line: the next one opens a new file.
            None if self.place.length > 0 && self.ends_a_line => Some(0),
            None => bytes.iter().position(is_end).map(|first| first.saturating_add(1)),
        };
        end.and_then(|end| bytes.split_at_checked(end)).unwrap_or((bytes, &[]))
    }

    fn write(&mut self, bytes: &[u8], micros: u64) -> Result<(), Unwritten> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.index.note(IndexRecord { micros, seq: self.place.seq, offset: self.place.length });
        let mut written = 0_usize;
        loop {
            let rest = bytes.get(written..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            match write(&self.file, rest) {
                Ok(count) => {
                    written = written.saturating_add(count);
                    self.place.length = self.place.length.saturating_add(count as u64);
                    self.ends_a_line = bytes.get(..written).and_then(<[u8]>::last) == Some(&b'\n');
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Unwritten { written, errno }),
            }
        }
    }
}

/// The system's number of an error; what is refused by ourselves is refused as a link that is not followed.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::ELOOP, Errno::from_raw)
}

/// Whether what is written still stands under its name in `directory`.
fn stands_at(open: &Open, directory: BorrowedFd<'_>, name: &Name) -> bool {
    let named = fstatat(directory, name.log().as_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
    match (named, fstat(&open.file)) {
        (Ok(named), Ok(written)) => (named.st_dev, named.st_ino) == (written.st_dev, written.st_ino),
        _ => false,
    }
}

fn size_of(status: &FileStat) -> u64 {
    u64::try_from(status.st_size).unwrap_or(0)
}

fn length_of(file: &File) -> io::Result<u64> {
    Ok(size_of(&fstat(file)?))
}

fn ends_a_line(file: &File, length: u64) -> bool {
    let Some(last) = length.checked_sub(1).and_then(|last| i64::try_from(last).ok()) else { return true };
    let mut byte = [0];
    pread(file, &mut byte, last) == Ok(1) && byte == *b"\n"
}

/// Opens for appending what must be a plain file of ours with one name, or makes it.
pub(super) fn open_plain(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
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

#[cfg(test)]
impl LogFile {
    /// Opens the log and writes bytes, as the keeper does it while all is well.
    pub(crate) fn write(&mut self, bytes: &[u8], micros: u64) -> Result<(), Unwritten> {
        if self.open.is_none() {
            let _ = self.look();
        }
        self.append(bytes, micros, |_, _| {})
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::keeper::INDEX_RECORD;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("laneway-log-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn open(&self, max_size: u64, max_files: u32) -> LogFile {
            let mut log = LogFile::new(File::open(&self.0).unwrap().into(), "a", max_size, max_files).unwrap();
            log.look().unwrap();
            log
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
            log.write(line.as_bytes(), 1_000_000 + number * 50_000).unwrap();
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
        log.write(all.as_bytes(), 1).unwrap();
        assert_eq!(directory.content(), all);
        assert!(directory.names().len() > 15);
    }

    #[test]
    fn a_line_without_end_is_cut_at_the_hard_cap() {
        let directory = Directory::new("endless");
        let mut log = directory.open(1000, 3);
        for _ in 0..100 {
            log.write(&[b'x'; 10_000], 1).unwrap();
        }
        let largest = directory.names().iter().map(|name| size(&directory.0.join(name))).max().unwrap();
        assert!(largest <= 1000 + OVERHANG + 10_000, "{largest}");
        assert_eq!(directory.names().iter().filter(|name| name.contains(".log")).count(), 3);
    }

    #[test]
    fn it_goes_on_where_an_earlier_keeper_stopped() {
        let directory = Directory::new("goes-on");
        directory.open(10, 9).write(b"first\nsecond\nthird\n", 1).unwrap();
        directory.open(10, 9).write(b"fourth\n", 2).unwrap();
        assert_eq!(directory.content(), "first\nsecond\nthird\nfourth\n");
        assert!(directory.names().contains(&"a.log.3".to_owned()), "{:?}", directory.names());
    }

    #[test]
    fn the_index_says_when_which_byte_came_and_forgets_removed_files() {
        let directory = Directory::new("index");
        let mut log = directory.open(20, 2);
        for second in 1..=6 {
            log.write(b"123456789\n", second * 1_000_000).unwrap();
        }
        let bytes = fs::read(directory.0.join("a.idx")).unwrap();
        let records: Vec<_> =
            bytes.chunks(INDEX_RECORD).map(|chunk| IndexRecord::from_bytes(chunk.try_into().unwrap())).collect();
        let last = records.last().unwrap();
        assert_eq!((last.micros, last.offset), (6_000_000, 10));
        assert!(records.iter().all(|record| record.seq + 1 >= last.seq), "{records:?}");
    }

    #[test]
    fn a_removed_moved_or_emptied_file_and_a_lost_directory_are_no_dead_end() {
        let directory = Directory::new("removed");
        let mut log = directory.open(20, 9);
        log.write(b"gone with the file\n", 1).unwrap();
        fs::remove_file(directory.0.join("a.log")).unwrap();
        log.look().unwrap();
        log.write(b"second line\n", 2).unwrap();
        assert_eq!(directory.content(), "second line\n");
        fs::rename(directory.0.join("a.log"), directory.0.join("elsewhere")).unwrap();
        log.write(b"third line, here\nfourth line\n", 3).unwrap();
        assert_eq!(directory.content(), "third line, here\nfourth line\n", "a rotation needs no look");
        fs::write(directory.0.join("a.log"), "x").unwrap();
        log.look().unwrap();
        assert_eq!((log.place().unwrap().length, log.ends_a_line()), (1, false));
        fs::remove_dir_all(&directory.0).unwrap();
        assert_eq!(log.look().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(log.write(b"into the void\n", 4), Err(Unwritten { written: 0, errno: Errno::EBADF }));
    }

    #[test]
    fn growth_is_known_over_a_rotation() {
        let directory = Directory::new("growth");
        let mut log = directory.open(20, 9);
        log.write(b"123456789\n", 1).unwrap();
        let before = log.place().unwrap();
        let mut begun = Vec::new();
        log.append(b"abcdefghi\nABC\n", 1, |place, written| begun.push((place, written))).unwrap();
        assert_eq!(log.grown_since(before), 10, "of the old file");
        assert_eq!(begun, [(Place { seq: 2, length: 0 }, 10)]);
        assert_eq!(log.grown_since(begun[0].0), 4);
        assert_eq!(directory.open(20, 9).grown_since(begun[0].0), 4, "the next keeper sees it too");
    }

    #[test]
    fn what_is_declared_anew_keeps_the_file_that_stands_there() {
        let (directory, other) = (Directory::new("declared"), Directory::new("declared-other"));
        let mut log = directory.open(1000, 9);
        log.write(b"first\n", 1).unwrap();
        let declare = |at: &Directory| LogFile::new(File::open(&at.0).unwrap().into(), "a", 10, 2).unwrap();
        log.replace_by(declare(&directory));
        assert_eq!((log.place().map(|place| place.length), log.limits()), (Some(6), (10, 2)));
        log.replace_by(declare(&other));
        assert_eq!(log.place(), None);
        log.look().unwrap();
        log.write(b"second\n", 2).unwrap();
        assert_eq!((directory.content(), other.content()), ("first\n".to_owned(), "second\n".to_owned()));
    }

    #[test]
    fn compressed_files_count_as_what_they_were() {
        let directory = Directory::new("compressed");
        for name in ["a.log.1", "a.log.2.gz", "a.log.3.gz", "a.log.3.gz.new", "a.log.x.gz", "ab.log.9"] {
            fs::write(directory.0.join(name), "").unwrap();
        }
        let mut log = directory.open(10, 3);
        assert_eq!(log.place().unwrap().seq, 4);
        log.write(b"123456789\n123456789\n", 1).unwrap();
        assert_eq!(
            directory.names(),
            ["a.idx", "a.log", "a.log.3.gz", "a.log.3.gz.new", "a.log.4", "a.log.x.gz", "ab.log.9"]
        );
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let directory = Directory::new("planted");
        let victim = directory.0.join("victim");
        fs::write(&victim, "precious").unwrap();
        let look = || LogFile::new(File::open(&directory.0).unwrap().into(), "a", 10, 2).unwrap().look();
        std::os::unix::fs::symlink(&victim, directory.0.join("a.log")).unwrap();
        assert!(look().is_err());
        fs::remove_file(directory.0.join("a.log")).unwrap();
        fs::hard_link(&victim, directory.0.join("a.log")).unwrap();
        assert!(look().is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let refused = |name: &str| LogFile::new(File::open(&directory.0).unwrap().into(), name, 10, 2).is_none();
        assert!(["", "../a", "/a", "a\0"].into_iter().all(refused));
    }
}
