//! Two folders exchange their names in one step, where the file system can; nobody sees one of them missing.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// How it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// At once.
    AtOnce,
    /// With a moment in which the old name meant nothing.
    InTwoSteps,
}

/// What is `new` gets the name `old` and the other way round. Where nothing is called `old`, `new` is only renamed.
///
/// # Errors
/// The system's; then both are where they were.
pub fn exchange(new: &Path, old: &Path) -> io::Result<Exchanged> {
    match renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(Exchanged::AtOnce),
        Err(Errno::ENOENT) => fs::rename(new, old).map(|()| Exchanged::AtOnce),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            let aside = old.with_extension("old");
            fs::rename(old, &aside)?;
            if let Err(error) = fs::rename(new, old) {
                fs::rename(&aside, old)?;
                return Err(error);
            }
            fs::rename(&aside, new)?;
            Ok(Exchanged::InTwoSteps)
        }
        Err(error) => Err(error.into()),
    }
}
