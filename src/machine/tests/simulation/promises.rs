//! What must hold whatever happens, each promise in one place. `world` holds two more where they can break: never two live
//! runs of an instance, and no healthy server ended without a wish.

use std::time::Duration;

use super::super::{
    Action, Event, Exit, Fleet, Goal, Health, Instance, InstanceId, Plan, Request, RequestId, Run, Spec, Stage,
    Starting, State, Stopping, Sweeping, Trouble, Waiting,
};
use super::supervisor::Supervisor;
use super::world::{Happening, Record, World};
use crate::plan;

/// How old the last look at survivors may be: one each second, and a supervisor may die over it.
const LOOK: Duration = Duration::from_secs(2);

/// Notes what a person wishes: it may end healthy servers.
pub(super) fn note_wish(world: &mut World, fleet: &Fleet, request: &Request) {
    let ended = match request {
        Request::Start { .. } | Request::StartAll { .. } | Request::Apply { .. } => Vec::new(),
        Request::Restart { who, .. } | Request::Stop { who } | Request::Signal { who, .. } => who.clone(),
        Request::Down { .. } => fleet.present(),
    };
    note_end(world, fleet, &ended);
}

fn note_end(world: &mut World, fleet: &Fleet, ended: &[InstanceId]) {
    for id in ended {
        world.wished_away[id.index()] = Some((world.now, fleet.instance(*id).state.run()));
    }
}

/// Notes whose servers another plan ends: who is gone from it, and who is another one.
pub(super) fn note_apply(world: &mut World, fleet: &Fleet, plan: &Plan) {
    let old = fleet.plan();
    let is_ended = |id: &InstanceId| {
        let place = plan.find(old.spec(*id).name.as_str());
        place.is_none_or(|place| plan::needs_restart(old.spec(*id), plan.spec(place)))
    };
    let ended: Vec<_> = old.ids().filter(is_ended).collect();
    note_end(world, fleet, &ended);
}

/// Who is the same in another plan is not touched, and who is held stays so.
pub(super) fn about_an_apply(world: &mut World, before: &Fleet, after: &Fleet) {
    for id in after.plan().ids().filter(|id| before.plan().find(after.plan().spec(*id).name.as_str()) == Some(*id)) {
        let (old, new) = (before.instance(id), after.instance(id));
        let is_same = before.plan().spec(id) == after.plan().spec(id);
        if is_same && old.goal == Goal::Up && old.state.run().is_some() && old != new {
            world.broke(format!("a new plan that says nothing else of {id:?} touched it: {old:?}, now {new:?}"));
        }
        if old.held && (!new.held || new.goal == Goal::Up) {
            world.broke(format!("a new plan forgot that a person stopped {id:?}"));
        }
    }
}

/// What runs is what the plan says, and what it has no more ends.
pub(super) fn about_what_runs(world: &mut World, supervisor: &Supervisor) {
    for (pid, process) in world.processes.clone() {
        let instance = supervisor.fleet.instance(process.run.instance);
        let is_running = matches!(instance.state, State::Starting(_) | State::Running { .. });
        let is_its = instance.state.run() == Some(process.run) && instance.goal == Goal::Up;
        if is_running && is_its && !world.is_as_planned(&process) {
            world.broke(format!("pid {pid} of {} ({}) is not what the plan says", process.run, process.spec.name));
        }
    }
    let retired: Vec<_> = world.plan().retired().collect();
    for id in retired {
        if supervisor.goal(id) == Goal::Up {
            world.broke(format!("{id:?} is not in the file, and shall run"));
        }
    }
}

/// A request has its effect once: whoever asks again is known.
pub(super) fn about_a_new_request(world: &mut World, id: RequestId) {
    if world.heard.contains(&id) {
        world.broke(format!("{id:?} was recorded, and is new to the next supervisor"));
    }
}

/// A stop that is answered well leaves nothing; one that is not names who is there.
pub(super) fn about_replies(world: &mut World, fleet: &Fleet, actions: &[Action]) {
    for action in actions {
        let Action::Reply { id, answer } = action else { continue };
        let survivors = answer.troubles.iter().filter(|(_, trouble)| *trouble == Trouble::Survivors);
        for (one, _) in survivors {
            let ended = world.last_ends.get(one).copied().unwrap_or_default();
            if world.living_for(*one).is_empty() && world.now.since(ended) > LOOK {
                let promise = format!("{id:?} names survivors of {one:?}, and there are none");
                world.broke(promise);
            }
        }
    }
    for id in fleet.plan().places() {
        let is_at_rest = fleet.instance(id).state == State::Stopped;
        if is_at_rest && actions.contains(&Action::Changed { instance: id }) {
            let left = world.living_for(id);
            if !left.is_empty() {
                world.broke(format!("{id:?} is stopped, and {left:?} are left of it"));
            }
        }
    }
}

