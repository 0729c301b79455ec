//! The doors of the supervisor: routes, and who may come in.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
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

use super::protocol::{DownRequest, Problem, StartRequest, StopRequest, Upgraded, WaitFor};
use crate::machine::{Request, RequestId, Wait};
use crate::model::InstanceId;
use crate::plan::{self, Plan};
use crate::runtime::handle::{Gone, Handle};

/// Describes every route; served at `/v1/openapi.json`.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Largest body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How long a start is waited for if the request does not say.
const DEFAULT_WAIT: Duration = Duration::from_mins(2);

#[derive(Clone)]
struct Doors {
    handle: Handle,
    plan: Arc<Plan>,
}

/// Serves the API until `end` resolves.
///
/// # Errors
/// The system's.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    plan: Arc<Plan>,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/instances/{name}", get(instance))
        .route("/v1/events", get(events))
        .route("/v1/start", post(start))
        .route("/v1/restart", post(restart))
        .route("/v1/stop", post(stop))
        .route("/v1/down", post(down))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/openapi.json", get(openapi))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Doors { handle, plan });
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
    let Path(name) = name?;
    let id = single(&doors.plan, name)?;
    let mut status = doors.handle.status().await?;
    Ok(Json(status.instances.swap_remove(id.index())).into_response())
}

fn single(plan: &Plan, name: String) -> Result<InstanceId, plan::Unknown> {
    match plan.find(&name) {
        Some(id) => Ok(id),
        None => match plan::select(plan, std::slice::from_ref(&name))?.as_slice() {
            [id] => Ok(*id),
            _ => Err(plan::Unknown { word: name, hint: "name one instance".to_owned() }),
        },
    }
}

async fn start(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    begin(doors, &headers, body, |who, wait| Request::Start { who, wait }).await
}

async fn restart(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    begin(doors, &headers, body, |who, wait| Request::Restart { who, wait }).await
}

async fn begin(
    doors: Doors,
    headers: &HeaderMap,
    body: Body,
    request: impl FnOnce(Vec<InstanceId>, Wait) -> Request,
) -> Result<Response, Refusal> {
    let asked: StartRequest = read(body)?;
    let who = plan::select(&doors.plan, &asked.instances)?;
    let timeout = asked.timeout_seconds.map(Duration::try_from_secs_f64).transpose().map_err(|error| {
        Refusal(StatusCode::BAD_REQUEST, Problem { error: format!("timeout_seconds: {error}"), hint: None })
    })?;
    let wait = match asked.wait {
        WaitFor::Started => Wait::Started,
        WaitFor::Healthy => Wait::Healthy { timeout: timeout.unwrap_or(DEFAULT_WAIT) },
    };
    Ok(Json(doors.handle.request(named(headers), request(who, wait)).await?).into_response())
}

/// `Idempotency-Key`: asked again under the same number, it is the same wish and has its effect once.
fn named(headers: &HeaderMap) -> Option<RequestId> {
    headers.get("idempotency-key")?.to_str().ok()?.parse().ok().map(RequestId)
}

async fn stop(State(doors): State<Doors>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked: StopRequest = read(body)?;
    let who = plan::select(&doors.plan, &asked.instances)?;
    Ok(Json(doors.handle.request(named(&headers), Request::Stop { who }).await?).into_response())
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
