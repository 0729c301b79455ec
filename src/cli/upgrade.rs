//! `laneway upgrade`: the running pair becomes another binary, and the servers do not notice.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::args::Upgrade;
use super::out::println;
use super::place::Fleet;
use super::report::{DONE, FAILED, Failure};
use crate::control::Upgraded;
use crate::runtime::clock::pause;

/// How long the supervisor may take to become it.
const SUPERVISOR: Duration = Duration::from_secs(10);
/// How long the keeper may take to follow: it waits 10 s to see that the supervisor lives.
const KEEPER: Duration = Duration::from_secs(20);
/// From one look to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// `laneway upgrade`.
///
/// # Errors
/// When nothing runs, or the binary is refused; then the old one goes on.
pub fn run(fleet: &Fleet, arguments: &Upgrade) -> Result<ExitCode, Failure> {
    let client = fleet.client()?;
    let home = client.home();
    let before = client.status()?;
    let binary = match &arguments.binary {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(|error| Failure::failed(format!("this binary: {error}")))?,
    };
    let there = |error: std::io::Error| Failure::failed(format!("{}: {error}", binary.display()));
    let path = binary.canonicalize().map_err(there)?;
    let target = path.metadata().map_err(there)?;
    if runs(before.supervisor_pid, &target) && runs(before.keeper_pid, &target) {
        println!("{} runs already", path.display());
        return Ok(ExitCode::from(DONE));
    }
    home.name_upgrade(&path).map_err(|error| Failure::failed(format!("{}: {error}", home.upgrade().display())))?;
    let Upgraded { version } = client.post("/v1/upgrade", &())?;
    let log = home.log();
    await_it(SUPERVISOR, &log, "supervisor", || {
        client.status().is_ok_and(|status| runs(status.supervisor_pid, &target))
    })?;
    println!("supervisor: laneway {version}; the servers went on. The keeper follows in 10 s");
    await_it(KEEPER, &log, "keeper", || client.status().is_ok_and(|status| runs(status.keeper_pid, &target)))?;
    println!("keeper: laneway {version}");
    Ok(ExitCode::from(DONE))
}

/// Whether the process runs this very file.
fn runs(pid: u32, target: &Metadata) -> bool {
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    fs::metadata(exe).is_ok_and(|exe| (exe.dev(), exe.ino()) == (target.dev(), target.ino()))
}

fn await_it(limit: Duration, log: &Path, who: &str, is_done: impl Fn() -> bool) -> Result<(), Failure> {
    let mut waited = Duration::ZERO;
    while !is_done() {
        if waited >= limit {
            return Err(Failure::Other {
                code: FAILED,
                what: format!("the {who} did not become the new binary; the old one goes on"),
                hint: Some(format!("see {}", log.display())),
            });
        }
        pause(LOOK_AGAIN);
        waited += LOOK_AGAIN;
    }
    Ok(())
}
