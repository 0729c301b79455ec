//! The doors of the supervisor: routes, and who may come in.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::{IncomingStream, Listener};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use tokio::net::unix::{SocketAddr, UCred};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt, once};
use tracing::warn;

use super::protocol::{
    ApplyRequest, DOOR, DownRequest, KillRequest, Problem, StartRequest, StopRequest, Upgraded, WaitFor,
};
use crate::machine::{Request, RequestId, Wait};
use crate::model::InstanceId;
use crate::plan::{self, Plan};
use crate::runtime::audit::{Act, Door, Ending, Peer};
use crate::runtime::auditor::Auditor;
use crate::runtime::handle::{Gone, Handle};
use crate::runtime::landlock;
use crate::runtime::reload::Refused;
use crate::view::snapshot::{Applied, FleetStatus, Outcome};

/// Describes every route; served at `/v1/openapi.json`.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Largest body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How long a start is waited for if the request does not say.
const DEFAULT_WAIT: Duration = Duration::from_mins(2);

#[derive(Clone)]
struct Doors {
    handle: Handle,
    auditor: Auditor,
}

/// Serves the API until `end` resolves.
///
/// # Errors
/// The system's.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    auditor: Auditor,
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
        .with_state(Doors { handle, auditor })
        .into_make_service_with_connect_info::<Caller>();
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

/// Who is at the other end of a connection.
#[derive(Clone, Copy)]
struct Caller(Option<Peer>);

impl Connected<IncomingStream<'_, OwnUsers>> for Caller {
    fn connect_info(stream: IncomingStream<'_, OwnUsers>) -> Self {
        let peer = stream.io().peer_cred().ok();
        Self(peer.map(|peer| Peer { uid: peer.uid(), pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()) }))
    }
}

/// Who wishes something, and through which door, by its own word.
struct Wisher {
    peer: Option<Peer>,
    door: Door,
}

impl<S: Send + Sync> FromRequestParts<S> for Wisher {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<Caller>>().and_then(|ConnectInfo(Caller(peer))| *peer);
        let door = parts.headers.get(DOOR).and_then(|door| Door::named(door.to_str().ok()?));
        Ok(Self { peer, door: door.unwrap_or(Door::Api) })
    }
}

impl Doors {
    /// Does something about `who` (none = all) and writes down that it was wished and how it ended, whether or not the
    /// client waits so long.
    async fn audited<T: Send + 'static>(
        &self,
        wisher: Wisher,
        (verb, detail): (&str, Option<String>),
        who: Option<&[InstanceId]>,
        act: impl Future<Output = Result<T, Refusal>> + Send + 'static,
        ending: impl FnOnce(&T) -> Ending + Send + 'static,
    ) -> Result<T, Refusal> {
        let plan = self.handle.plan();
        let named = |who: &[InstanceId]| who.iter().map(|id| plan.spec(*id).name.to_string()).collect();
        let instances = who.map_or_else(|| vec!["*".to_owned()], named);
        let Wisher { peer, door } = wisher;
        let is_fenced = plan.specs.iter().any(|spec| landlock::concerns(&spec.isolation))
            && peer.and_then(|peer| peer.pid).is_some_and(landlock::holds);
        let wish = Act { door, peer, verb: verb.to_owned(), instances, detail };
        let auditor = self.auditor.clone();
        let acting = tokio::spawn(async move {
            let ticket = auditor.begin(wish).await;
            let result = if is_fenced { Err(fenced()) } else { act.await };
            let ending = match &result {
                Ok(done) => ending(done),
                Err(Refusal(_, problem)) => Ending { outcome: "refused", detail: Some(problem.error.clone()) },
            };
            auditor.end(ticket, ending).await;
            result
        });
        acting.await.unwrap_or_else(|_| Err(Gone.into()))
    }

    /// The same for what the machine is asked.
    async fn wish(
        &self,
        wisher: Wisher,
        what: (&str, Option<String>),
        who: Option<&[InstanceId]>,
        headers: &HeaderMap,
        request: Request,
    ) -> Result<Json<Outcome>, Refusal> {
        let (handle, id) = (self.handle.clone(), named(headers));
        let act = async move { Ok(handle.request(id, request).await?) };
        Ok(Json(self.audited(wisher, what, who, act, ending).await?))
    }
}

/// What an instance is kept from, its laneway does not do for it.
fn fenced() -> Refusal {
    let error = "a process of an instance whose isolation is enforced may look, and wish nothing".to_owned();
    Refusal(StatusCode::FORBIDDEN, Problem { error, hint: Some("ask from outside of its lane".to_owned()) })
}