/// How a run ended is known, unless its process was nobody's child that we know.
pub(super) fn about_an_exit(world: &mut World, fleet: &Fleet, event: &Event) {
    let Event::Exited { run, exit: Exit::Unknown } = event else { return };
    let was_sought = matches!(fleet.instance(run.instance).state, State::Starting(_) | State::Running { .. });
    if was_sought && fleet.instance(run.instance).state.run() == Some(*run) && !world.orphans.contains(run) {
        world.broke(format!("nobody knows how {run} ended, though keeper and supervisor never died both"));
    }
}

/// From one record to the next of an instance: generations grow one by one, one run ends once, and each end counts once.
pub(super) fn about_a_record(world: &mut World, id: InstanceId, new: &Record) {
    let Some(old) = world.shared.instances[id.index()].clone() else { return };
    let (old, new) = (&old.instance, &new.instance);
    if new.generation < old.generation || new.generation > old.generation + 1 {
        world.broke(format!("the generation of {id:?} went from {} to {}", old.generation, new.generation));
    }
    let is_same_run = old.state.run().is_some() && old.state.run() == new.state.run();
    let (was_over, is_over) = (is_sweeping(&old.state), is_sweeping(&new.state));
    if is_same_run && was_over && !is_over {
        world.broke(format!("{:?} came back to life", old.state.run()));
    }
    // A run may be noticed as failed before it is over (unhealthy, too slow), but never after.
    let may_fail = !was_over && old.state.run().is_some();
    if new.failures > old.failures && (new.failures > old.failures + 1 || !may_fail) {
        world.broke(format!("failures of {id:?} went from {} to {} by themselves", old.failures, new.failures));
    }
    let starts_again = new.generation > old.generation;
    if new.restarts > old.restarts && (new.restarts > old.restarts + 1 || !starts_again) {
        world.broke(format!("restarts of {id:?} went from {} to {} by themselves", old.restarts, new.restarts));
    }
}

fn is_sweeping(state: &State) -> bool {
    matches!(state, State::Sweeping(_))
}

/// What was recorded last is what the successor goes on with.
pub(super) fn about_a_successor(world: &mut World, before: &[Option<Record>], fleet: &Fleet) {
    for id in world.places() {
        let Some(Some(before)) = before.get(id.index()) else { continue };
        let (before, after) = (&before.instance, fleet.instance(id));
        let kept = [
            (before.goal == after.goal, "goal"),
            (before.held == after.held, "held"),
            (before.generation <= after.generation, "generation"),
            (before.failures <= after.failures || is_over_now(after), "failures"),
        ];
        for (_, what) in kept.iter().filter(|(is_kept, _)| !is_kept) {
            world.broke(format!("{what} of {id:?} was forgotten with its supervisor: {before:?}, now {after:?}"));
        }
    }
}

fn is_over_now(instance: &Instance) -> bool {
    instance.failures == 0
}

/// Whoever is on the way somewhere has somebody who moves it: nobody waits for what will never come.
pub(super) fn about_standstill(world: &mut World, supervisor: &Supervisor) {
    for id in world.places() {
        let instance = supervisor.fleet.instance(id);
        let stuck = standstill(world, supervisor, id);
        if let Some(why) = stuck {
            let promise = format!("{id:?} is stuck: {why}; {:?}", instance.state);
            world.broke(promise);
        }
        if instance.state.deadline().is_some_and(|deadline| deadline < world.now) {
            let promise = format!("{id:?} has a deadline in the past: {:?}", instance.state);
            world.broke(promise);
        }
    }
}

