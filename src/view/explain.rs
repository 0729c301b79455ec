//! Why an instance is what it is: the reason, the evidence and its age, what happens next and when, what to do.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::{
    Checked, Checks, Failure, FailureKind, Fault, Fleet, Instance, Obstacle, Owner, Sent, Stage, Starting, State,
    Stopping, Sweeping, Then, Verdict, Waiting,
};
use crate::model::{Exit, Health, InstanceId, Mono, Signal, in_words};
use crate::plan::spec::{Condition, HealthCheck, HealthTest, RestartPolicy, Spec};

/// A state in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What it comes from, in a line.
    pub reason: String,
    /// What was seen, and when.
    pub evidence: Vec<String>,
    /// What happens next, and when.
    pub next: Option<String>,
    /// What a person can do.
    pub hint: Option<String>,
}

/// A server that lived no longer ended at once.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Explains the state of `id` at `now`.
#[must_use]
pub fn explain(fleet: &Fleet, id: InstanceId, now: Mono) -> Explanation {
    let spec = fleet.plan().spec(id);
    let instance = fleet.instance(id);
    let mut explanation = match &instance.state {
        State::Stopped => Explanation { reason: "stopped".to_owned(), ..Explanation::default() },
        State::Completed => {
            Explanation { reason: "it ended by itself with exit code 0".to_owned(), ..Explanation::default() }
        }
        State::Waiting(waiting) => wait(fleet, id, spec, waiting, now),
        State::Starting(starting) => start(spec, starting, now),
        State::Running { checks, .. } => run(spec, checks, now),
        State::Stopping(stopping) => stop(spec, stopping, now),
        State::Sweeping(sweeping) => sweep(spec, instance, sweeping),
        State::Backoff { until, failure } => {
            let mut explanation = fail(spec, failure, now);
            explanation.next = Some(format!("starts again in {}", in_words(until.since(now))));
            if spec.restart.max_attempts.is_none() && failures_are_many(instance) {
                explanation.evidence.push(format!(
                    "{} failures in a row; it goes on trying about every {}",
                    instance.failures,
                    in_words(spec.restart.max_delay)
                ));
            }
            explanation
        }
        State::Failed { failure } => {
            let mut explanation = fail(spec, failure, now);
            explanation.next = Some(match (spec.restart.policy, spec.restart.max_attempts) {
                (RestartPolicy::No, _) => "nothing: its policy is `restart: no`".to_owned(),
                (_, Some(most)) => format!("nothing: it gave up after {most} restarts in a row"),
                (_, None) => "nothing".to_owned(),
            });
            explanation.hint.get_or_insert_with(|| format!("laneway start {}", spec.name));
            explanation
        }
    };
    explanation.evidence.extend(instance.sent.map(|sent| sent_in_words(sent, now)));
    explanation.evidence.extend(history(instance, spec, now));
    explanation
}

fn failures_are_many(instance: &Instance) -> bool {
    instance.failures >= 6
}

/// The failure before this state, where the state itself does not speak of it.
fn history(instance: &Instance, spec: &Spec, now: Mono) -> Option<String> {
    match instance.state {
        State::Backoff { .. } | State::Failed { .. } | State::Sweeping(_) => None,
        State::Stopped
        | State::Waiting(_)
        | State::Starting(_)
        | State::Running { .. }
        | State::Stopping(_)
        | State::Completed => {
            let (at, failure) = instance.last_failure.as_ref()?;
            Some(format!("last failure {} ago: {}", in_words(now.since(*at)), fail(spec, failure, now).reason))
        }
    }
}

