//! The witness of a fault: one instance that is asked all the time, on new connections and on an old one.
//!
//! A fault that is none of this instance's business must not cost it an answer, its connection or its process.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::{Fleet, get, timed};

/// What a fleet needs for a witness, as a line of its instances.
pub const CONTROL: &str = "control: {port: $9}\n";

/// Twenty times a second.
const BEAT: Duration = Duration::from_millis(50);

/// Longer must no answer take, on a machine whose processors are busy with other tests.
const DEADLINE: Duration = Duration::from_secs(2);

/// Asks the instance `control` until `finish`.
#[derive(Debug)]
#[must_use = "a witness that is not asked in the end has seen nothing: call `finish`"]
pub struct Control {
    pid: u32,
    birth: u64,
    end: Sender<()>,
    /// `None` once it was waited for.
    asker: Option<JoinHandle<Tally>>,
}

/// What the witness saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many answers were asked for, on new connections and on the old one.
    pub requests: u32,
    /// What was not as it should be, one text for each.
    pub failures: Vec<String>,
    /// How long the slowest answer took.
    pub slowest: Duration,
}

impl Control {
    /// Begins. The fleet was made with `CONTROL`, and the instance is healthy.
    pub fn watch(fleet: &Fleet) -> Self {
        let (pid, port) = (fleet.pid("control"), fleet.port(9));
        let birth = birth(pid).expect("the control instance lives");
        let mut line = Line::open(port).expect("the control instance takes a long connection");
        let (end, ended) = channel();
        let asker = std::thread::spawn(move || {
            let mut tally = Tally::default();
            let mut rest = BEAT;
            // Once more when it is over: some faults are quicker than a beat.
            let mut goes_on = true;
            while goes_on {
                goes_on = ended.recv_timeout(rest) == Err(RecvTimeoutError::Timeout);
                let (took, ()) = timed(|| {
                    tally.take("a new connection", pid, || get(port, "/pid").map(|(_, pid)| pid));
                    tally.take("the long connection", pid, || line.ask());
                });
                rest = BEAT.saturating_sub(took);
            }
            tally
        });
        Self { pid, birth, end, asker: Some(asker) }
    }

    /// Ends, and holds the instance to it: every answer came, in time, from the process that was there in the beginning.
    #[track_caller]
    pub fn finish(mut self) -> Tally {
        let _ = self.end.send(());
        let tally = self.asker.take().unwrap().join().unwrap();
        assert!(tally.failures.is_empty(), "the control instance missed an answer: {tally:#?}");
        assert_eq!(birth(self.pid), Some(self.birth), "the control instance is another process");
        eprintln!("control: {} requests, 0 failures, slowest {:?}", tally.requests, tally.slowest);
        tally
    }
}

impl Drop for Control {
    /// A test that failed on its own account ends the asker all the same.
    fn drop(&mut self) {
        let _ = self.end.send(());
        if let Some(asker) = self.asker.take() {
            let _ = asker.join();
        }
    }
}

impl Tally {
    fn take(&mut self, how: &str, pid: u32, ask: impl FnOnce() -> Option<String>) {
        let (took, answer) = timed(ask);
        self.requests += 1;
        self.slowest = self.slowest.max(took);
        let number = self.requests;
        if answer.as_deref().map(str::trim) != Some(pid.to_string().as_str()) {
            self.failures.push(format!("{how}, request {number}: {answer:?} instead of {pid}, after {took:?}"));
        } else if took > DEADLINE {
            self.failures.push(format!("{how}, request {number}: only after {took:?}"));
        }
    }
}

/// A connection that stays open: each line that is sent is answered with the pid of who answers.
#[derive(Debug)]
struct Line(BufReader<TcpStream>);

impl Line {
    fn open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(DEADLINE * 2)).unwrap();
        let mut line = Self(BufReader::new(stream));
        write!(line.0.get_mut(), "GET /line HTTP/1.0\r\n\r\n").ok()?;
        Some(line)
    }

    fn ask(&mut self) -> Option<String> {
        self.0.get_mut().write_all(b"?\n").ok()?;
        let mut answer = String::new();
        self.0.read_line(&mut answer).ok().map(|_| answer)
    }
}

/// When a process started, in clock ticks since boot; with its pid it names one process.
fn birth(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[test]
fn the_witness_sees_a_server_that_dies_and_one_that_hangs() {
    for fault in ["/crash?1", "/hang"] {
        let fleet = Fleet::new(CONTROL);
        fleet.up();
        let control = Control::watch(&fleet);
        let _ = get(fleet.port(9), fault);
        fleet.wait_for("control", |control| control["restarts"] == 1 && control["health"] == "healthy");
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| control.finish()));
        assert!(verdict.is_err(), "{fault} was not seen: {verdict:?}");
    }
}