fn standstill(world: &World, supervisor: &Supervisor, id: InstanceId) -> Option<&'static str> {
    let instance = supervisor.fleet.instance(id);
    let spec = supervisor.fleet.plan().spec(id);
    let is_up = instance.goal == Goal::Up;
    let is_expected = |run: &Run| supervisor.expected.contains(run);
    match &instance.state {
        State::Stopped if is_up => Some("it shall run, and nobody starts it"),
        State::Waiting(_) | State::Backoff { .. } | State::Failed { .. } | State::Completed
            if !is_up && instance.state.run().is_none() =>
        {
            Some("it shall not run, and does not rest")
        }
        State::Waiting(Waiting::Obstacle { looking: Some(run), .. })
        | State::Starting(Starting { run, pid: None, .. })
        | State::Stopping(Stopping { run, pid: None, .. }) => (!is_expected(run)).then_some("nobody makes it"),
        State::Starting(Starting { run, stage: Stage::Server(checks), .. }) | State::Running { run, checks, .. } => {
            let is_checked = spec.healthcheck.is_none() || checks.due.is_some() || supervisor.probing.contains(run);
            if is_checked { unnoticed(world, supervisor, *run) } else { Some("nobody checks it") }
        }
        State::Starting(Starting { run, stage: Stage::PreStart(_), .. }) | State::Stopping(Stopping { run, .. }) => {
            unnoticed(world, supervisor, *run)
        }
        State::Sweeping(Sweeping { run, again_at: None, .. }) => {
            let is_swept =
                world.is_pending(|it| matches!(it, Happening::SweepRound { run: swept, .. } if swept == run));
            (!is_swept).then_some("nobody sweeps it")
        }
        State::Waiting(Waiting::Turn { on, .. }) => on.is_empty().then_some("it waits for nobody"),
        State::Backoff { until, .. } => {
            (*until > world.now + spec.restart.max_delay).then_some("it waits longer than it may")
        }
        State::Waiting(Waiting::Brake { until }) => {
            (*until > world.now + Duration::from_mins(1)).then_some("the brake holds it for ever")
        }
        State::Waiting(Waiting::Obstacle { look_at, looking: None, .. }) => {
            (*look_at > world.now + Duration::from_secs(1)).then_some("nobody looks at what is in its way")
        }
        State::Sweeping(Sweeping { again_at: Some(_), .. })
        | State::Stopped
        | State::Failed { .. }
        | State::Completed => None,
    }
}

/// A run whose first process is gone, without anybody who would notice.
fn unnoticed(world: &World, supervisor: &Supervisor, run: Run) -> Option<&'static str> {
    let pid = supervisor.knows(run);
    let is_alive = pid.is_some_and(|pid| world.is_alive(pid));
    let is_noticed = || world.is_pending(|it| matches!(it, Happening::Noticed { run: noticed, .. } if *noticed == run));
    (!is_alive && !is_noticed()).then_some("its process is gone, and nobody notices")
}

/// In calm times, with everything wished up, everything runs and is healthy, or has done its work.
pub(super) fn about_calm(world: &mut World, fleet: &Fleet) {
    let names = |plan: &Plan| plan.ids().map(|id| plan.spec(id).name.clone()).collect::<Vec<_>>();
    let is_as_written = |id: InstanceId| {
        let (is, shall) = (fleet.plan().spec(id), world.file.find(fleet.plan().spec(id).name.as_str()));
        shall.is_some_and(|shall| {
            Spec { depends_on: Vec::new(), ..is.clone() }
                == Spec { depends_on: Vec::new(), ..world.file.spec(shall).clone() }
        })
    };
    if names(fleet.plan()) != names(&world.file) || !fleet.plan().ids().all(is_as_written) {
        world.broke("the plan is not what the file says, though somebody asked for that");
    }
    for id in fleet.plan().retired() {
        if fleet.instance(id).state != State::Stopped {
            world.broke(format!("{id:?} is not in the file, and not gone: {:?}", fleet.instance(id).state));
        }
    }
    let left = world.living(|process| world.file.find(process.spec.name.as_str()).is_none() && !process.is_left);
    if !left.is_empty() {
        world.broke(format!("{left:?} are left of instances that the file has no more"));
    }
    for id in world.ids() {
        let instance = fleet.instance(id);
        let is_well = match &instance.state {
            State::Completed => true,
            State::Running { checks, .. } => {
                let check = fleet.plan().spec(id).healthcheck.as_ref();
                checks.health == Health::Healthy || !check.is_some_and(|check| check.restart_unhealthy)
            }
            State::Stopped
            | State::Waiting(_)
            | State::Starting(_)
            | State::Stopping(_)
            | State::Sweeping(_)
            | State::Backoff { .. }
            | State::Failed { .. } => false,
        };
        if !is_well {
            let promise = format!("{id:?} does not run though nothing is in the way: {instance:?}");
            world.broke(promise);
        }
    }
}
