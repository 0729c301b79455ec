//! The names of a log's files, without the heap.

use std::io;
use std::path::Path;

use super::backlog::format_into;
use super::protocol::MAX_NAME;

/// Longest file name, in bytes.
const LONGEST: usize = MAX_NAME + 32;

/// The highest number of a rotated file of the log `name` (`.../name.log`) in `folder`, compressed or not; 0 if there is
/// none.
///
/// # Errors
/// When the folder cannot be read.
pub fn newest_rotated(folder: &Path, name: &str) -> io::Result<u64> {
    let entries = std::fs::read_dir(folder)?;
    let seqs = entries.flatten().filter_map(|entry| {
        let number = entry.file_name();
        let number = number.to_str()?.strip_prefix(name)?.strip_prefix('.')?;
        number.strip_suffix(".gz").unwrap_or(number).parse().ok()
    });
    Ok(seqs.max().unwrap_or(0))
}

/// A log's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    text: [u8; MAX_NAME],
    length: usize,
}

impl Name {
    /// `None` if it is too long, or no name of a file.
    pub fn new(name: &str) -> Option<Self> {
        let mut text = [0; MAX_NAME];
        text.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (!name.is_empty() && !name.contains(['/', '\0'])).then_some(Self { text, length: name.len() })
    }

    pub fn as_str(&self) -> &str {
        self.text.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    pub fn log(&self) -> FileName {
        FileName::of(format_args!("{}.log", self.as_str()))
    }

    pub fn index(&self) -> FileName {
        FileName::of(format_args!("{}.idx", self.as_str()))
    }

    pub fn new_index(&self) -> FileName {
        FileName::of(format_args!("{}.idx.new", self.as_str()))
    }

    pub fn rotated(&self, seq: u64) -> FileName {
        FileName::of(format_args!("{}.log.{seq}", self.as_str()))
    }

    pub fn compressed(&self, seq: u64) -> FileName {
        FileName::of(format_args!("{}.log.{seq}.gz", self.as_str()))
    }

    pub fn half_compressed(&self, seq: u64) -> FileName {
        FileName::of(format_args!("{}.log.{seq}.gz.new", self.as_str()))
    }
}

/// A file name on the stack: a log's name, an ending and a number.
pub(super) struct FileName {
    text: [u8; LONGEST],
    length: usize,
}

impl FileName {
    fn of(text: std::fmt::Arguments<'_>) -> Self {
        let mut buffer = [0; LONGEST];
        let length = format_into(&mut buffer, text).len();
        Self { text: buffer, length }
    }

    pub fn as_str(&self) -> &str {
        self.text.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}