fn wait(fleet: &Fleet, id: InstanceId, spec: &Spec, waiting: &Waiting, now: Mono) -> Explanation {
    match waiting {
        Waiting::Turn { on, .. } => {
            let named: Vec<_> = on.iter().map(|on| dependency(fleet, id, *on)).collect();
            let reason = if named.is_empty() { "about to start".to_owned() } else { named.join(", ") };
            let hint = on.first().map(|on| format!("laneway why {}", fleet.plan().spec(*on).name));
            let next = Some("starts by itself as soon as that is so".to_owned());
            Explanation { reason, next, hint, ..Explanation::default() }
        }
        Waiting::Brake { until } => Explanation {
            reason: "many instances failed at once, and `restart_brake` lets them start one after the other".to_owned(),
            next: Some(format!("starts in {}", in_words(until.since(now)))),
            ..Explanation::default()
        },
        Waiting::Obstacle { obstacle, .. } => obstructed(spec, obstacle),
    }
}

fn dependency(fleet: &Fleet, id: InstanceId, on: InstanceId) -> String {
    let conditions = fleet.plan().spec(id).depends_on.iter();
    let condition = match conditions.filter(|dependency| dependency.on == on).map(|d| d.condition).next() {
        // No dependency: it has a port or a path that this one takes over.
        None => "to be gone",
        Some(Condition::ServiceStarted) => "to start",
        Some(Condition::ServiceHealthy) => "to be healthy",
        Some(Condition::ServiceCompletedSuccessfully) => "to complete",
    };
    format!("waits for {} {condition}, which is {}", fleet.plan().spec(on).name, fleet.instance(on).state.phase())
}

fn obstructed(spec: &Spec, obstacle: &Obstacle) -> Explanation {
    let (reason, hint) = match obstacle {
        Obstacle::PortTaken { port, owner } => (
            format!("port {port} is taken by {}", owner_in_words(owner)),
            format!(
                "end that process, or give {0} another port; to try it by hand on another port: laneway exec {0} -- {1}",
                spec.name,
                on_another_port(spec, *port)
            ),
        ),
        Obstacle::Program { path, error } => (
            format!("`{}` cannot be run: {error}", path.display()),
            "mend `command`, or make what it needs (a virtual environment?)".to_owned(),
        ),
        Obstacle::Directory { path, error } => {
            (format!("the working directory `{}`: {error}", path.display()), "mend `working_dir`".to_owned())
        }
        Obstacle::Lane { path, error } => (
            format!("the lane cannot be prepared: `{}`: {error}", path.display()),
            "look at the owner and the mode of that path".to_owned(),
        ),
        Obstacle::Resources { error } => (
            format!("the system has no process or descriptor to give: {error}"),
            "look at `ulimit -u`, `ulimit -n` and the memory".to_owned(),
        ),
    };
    Explanation {
        reason,
        hint: Some(hint),
        next: Some("looks again each second and starts by itself once that is mended".to_owned()),
        ..Explanation::default()
    }
}

