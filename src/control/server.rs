//! The doors of the supervisor: routes, and who may come in.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use tokio::net::unix::{SocketAddr, UCred};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt, once};
use tracing::warn;

use super::protocol::{ApplyRequest, DownRequest, KillRequest, Problem, StartRequest, StopRequest, Upgraded, WaitFor};
use crate::machine::{Request, RequestId, Wait};
use crate::model::InstanceId;
use crate::plan::{self, Plan};
use crate::runtime::handle::{Gone, Handle};
use crate::runtime::reload::Refused;
use crate::view::snapshot::FleetStatus;

/// Describes every route; served at `/v1/openapi.json`.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Largest body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How long a start is waited for if the request does not say.
const DEFAULT_WAIT: Duration = Duration::from_mins(2);

#[derive(Clone)]
struct Doors {
    handle: Handle,
}

/// Serves the API until `end` resolves.
///
/// # Errors
/// The system's.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/instances/{name}", get(instance))
        .route("/v1/events", get(events))
        .route("/v1/start", post(start))
        .route("/v1/restart", post(restart))
        .route("/v1/stop", post(stop))
        .route("/v1/kill", post(kill))
        .route("/v1/down", post(down))
        .route("/v1/apply", post(apply))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/openapi.json", get(openapi))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Doors { handle });
    axum::serve(OwnUsers { listener }, router).with_graceful_shutdown(end).await
}

/// Lets in whoever is this user, or root.
struct OwnUsers {
    listener: UnixListener,
}

impl Listener for OwnUsers {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            let me = nix::unistd::geteuid().as_raw();
            match stream.peer_cred().map(|peer: UCred| peer.uid()) {
                Ok(uid) if uid == me || uid == 0 => return (stream, address),
                Ok(uid) => warn!("user {uid} was turned away from the control socket"),
                Err(_) => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A request that gets no good answer.
struct Refusal(StatusCode, Problem);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<Gone> for Refusal {
    fn from(gone: Gone) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, Problem { error: gone.to_string(), hint: None })
    }
}

impl From<plan::Unknown> for Refusal {
    fn from(unknown: plan::Unknown) -> Self {
        Self(StatusCode::NOT_FOUND, Problem { error: unknown.to_string(), hint: Some(unknown.hint) })
    }
}

/// A body that may not have come whole.
type Body = Result<Bytes, BytesRejection>;

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        let status = rejection.status();
        let hint = (status == StatusCode::PAYLOAD_TOO_LARGE).then(|| format!("at most {BODY_LIMIT} bytes are read"));
        Self(status, Problem { error: rejection.body_text(), hint })
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self(rejection.status(), Problem { error: rejection.body_text(), hint: None })
    }
}

/// An empty body is the default request; anything else must be exactly one.
fn read<T: DeserializeOwned + Default>(body: Body) -> Result<T, Refusal> {
    let body = body?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| {
        let hint = Some("GET /v1/openapi.json describes every request".to_owned());
        Refusal(StatusCode::BAD_REQUEST, Problem { error: format!("the body is not understood: {error}"), hint })
    })
}

async fn status(State(doors): State<Doors>) -> Result<Response, Refusal> {
    Ok(Json(doors.handle.status().await?).into_response())
}

async fn instance(State(doors): State<Doors>, name: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let Path(word) = name?;
    let status = doors.handle.status().await?;
    let name = single(&doors.handle.plan(), &status, word)?;
    let instance = status.instances.into_iter().find(|instance| instance.name.as_str() == name);
    let unknown = || plan::Unknown { word: name.clone(), hint: "laneway status lists them all".to_owned() };
    Ok(Json(instance.ok_or_else(unknown)?).into_response())
}

/// The one instance that `word` means. What was taken out of the file is named as long as something of it is left.
fn single(plan: &Plan, status: &FleetStatus, word: String) -> Result<String, plan::Unknown> {
    if status.instances.iter().any(|instance| instance.name.as_str() == word) {
        return Ok(word);
    }
    match plan::select(plan, std::slice::from_ref(&word))?.as_slice() {
        [id] => Ok(plan.spec(*id).name.to_string()),
        _ => Err(plan::Unknown { word, hint: "name one instance".to_owned() }),
    }
}

async fn start(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked: StartRequest = read(body)?;
    let who = plan::select(&doors.handle.plan(), &asked.instances)?;
    let wait = wait(asked.wait, asked.timeout_seconds)?;
    let request = if asked.instances.is_empty() { Request::StartAll { wait } } else { Request::Start { who, wait } };
    Ok(Json(doors.handle.request(named(&headers), request).await?).into_response())
}

