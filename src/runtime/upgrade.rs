//! Changing the binary while everything runs: the new one proves itself as a child, then this process becomes it.
//!
//! The servers stay children of the same process; pipes, records and the control socket go through the exec. Which binary
//! it is stands in `.run/upgrade`, written by the client: over the socket no path is taken.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{O_CLOEXEC, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::unistd::{Pid, execve};

use super::processes::pidfd_of;
use super::spawn::Spawner;
use crate::keeper::memory;
use crate::keeper::protocol::{Kept, Order};
use crate::keeper::table::Table;

/// How long a binary may take to prove itself.
const PROOF: Duration = Duration::from_secs(5);
/// What a good binary says, before its version.
pub const PROVEN: &str = "laneway understands: ";

/// Opens the binary whose path stands in the file `request`.
///
/// # Errors
/// Says what is wrong with it, for people.
pub fn open_binary(request: &Path) -> Result<File, String> {
    let path = std::fs::read_to_string(request).map_err(|error| format!("{}: {error}", request.display()))?;
    let path = path.trim_end();
    let wrong = |what: &dyn std::fmt::Display| format!("{path}: {what}");
    let file = std::fs::OpenOptions::new().read(true).custom_flags(O_CLOEXEC | O_NONBLOCK).open(path);
    let file = file.map_err(|error| wrong(&error))?;
    let metadata = file.metadata().map_err(|error| wrong(&error))?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Err(wrong(&"it is no file with something in it"));
    }
    let me = nix::unistd::geteuid().as_raw();
    if ![0, me].contains(&metadata.uid()) || metadata.mode() & 0o002 != 0 {
        return Err(wrong(&"others can write it: it belongs neither to you nor to root, or everybody may write"));
    }
    Ok(file)
}

/// Runs `binary` as a child on copies of what it would take over. Returns its version.
///
/// # Errors
/// Says why it is refused, for people.
pub fn prove(
    binary: &File,
    launch: &OwnedFd,
    records: &OwnedFd,
    instances: usize,
    spawner: &Spawner,
) -> Result<String, String> {
    let said = ask(binary, launch, records, spawner).map_err(|error| format!("it cannot be tried: {error}"))?;
    let (ended, said) = said;
    let Some(success) = ended else { return Err(format!("it says nothing for {} s", PROOF.as_secs())) };
    let words = said.trim();
    let understood = words.strip_prefix(PROVEN).and_then(|rest| rest.split_once(' '));
    match understood {
        Some((count, version)) if success && count == instances.to_string() => Ok(version.to_owned()),
        Some((count, _)) if success => {
            Err(format!("it understands {count} of {instances} instances: is it older than what runs?"))
        }
        _ => {
            let words: String = words.chars().filter(|c| !c.is_control()).take(200).collect();
            let said = if words.is_empty() { "It says nothing".to_owned() } else { format!("It says: {words}") };
            Err(format!("it does not take over what runs: is it laneway, and not older? {said}"))
        }
    }
}

/// Whether it ended well (`None`: not in time), and what it said.
fn ask(binary: &File, launch: &OwnedFd, records: &OwnedFd, spawner: &Spawner) -> io::Result<(Option<bool>, String)> {
    let (launch, records) = (copy(launch)?, copy(records)?);
    let mut table = Table::new()?;
    table.add(&Order::Keep(Kept::Launch), launch.as_fd())?;
    table.add(&Order::Keep(Kept::Records), records.as_fd())?;
    // The interpreter of a script opens it once more.
    table.add(&Order::Keep(Kept::Binary), binary.as_fd())?;
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.arg0("laneway").arg("prove").arg(table.number().to_string()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    // SAFETY: only async-signal-safe calls on what was made before.
    unsafe {
        command.pre_exec(move || Ok(table.let_through()?));
    }
    let mut child = spawner.spawn_own(&mut command)?;
    let ended = wait(&mut child);
    spawner.forget(child.id());
    let ended = ended?;
    let mut said = Vec::new();
    if let (Some(_), Some(output)) = (ended, child.stdout.take()) {
        // What it left behind may hold the pipe for ever.
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let _ = output.take(4096).read_to_end(&mut said);
    }
    Ok((ended, String::from_utf8_lossy(&said).into_owned()))
}

/// A program that nobody knows yet gets nothing that it could spoil.
fn copy(memory: &OwnedFd) -> io::Result<OwnedFd> {
    let mut from = File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?;
    let mut to = File::from(memory::create(c"laneway-copy", 0)?);
    io::copy(&mut from, &mut to)?;
    Ok(to.into())
}

fn wait(child: &mut Child) -> io::Result<Option<bool>> {
    let pidfd = pidfd_of(child.id())?;
    let patience = PollTimeout::try_from(PROOF).unwrap_or(PollTimeout::MAX);
    let in_time = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], patience)? > 0;
    // Also what it started. Its number is its group's, and nobody else's before it is reaped.
    let _ = killpg(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?), Signal::SIGKILL);
    let status = child.wait()?;
    Ok(in_time.then_some(status.success()))
}

/// Becomes `binary`, with everything in `table`. Signals wait until the new program hears them.
///
/// # Errors
/// When it cannot be; then this program goes on.
pub fn become_program(binary: &OwnedFd, table: &Table) -> io::Result<Infallible> {
    let path = CString::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))?;
    let words = ["laneway", "supervisor", &table.number().to_string()].map(CString::new);
    let words = words.into_iter().collect::<Result<Vec<_>, _>>()?;
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            CString::new([name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat()).ok()
        })
        .collect();
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let failed = table.let_through().and_then(|()| execve(&path, &words, &environment));
    let _ = table.hold_back();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(failed?)
}

/// Hears signals again that waited during the exec. To be called once somebody listens to them.
pub fn hear_signals() {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}
