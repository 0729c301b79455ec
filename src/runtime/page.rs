//! A page of a server: one request over a new connection, with one deadline for all of it. For clients only: it blocks.
//!
//! HTTP/1.0, so that an answer ends where the connection does. The client of the health checks belongs to the supervisor
//! (`http`): it needs a runtime, and looks at no header.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::clock::Clock;

/// Most that is read of an answer, in bytes.
const CAP: usize = 256 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// `GET`, `POST`.
    pub method: &'a str,
    /// From the first slash, with the query.
    pub path: &'a str,
    /// Beside `Connection`, `Content-Length` and, unless it is among them, `Host`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Empty for none.
    pub body: &'a str,
}

/// What was answered, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Answer {
    /// The values of a header, in their order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Asks the server at `address`.
///
/// # Errors
/// `TimedOut` where the whole answer is not there after `patience`, `InvalidData` where it is no HTTP; else the system's.
pub fn ask(address: SocketAddr, question: &Question<'_>, patience: Duration) -> io::Result<Answer> {
    let clock = Clock::start();
    let end = clock.now() + patience;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(written(address, question).as_bytes())?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    while bytes.len() < CAP {
        let left = end.since(clock.now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                // Some end with a reset; what came before counts.
                io::ErrorKind::ConnectionReset if !bytes.is_empty() => break,
                io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                _ => return Err(error),
            },
        }
    }
    read(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP"))
}

fn written(address: SocketAddr, question: &Question<'_>) -> String {
    let Question { method, path, headers, body } = question;
    let mut text = format!("{method} {path} HTTP/1.0\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        let _ = write!(text, "Host: {address}\r\n");
    }
    for (name, value) in *headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

fn read(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let first = lines.next()?.strip_prefix("HTTP/")?;
    let status = first.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    Some(Answer { status, headers: headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    const GET: Question<'_> = Question { method: "GET", path: "/", headers: &[], body: "" };

    #[test]
    fn a_question_is_written_with_what_it_needs() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
        assert_eq!(written(address, &GET), "GET / HTTP/1.0\r\nConnection: close\r\nHost: 127.0.0.1:8000\r\n\r\n");
        let headers = [("host", "shop.example"), ("X-Token", "t")];
        let post = Question { method: "POST", path: "/clear", headers: &headers, body: "type=all" };
        let expected = "POST /clear HTTP/1.0\r\nConnection: close\r\nhost: shop.example\r\nX-Token: t\r\n\
                        Content-Length: 8\r\n\r\ntype=all";
        assert_eq!(written(address, &post), expected);
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let answer =
            read(b"HTTP/1.1 302 Found\r\nLocation: /login/\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\nx").unwrap();
        assert_eq!((answer.status, answer.all("location").next()), (302, Some("/login/")));
        assert_eq!(answer.all("Set-Cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert!(read(b"SSH-2.0-x\r\n\r\n").is_none() && read(b"HTTP/1.1 200").is_none());
    }

    #[test]
    fn a_server_is_neither_waited_nor_listened_for_without_end() {
        let endless = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = endless.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = endless.accept().unwrap();
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let kind = ask(address, &GET, Duration::from_mins(1)).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::InvalidData);
        server.join().unwrap();
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let kind = ask(silent.local_addr().unwrap(), &GET, Duration::from_millis(50)).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::TimedOut);
    }
}