/// How a wish ended, in the words of the audit.
fn ending(outcome: &Outcome) -> Ending {
    if outcome.done {
        return Ending::done();
    }
    let troubles: Vec<_> =
        outcome.troubles.iter().map(|trouble| format!("{}: {}", trouble.name, trouble.what)).collect();
    Ending::failed(troubles.join("; "))
}

/// The same, and what it changed.
fn applied_ending(applied: &Applied) -> Ending {
    let changes: Vec<_> = applied.changes.iter().map(ToString::to_string).collect();
    let ending = ending(&applied.outcome);
    let detail = changes.into_iter().chain(ending.detail).collect::<Vec<_>>().join("; ");
    Ending { detail: Some(detail).filter(|detail| !detail.is_empty()), ..ending }
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

async fn start(
    State(doors): State<Doors>,
    wisher: Wisher,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Outcome>, Refusal> {
    let asked: StartRequest = read(body)?;
    let who = plan::select(&doors.handle.plan(), &asked.instances)?;
    let wait = wait(asked.wait, asked.timeout_seconds)?;
    let about = (!asked.instances.is_empty()).then(|| who.clone());
    let request = if asked.instances.is_empty() { Request::StartAll { wait } } else { Request::Start { who, wait } };
    doors.wish(wisher, ("start", None), about.as_deref(), &headers, request).await
}

async fn restart(
    State(doors): State<Doors>,
    wisher: Wisher,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Outcome>, Refusal> {
    let asked: StartRequest = read(body)?;
    let who = plan::select(&doors.handle.plan(), &asked.instances)?;
    let wait = wait(asked.wait, asked.timeout_seconds)?;
    let about = (!asked.instances.is_empty()).then(|| who.clone());
    doors.wish(wisher, ("restart", None), about.as_deref(), &headers, Request::Restart { who, wait }).await
}

async fn apply(
    State(doors): State<Doors>,
    wisher: Wisher,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Applied>, Refusal> {
    let asked: ApplyRequest = read(body)?;
    let wait = wait(asked.wait, asked.timeout_seconds)?;
    let (handle, id) = (doors.handle.clone(), named(&headers));
    let act = async move {
        match handle.apply(id, wait, asked.dry_run).await? {
            Ok(applied) => Ok(applied),
            Err(refused @ Refused::File(_)) => {
                Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, Problem { error: refused.to_string(), hint: None }))
            }
            Err(Refused::Other { what, hint }) => Err(Refusal(StatusCode::CONFLICT, Problem { error: what, hint })),
        }
    };
    if asked.dry_run {
        return Ok(Json(act.await?));
    }
    Ok(Json(doors.audited(wisher, ("apply", None), None, act, applied_ending).await?))
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

async fn stop(
    State(doors): State<Doors>,
    wisher: Wisher,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Outcome>, Refusal> {
    let asked: StopRequest = read(body)?;
    let who = present(&doors, &asked.instances).await?;
    let about = (!asked.instances.is_empty()).then(|| who.clone());
    doors.wish(wisher, ("stop", None), about.as_deref(), &headers, Request::Stop { who }).await
}

async fn kill(
    State(doors): State<Doors>,
    wisher: Wisher,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Outcome>, Refusal> {
    let KillRequest { instances, signal } = read(body)?;
    let who = if instances.is_empty() { Vec::new() } else { present(&doors, &instances).await? };
    let about = (!instances.is_empty()).then(|| who.clone());
    let what = ("kill", Some(signal.to_string()));
    doors.wish(wisher, what, about.as_deref(), &headers, Request::Signal { who, signal }).await
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

async fn down(
    State(doors): State<Doors>,
    wisher: Wisher,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Outcome>, Refusal> {
    let asked: DownRequest = read(body)?;
    let detail = asked.now.then(|| "without grace".to_owned());
    doors.wish(wisher, ("down", detail), None, &headers, Request::Down { now: asked.now }).await
}

/// Which binary stands in `.run/upgrade`: nobody can name one over the socket.
async fn upgrade(State(doors): State<Doors>, wisher: Wisher) -> Result<Json<Upgraded>, Refusal> {
    let handle = doors.handle.clone();
    let act = async move {
        match handle.upgrade().await? {
            Ok(version) => Ok(Upgraded { version }),
            Err(error) => Err(Refusal(StatusCode::CONFLICT, Problem { error, hint: None })),
        }
    };
    let ending = |upgraded: &Upgraded| Ending { detail: Some(format!("to {}", upgraded.version)), ..Ending::done() };
    Ok(Json(doors.audited(wisher, ("upgrade", None), None, act, ending).await?))
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
