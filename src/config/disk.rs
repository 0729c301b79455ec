//! Reads a user's file without being harmed by it: regular files only, at most 1 MiB, UTF-8.
//!
//! Also finds the configuration file upwards of a folder. The one file of `config` that touches the disk.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::problem::Fault;

/// Larger than any file that a person writes.
const MAX_SIZE: u64 = 1024 * 1024;
/// `O_NONBLOCK` on Linux: opening a FIFO returns at once instead of waiting for a writer.
const O_NONBLOCK: i32 = 0o4000;
/// The names that are looked for, first the better one.
const NAMES: [&str; 2] = ["instances.yaml", "instances.yml"];

/// A small file that works; shown where there is none.
pub const MINIMAL: &str = "a minimal file is\n\n    \
    instances:\n      web:\n        port: 8000\n        command: [python3, -m, http.server, \"{port}\", --bind, \"{host}\"]";

/// The nearest configuration file, from `directory` upwards.
pub fn find(directory: &Path) -> Result<PathBuf, Fault> {
    let folders = directory.ancestors();
    folders.flat_map(|folder| NAMES.map(|name| folder.join(name))).find(|path| path.exists()).ok_or_else(|| {
        let what = format!("there is no instances.yaml in {} or above it", directory.display());
        Fault::new(what).hint(format!("name one with -f, or write one; {MINIMAL}"))
    })
}

/// The text of `path`, without a byte order mark.
pub fn read_text(path: &Path) -> Result<String, Fault> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .map_err(|error| unopened(error.kind(), &error))?;
    let bytes = bytes(file)?;
    let text =
        String::from_utf8(bytes).map_err(|error| not_text(error.as_bytes(), error.utf8_error().valid_up_to()))?;
    if let Some(at) = text.find('\0') {
        return Err(not_text(text.as_bytes(), at));
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn bytes(file: File) -> Result<Vec<u8>, Fault> {
    let unreadable = |error: io::Error| Fault::new(format!("cannot be read: {error}"));
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Fault::new(format!("is {}, not a file", kind(metadata.file_type()))));
    }
    if metadata.len() > MAX_SIZE {
        return Err(too_large());
    }
    // It may grow while it is read.
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SIZE { Err(too_large()) } else { Ok(bytes) }
}

fn kind(file_type: FileType) -> &'static str {
    match file_type {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

fn too_large() -> Fault {
    Fault::new("is larger than 1 MiB, the most that is read")
}

fn unopened(kind: ErrorKind, error: &io::Error) -> Fault {
    match kind {
        ErrorKind::NotFound => Fault::new("does not exist"),
        ErrorKind::PermissionDenied => {
            Fault::new("may not be read by you").hint("`ls -l` shows whose it is; `chmod u+r` lets its owner read it")
        }
        // What open() says of a socket.
        _ if error.raw_os_error() == Some(6) => Fault::new("is a socket or a device, not a file"),
        _ => Fault::new(format!("cannot be opened: {error}")),
    }
}

fn not_text(bytes: &[u8], at: usize) -> Fault {
    let before = bytes.get(..at).unwrap_or_default();
    let line = before.split(|byte| *byte == b'\n').count();
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(before.get(line_start..).unwrap_or_default()).chars().count() + 1;
    let byte = bytes.get(at).copied().unwrap_or_default();
    Fault::new(format!("is not UTF-8 text: byte 0x{byte:02x} in line {line}, column {column}")).hint("save it as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_permission_is_the_users_to_mend() {
        let fault = unopened(ErrorKind::PermissionDenied, &ErrorKind::PermissionDenied.into());
        assert_eq!(fault.what, "may not be read by you");
        assert!(fault.hint.unwrap().contains("chmod"));
    }

    #[test]
    fn the_position_of_a_bad_byte_counts_characters() {
        let fault = not_text("a: 1\nç: \u{e7}".as_bytes(), 9);
        assert_eq!(fault.what, "is not UTF-8 text: byte 0xc3 in line 2, column 4");
    }
}
