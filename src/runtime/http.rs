//! One question over HTTP, on a new connection each time: that also tests that the server accepts. No redirects, no
//! proxies, no names looked up. Knows nothing of runs and verdicts; `probe` asks.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::look;
use crate::machine::Fault;

/// Most that is read of a body, in bytes.
const BODY_CAP: usize = 64 * 1024;
/// Most that is read of a head, in bytes.
const HEAD_CAP: usize = 64 * 1024;
/// Who asks.
const AGENT: &str = concat!("laneway/", env!("CARGO_PKG_VERSION"));

/// Whom to ask for what, and what a good answer is.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Literal: nothing is looked up.
    pub address: SocketAddr,
    /// `http`, or `https` with the feature `tls`.
    pub scheme: &'a str,
    /// With its query.
    pub path: &'a str,
    /// Beside those that every question has; they may replace them.
    pub headers: &'a BTreeMap<String, String>,
    /// The lowest and the highest good status.
    pub expect_status: (u16, u16),
    /// Must be found in the body.
    pub body: Option<&'a str>,
}

/// Asks.
#[derive(Clone)]
pub struct Asker {
    #[cfg(feature = "tls")]
    tls: tokio_rustls::TlsConnector,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asker")
    }
}

impl Asker {
    /// With the system's certificates, where it was built for them.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    #[cfg(feature = "tls")]
    pub fn new() -> io::Result<Self> {
        use std::sync::Arc;
        use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config).into() })
    }

    /// There is nothing to set up.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unnecessary_wraps)]
    pub fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The status of a good answer. The caller sets the deadline.
    ///
    /// # Errors
    /// What is wrong with the answer, in words that are fit for a terminal.
    pub async fn ask(&self, question: &Question<'_>) -> Result<u16, Fault> {
        let stream = TcpStream::connect(question.address).await.map_err(|error| fault(&error))?;
        match question.scheme {
            "https" => exchange(self.encrypted(stream, question.address).await?, question).await,
            _ => exchange(stream, question).await,
        }
    }

    #[cfg(feature = "tls")]
    async fn encrypted(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Fault> {
        self.tls.connect(address.ip().into(), stream).await.map_err(|error| fault(&error))
    }

    /// The file that asks for it was refused.
    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unused_async)]
    async fn encrypted(&self, _: TcpStream, _: SocketAddr) -> Result<TcpStream, Fault> {
        Err(Fault::Broken { error: "this laneway was built without TLS".to_owned() })
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    question: &Question<'_>,
) -> Result<u16, Fault> {
    let request = request(question)?;
    let handshake = http1::Builder::new().max_buf_size(HEAD_CAP).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| fault(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| fault(&error))?;
        judge(response, question).await
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    tokio::select! {
        answer = &mut answer => answer,
        // All that there was to read is with the answer by now, and so is what went wrong.
        _ = &mut connection => answer.await,
    }
}

fn request(question: &Question<'_>) -> Result<Request<Empty<Bytes>>, Fault> {
    let broken = |error: hyper::http::Error| Fault::Broken { error: error.to_string() };
    let mut request = Request::get(escaped(question.path)).body(Empty::new()).map_err(broken)?;
    let headers = request.headers_mut();
    for (name, value) in question.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    if let Ok(host) = HeaderValue::try_from(question.address.to_string()) {
        headers.entry(HOST).or_insert(host);
    }
    headers.entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    Ok(request)
}

/// What may not stand in a path as it is, as browsers write it.
fn escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for letter in path.split('#').next().unwrap_or_default().chars() {
        match letter {
            '!' | '$'..=';' | '=' | '?'..='_' | 'a'..='z' | '|' | '~' => escaped.push(letter),
            other => {
                let mut bytes = [0; 4];
                escaped.extend(other.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
            }
        }
    }
    escaped
}

async fn judge(response: Response<Incoming>, question: &Question<'_>) -> Result<u16, Fault> {
    let status = response.status().as_u16();
    if !(question.expect_status.0..=question.expect_status.1).contains(&status) {
        let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map(printable);
        return Err(Fault::Status { status, location });
    }
    match question.body {
        Some(text) if !contains(response.into_body(), text).await? => Err(Fault::Body),
        _ => Ok(status),
    }
}

async fn contains(mut body: Incoming, text: &str) -> Result<bool, Fault> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| fault(&error))?;
        read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if read.len() >= BODY_CAP {
            read.truncate(BODY_CAP);
            break;
        }
    }
    Ok(read.windows(text.len().max(1)).any(|window| window == text.as_bytes()))
}

fn fault(error: &(dyn Error + 'static)) -> Fault {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => Fault::Refused,
        Some(io) => Fault::Broken { error: look::words(io) },
        None => Fault::Broken { error: printable(&cause.to_string()) },
    }
}

/// What a server says is shown on terminals: no control characters, and not more than a line.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_asked_for_as_it_is_meant() {
        let table = [
            ("/health/", "/health/"),
            ("/up?a=1&b=%20~|", "/up?a=1&b=%20~|"),
            ("/sağlık durumu", "/sa%C4%9Fl%C4%B1k%20durumu"),
            ("/a{b}\"<`>\u{7f}#part", "/a%7Bb%7D%22%3C%60%3E%7F"),
        ];
        for (path, asked) in table {
            assert_eq!(escaped(path), asked);
            assert!(asked.parse::<hyper::Uri>().is_ok(), "{asked}");
        }
    }
}
