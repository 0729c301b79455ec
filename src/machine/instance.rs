//! One instance: what is wanted of it, what is observed, and how facts move it.
//!
//! Knows nothing of other instances: `Fleet` says when it may begin (dependencies, brake) and when it may end (dependents).

use std::mem::discriminant;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Work};
use super::backoff;
use super::checks::Checks;
use super::event::{Obstacle, Survivor, Verdict};
use super::state::{Cause, Failure, FailureKind, Sent, Stage, Starting, State, Stopping, Sweeping, Then, Waiting};
use crate::model::{Exit, Goal, Health, InstanceId, Mono, Run};
use crate::plan::spec::{HealthCheck, RestartPolicy, Spec};

/// From one look at an obstacle, or at survivors, to the next.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a killed process may take to end before it is called a survivor.
const DEATH_DEADLINE: Duration = Duration::from_secs(5);

/// One instance. All of it is data, and means the same to the supervisor that comes after this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// What people want of it.
    pub goal: Goal,
    /// A person stopped it, and not everything: `unless-stopped` remembers that over a reboot.
    #[serde(default)]
    pub held: bool,
    /// What is observed of it.
    pub state: State,
    /// Since when its phase and health have been what they are.
    pub since: Mono,
    /// Counts its runs.
    pub generation: u64,
    /// Starts that its policy asked for since a person did.
    pub restarts: u32,
    /// Failures in a row; forgotten once it is stable.
    pub failures: u32,
    /// The last failure under this goal, and when it was.
    pub last_failure: Option<(Mono, Failure)>,
    /// The last signal that a person sent to this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
    /// `pre_start` was done since a person asked for a start.
    pub(super) prepared: bool,
}

/// What an instance needs to decide: its spec, the time, and a place for orders.
pub(super) struct Context<'a> {
    pub(super) id: InstanceId,
    pub(super) spec: &'a Spec,
    pub(super) seed: u64,
    pub(super) now: Mono,
    pub(super) actions: &'a mut Vec<Action>,
}

impl Instance {
    /// One at rest; `held` if a person stopped it.
    #[must_use]
    pub fn at_rest(held: bool) -> Self {
        Self {
            goal: Goal::Down,
            held,
            state: State::Stopped,
            since: Mono::default(),
            generation: 0,
            restarts: 0,
            failures: 0,
            last_failure: None,
            sent: None,
            prepared: false,
        }
    }

    /// One at rest at a place that had `generation` runs, whosever they were.
    #[must_use]
    pub fn at_rest_after(generation: u64, held: bool) -> Self {
        Self { generation, ..Self::at_rest(held) }
    }

    /// Something is left of `run`, which was not adopted: it is to be gone before anything begins. Returns whether that
    /// can be waited for, because nothing else is known of this instance.
    pub fn wait_for(&mut self, run: Run) -> bool {
        let rests = self.state == State::Stopped;
        if rests {
            self.generation = self.generation.max(run.generation);
            self.state = State::Sweeping(Sweeping { run, left: Vec::new(), again_at: None, then: Then::Rest });
        }
        rests
    }

    /// What others go by: as long as it stays the same, nobody else may begin or end for it, and no wish is fulfilled.
    pub(super) fn outlook(&self) -> impl PartialEq + use<> {
        let state = &self.state;
        let waiting = match state {
            State::Waiting(waiting @ Waiting::Turn { on, .. }) => Some((discriminant(waiting), on.clone())),
            State::Waiting(waiting) => Some((discriminant(waiting), Vec::new())),
            State::Stopped
            | State::Starting(_)
            | State::Running { .. }
            | State::Stopping(_)
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => None,
        };
        let is_left = !state.survivors().is_empty();
        (self.goal, discriminant(state), waiting, state.health(), state.pre_start(), state.run(), state.pid(), is_left)
    }

    /// Whether it needs the fleet's leave to begin or to end.
    pub(super) fn is_at_the_gate(&self) -> bool {
        let begins = matches!(self.state, State::Waiting(Waiting::Turn { .. }));
        begins || (self.goal == Goal::Down && self.state.is_live())
    }