async fn restart(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked: StartRequest = read(body)?;
    let who = plan::select(&doors.handle.plan(), &asked.instances)?;
    let wait = wait(asked.wait, asked.timeout_seconds)?;
    Ok(Json(doors.handle.request(named(&headers), Request::Restart { who, wait }).await?).into_response())
}

async fn apply(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked: ApplyRequest = read(body)?;
    let wait = wait(asked.wait, asked.timeout_seconds)?;
    match doors.handle.apply(named(&headers), wait, asked.dry_run).await? {
        Ok(applied) => Ok(Json(applied).into_response()),
        Err(refused @ Refused::File(_)) => {
            Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, Problem { error: refused.to_string(), hint: None }))
        }
        Err(Refused::Other { what, hint }) => Err(Refusal(StatusCode::CONFLICT, Problem { error: what, hint })),
    }
}

fn wait(wait: WaitFor, timeout_seconds: Option<f64>) -> Result<Wait, Refusal> {
    let timeout = timeout_seconds.map(Duration::try_from_secs_f64).transpose().map_err(|error| {
        Refusal(StatusCode::BAD_REQUEST, Problem { error: format!("timeout_seconds: {error}"), hint: None })
    })?;
    Ok(match wait {
        WaitFor::Started => Wait::Started,
        WaitFor::Healthy => Wait::Healthy { timeout: timeout.unwrap_or(DEFAULT_WAIT) },
    })
}

/// `Idempotency-Key`: asked again under the same number, it is the same wish and has its effect once.
fn named(headers: &HeaderMap) -> Option<RequestId> {
    headers.get("idempotency-key")?.to_str().ok()?.parse().ok().map(RequestId)
}

async fn stop(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked: StopRequest = read(body)?;
    let who = present(&doors, &asked.instances).await?;
    Ok(Json(doors.handle.request(named(&headers), Request::Stop { who }).await?).into_response())
}

async fn kill(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let KillRequest { instances, signal } = read(body)?;
    let who = if instances.is_empty() { Vec::new() } else { present(&doors, &instances).await? };
    Ok(Json(doors.handle.request(named(&headers), Request::Signal { who, signal }).await?).into_response())
}

/// The instances that `words` mean, of the file or on their way out of it.
async fn present(doors: &Doors, words: &[String]) -> Result<Vec<InstanceId>, Refusal> {
    let plan = doors.handle.plan();
    match plan::select(&plan, words) {
        Ok(who) => Ok(who),
        Err(unknown) => Ok(leaving(&plan, &doors.handle.status().await?, words).ok_or(unknown)?),
    }
}

/// The instances that `words` name, if all of them were taken out of the file and something of each is left: their end
/// can be waited for.
fn leaving(plan: &Plan, status: &FleetStatus, words: &[String]) -> Option<Vec<InstanceId>> {
    let is_shown = |id: &InstanceId| status.instances.iter().any(|instance| instance.name == plan.spec(*id).name);
    let leaving: Vec<_> = plan.retired().filter(is_shown).collect();
    let named = |word: &String| leaving.iter().copied().find(|id| plan.spec(*id).name.as_str() == word);
    words.iter().map(named).collect()
}

async fn down(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked: DownRequest = read(body)?;
    Ok(Json(doors.handle.request(named(&headers), Request::Down { now: asked.now }).await?).into_response())
}

/// Which binary stands in `.run/upgrade`: nobody can name one over the socket.
async fn upgrade(State(doors): State<Doors>) -> Result<Response, Refusal> {
    match doors.handle.upgrade().await? {
        Ok(version) => Ok(Json(Upgraded { version }).into_response()),
        Err(error) => Err(Refusal(StatusCode::CONFLICT, Problem { error, hint: None })),
    }
}

/// The status first, then every change after it: nothing is missed in between. Who reads too slowly is told so.
async fn events(State(doors): State<Doors>) -> Result<Response, Refusal> {
    let (status, changes) = doors.handle.watch().await?;
    let first = Event::default().event("status").json_data(status);
    let changes = BroadcastStream::new(changes).map(|change| match change {
        Ok(instance) => Event::default().event("instance").json_data(instance),
        Err(_) => Ok(Event::default().event("missed").data("{}")),
    });
    let stream: std::pin::Pin<Box<dyn Stream<Item = Result<Event, Infallible>> + Send>> =
        Box::pin(once(first).chain(changes).filter_map(|event| event.ok().map(Ok)));
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn unknown() -> Refusal {
    let hint = Some("GET /v1/openapi.json describes every route".to_owned());
    Refusal(StatusCode::NOT_FOUND, Problem { error: "there is no such route".to_owned(), hint })
}

async fn wrong_method() -> Refusal {
    let hint = Some("what only looks is GET, what changes something is POST".to_owned());
    Refusal(StatusCode::METHOD_NOT_ALLOWED, Problem { error: "not with this method".to_owned(), hint })
}
