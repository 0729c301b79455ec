//! Looks for what is in the way of a process before one is made, so that no crash loop has to find out.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::processes;
use super::sockets::{self, Listener};
use crate::machine::{Obstacle, Owner};
use crate::plan::spec::Spec;

/// Whether somebody listens where the server of `spec` wants to.
///
/// # Errors
/// Names the owner.
pub fn port(spec: &Spec) -> Result<(), Obstacle> {
    let Some(port) = spec.facts.port else { return Ok(()) };
    if sockets::can_bind((spec.facts.host, port).into()) {
        return Ok(());
    }
    let listeners = sockets::listeners(port).unwrap_or_default();
    match listeners.iter().find(|listener| listener.meets(spec.facts.host)) {
        Some(listener) => Err(Obstacle::PortTaken { port, owner: owner(listener) }),
        None => Ok(()),
    }
}

/// Who holds a listening socket, as far as it can be seen.
#[must_use]
pub fn owner(listener: &Listener) -> Owner {
    let pid = processes::socket_holder(listener.inode);
    let command = match pid {
        Some(pid) => processes::command_line(pid),
        None => format!("a process of user {}", listener.uid),
    };
    Owner { pid, command, address: listener.address.to_string() }
}

/// The program that `command` names, absolute: a path, or found in `search` (a PATH) as exec would.
///
/// # Errors
/// Says what is wrong with the working directory or the program.
pub fn program(command: &[String], directory: &Path, search: Option<&str>) -> Result<PathBuf, Obstacle> {
    if let Err(error) = fs::metadata(directory).and_then(|metadata| {
        if metadata.is_dir() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotADirectory)) }
    }) {
        return Err(Obstacle::Directory { path: directory.to_owned(), error: words(&error) });
    }
    let name = command.first().map(String::as_str).unwrap_or_default();
    let missing = |path: PathBuf, error: &io::Error| Obstacle::Program { path, error: words(error) };
    if name.contains('/') {
        let path = directory.join(name);
        return match runnable(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(missing(path, &error)),
        };
    }
    let folders = search.unwrap_or("/usr/local/bin:/usr/bin:/bin").split(':');
    let found = folders.map(|folder| directory.join(folder).join(name)).find(|path| runnable(path).is_ok());
    found.ok_or_else(|| Obstacle::Program { path: PathBuf::from(name), error: "not found in PATH".to_owned() })
}

fn runnable(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(())
}

/// What the system said, without its number.
#[must_use]
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Whether the system had nothing to give, which says nothing of what was to be done.
#[must_use]
pub fn is_scarcity(error: &io::Error) -> bool {
    let scarce = [nix::libc::EAGAIN, nix::libc::ENOMEM, nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::ENOBUFS];
    error.raw_os_error().is_some_and(|number| scarce.contains(&number))
}

/// What a failed fork or exec means.
#[must_use]
pub fn spawn_error(error: &io::Error, program: &Path) -> Obstacle {
    match error.raw_os_error() {
        _ if is_scarcity(error) => Obstacle::Resources { error: words(error) },
        Some(nix::libc::E2BIG) => Obstacle::Program {
            path: program.to_owned(),
            error: "its arguments and environment are longer than the kernel takes (128 KiB each, a quarter of \
                    `ulimit -s` in all)"
                .to_owned(),
        },
        Some(nix::libc::ENOENT) => Obstacle::Program {
            path: program.to_owned(),
            error: "it is there, but the interpreter in its first line (or its loader) is not".to_owned(),
        },
        Some(nix::libc::ENOEXEC) => Obstacle::Program {
            path: program.to_owned(),
            error: "it is no program for this machine, and no script with a `#!` line".to_owned(),
        },
        _ => Obstacle::Program { path: program.to_owned(), error: words(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str, directory: &str) -> Result<PathBuf, Obstacle> {
        program(&[command.to_owned()], Path::new(directory), Some("/nowhere:/bin"))
    }

    #[test]
    fn programs_are_found_or_named() {
        assert_eq!(of("sh", "/"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(of("/bin/sh", "/"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(of("bin/sh", "/"), Ok(PathBuf::from("/bin/sh")));
        let missing = |path: &str, error: &str| Err(Obstacle::Program { path: path.into(), error: error.to_owned() });
        assert_eq!(of("nope", "/"), missing("nope", "not found in PATH"));
        assert_eq!(of("./nope", "/"), missing("/./nope", "no such file or directory"));
        assert_eq!(of("/etc/passwd", "/"), missing("/etc/passwd", "permission denied"));
        assert_eq!(of("/etc", "/"), missing("/etc", "is a directory"));
        let directory =
            |path: &str, error: &str| Err(Obstacle::Directory { path: path.into(), error: error.to_owned() });
        assert_eq!(of("sh", "/nowhere"), directory("/nowhere", "no such file or directory"));
        assert_eq!(of("sh", "/etc/passwd"), directory("/etc/passwd", "not a directory"));
    }
}