    /// The same without long texts: they only explain, and come again with the next look.
    #[must_use]
    pub fn abridged(&self) -> Self {
        let mut brief = Self { last_failure: None, ..self.clone() };
        match &mut brief.state {
            State::Waiting(waiting @ Waiting::Obstacle { looking: None, .. }) => {
                *waiting = Waiting::Turn { cause: Cause::Wish, on: Vec::new() };
            }
            State::Waiting(Waiting::Obstacle { obstacle, .. }) => {
                *obstacle = Obstacle::Resources { error: String::new() };
            }
            State::Starting(Starting { stage: Stage::Server(checks), .. }) | State::Running { checks, .. } => {
                checks.last = None;
            }
            State::Stopping(stopping) => stopping.left.clear(),
            State::Sweeping(sweeping) => sweeping.left.clear(),
            State::Backoff { failure, .. } | State::Failed { failure } => failure.last_check = None,
            State::Starting(Starting { stage: Stage::PreStart(_), .. })
            | State::Stopped
            | State::Waiting(Waiting::Turn { .. } | Waiting::Brake { .. })
            | State::Completed => {}
        }
        brief
    }

    /// A person wants it to run.
    pub(super) fn wish_up(&mut self, now: Mono) {
        self.goal = Goal::Up;
        self.held = false;
        self.failures = 0;
        match &mut self.state {
            State::Starting(_) | State::Running { .. } => {}
            State::Stopping(Stopping { then, .. }) | State::Sweeping(Sweeping { then, .. }) => {
                if !matches!(then, Then::Next(_)) {
                    *then = Then::Fresh;
                }
            }
            State::Waiting(Waiting::Obstacle { look_at, .. }) => *look_at = now,
            State::Stopped
            | State::Waiting(Waiting::Turn { .. } | Waiting::Brake { .. })
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => self.fresh(),
        }
    }

    /// Its spec is another one than it was, in something that needs no restart.
    pub(super) fn respec(&mut self, cx: &mut Context<'_>, was: &Spec) {
        let asks_otherwise = was.healthcheck != cx.spec.healthcheck;
        let check = cx.spec.healthcheck.as_ref();
        match &mut self.state {
            State::Starting(Starting { pid: Some(_), stage: Stage::PreStart(_), since, deadline, .. }) => {
                *deadline = Some(*since + cx.spec.pre_start_timeout);
            }
            State::Starting(Starting { run, pid: Some(pid), stage: Stage::Server(checks), since, deadline })
                if asks_otherwise =>
            {
                if let Some(check) = check {
                    checks.hurry(cx.now);
                    *deadline = Some(*since + check.start_deadline());
                } else {
                    self.state =
                        State::Running { run: *run, pid: *pid, since: *since, checks: Checks::new(None, cx.now) };
                }
            }
            State::Running { run, pid, since, checks } if asks_otherwise => match (check, &was.healthcheck) {
                // What is known holds until the new question is answered.
                (Some(_), Some(_)) => checks.hurry(cx.now),
                (None, _) => *checks = Checks::new(None, cx.now),
                // Now that it is asked, it has to give a good answer in the time of a start.
                (Some(check), None) => {
                    let stage = Stage::Server(Checks::new(Some(check), cx.now));
                    let deadline = Some(cx.now + check.start_deadline());
                    self.state =
                        State::Starting(Starting { run: *run, pid: Some(*pid), stage, since: *since, deadline });
                }
            },
            State::Starting(_)
            | State::Running { .. }
            | State::Stopped
            | State::Waiting(_)
            | State::Stopping(_)
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => {}
        }
    }

