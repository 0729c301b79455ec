//! A lane on the disk: its directories, its secret, its FIFO. Made when something is about to run in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use nix::sys::stat::Mode;

use super::beneath::Root;
use crate::plan::spec::{Database, DatabaseSetup, Spec};
use crate::services::postgres::with_password;

/// Random bytes of a secret; in letters it becomes 64.
const SECRET_BYTES: usize = 48;

/// Tells laneway's own step which lane it is for; in the environment, since the administrator's URL is in it.
pub const SPEC_VARIABLE: &str = "LANEWAY_SPEC";

/// What could not be prepared.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct LaneError {
    /// Which path.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

/// Makes what is missing of the lane of `spec`, and gives the whole environment of a process in it. A new secret is
/// handed to `new_secret` to be brought to the disk.
///
/// # Errors
/// Names the first path that cannot be made or is not what it should be.
pub fn prepare(
    spec: &Spec,
    new_secret: impl FnOnce(File) -> io::Result<()>,
) -> Result<BTreeMap<OsString, OsString>, LaneError> {
    let facts = &spec.facts;
    let mut root = Root::new(state_dir(spec));
    for directory in [&facts.state, &facts.log_dir, &facts.tmp, &facts.static_root, &facts.media_root] {
        at(directory, root.directory(directory))?;
    }
    if let Database::Sqlite { path } = &facts.database
        && let Some(parent) = path.parent()
    {
        at(parent, root.directory(parent))?;
    }
    let access_log = at(&facts.access_log, root.place(&facts.access_log))?;
    at(&facts.access_log, make_fifo(access_log.path()))?;
    let secret = secret_beneath(&mut root, spec, new_secret)?;
    let mut environment: BTreeMap<OsString, OsString> =
        spec.environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    if facts.secret_in_environment {
        environment.insert("SECRET_KEY".into(), secret.into());
    }
    if let Some(url) = url_with_password(&mut root, spec)? {
        environment.insert("DATABASE_URL".into(), url.into());
    }
    Ok(environment)
}

/// The URL by which the lane reaches its database on a server, with the password of its role; `None` where the database
/// is a file.
///
/// # Errors
/// Names the file of the password, where it cannot be read or made.
pub fn database_url(spec: &Spec) -> Result<Option<String>, LaneError> {
    let with_password = url_with_password(&mut Root::new(state_dir(spec)), spec)?;
    Ok(with_password.or_else(|| match &spec.facts.database {
        Database::Sqlite { .. } => None,
        Database::Postgres { url, .. } => Some(url.clone()),
    }))
}

/// The password of the lane's role, made at the first call; `None` where laneway makes no role.
///
/// # Errors
/// As [`database_url`].
pub fn database_password(spec: &Spec) -> Result<Option<String>, LaneError> {
    password_beneath(&mut Root::new(state_dir(spec)), spec)
}

fn url_with_password(root: &mut Root<'_>, spec: &Spec) -> Result<Option<String>, LaneError> {
    let Database::Postgres { url, .. } = &spec.facts.database else { return Ok(None) };
    let password = password_beneath(root, spec)?;
    Ok(password.map(|password| with_password(url, &password)))
}

fn password_beneath(root: &mut Root<'_>, spec: &Spec) -> Result<Option<String>, LaneError> {
    match &spec.database_setup {
        Some(DatabaseSetup::Create { password_file, .. }) => kept(root, password_file, at_once).map(Some),
        Some(DatabaseSetup::Copy { .. }) | None => Ok(None),
    }
}

/// Makes a directory of the lane, or one that the user chose elsewhere.
///
/// # Errors
/// Names it.
pub fn directory(spec: &Spec, path: &Path) -> Result<(), LaneError> {
    at(path, Root::new(state_dir(spec)).directory(path)).map(drop)
}

/// The secret of the lane, made at the first call.
///
/// # Errors
/// Names the file that cannot be read or made.
pub fn secret(spec: &Spec) -> Result<String, LaneError> {
    secret_beneath(&mut Root::new(state_dir(spec)), spec, at_once)
}

/// Brings a new secret to the disk.
///
/// # Errors
/// The system's.
pub fn at_once(secret: File) -> io::Result<()> {
    let synced = secret.sync_all();
    drop(secret);
    synced
}