/// The command with the next thousand's port, as something to paste.
fn on_another_port(spec: &Spec, port: u16) -> String {
    let other = port.checked_add(1000).unwrap_or(8099).to_string();
    let program = spec.command.first().map(|program| {
        // As it stands in the file: `exec` goes to the working directory too.
        match Path::new(program).strip_prefix(&spec.working_dir) {
            Ok(inside) if inside.components().count() > 1 => inside.display().to_string(),
            Ok(inside) => format!("./{}", inside.display()),
            Err(_) => program.clone(),
        }
    });
    let words = program.into_iter().chain(spec.command.iter().skip(1).cloned()).map(|word| {
        let word = word.replace(&port.to_string(), &other);
        let needs_quotes = word.contains(|c: char| c.is_whitespace() || "'\"$&;|<>()*?".contains(c));
        if needs_quotes { format!("{word:?}") } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn owner_in_words(owner: &Owner) -> String {
    match owner.pid {
        Some(pid) => format!("pid {pid} ({}), which listens on {}", owner.command, owner.address),
        None => format!("{}, which listens on {}", owner.command, owner.address),
    }
}

fn start(spec: &Spec, starting: &Starting, now: Mono) -> Explanation {
    let limit = starting.deadline.map(|deadline| in_words(deadline.since(now)));
    match &starting.stage {
        Stage::PreStart(command) => Explanation {
            reason: format!(
                "runs pre_start {} of {}: `{}`",
                command + 1,
                spec.pre_start.len(),
                spec.pre_start.get(*command).map(|words| short(words)).unwrap_or_default()
            ),
            next: limit.map(|limit| format!("has {limit} left, then it is a failure")),
            ..Explanation::default()
        },
        Stage::Server(checks) => Explanation {
            reason: match &checks.last {
                Some(checked) => format!("no good answer yet: {}", verdict(&checked.verdict)),
                None => "the server was started, no answer yet".to_owned(),
            },
            evidence: evidence(spec, checks, now),
            next: limit.map(|limit| format!("without a good answer in {limit} it is a failure")),
            hint: checks.last.as_ref().and_then(|checked| answer_hint(spec, checked)),
        },
    }
}

fn run(spec: &Spec, checks: &Checks, now: Mono) -> Explanation {
    let hint = checks.last.as_ref().filter(|_| checks.health != Health::Healthy);
    let reason = match (checks.health, &checks.last, &spec.healthcheck) {
        (Health::Unknown, ..) | (_, None, _) | (.., None) => "it runs; it has no health check".to_owned(),
        (Health::Unhealthy, Some(checked), _) => {
            format!("{} bad answers in a row, the last: {}", checks.bad, verdict(&checked.verdict))
        }
        (Health::Healthy | Health::Starting, Some(checked), Some(check)) if checks.bad > 0 => {
            format!("{} of {} bad answers: {}", checks.bad, check.retries, verdict(&checked.verdict))
        }
        (Health::Healthy | Health::Starting | Health::PortConflict, Some(checked), Some(_)) => {
            verdict(&checked.verdict)
        }
    };
    Explanation {
        reason,
        evidence: evidence(spec, checks, now),
        next: checks.due.map(|due| format!("next check in {}", in_words(due.since(now)))),
        hint: hint.and_then(|checked| answer_hint(spec, checked)),
    }
}

fn evidence(spec: &Spec, checks: &Checks, now: Mono) -> Vec<String> {
    let mut evidence = Vec::new();
    if let (Some(check), Some(checked)) = (&spec.healthcheck, &checks.last) {
        evidence.push(format!(
            "{}: {}, {} ago",
            question(spec, check),
            verdict(&checked.verdict),
            in_words(now.since(checked.at))
        ));
        if let Some(good) = checks.good_at.filter(|good| *good != checked.at) {
            evidence.push(format!("last good answer {} ago", in_words(now.since(good))));
        }
    }
    evidence
}

fn question(spec: &Spec, check: &HealthCheck) -> String {
    let address = spec.facts.port.map(|port| std::net::SocketAddr::new(spec.facts.reachable_host(), port));
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    match &check.test {
        HealthTest::Http { scheme, path, .. } => format!("GET {scheme}://{address}{path}"),
        HealthTest::Tcp => format!("connect to {address}"),
        HealthTest::Command(words) => format!("`{}`", words.join(" ")),
    }
}

fn stop(spec: &Spec, stopping: &Stopping, now: Mono) -> Explanation {
    let left = in_words(stopping.deadline.since(now));
    let why = match &stopping.then {
        Then::Rest => "it was told to stop".to_owned(),
        Then::Fresh => "it was told to restart".to_owned(),
        Then::Failure(kind) => kind_in_words(spec, kind, None),
        Then::Next(_) | Then::Success => "it ends".to_owned(),
    };
    let next = if stopping.killed {
        format!("looks for survivors in {left}")
    } else {
        format!("is killed in {left} if it has not ended by then")
    };
    Explanation {
        reason: format!("{why}; sent {}", if stopping.killed { Signal::KILL } else { spec.stop_signal }),
        next: Some(next),
        ..Explanation::default()
    }
}

fn sweep(spec: &Spec, instance: &Instance, sweeping: &Sweeping) -> Explanation {
    let sent = instance.last_failure.as_ref().and_then(|(_, failure)| failure.sent);
    let reason = match (&sweeping.then, sweeping.left.is_empty()) {
        (Then::Failure(kind), true) => kind_in_words(spec, kind, sent),
        (_, true) => "its first process ended, the rest of its tree is being cleared".to_owned(),
        (_, false) => {
            let who: Vec<_> = sweeping
                .left
                .iter()
                .map(|left| format!("pid {} ({}) is {}", left.pid, left.command, left.state))
                .collect();
            format!("still there after the kill: {}", who.join("; "))
        }
    };
    let next =
        sweeping.again_at.map(|_| "is killed again each second; nothing new starts before it is gone".to_owned());
    Explanation { reason, next, ..Explanation::default() }
}

/// A failure: what happened, what was seen before it, what to do.
fn fail(spec: &Spec, failure: &Failure, now: Mono) -> Explanation {
    let lived = in_words(failure.lived);
    let kind = kind_in_words(spec, &failure.kind, failure.sent);
    let reason = match &failure.kind {
        FailureKind::Exited { .. } if failure.lived < AT_ONCE => format!("{kind}, at once"),
        FailureKind::Exited { .. } => format!("{kind} after {lived}"),
        FailureKind::PreStart { .. }
        | FailureKind::PreStartTimeout { .. }
        | FailureKind::NotReady { .. }
        | FailureKind::Unhealthy { .. } => kind,
    };
    let seen = failure.last_check.as_ref();
    let hint = match &failure.kind {
        FailureKind::NotReady { .. } | FailureKind::Unhealthy { .. } => seen.and_then(|seen| answer_hint(spec, seen)),
        FailureKind::Exited { exit: Exit::Code(0), before_ready: true } => {
            Some(format!("some servers end like this when their port is taken; see: laneway logs {}", spec.name))
        }
        FailureKind::Exited { exit: Exit::OutOfMemory, .. } => {
            Some("give it more memory, or let it need less; dmesg has the kernel's account".to_owned())
        }
        FailureKind::PreStart { command, .. } if spec.is_own_step(*command) => {
            let (lane, name) = (&spec.facts.lane, &spec.name);
            Some(format!("why stands in laneway logs {name}; laneway db create {lane} tries it now"))
        }
        FailureKind::Exited { .. } | FailureKind::PreStart { .. } | FailureKind::PreStartTimeout { .. } => None,
    };
    Explanation {
        reason,
        evidence: seen
            .map(|seen| format!("last check: {}", verdict(&seen.verdict)))
            .into_iter()
            .chain(failure.sent.map(|sent| sent_in_words(sent, now)))
            .collect(),
        next: None,
        hint: hint.or_else(|| Some(format!("laneway logs {}", spec.name))),
    }
}

/// A command as people call it: without the program's folder.
fn short(words: &[String]) -> String {
    let program = words.first().map(|program| program.rsplit('/').next().unwrap_or(program));
    program.into_iter().chain(words.iter().skip(1).map(String::as_str)).collect::<Vec<_>>().join(" ")
}

/// What a person did to it by hand.
fn sent_in_words(sent: Sent, now: Mono) -> String {
    format!("a person sent it {}, {} ago (laneway kill)", sent.signal, in_words(now.since(sent.at)))
}

fn kind_in_words(spec: &Spec, kind: &FailureKind, sent: Option<Sent>) -> String {
    let command = |position: &usize| spec.pre_start.get(*position).map(|words| words.join(" ")).unwrap_or_default();
    match kind {
        FailureKind::Exited { exit: exit @ Exit::Code(0), before_ready: true } => {
            format!("the server ended before its first good answer ({exit})")
        }
        FailureKind::Exited { exit: exit @ Exit::Signal { signal, .. }, .. }
            if sent.is_some_and(|sent| sent.signal == *signal) =>
        {
            format!("the server ended: {exit} (which a person sent)")
        }
        FailureKind::Exited { exit: exit @ Exit::Signal { signal, .. }, .. } if *signal == Signal::KILL => {
            format!("the server ended: {exit} (by somebody else, or for want of memory)")
        }
        FailureKind::Exited { exit, .. } => format!("the server ended: {exit}"),
        FailureKind::PreStart { command: position, exit } => {
            format!("pre_start `{}` failed: {exit}", command(position))
        }
        FailureKind::PreStartTimeout { command: position, after } => {
            format!("pre_start `{}` took longer than {}", command(position), in_words(*after))
        }
        FailureKind::NotReady { after } => format!("no good answer within {} of its start", in_words(*after)),
        FailureKind::Unhealthy { bad } => format!("unhealthy: {bad} bad answers in a row"),
    }
}

/// What a check found, in words.
#[must_use]
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Good { status: Some(status), took } => format!("{status} in {}", millis(*took)),
        Verdict::Good { status: None, took } => format!("ok in {}", millis(*took)),
        Verdict::Conflict { owner } => format!("the port is also held by {}", owner_in_words(owner)),
        Verdict::Bad(fault) => match fault {
            Fault::Refused => "connection refused".to_owned(),
            Fault::TimedOut { after } => format!("no answer within {}", in_words(*after)),
            Fault::Status { status, location: Some(location) } => format!("status {status}, redirect to {location}"),
            Fault::Status { status, location: None } => format!("status {status}"),
            Fault::Body => "the expected text is not in the body".to_owned(),
            Fault::Broken { error } => error.clone(),
            Fault::Command { exit, output } if output.is_empty() => format!("the check ended: {exit}"),
            Fault::Command { exit, output } => format!("the check ended: {exit}: {output}"),
        },
    }
}

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis().max(1))
}