    /// Ends what runs, then does what `then` says; at once if nothing runs.
    pub(super) fn end(&mut self, cx: &mut Context<'_>, then: Then) {
        match &mut self.state {
            State::Starting(Starting { run, pid, .. }) => {
                let (run, pid) = (*run, *pid);
                self.ask_to_end(cx, run, pid, then);
            }
            State::Running { run, pid, .. } => {
                let (run, pid) = (*run, *pid);
                self.ask_to_end(cx, run, Some(pid), then);
            }
            State::Waiting(Waiting::Obstacle { looking: Some(run), .. }) => {
                let run = *run;
                self.ask_to_end(cx, run, None, then);
            }
            State::Stopping(Stopping { then: later, .. }) | State::Sweeping(Sweeping { then: later, .. }) => {
                *later = then;
            }
            State::Stopped | State::Waiting(_) | State::Backoff { .. } | State::Failed { .. } | State::Completed => {
                self.go_on(cx, then);
            }
        }
    }

    fn ask_to_end(&mut self, cx: &mut Context<'_>, run: Run, pid: Option<u32>, then: Then) {
        if pid.is_some() {
            cx.actions.push(Action::Signal { run, signal: cx.spec.stop_signal });
        }
        let deadline = cx.now + cx.spec.stop_grace_period;
        self.state = State::Stopping(Stopping { run, pid, deadline, killed: false, left: Vec::new(), then });
    }

    /// Ends the grace of a stop under way. Who is not born yet is killed at birth.
    pub(super) fn kill(&mut self, cx: &mut Context<'_>) {
        if let State::Stopping(stopping) = &mut self.state
            && !stopping.killed
        {
            stopping.killed = true;
            stopping.deadline = cx.now + DEATH_DEADLINE;
            if stopping.pid.is_some() {
                cx.actions.push(Action::Kill { run: stopping.run });
            }
        }
    }

