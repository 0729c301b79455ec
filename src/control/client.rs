//! The client: blocking, one connection per request. It speaks HTTP/1.0, so that an answer ends where the connection
//! does and there are no chunks to put together.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{DOOR, Problem};
use crate::runtime::audit::Door;
use crate::runtime::clock::pause;
use crate::runtime::home::Home;
use crate::view::snapshot::{FleetStatus, InstanceStatus};

/// How long a supervisor may take to answer a question that needs no waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the successor of a dead supervisor may take.
const SUCCESSION: Duration = Duration::from_secs(2);
/// From one try to the next.
const RETRY: Duration = Duration::from_millis(5);

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Broken(error),
        }
    }
}

/// Asks the supervisor of one fleet.
#[derive(Clone, Debug)]
pub struct Client {
    home: Home,
    door: Door,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no supervisor answers at {socket}: {error}", socket = home.socket().display())]
    NoSupervisor {
        /// Where.
        home: Home,
        /// The system's word.
        error: io::Error,
    },
    /// It is there, and says nothing.
    #[error("the supervisor does not answer within {} s; is it stopped?", PATIENCE.as_secs())]
    Silent,
    /// It was there, and broke off.
    #[error("the supervisor broke off: {0}")]
    Broken(io::Error),
    /// It says no.
    #[error("{}", .1.error)]
    Refused(u16, Problem),
    /// What it says is not understood: another version?
    #[error("the supervisor's answer is not understood (another version of laneway?): {0}")]
    Strange(String),
}

impl Client {
    /// Of the fleet at `home`.
    #[must_use]
    pub fn new(home: Home) -> Self {
        Self { home, door: Door::Cli }
    }

    /// The same client, through whose mouth somebody else speaks.
    #[must_use]
    pub fn through(self, door: Door) -> Self {
        Self { door, ..self }
    }

    /// Where its fleet is.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Asks for the status.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn status(&self) -> Result<FleetStatus, ClientError> {
        self.get("/v1/status")
    }

    /// Asks for one instance, by its name.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn instance(&self, name: &str) -> Result<InstanceStatus, ClientError> {
        let escaped: String = name.bytes().map(escape).collect();
        self.get(&format!("/v1/instances/{escaped}"))
    }

    /// Wishes something; answered after its effect, however long that takes, by a supervisor that answers others. If the supervisor dies over it, its
    /// successor is asked for the same wish, which has its effect once.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Strange(error.to_string()))?;
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| ClientError::Strange(error.to_string()))?;
        let name = u64::from_ne_bytes(name);
        self.persist(|| {
            let mut answer = self.send("POST", path, &body, Some(name), Some(PATIENCE))?;
            while let Err(error) = answer.fill_buf() {
                match ClientError::from(error) {
                    ClientError::Silent => drop(self.status()?),
                    error => return Err(error),
                }
            }
            read_json(answer)
        })
    }

    /// Asks again when the supervisor dies, as long as another one is about to come.
    fn persist<T>(&self, ask: impl Fn() -> Result<T, ClientError>) -> Result<T, ClientError> {
        let mut waited = Duration::ZERO;
        loop {
            match ask() {
                Err(ClientError::Broken(_) | ClientError::NoSupervisor { .. })
                    if waited < SUCCESSION && self.home.is_locked() =>
                {
                    pause(RETRY);
                    waited += RETRY;
                }
                answer => return answer,
            }
        }
    }

    /// The status and every change after it, until the supervisor ends.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn events(&self) -> Result<Events, ClientError> {
        let mut answer = self.send("GET", "/v1/events", b"", None, None)?;
        match read_head(&mut answer)? {
            200 => Ok(Events { answer }),
            status => Err(refusal(status, answer)),
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.persist(|| read_json(self.send("GET", path, b"", None, Some(PATIENCE))?))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        name: Option<u64>,
        patience: Option<Duration>,
    ) -> Result<BufReader<UnixStream>, ClientError> {
        let no_supervisor = |error| ClientError::NoSupervisor { home: self.home.clone(), error };
        let mut stream = self.home.connect().map_err(no_supervisor)?;
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let name = name.map(|name| format!("Idempotency-Key: {name}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: laneway\r\n{DOOR}: {}\r\n{name}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.door,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        Ok(BufReader::new(stream))
    }
}

/// Letters, digits and `_-*?.` as they are.
fn escape(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"_-*.".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn read_json<T: DeserializeOwned>(mut answer: BufReader<UnixStream>) -> Result<T, ClientError> {
    match read_head(&mut answer)? {
        200 => {
            let mut body = Vec::new();
            answer.read_to_end(&mut body)?;
            serde_json::from_slice(&body).map_err(|error| ClientError::Strange(error.to_string()))
        }
        status => Err(refusal(status, answer)),
    }
}

fn refusal(status: u16, mut answer: BufReader<UnixStream>) -> ClientError {
    let mut body = Vec::new();
    match answer.read_to_end(&mut body) {
        Ok(_) => match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Refused(status, problem),
            Err(_) => ClientError::Strange(String::from_utf8_lossy(&body).into_owned()),
        },
        Err(error) => ClientError::Broken(error),
    }
}

/// Reads to the end of the headers, of which none matters here; returns the status.
fn read_head(answer: &mut impl BufRead) -> Result<u16, ClientError> {
    let mut line = String::new();
    answer.read_line(&mut line)?;
    if line.is_empty() {
        return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| ClientError::Strange(line.trim().to_owned()))?;
    while line.trim_end() != "" {
        line.clear();
        answer.read_line(&mut line)?;
    }
    Ok(status)
}

/// Changes as they come (`text/event-stream`).
#[derive(Debug)]
pub struct Events {
    answer: BufReader<UnixStream>,
}

/// What is watched.
#[derive(Clone, Debug)]
pub enum Change {
    /// Everything, at the beginning.
    Status(FleetStatus),
    /// One instance whose phase or health changed.
    Instance(Box<InstanceStatus>),
    /// There were more than this reader took: only the whole says how everything is.
    Missed,
}

impl Iterator for Events {
    type Item = Change;

    /// Ends with the supervisor.
    fn next(&mut self) -> Option<Change> {
        let (mut event, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.answer.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if let Some(text) = line.strip_prefix("event:") {
                text.trim().clone_into(&mut event);
            } else if let Some(text) = line.strip_prefix("data:") {
                data.push_str(text.trim_start());
            } else if line.is_empty() && !data.is_empty() {
                match event.as_str() {
                    "status" => return serde_json::from_str(&data).ok().map(Change::Status),
                    "instance" => return serde_json::from_str(&data).ok().map(Change::Instance),
                    "missed" => return Some(Change::Missed),
                    _ => data.clear(),
                }
            }
        }
    }
}
