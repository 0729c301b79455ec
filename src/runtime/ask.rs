//! A short question to a program: what goes in, what comes out, and a deadline after which it is gone with all it started.
//! For clients only: it blocks.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::clock::Clock;
use super::threads::in_thread;

/// What `command` prints to its standard output when it is given `input`, until it closes that; what it says to standard
/// error is nobody's. It gets a process group of its own, which is killed at the end.
///
/// # Errors
/// `TimedOut` after `patience`; else the system's.
pub fn ask(mut command: Command, input: Vec<u8>, patience: Duration) -> io::Result<String> {
    let mut child =
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let answer = match (stdin, stdout) {
        (Some(mut stdin), Some(stdout)) => {
            // A thread: who answers before it has read everything must not wait for us.
            in_thread("ask", move || drop(stdin.write_all(&input))).and_then(|()| read(stdout, patience))
        }
        _ => Err(io::Error::other("no pipes")),
    };
    if let Ok(group) = i32::try_from(child.id()) {
        // Not reaped yet, so the number is its own.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    child.wait()?;
    answer
}

fn read(mut stdout: impl Read + AsFd, patience: Duration) -> io::Result<String> {
    let clock = Clock::start();
    let end = clock.now() + patience;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let left = end.since(clock.now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => match stdout.read(&mut buffer)? {
                0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                length => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            },
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_goes_in_comes_out_and_nobody_waits_for_ever() {
        let patience = Duration::from_secs(20);
        let long = "x".repeat(200_000);
        assert_eq!(ask(sh("cat"), long.clone().into_bytes(), patience).unwrap(), long);
        assert_eq!(ask(sh("echo early"), long.into_bytes(), patience).unwrap(), "early\n");
        let error = ask(sh("sleep 1000 & sleep 1000"), Vec::new(), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