    /// The fleet lets it begin.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, cause: Cause) {
        match cause {
            Cause::Wish => self.restarts = 0,
            Cause::Policy | Cause::Failure => self.restarts = self.restarts.saturating_add(1),
        }
        let work = if self.prepared || cx.spec.pre_start.is_empty() { Work::Server } else { Work::PreStart(0) };
        self.spawn(cx, work);
    }

    fn next_run(&mut self, id: InstanceId) -> Run {
        self.generation = self.generation.saturating_add(1);
        self.sent = None;
        Run { instance: id, generation: self.generation }
    }

    fn spawn(&mut self, cx: &mut Context<'_>, work: Work) {
        let run = self.next_run(cx.id);
        cx.actions.push(Action::Spawn { run, work });
        self.state = State::Starting(starting(cx, run, None, work));
    }

    /// The run's first process was born.
    pub(super) fn spawned(&mut self, cx: &mut Context<'_>, pid: u32) {
        match &mut self.state {
            State::Starting(Starting { run, stage, .. }) => {
                let (run, work) = (*run, stage.work());
                self.born(cx, run, pid, work);
            }
            State::Waiting(Waiting::Obstacle { looking: Some(run), work, .. }) => {
                let (run, work) = (*run, *work);
                self.born(cx, run, pid, work);
            }
            State::Stopping(stopping) => {
                stopping.pid = Some(pid);
                if stopping.killed {
                    stopping.deadline = cx.now + DEATH_DEADLINE;
                    cx.actions.push(Action::Kill { run: stopping.run });
                } else {
                    stopping.deadline = cx.now + cx.spec.stop_grace_period;
                    cx.actions.push(Action::Signal { run: stopping.run, signal: cx.spec.stop_signal });
                }
            }
            State::Stopped
            | State::Waiting(_)
            | State::Running { .. }
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => {}
        }
    }

    fn born(&mut self, cx: &mut Context<'_>, run: Run, pid: u32, work: Work) {
        self.state = if work == Work::Server && cx.spec.healthcheck.is_none() {
            State::Running { run, pid, since: cx.now, checks: Checks::new(None, cx.now) }
        } else {
            State::Starting(starting(cx, run, Some(pid), work))
        };
    }

    /// The run's first process could not be made.
    pub(super) fn not_spawned(&mut self, cx: &mut Context<'_>, obstacle: Obstacle) {
        let work = match &self.state {
            State::Starting(Starting { stage, .. }) => stage.work(),
            State::Waiting(Waiting::Obstacle { work, .. }) => *work,
            State::Stopping(stopping) => {
                let then = stopping.then.clone();
                return self.go_on(cx, then);
            }
            State::Stopped
            | State::Waiting(Waiting::Turn { .. } | Waiting::Brake { .. })
            | State::Running { .. }
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => return,
        };
        let look_at = cx.now + LOOK_AGAIN;
        self.state = State::Waiting(Waiting::Obstacle { obstacle, work, look_at, looking: None });
    }

    /// The supervisor that ordered the run died before the run was made.
    pub(super) fn unborn(&mut self, cx: &mut Context<'_>) {
        match &self.state {
            State::Starting(Starting { run, pid: None, stage, .. }) => {
                let (run, work) = (*run, stage.work());
                cx.actions.push(Action::Spawn { run, work });
            }
            State::Waiting(Waiting::Obstacle { looking: Some(run), work, .. }) => {
                let (run, work) = (*run, *work);
                cx.actions.push(Action::Spawn { run, work });
            }
            State::Stopping(Stopping { pid: None, then, .. }) => {
                let then = then.clone();
                self.go_on(cx, then);
            }
            State::Starting(_)
            | State::Stopping(_)
            | State::Stopped
            | State::Waiting(_)
            | State::Running { .. }
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => {}
        }
    }

    /// The supervisor died and another one goes on: gives again the orders whose effect may not have come. Each of them
    /// may be carried out twice without harm.
    pub(super) fn resume(&mut self, cx: &mut Context<'_>) {
        match &mut self.state {
            State::Starting(Starting { run, pid: None, .. })
            | State::Waiting(Waiting::Obstacle { looking: Some(run), .. })
            | State::Stopping(Stopping { run, pid: None, .. }) => cx.actions.push(Action::Recall { run: *run }),
            State::Starting(Starting { stage: Stage::Server(checks), .. }) | State::Running { checks, .. } => {
                if cx.spec.healthcheck.is_some() {
                    // At once: until then people see the old answer with its age.
                    checks.due = Some(cx.now);
                }
            }
            State::Stopping(Stopping { run, killed: true, .. }) => cx.actions.push(Action::Kill { run: *run }),
            State::Stopping(Stopping { run, .. }) => {
                cx.actions.push(Action::Signal { run: *run, signal: cx.spec.stop_signal });
            }
            State::Sweeping(sweeping) => {
                sweeping.again_at = None;
                cx.actions.push(Action::Sweep { run: sweeping.run });
            }
            State::Starting(Starting { stage: Stage::PreStart(_), .. })
            | State::Stopped
            | State::Waiting(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => {}
        }
    }

    /// The run's first process ended. What else there is of the run goes with it before anything follows.
    pub(super) fn exited(&mut self, cx: &mut Context<'_>, exit: Exit) {
        let (run, then) = match &self.state {
            State::Starting(Starting { run, stage: Stage::PreStart(command), .. }) if exit.is_success() => {
                (*run, Then::Next(command + 1))
            }
            State::Starting(Starting { run, stage: Stage::PreStart(command), since, .. }) => {
                let kind = FailureKind::PreStart { command: *command, exit };
                (*run, self.failed(cx, kind, *since))
            }
            State::Starting(Starting { run, since, .. }) => {
                (*run, self.failed(cx, FailureKind::Exited { exit, before_ready: true }, *since))
            }
            State::Running { run, since, .. } if exit.is_success() && self.would_loop(cx) => {
                (*run, self.failed(cx, FailureKind::Exited { exit, before_ready: false }, *since))
            }
            State::Running { run, .. } if exit.is_success() => (*run, Then::Success),
            State::Running { run, since, .. } => {
                (*run, self.failed(cx, FailureKind::Exited { exit, before_ready: false }, *since))
            }
            State::Stopping(stopping) => (stopping.run, stopping.then.clone()),
            State::Sweeping(_)
            | State::Stopped
            | State::Waiting(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => return,
        };
        if then == Then::Success && self.is_stable(cx) {
            self.failures = 0;
        }
        cx.actions.push(Action::Sweep { run });
        self.state = State::Sweeping(Sweeping { run, left: Vec::new(), again_at: None, then });
    }

    /// Everything else of the run was killed and looked for again.
    pub(super) fn swept(&mut self, cx: &mut Context<'_>, left: Vec<Survivor>) {
        match &mut self.state {
            State::Sweeping(sweeping) if left.is_empty() => {
                let then = sweeping.then.clone();
                self.go_on(cx, then);
            }
            State::Sweeping(sweeping) => {
                sweeping.left = left;
                sweeping.again_at = Some(cx.now + LOOK_AGAIN);
            }
            State::Stopping(stopping) => stopping.left = left,
            State::Stopped
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => {}
        }
    }

    /// A health check of the run came to an end.
    pub(super) fn probed(&mut self, cx: &mut Context<'_>, verdict: Verdict) {
        let Some(check) = &cx.spec.healthcheck else { return };
        match &mut self.state {
            State::Starting(Starting { run, pid: Some(pid), stage: Stage::Server(checks), since, .. }) => {
                checks.take(cx.id, check, verdict, cx.now);
                if checks.health == Health::Healthy {
                    self.state = State::Running { run: *run, pid: *pid, since: *since, checks: checks.clone() };
                }
            }
            State::Running { since, checks, .. } => {
                checks.take(cx.id, check, verdict, cx.now);
                if checks.health == Health::Unhealthy && check.restart_unhealthy {
                    let kind = FailureKind::Unhealthy { bad: checks.bad };
                    let since = *since;
                    let then = self.failed(cx, kind, since);
                    self.end(cx, then);
                }
            }
            State::Starting(_)
            | State::Stopped
            | State::Waiting(_)
            | State::Stopping(_)
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => {}
        }
    }

    /// The point that `deadline` named has come.
    pub(super) fn deadline_passed(&mut self, cx: &mut Context<'_>) {
        match &mut self.state {
            State::Starting(Starting { run, pid: Some(_), stage, since, deadline }) => {
                if deadline.is_some_and(|deadline| deadline <= cx.now) {
                    let kind = match stage {
                        Stage::PreStart(command) => {
                            FailureKind::PreStartTimeout { command: *command, after: cx.spec.pre_start_timeout }
                        }
                        Stage::Server(_) => FailureKind::NotReady { after: cx.now.since(*since) },
                    };
                    let since = *since;
                    let then = self.failed(cx, kind, since);
                    self.end(cx, then);
                } else if let Stage::Server(checks) = stage {
                    probe_if_due(cx, *run, checks);
                }
            }
            State::Running { run, checks, .. } => probe_if_due(cx, *run, checks),
            State::Stopping(Stopping { run, killed: true, deadline, .. }) => {
                *deadline = cx.now + DEATH_DEADLINE;
                cx.actions.push(Action::Sweep { run: *run });
            }
            State::Stopping(_) => self.kill(cx),
            State::Sweeping(sweeping) => {
                sweeping.again_at = None;
                cx.actions.push(Action::Sweep { run: sweeping.run });
            }
            State::Backoff { .. } | State::Waiting(Waiting::Brake { .. }) => self.turn(Cause::Failure),
            State::Waiting(Waiting::Obstacle { work, .. }) => {
                let work = *work;
                let run = self.next_run(cx.id);
                if let State::Waiting(Waiting::Obstacle { looking, .. }) = &mut self.state {
                    *looking = Some(run);
                }
                cx.actions.push(Action::Spawn { run, work });
            }
            State::Waiting(Waiting::Turn { .. })
            | State::Starting(Starting { pid: None, .. })
            | State::Stopped
            | State::Failed { .. }
            | State::Completed => {}
        }
    }

    /// What comes after a run of which nothing is left.
    fn go_on(&mut self, cx: &mut Context<'_>, then: Then) {
        if self.goal == Goal::Down {
            self.state = State::Stopped;
            return;
        }
        match then {
            Then::Rest => self.state = State::Stopped,
            Then::Fresh => self.fresh(),
            Then::Next(command) if command < cx.spec.pre_start.len() => self.spawn(cx, Work::PreStart(command)),
            Then::Next(_) => {
                self.prepared = true;
                self.spawn(cx, Work::Server);
            }
            Then::Success => match cx.spec.restart.policy {
                RestartPolicy::No | RestartPolicy::OnFailure => self.state = State::Completed,
                RestartPolicy::Always | RestartPolicy::UnlessStopped => self.turn(Cause::Policy),
            },
            Then::Failure(kind) => self.judge(cx, kind),
        }
    }

    /// Begin as if for the first time.
    fn fresh(&mut self) {
        self.failures = 0;
        self.prepared = false;
        self.last_failure = None;
        self.turn(Cause::Wish);
    }

    fn turn(&mut self, cause: Cause) {
        self.state = State::Waiting(Waiting::Turn { cause, on: Vec::new() });
    }

    /// Notes a failure at the moment that it happens; `judge` draws the consequence once nothing of the run is left.
    fn failed(&mut self, cx: &Context<'_>, kind: FailureKind, since: Mono) -> Then {
        self.failures = if self.is_stable(cx) { 0 } else { self.failures.saturating_add(1) };
        let last_check = self.state.checks().and_then(|checks| checks.last.clone());
        let failure = Failure { kind: kind.clone(), lived: cx.now.since(since), last_check, sent: self.sent.take() };
        self.last_failure = Some((cx.now, failure));
        Then::Failure(kind)
    }

    fn judge(&mut self, cx: &mut Context<'_>, kind: FailureKind) {
        let failure = match &self.last_failure {
            Some((_, failure)) => failure.clone(),
            None => Failure { kind, lived: Duration::ZERO, last_check: None, sent: None },
        };
        let gives_up = cx.spec.restart.max_attempts.is_some_and(|most| self.failures > most);
        if cx.spec.restart.policy == RestartPolicy::No || gives_up {
            self.state = State::Failed { failure };
        } else if self.failures == 0 {
            self.turn(Cause::Failure);
        } else {
            let wait = backoff::wait(&cx.spec.restart, self.failures, cx.seed, cx.id);
            self.state = State::Backoff { until: cx.now + wait, failure };
        }
    }

    /// A success that comes at once, over and over, is none: it backs off as a failure does.
    fn would_loop(&self, cx: &Context<'_>) -> bool {
        let starts_again = matches!(cx.spec.restart.policy, RestartPolicy::Always | RestartPolicy::UnlessStopped);
        starts_again && !self.is_stable(cx)
    }

    /// Stable: healthy for the window, or running that long where there is no check.
    fn is_stable(&self, cx: &Context<'_>) -> bool {
        match &self.state {
            State::Running { since, checks, .. } => {
                let good =
                    if cx.spec.healthcheck.is_some() { checks.healthy_for(cx.now) } else { cx.now.since(*since) };
                good >= cx.spec.restart.window
            }
            State::Stopped
            | State::Waiting(_)
            | State::Starting(_)
            | State::Stopping(_)
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Completed => false,
        }
    }
}

fn starting(cx: &Context<'_>, run: Run, pid: Option<u32>, work: Work) -> Starting {
    let (stage, time) = match work {
        Work::PreStart(command) => (Stage::PreStart(command), Some(cx.spec.pre_start_timeout)),
        Work::Server => {
            let check = cx.spec.healthcheck.as_ref();
            (Stage::Server(Checks::new(check, cx.now)), check.map(HealthCheck::start_deadline))
        }
    };
    let deadline = pid.and(time).map(|time| cx.now + time);
    Starting { run, pid, stage, since: cx.now, deadline }
}

fn probe_if_due(cx: &mut Context<'_>, run: Run, checks: &mut Checks) {
    if checks.due.is_some_and(|due| due <= cx.now) {
        checks.due = None;
        cx.actions.push(Action::Probe { run });
    }
}