fn secret_beneath(
    root: &mut Root<'_>,
    spec: &Spec,
    new_secret: impl FnOnce(File) -> io::Result<()>,
) -> Result<String, LaneError> {
    kept(root, &spec.facts.secret_file, new_secret)
}

/// The secret in the file `path`, made at the first call.
fn kept(
    root: &mut Root<'_>,
    path: &Path,
    new_secret: impl FnOnce(File) -> io::Result<()>,
) -> Result<String, LaneError> {
    let place = at(path, root.place(path))?;
    let secret = match read_secret(place.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(place.path())
            .and_then(|made| made.map_or(Ok(()), new_secret))
            .and_then(|()| read_secret(place.path())),
        read => read,
    };
    at(path, secret)
}

/// The directory that holds every lane.
fn state_dir(spec: &Spec) -> &Path {
    spec.facts.state.parent().unwrap_or(&spec.facts.state)
}

/// Opens the FIFO of the access log for its reader. Never blocks, and never sees an end of file.
///
/// # Errors
/// The system's.
pub fn open_fifo(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC).open(path)
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, LaneError> {
    result.map_err(|error| LaneError { path: path.to_owned(), error })
}

fn make_fifo(path: &Path) -> io::Result<()> {
    let is_one = || fs::symlink_metadata(path).map(|found| found.file_type().is_fifo());
    let in_the_way = || io::Error::other("it is in the way of a FIFO that laneway makes here; remove or rename it");
    match is_one() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
                // Somebody else was as quick.
                Err(nix::errno::Errno::EEXIST) => {
                    if is_one()? {
                        Ok(())
                    } else {
                        Err(in_the_way())
                    }
                }
                made => Ok(made?),
            }
        }
        found => {
            if found? {
                Ok(())
            } else {
                Err(in_the_way())
            }
        }
    }
}

fn read_secret(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_CLOEXEC).open(path)?.read_to_string(&mut text)?;
    let secret = text.trim().to_owned();
    match secret.len() {
        // Its maker lost power before a single byte was on the disk, and so before anybody used it.
        0 if text.is_empty() => Err(io::ErrorKind::NotFound.into()),
        0..50 => Err(io::Error::other("it holds less than 50 characters; remove it, and a new one is made")),
        _ => Ok(secret),
    }
}

/// Written beside, then given its name: whoever comes second uses the first one's. Returns what is to be brought to the
/// disk, if it is this one.
fn make_secret(path: &Path) -> io::Result<Option<File>> {
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let mut unique = [0; 8];
    getrandom::fill(&mut unique).map_err(|error| io::Error::other(error.to_string()))?;
    let beside = path.with_extension(format!("new-{:016x}", u64::from_ne_bytes(unique)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(letters(&random).as_bytes());
    let named = written.and_then(|()| match fs::hard_link(&beside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path)?.len() {
            0 => fs::rename(&beside, path).map(|()| true),
            _ => Ok(false),
        },
        named => named.map(|()| true),
    });
    let _ = fs::remove_file(&beside);
    Ok(named?.then_some(file))
}

/// Six bits a letter, as in base64 for URLs.
fn letters(bytes: &[u8; SECRET_BYTES]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |bits: u32| char::from(ALPHABET[(bits & 63) as usize]);
    let threes = bytes.chunks_exact(3).map(|three| three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)));
    threes.flat_map(|bits| [bits >> 18, bits >> 12, bits >> 6, bits].map(letter)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_for_us_alone() {
        let directory = std::env::temp_dir().join(format!("laneway-secret-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("secret_key");
        let makers: Vec<_> = (0..4)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || {
                    make_secret(&path).unwrap().map_or(Ok(()), at_once).unwrap();
                    read_secret(&path).unwrap()
                })
            })
            .collect();
        let secrets: std::collections::BTreeSet<_> = makers.into_iter().map(|m| m.join().unwrap()).collect();
        assert_eq!(secrets.len(), 1);
        assert_eq!(secrets.first().unwrap().len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::write(&path, "short").unwrap();
        assert!(read_secret(&path).unwrap_err().to_string().contains("less than 50"));
        fs::write(&path, "").unwrap();
        assert!(make_secret(&path).unwrap().is_some(), "whoever made it lost power");
        assert_eq!(read_secret(&path).unwrap().len(), 64);
        fs::remove_dir_all(&directory).unwrap();
    }
}