/// What usually is behind a wrong answer.
fn answer_hint(spec: &Spec, checked: &Checked) -> Option<String> {
    let fault = match &checked.verdict {
        Verdict::Bad(fault) => fault,
        Verdict::Conflict { .. } => {
            return Some(
                "end that process, or give one of the two another port; a restart would not mend it".to_owned(),
            );
        }
        Verdict::Good { .. } => return None,
    };
    let logs = format!("laneway logs {}", spec.name);
    Some(match fault {
        Fault::Status { status: 404, .. } => {
            format!("the server knows no such path: mend `healthcheck.path`, or add that page; {logs}")
        }
        Fault::Status { status: 400, .. } => {
            "Django answers 400 when the Host is not in ALLOWED_HOSTS: add 127.0.0.1, or set `healthcheck.headers: {Host: ...}`"
                .to_owned()
        }
        Fault::Status { status: 401 | 403, .. } => {
            "the health page must answer without a login: exempt it".to_owned()
        }
        Fault::Status { status: 300..=399, location } => match location {
            Some(location) if location.starts_with("https:") => {
                "it redirects to https (SECURE_SSL_REDIRECT): exempt the health page with SECURE_REDIRECT_EXEMPT".to_owned()
            }
            _ => "a redirect is no answer: exempt the health page from the login, or mend `healthcheck.path`".to_owned(),
        },
        Fault::Refused => {
            let place = spec.facts.port.map(|port| format!("{}:{port}", spec.facts.host)).unwrap_or_default();
            format!("does `command` make it listen on {place}? {logs}")
        }
        Fault::TimedOut { .. } => {
            format!("it listens but does not answer, or it hangs; {logs}, or raise `healthcheck.timeout`")
        }
        Fault::Status { .. } | Fault::Broken { .. } | Fault::Body | Fault::Command { .. } => logs,
    })
}

/// That an app does not use its lane, with the lines that mend it. `database` is the file that is missing.
#[must_use]
pub fn ignored_database(database: &Path) -> String {
    let lines = [
        "DATABASES[\"default\"][\"NAME\"] = os.environ[\"DATABASE_NAME\"]",
        "CACHES[\"default\"][\"KEY_PREFIX\"] = os.environ[\"CACHE_KEY_PREFIX\"]",
        "SESSION_COOKIE_NAME = os.environ[\"SESSION_COOKIE_NAME\"]",
        "CSRF_COOKIE_NAME = os.environ[\"CSRF_COOKIE_NAME\"]",
    ];
    let database = database.display();
    let lines = lines.join("\n    ");
    format!(
        "it answers well, but {database} does not exist: the app ignores its lane\n  hint: add to its settings\n    {lines}"
    )
}
