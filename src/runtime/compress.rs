//! Compresses the rotated files of a log, and reads what is compressed. Files with a number are never touched by the
//! keeper again, except to remove them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use nix::libc::O_NOFOLLOW;

use crate::keeper::memory;

/// Compresses the rotated files of the log at `path` (`.../name.log`) up to number `last`. Never two processes at a time
/// in one folder: a second one waits.
///
/// # Errors
/// When the folder cannot be read or locked, or a file not be compressed.
pub fn all(path: &Path, last: u64) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let lock = File::open(folder)?;
    lock.lock()?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    for entry in fs::read_dir(folder)?.flatten() {
        let file = entry.file_name();
        let number = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.parse::<u64>().ok());
        if number.is_some_and(|number| number <= last) {
            match compress(&entry.path()) {
                // The keeper was faster and removed it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// Turns the file at `path` into `{path}.gz`. Whatever moment it is ended at, the bytes stand in the one or in the other,
/// and to call it again does the rest.
///
/// # Errors
/// When it cannot be read, or there is no room beside it.
pub fn compress(path: &Path) -> io::Result<()> {
    let (half, whole) = (beside(path, ".gz.new"), compressed(path));
    let file = match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(path) {
        Ok(file) => file,
        // Done by an earlier call.
        Err(error) if error.kind() == io::ErrorKind::NotFound && whole.exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    // What an earlier call left of it; a link that somebody planted goes with it.
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
    let mut encoder = GzEncoder::new(new, Compression::default());
    io::copy(&mut BufReader::new(file), &mut encoder)?;
    // The original goes only when the disk has the other.
    encoder.finish()?.sync_all()?;
    fs::rename(&half, &whole)?;
    fs::remove_file(path)
}

/// The name of the file at `path` when it is compressed.
#[must_use]
pub fn compressed(path: &Path) -> PathBuf {
    beside(path, ".gz")
}

/// Opens the file at `path`, which may be compressed meanwhile: then its bytes are unpacked into memory.
///
/// # Errors
/// When there is neither, or what there is cannot be unpacked.
pub fn open(path: &Path) -> io::Result<File> {
    let missing = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        opened => return opened,
    };
    let Ok(file) = File::open(compressed(path)) else { return Err(missing) };
    let mut plain = File::from(memory::create(c"laneway-log", 0)?);
    io::copy(&mut GzDecoder::new(BufReader::new(file)), &mut plain)?;
    io::Seek::rewind(&mut plain)?;
    Ok(plain)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn whatever_an_earlier_call_left_the_bytes_are_there_once() {
        let folder = std::env::temp_dir().join(format!("laneway-compress-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, victim) = (folder.join("a.log.3"), folder.join("victim"));
        let text = "line and line\n".repeat(10_000);
        let read = || {
            let mut found = String::new();
            open(&path).unwrap().read_to_string(&mut found).unwrap();
            found
        };
        fs::write(&victim, "precious").unwrap();
        for left_over in ["nothing", "a half", "a link", "both", "all"] {
            if left_over != "all" {
                fs::write(&path, &text).unwrap();
            }
            match left_over {
                "a half" => fs::write(folder.join("a.log.3.gz.new"), "half").unwrap(),
                "a link" => std::os::unix::fs::symlink(&victim, folder.join("a.log.3.gz.new")).unwrap(),
                _ => {}
            }
            assert_eq!(read(), text, "{left_over}");
            compress(&path).unwrap();
            assert_eq!(read(), text, "{left_over}");
            let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["a.log.3.gz", "victim"], "{left_over}");
        }
        assert!(fs::metadata(compressed(&path)).unwrap().len() < 10_000);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_file(compressed(&path)).unwrap();
        assert_eq!(compress(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(&folder).unwrap();
    }
}
