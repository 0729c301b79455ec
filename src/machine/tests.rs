//! Stories of fleets: what is said to the machine and what it orders, in virtual time. And a fleet under random faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::{Exit, Goal, Health, InstanceId, InstanceName, Mono, Phase, Run, Signal};
use crate::plan::spec::{
    Brake, Cache, CacheBackend, Condition, Database, Dependency, Facts, Framework, HealthCheck, HealthTest, Logging,
    Plan, Restart, RestartPolicy, Spec,
};

mod simulation;

const A: InstanceId = InstanceId(0);
const B: InstanceId = InstanceId(1);

fn spec(name: &str) -> Spec {
    let here = PathBuf::from("/lane").join(name);
    Spec {
        name: InstanceName::parse(name).unwrap(),
        facts: Facts {
            framework: Framework::Generic,
            lane: InstanceName::parse(name).unwrap(),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: Some(8000),
            state: here.clone(),
            database: Database::Sqlite { path: here.join("db") },
            cache: Cache {
                backend: CacheBackend::Dummy,
                url: None,
                prefix: name.to_owned(),
                location: name.to_owned(),
                timeout: Duration::from_mins(1),
                clear: None,
            },
            session_cookie: format!("s_{name}"),
            csrf_cookie: format!("c_{name}"),
            static_root: here.join("static"),
            media_root: here.join("media"),
            tmp: here.join("tmp"),
            log_dir: here.join("log"),
            access_log: here.join("log/access.log"),
            secret_file: here.join("secret"),
            secret_in_environment: true,
            channels_url: None,
            channels_prefix: name.to_owned(),
        },
        command: vec!["server".to_owned()],
        working_dir: here,
        environment: BTreeMap::new(),
        inherited: BTreeSet::new(),
        pre_start: Vec::new(),
        pre_start_timeout: Duration::from_mins(10),
        healthcheck: Some(HealthCheck {
            test: HealthTest::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            retries: 3,
            start_period: Duration::from_secs(20),
            start_interval: Duration::from_millis(200),
            restart_unhealthy: true,
        }),
        restart: Restart {
            policy: RestartPolicy::OnFailure,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_mins(1),
            max_attempts: None,
            window: Duration::from_secs(10),
        },
        stop_signal: Signal::TERM,
        stop_grace_period: Duration::from_secs(10),
        depends_on: Vec::new(),
        logging: Logging { max_size: 1, max_files: 1, compress: false },
        database_setup: None,
    }
}

fn plan(specs: Vec<Spec>) -> Arc<Plan> {
    Arc::new(Plan {
        project: "p".to_owned(),
        namespace: None,
        file: PathBuf::from("/p/instances.yaml"),
        state_dir: PathBuf::from("/p/var"),
        profile: None,
        restart_brake: Some(Brake { starts: 10, per: Duration::from_secs(1) }),
        presets: BTreeMap::new(),
        order: (0..).map(InstanceId).take(specs.len()).collect(),
        revision: 0,
        specs,
    })
}

/// A fleet, a clock, and what was ordered.
struct Story {
    fleet: Fleet,
    now: Mono,
    told: String,
    requests: u64,
}

impl Story {
    fn of(specs: Vec<Spec>) -> Self {
        Self { fleet: Fleet::new(plan(specs), 7), now: Mono::default(), told: String::new(), requests: 0 }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.fleet.step(event, self.now);
        assert_eq!(self.fleet.overlooked(self.now), []);
        for action in &actions {
            let _ = writeln!(self.told, "{} {action:?}", self.now);
        }
        actions
    }

    fn ask(&mut self, request: Request) -> Vec<Action> {
        self.requests += 1;
        self.step(Event::Request { id: RequestId(self.requests), request })
    }

    fn start(&mut self, who: &[InstanceId]) -> Vec<Action> {
        self.ask(Request::Start { who: who.to_vec(), wait: Wait::Started })
    }

    fn stop(&mut self, who: &[InstanceId]) -> Vec<Action> {
        self.ask(Request::Stop { who: who.to_vec() })
    }

    fn run(&self, id: InstanceId) -> Run {
        self.fleet.instance(id).state.run().expect("a run")
    }

    fn born(&mut self, id: InstanceId) -> Vec<Action> {
        self.step(Event::Spawned { run: self.run(id), pid: 100 + id.0 })
    }

    fn probed(&mut self, id: InstanceId, verdict: Verdict) -> Vec<Action> {
        self.step(Event::Probed { run: self.run(id), verdict })
    }

    fn good(&mut self, id: InstanceId) -> Vec<Action> {
        self.probed(id, Verdict::Good { status: None, took: Duration::from_millis(3) })
    }

    fn dies(&mut self, id: InstanceId, exit: Exit) -> Vec<Action> {
        let run = self.run(id);
        self.step(Event::Exited { run, exit });
        self.step(Event::Swept { run, left: Vec::new() })
    }

    /// Time passes, deadline by deadline.
    fn wait(&mut self, duration: Duration) -> Vec<Action> {
        let end = self.now + duration;
        let mut actions = Vec::new();
        while let Some(next) = self.fleet.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            actions.extend(self.step(Event::DeadlinePassed));
        }
        self.now = end;
        actions
    }

    /// Started, born, healthy, and so for the window.
    fn stable(&mut self, id: InstanceId) {
        self.start(&[id]);
        self.born(id);
        self.good(id);
        self.wait(Duration::from_secs(11));
        self.good(id);
        self.told.clear();
    }

    fn phase(&self, id: InstanceId) -> Phase {
        self.fleet.instance(id).state.phase()
    }
}

fn spawns(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Spawn { .. })).count()
}

fn reply(actions: &[Action]) -> Option<&Answer> {
    actions.iter().find_map(|action| if let Action::Reply { answer, .. } = action { Some(answer) } else { None })
}

const CRASH: Exit = Exit::Code(1);

#[test]
fn a_start_goes_through_pre_start_to_the_first_good_answer() {
    let mut one = spec("a");
    one.pre_start = vec![vec!["migrate".to_owned()], vec!["seed".to_owned()]];
    let mut story = Story::of(vec![one]);
    story.start(&[A]);
    story.born(A);
    story.dies(A, Exit::Code(0));
    story.born(A);
    story.dies(A, Exit::Code(0));
    story.born(A);
    story.wait(Duration::from_millis(250));
    story.probed(A, Verdict::Bad(Fault::Refused));
    story.wait(Duration::from_millis(250));
    story.good(A);
    insta::assert_snapshot!(story.told, @r"
    0.000s Spawn { run: Run { instance: InstanceId(0), generation: 1 }, work: PreStart(0) }
    0.000s Changed { instance: InstanceId(0) }
    0.000s Sweep { run: Run { instance: InstanceId(0), generation: 1 } }
    0.000s Spawn { run: Run { instance: InstanceId(0), generation: 2 }, work: PreStart(1) }
    0.000s Changed { instance: InstanceId(0) }
    0.000s Sweep { run: Run { instance: InstanceId(0), generation: 2 } }
    0.000s Spawn { run: Run { instance: InstanceId(0), generation: 3 }, work: Server }
    0.000s Changed { instance: InstanceId(0) }
    0.000s Reply { id: RequestId(1), answer: Answer { troubles: [] } }
    0.200s Probe { run: Run { instance: InstanceId(0), generation: 3 } }
    0.450s Probe { run: Run { instance: InstanceId(0), generation: 3 } }
    0.500s Changed { instance: InstanceId(0) }
    ");
}

#[test]
fn a_stable_server_is_back_at_once_and_an_unstable_one_later_and_later() {
    let mut story = Story::of(vec![spec("a")]);
    story.stable(A);
    assert_eq!(spawns(&story.dies(A, CRASH)), 1, "at once");
    let mut waits = Vec::new();
    for _ in 0..8 {
        story.born(A);
        assert_eq!(spawns(&story.dies(A, CRASH)), 0);
        assert_eq!(story.phase(A), Phase::Backoff);
        let from = story.now;
        let next = story.fleet.next_deadline().unwaited();
        waits.push(next.since(from).as_secs_f64());
        story.now = next;
        assert_eq!(spawns(&story.step(Event::DeadlinePassed)), 1);
    }
    assert!(waits.windows(2).all(|pair| pair[0] < pair[1] || pair[1] >= 30.0), "{waits:?}");
    assert!(waits[0] >= 0.5 && waits[0] <= 1.0 && waits[7] <= 60.0, "{waits:?}");
    assert_eq!(story.fleet.instance(A).restarts, 9);
    story.stop(&[A]);
    story.born(A);
    story.dies(A, Exit::Signal { signal: Signal::TERM, core: false });
    story.start(&[A]);
    assert_eq!((story.fleet.instance(A).restarts, story.fleet.instance(A).failures), (0, 0), "start clears the count");
}

trait Unwaited {
    fn unwaited(self) -> Mono;
}

impl Unwaited for Option<Mono> {
    fn unwaited(self) -> Mono {
        self.expect("a deadline")
    }
}

#[test]
fn a_signal_of_a_person_goes_to_the_first_process_and_changes_no_goal() {
    let mut story = Story::of(vec![spec("a"), spec("b")]);
    story.start(&[A]);
    let run = story.run(A);
    story.step(Event::Spawned { run, pid: 7 });
    let actions = story.ask(Request::Signal { who: vec![A, B], signal: Signal::KILL });
    let delivered: Vec<_> = actions.iter().filter(|action| matches!(action, Action::Deliver { .. })).collect();
    assert_eq!(delivered, [&Action::Deliver { id: RequestId(2), run, signal: Signal::KILL }]);
    assert_eq!(reply(&actions).unwrap().troubles, [(B, Trouble::NoProcess)], "who has none is named");
    assert_eq!((story.fleet.instance(A).goal, story.fleet.instance(B).goal), (Goal::Up, Goal::Down));
    assert!(matches!(story.fleet.standing(RequestId(2)), Standing::Answered(_)), "asked again, it is not sent again");

    // The policy acts, and what a person did is known beside what came of it.
    story.step(Event::Exited { run, exit: Exit::Signal { signal: Signal::KILL, core: false } });
    story.step(Event::Swept { run, left: Vec::new() });
    let State::Backoff { failure, .. } = &story.fleet.instance(A).state else {
        panic!("{:?}", story.fleet.instance(A))
    };
    assert_eq!(failure.sent.map(|sent| sent.signal), Some(Signal::KILL));
    assert_eq!(story.fleet.instance(A).sent, None, "the next run has not been sent it");
}

#[test]
fn a_signal_to_nobody_in_particular_goes_to_whoever_runs() {
    let mut story = Story::of(vec![spec("a"), spec("b")]);
    let actions = story.ask(Request::Signal { who: Vec::new(), signal: Signal::TERM });
    assert_eq!(reply(&actions).unwrap().troubles, [], "that nobody runs is no trouble of anybody");
    story.start(&[B]);
    story.step(Event::Spawned { run: story.run(B), pid: 7 });
    let actions = story.ask(Request::Signal { who: Vec::new(), signal: Signal::TERM });
    assert!(actions.contains(&Action::Deliver { id: RequestId(3), run: story.run(B), signal: Signal::TERM }));
    assert_eq!(reply(&actions).unwrap().troubles, []);
}

#[test]
fn a_successor_does_not_signal_again() {
    let mut story = Story::of(vec![spec("a")]);
    story.start(&[A]);
    story.step(Event::Spawned { run: story.run(A), pid: 7 });
    story.ask(Request::Signal { who: vec![A], signal: Signal::TERM });
    let (instances, memory) = (vec![story.fleet.instance(A).clone()], story.fleet.memory());
    let mut successor = Fleet::restore(Arc::clone(story.fleet.plan()), 7, instances, memory);
    assert!(!successor.resume(story.now).iter().any(|action| matches!(action, Action::Deliver { .. })));
    assert_eq!(successor.instance(A).sent.map(|sent| sent.signal), Some(Signal::TERM), "but knows of it");
}

#[test]
fn attempts_end_where_the_policy_says() {
    let mut one = spec("a");
    one.restart.max_attempts = Some(2);
    let mut story = Story::of(vec![one]);
    story.start(&[A]);
    for _ in 0..2 {
        story.born(A);
        story.dies(A, CRASH);
        assert_eq!(story.phase(A), Phase::Backoff);
        story.wait(Duration::from_mins(1));
    }
    story.born(A);
    story.dies(A, CRASH);
    assert_eq!(story.phase(A), Phase::Failed);
    assert_eq!(story.fleet.next_deadline(), None);
}

#[test]
fn success_and_failure_follow_the_policy() {
    // policy, exit, ready before it -> phase. Exit 0 before the first good answer is a failure.
    let table = [
        (RestartPolicy::No, 0, true, Phase::Completed),
        (RestartPolicy::No, 1, true, Phase::Failed),
        (RestartPolicy::No, 0, false, Phase::Failed),
        (RestartPolicy::OnFailure, 0, true, Phase::Completed),
        (RestartPolicy::OnFailure, 1, false, Phase::Backoff),
        (RestartPolicy::OnFailure, 0, false, Phase::Backoff),
        (RestartPolicy::Always, 0, true, Phase::Backoff),
        (RestartPolicy::Always, 1, false, Phase::Backoff),
        (RestartPolicy::UnlessStopped, 0, true, Phase::Backoff),
        (RestartPolicy::UnlessStopped, 1, false, Phase::Backoff),
    ];
    for (policy, code, ready, phase) in table {
        let mut one = spec("a");
        one.restart.policy = policy;
        let mut story = Story::of(vec![one]);
        story.start(&[A]);
        story.born(A);
        if ready {
            story.good(A);
        }
        story.dies(A, Exit::Code(code));
        assert_eq!(story.phase(A), phase, "{policy:?}, exit {code}, ready {ready}");
    }
}

#[test]
fn success_of_a_stable_server_is_no_failure_and_success_in_a_loop_is() {
    let mut one = spec("a");
    one.restart.policy = RestartPolicy::Always;
    one.healthcheck = None;
    let mut story = Story::of(vec![one]);
    story.start(&[A]);
    story.born(A);
    story.wait(Duration::from_secs(11));
    assert_eq!(spawns(&story.dies(A, Exit::Code(0))), 1, "at once");
    story.born(A);
    assert_eq!(spawns(&story.dies(A, Exit::Code(0))), 0);
    assert_eq!(story.phase(A), Phase::Backoff);
}

#[test]
fn the_brake_spreads_restarts_of_the_whole_fleet() {
    let many: Vec<_> = (0..30).map(|i| spec(&format!("i{i}"))).collect();
    let mut story = Story::of(many);
    let all: Vec<_> = story.fleet.plan().ids().collect();
    assert_eq!(spawns(&story.start(&all)), 30, "a wish is never braked");
    for id in &all {
        story.born(*id);
        story.good(*id);
    }
    story.wait(Duration::from_secs(11));
    for id in &all {
        story.good(*id);
    }
    let at_once: usize = all.iter().map(|id| spawns(&story.dies(*id, CRASH))).sum();
    assert_eq!(at_once, 10);
    assert_eq!(spawns(&story.wait(Duration::from_secs(1))), 10);
    assert_eq!(spawns(&story.wait(Duration::from_secs(1))), 10);
}

#[test]
fn an_unhealthy_server_is_replaced() {
    let mut story = Story::of(vec![spec("a")]);
    story.stable(A);
    for _ in 0..2 {
        story.probed(A, Verdict::Bad(Fault::TimedOut { after: Duration::from_secs(2) }));
        story.wait(Duration::from_secs(5));
    }
    assert_eq!((story.phase(A), story.fleet.instance(A).state.health()), (Phase::Running, Health::Healthy));
    let actions = story.probed(A, Verdict::Bad(Fault::TimedOut { after: Duration::from_secs(2) }));
    assert!(actions.iter().any(|action| matches!(action, Action::Signal { signal: Signal::TERM, .. })));
    assert_eq!(story.phase(A), Phase::Stopping);
    assert!(story.wait(Duration::from_secs(10)).iter().any(|action| matches!(action, Action::Kill { .. })));
    assert_eq!(spawns(&story.dies(A, Exit::Signal { signal: Signal::KILL, core: false })), 1, "it was stable");
}

#[test]
fn a_foreign_listener_is_no_reason_to_restart() {
    let mut story = Story::of(vec![spec("a")]);
    story.stable(A);
    let owner = Owner { pid: Some(9), command: "nc".to_owned(), address: "127.0.0.1:8000".to_owned() };
    for _ in 0..5 {
        story.probed(A, Verdict::Conflict { owner: owner.clone() });
        story.wait(Duration::from_secs(5));
    }
    assert_eq!((story.phase(A), story.fleet.instance(A).state.health()), (Phase::Running, Health::PortConflict));
    story.good(A);
    assert_eq!(story.fleet.instance(A).state.health(), Health::Healthy);
}

#[test]
fn a_start_that_takes_too_long_is_a_failure() {
    let mut story = Story::of(vec![spec("a")]);
    story.start(&[A]);
    story.born(A);
    while story.phase(A) == Phase::Starting && story.now < Mono::from_millis(60_000) {
        story.wait(Duration::from_millis(100));
        if story.fleet.instance(A).state.checks().is_some_and(|checks| checks.due.is_none()) {
            story.probed(A, Verdict::Bad(Fault::Refused));
        }
    }
    assert_eq!(story.phase(A), Phase::Stopping);
    assert!(story.now >= Mono::from_millis(35_000) && story.now < Mono::from_millis(35_200), "{}", story.now);
    story.dies(A, CRASH);
    let (_, failure) = story.fleet.instance(A).last_failure.clone().unwrap();
    assert!(matches!(failure.kind, FailureKind::NotReady { .. }));
    assert_eq!(failure.last_check.unwrap().verdict, Verdict::Bad(Fault::Refused));
}

#[test]
fn an_obstacle_is_looked_at_each_second_until_it_is_gone() {
    let mut story = Story::of(vec![spec("a")]);
    let actions = story.ask(Request::Start { who: vec![A], wait: Wait::Healthy { timeout: Duration::from_mins(1) } });
    assert_eq!(reply(&actions), None);
    let obstacle = Obstacle::Program { path: PathBuf::from("/no"), error: "no such file".to_owned() };
    let actions = story.step(Event::NotSpawned { run: story.run(A), obstacle: obstacle.clone() });
    assert_eq!(reply(&actions).unwrap().troubles, [(A, Trouble::NotUp)], "who waits is told at once");
    for _ in 0..3 {
        assert_eq!(story.phase(A), Phase::Waiting);
        assert_eq!(spawns(&story.wait(Duration::from_secs(1))), 1, "one look a second");
        story.step(Event::NotSpawned { run: story.run(A), obstacle: obstacle.clone() });
    }
    story.wait(Duration::from_secs(1));
    story.born(A);
    assert_eq!(story.phase(A), Phase::Starting);
    assert_eq!((story.fleet.instance(A).restarts, story.fleet.instance(A).failures), (0, 0));
}

#[test]
fn a_dependency_is_waited_for_and_stopped_last() {
    let mut b = spec("b");
    b.depends_on = vec![Dependency { on: A, condition: Condition::ServiceHealthy }];
    let mut story = Story::of(vec![spec("a"), b]);
    assert_eq!(spawns(&story.start(&[B])), 1, "only a, whom b needs");
    assert_eq!((story.phase(A), story.phase(B)), (Phase::Starting, Phase::Waiting));
    story.born(A);
    assert_eq!(spawns(&story.good(A)), 1);
    story.born(B);
    story.good(B);
    story.ask(Request::Down { now: false });
    assert_eq!((story.phase(A), story.phase(B)), (Phase::Running, Phase::Stopping), "b first");
    story.dies(B, CRASH);
    assert_eq!((story.phase(A), story.phase(B)), (Phase::Stopping, Phase::Stopped));
    let actions = story.dies(A, CRASH);
    assert!(reply(&actions).unwrap().troubles.is_empty());
    assert_eq!(actions.last(), Some(&Action::Exit));
}

#[test]
fn who_waits_for_a_dependent_hears_of_a_hopeless_dependency() {
    let mut b = spec("b");
    b.depends_on = vec![Dependency { on: A, condition: Condition::ServiceHealthy }];
    let mut story = Story::of(vec![spec("a"), b]);
    story.ask(Request::Start { who: vec![B], wait: Wait::Healthy { timeout: Duration::from_mins(1) } });
    story.born(A);
    let actions = story.dies(A, CRASH);
    assert_eq!(reply(&actions).unwrap().troubles, [(B, Trouble::Dependency { on: A })]);
    assert_eq!(story.phase(B), Phase::Waiting, "b starts all the same once a is healthy");
}

#[test]
fn survivors_are_named_and_keep_a_second_copy_from_starting() {
    let mut story = Story::of(vec![spec("a")]);
    story.stable(A);
    story.stop(&[A]);
    let run = story.run(A);
    story.step(Event::Exited { run, exit: CRASH });
    let left = vec![Survivor { pid: 5, command: "stuck".to_owned(), state: "D".to_owned() }];
    let actions = story.step(Event::Swept { run, left });
    assert_eq!(reply(&actions).unwrap().troubles, [(A, Trouble::Survivors)]);
    assert_eq!(spawns(&story.start(&[A])), 0);
    assert!(story.wait(Duration::from_secs(1)).contains(&Action::Sweep { run }));
    assert_eq!(spawns(&story.step(Event::Swept { run, left: Vec::new() })), 1);
}

#[test]
fn a_stop_before_birth_reaches_the_newborn() {
    let mut story = Story::of(vec![spec("a")]);
    story.start(&[A]);
    let run = story.run(A);
    let actions = story.stop(&[A]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal { .. })), "nobody is there yet");
    assert_eq!(reply(&actions).unwrap().troubles, [(A, Trouble::Overruled)], "the older wish is answered");
    let actions = story.step(Event::Spawned { run, pid: 4 });
    assert!(actions.contains(&Action::Signal { run, signal: Signal::TERM }));
    assert!(reply(&story.dies(A, CRASH)).unwrap().troubles.is_empty());
}

#[test]
fn facts_of_an_older_run_change_nothing() {
    let mut story = Story::of(vec![spec("a")]);
    story.stable(A);
    let old = story.run(A);
    story.dies(A, CRASH);
    story.born(A);
    let before = story.fleet.clone();
    for event in [
        Event::Exited { run: old, exit: CRASH },
        Event::Probed { run: old, verdict: Verdict::Bad(Fault::Refused) },
        Event::Swept { run: old, left: Vec::new() },
        Event::NotSpawned { run: old, obstacle: Obstacle::Resources { error: String::new() } },
    ] {
        assert_eq!(story.step(event), []);
    }
    assert_eq!(story.fleet, before);
}

#[test]
fn a_restart_is_answered_by_the_new_server_not_the_old() {
    let mut story = Story::of(vec![spec("a")]);
    story.stable(A);
    let actions = story.ask(Request::Restart { who: vec![A], wait: Wait::Healthy { timeout: Duration::from_mins(1) } });
    assert_eq!(reply(&actions), None);
    story.dies(A, CRASH);
    story.born(A);
    assert!(reply(&story.good(A)).unwrap().troubles.is_empty());
}

/// The fleet shall have these instances.
fn apply(story: &mut Story, specs: Vec<Spec>, heirs: &[(&str, &str)]) -> Vec<Action> {
    let old = Arc::clone(story.fleet.plan());
    let is_free = |id| story.fleet.instance(id).state == State::Stopped;
    let plan = Arc::new(crate::plan::merge(&old, Plan::clone(&plan(specs)), is_free));
    let name = |name: &str| InstanceName::parse(name).unwrap();
    let heirs = heirs.iter().map(|(heir, holder)| (name(heir), name(holder))).collect();
    story.ask(Request::Apply { plan, heirs, wait: Wait::Started })
}

fn with_command(name: &str, command: &str) -> Spec {
    Spec { command: vec![command.to_owned()], ..spec(name) }
}

/// Its server was told to end, and does.
fn ends(story: &mut Story, id: InstanceId) -> Vec<Action> {
    let run = story.run(id);
    let mut actions = story.step(Event::Exited { run, exit: Exit::Unknown });
    actions.extend(story.step(Event::Swept { run, left: Vec::new() }));
    actions
}

#[test]
fn an_apply_touches_only_what_changed() {
    let mut story = Story::of(vec![spec("a"), spec("b")]);
    story.stable(A);
    story.stable(B);
    let before = story.fleet.instance(A).clone();
    let actions = apply(&mut story, vec![spec("a"), with_command("b", "other")], &[]);
    assert_eq!(*story.fleet.instance(A), before);
    assert!(actions.contains(&Action::Signal { run: story.run(B), signal: Signal::TERM }), "{actions:?}");
    assert_eq!(reply(&actions), None, "it is answered after its effect");
    assert_eq!(spawns(&ends(&mut story, B)), 1);
    let actions = story.born(B);
    assert_eq!(reply(&actions), Some(&Answer::default()));
    assert_eq!(story.fleet.instance(B).restarts, 0, "asked for, not a failure");
}

#[test]
fn who_ends_is_asked_as_it_was_promised_when_it_started() {
    let mut story = Story::of(vec![spec("a")]);
    story.stable(A);
    let changed = Spec { stop_signal: Signal::from_number(2), ..with_command("a", "other") };
    let actions = apply(&mut story, vec![changed], &[]);
    assert!(actions.contains(&Action::Signal { run: story.run(A), signal: Signal::TERM }), "{actions:?}");
}

#[test]
fn an_apply_stops_what_is_gone_and_starts_what_is_new_and_leaves_what_a_person_stopped() {
    let mut story = Story::of(vec![spec("a"), spec("b")]);
    story.stable(A);
    story.stop(&[B]);
    let actions = apply(&mut story, vec![with_command("b", "other"), spec("c")], &[]);
    let c = story.fleet.plan().find("c").unwrap();
    assert_eq!(story.phase(B), Phase::Stopped, "held");
    assert_eq!(spawns(&actions), 1);
    assert_eq!(story.phase(A), Phase::Stopping);
    assert_eq!(story.fleet.present(), [B, c, A], "the file's order, then who leaves");
    assert_eq!(reply(&story.born(c)), None);
    assert_eq!(reply(&ends(&mut story, A)), Some(&Answer::default()));
    assert_eq!(story.fleet.present(), [B, c]);
    let actions = story.start(&[A]);
    assert_eq!(reply(&actions).unwrap().troubles, [(A, Trouble::Retired)]);
}

#[test]
fn who_takes_over_a_port_waits_until_its_holder_is_gone() {
    let mut story = Story::of(vec![spec("a"), spec("b")]);
    story.stable(A);
    story.stable(B);
    let actions = apply(&mut story, vec![with_command("a", "x"), with_command("b", "x")], &[("a", "b"), ("b", "a")]);
    assert_eq!(spawns(&actions), 0);
    assert_eq!(spawns(&ends(&mut story, A)), 0, "b still has its port");
    assert_eq!(story.fleet.instance(A).state, State::Waiting(Waiting::Turn { cause: Cause::Wish, on: vec![B] }));
    let again = story.fleet.memory();
    let instances = [A, B].map(|id| story.fleet.instance(id).clone()).to_vec();
    story.fleet = Fleet::restore(Arc::clone(story.fleet.plan()), 7, instances, again);
    let actions = story.fleet.resume(story.now);
    assert_eq!(spawns(&actions), 0, "the next supervisor knows it too");
    assert_eq!(spawns(&ends(&mut story, B)), 2);
}

#[test]
fn who_takes_over_what_another_one_waits_for_waits_with_it() {
    let mut story = Story::of(vec![spec("a"), spec("b")]);
    story.stable(A);
    // `b` is to have what `a` has, and then `c` is, before `a` has let go of it.
    apply(&mut story, vec![with_command("a", "x"), spec("b")], &[("b", "a")]);
    story.start(&[B]);
    let actions = apply(&mut story, vec![with_command("a", "x"), with_command("b", "x"), spec("c")], &[("c", "b")]);
    assert_eq!(spawns(&actions), 0, "{actions:?}");
    assert_eq!(spawns(&ends(&mut story, A)), 3);
}

#[test]
fn a_name_that_comes_back_while_it_stops_starts_after_its_end() {
    let mut story = Story::of(vec![spec("a"), spec("b")]);
    story.stable(A);
    story.stable(B);
    apply(&mut story, vec![spec("b")], &[]);
    let first = RequestId(story.requests);
    let actions = apply(&mut story, vec![spec("a"), spec("b")], &[]);
    let overruled = Action::Reply { id: first, answer: Answer { troubles: vec![(A, Trouble::Overruled)] } };
    assert!(actions.contains(&overruled), "{actions:?}");
    assert_eq!(spawns(&ends(&mut story, A)), 1);
    assert_eq!(reply(&story.born(A)), Some(&Answer::default()));
}

#[test]
fn a_place_is_given_to_a_new_name_and_its_runs_are_counted_on() {
    let mut story = Story::of(vec![spec("n0")]);
    story.stable(A);
    for number in 1..200 {
        apply(&mut story, vec![spec(&format!("n{number}"))], &[(&format!("n{number}"), &format!("n{}", number - 1))]);
        let id = story.fleet.plan().ids().next().unwrap();
        let old = story.fleet.plan().retired().find(|old| story.fleet.instance(*old).state.run().is_some()).unwrap();
        assert_eq!(spawns(&ends(&mut story, old)), 1);
        story.born(id);
        story.good(id);
    }
    assert_eq!(story.fleet.plan().specs.len(), 2);
    assert_eq!(story.run(story.fleet.plan().ids().next().unwrap()).generation, 100);
}

#[test]
fn what_needs_no_restart_takes_effect_without() {
    let mut story = Story::of(vec![spec("a")]);
    story.stable(A);
    let unchecked = Spec { healthcheck: None, stop_signal: Signal::from_number(2), ..spec("a") };
    let run = story.run(A);
    let actions = apply(&mut story, vec![unchecked], &[]);
    assert_eq!(reply(&actions), Some(&Answer::default()));
    assert_eq!((story.run(A), story.fleet.instance(A).state.health()), (run, Health::Unknown));
    // Asked again, it has the time of a start to answer.
    apply(&mut story, vec![spec("a")], &[]);
    assert_eq!((story.run(A), story.phase(A)), (run, Phase::Starting));
    let actions = story.wait(Duration::from_secs(40));
    assert!(actions.contains(&Action::Probe { run }), "{actions:?}");
    assert!(actions.contains(&Action::Signal { run, signal: Signal::TERM }), "{actions:?}");
}

#[test]
fn a_change_mends_what_had_given_up() {
    let once = Restart { policy: RestartPolicy::No, ..spec("a").restart };
    let mut story = Story::of(vec![Spec { restart: once, ..spec("a") }]);
    story.start(&[A]);
    story.born(A);
    story.dies(A, Exit::Code(1));
    assert_eq!(story.phase(A), Phase::Failed);
    let actions = apply(&mut story, vec![Spec { restart: once, ..with_command("a", "better") }], &[]);
    assert_eq!(spawns(&actions), 1);
    assert_eq!(story.fleet.instance(A).failures, 0);
}

#[test]
fn a_new_dependency_is_started_unless_a_person_stopped_it() {
    let on = |id| vec![Dependency { on: id, condition: Condition::ServiceStarted }];
    let mut story = Story::of(vec![spec("a"), spec("b"), spec("c")]);
    story.stable(A);
    story.stop(&[B]);
    let c = InstanceId(2);
    let needs = |command: &str, id| Spec { depends_on: on(id), ..with_command("a", command) };
    apply(&mut story, vec![needs("x", c), spec("b"), spec("c")], &[]);
    assert_eq!(story.phase(c), Phase::Starting);
    ends(&mut story, A);
    assert_eq!(story.phase(A), Phase::Waiting);
    story.born(c);
    assert_eq!(story.phase(A), Phase::Starting);
    story.born(A);
    apply(&mut story, vec![needs("y", B), spec("b"), spec("c")], &[]);
    let actions = ends(&mut story, A);
    assert_eq!(story.phase(B), Phase::Stopped);
    assert_eq!(reply(&actions).unwrap().troubles, [(A, Trouble::Dependency { on: B })]);
}

#[test]
fn a_start_of_all_leaves_alone_what_was_stopped_until_then() {
    let unless_stopped = Restart { policy: RestartPolicy::UnlessStopped, ..spec("a").restart };
    let mut story = Story::of(vec![Spec { restart: unless_stopped, ..spec("a") }, spec("b")]);
    story.stable(A);
    story.stable(B);
    story.stop(&[A, B]);
    for id in [A, B] {
        ends(&mut story, id);
    }
    assert_eq!(story.fleet.kept_stopped(), [A]);
    let actions = story.ask(Request::StartAll { wait: Wait::Started });
    assert_eq!(spawns(&actions), 1);
    assert_eq!(reply(&story.born(B)), Some(&Answer::default()));
    assert_eq!(story.phase(A), Phase::Stopped);
    story.start(&[A]);
    assert_eq!(story.phase(A), Phase::Starting, "who names it means it");
    assert_eq!(story.fleet.kept_stopped(), []);
}

#[test]
fn down_now_kills_without_grace() {
    let mut story = Story::of(vec![spec("a"), spec("b")]);
    story.stable(A);
    story.start(&[B]);
    story.ask(Request::Down { now: false });
    let actions = story.ask(Request::Down { now: true });
    assert!(actions.contains(&Action::Kill { run: story.run(A) }));
    let run = story.run(B);
    assert!(story.step(Event::Spawned { run, pid: 3 }).contains(&Action::Kill { run }), "born into a kill");
    let actions = story.start(&[A]);
    assert_eq!(reply(&actions).unwrap().troubles, [(A, Trouble::Ending)]);
}

/// A world that may do anything at any time, and remembers which runs are alive.
mod world {
    use proptest::prelude::{Strategy, any, prop_oneof};
    use proptest::{collection, proptest};

    use super::{
        Action, BTreeSet, Condition, Dependency, Duration, Event, Exit, Fault, Goal, InstanceId, Obstacle, Request,
        RestartPolicy, Run, Spec, Story, Verdict, Wait, apply, with_command,
    };

    #[derive(Clone, Debug)]
    enum Happening {
        Born(usize),
        NotBorn(usize),
        Exits(usize, bool),
        Swept(usize),
        Probed(usize, bool),
        Passes(u64),
        Start(Vec<u32>),
        Restart(Vec<u32>),
        Stop(Vec<u32>),
        Apply(u32),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        let who = || collection::vec(0_u32..4, 1..4);
        prop_oneof![
            4 => any::<usize>().prop_map(Happening::Born),
            1 => any::<usize>().prop_map(Happening::NotBorn),
            3 => (any::<usize>(), any::<bool>()).prop_map(|(n, good)| Happening::Exits(n, good)),
            4 => any::<usize>().prop_map(Happening::Swept),
            6 => (any::<usize>(), any::<bool>()).prop_map(|(n, good)| Happening::Probed(n, good)),
            4 => (0_u64..20_000).prop_map(Happening::Passes),
            2 => who().prop_map(Happening::Start),
            1 => who().prop_map(Happening::Restart),
            1 => who().prop_map(Happening::Stop),
            2 => any::<u32>().prop_map(Happening::Apply),
        ]
    }

    /// Orders that were given and not carried out, and runs that live.
    #[derive(Default)]
    struct World {
        unborn: Vec<Run>,
        alive: BTreeSet<Run>,
        to_sweep: Vec<Run>,
        to_probe: Vec<Run>,
        exited: bool,
    }

    impl World {
        fn obey(&mut self, actions: &[Action]) {
            for action in actions {
                match action {
                    Action::Spawn { run, .. } => {
                        assert!(
                            !self.alive.iter().chain(&self.unborn).any(|other| other.instance == run.instance),
                            "two runs of one instance"
                        );
                        self.unborn.push(*run);
                    }
                    Action::Sweep { run } => self.to_sweep.push(*run),
                    Action::Probe { run } => {
                        assert!(!self.to_probe.contains(run), "two probes of one run");
                        self.to_probe.push(*run);
                    }
                    Action::Signal { run, .. } | Action::Deliver { run, .. } | Action::Kill { run } => {
                        assert!(self.alive.contains(run), "a signal to nobody");
                    }
                    Action::Exit => self.exited = true,
                    Action::Recall { .. } => panic!("no supervisor died"),
                    Action::Changed { .. } | Action::Reply { .. } => {}
                }
            }
        }
    }

    fn pick<T: Copy>(list: &mut Vec<T>, n: usize) -> Option<T> {
        if list.is_empty() { None } else { Some(list.remove(n % list.len())) }
    }

    fn ids(who: &[u32]) -> Vec<InstanceId> {
        who.iter().copied().map(InstanceId).collect()
    }

    fn happen(story: &mut Story, world: &mut World, happening: Happening) {
        let event = match happening {
            Happening::Born(n) => pick(&mut world.unborn, n).map(|run| {
                world.alive.insert(run);
                Event::Spawned { run, pid: 1 }
            }),
            Happening::NotBorn(n) => pick(&mut world.unborn, n)
                .map(|run| Event::NotSpawned { run, obstacle: Obstacle::Resources { error: "none".to_owned() } }),
            Happening::Exits(n, good) => {
                let mut alive: Vec<_> = world.alive.iter().copied().collect();
                pick(&mut alive, n).map(|run| {
                    world.alive.remove(&run);
                    Event::Exited { run, exit: Exit::Code(i32::from(!good)) }
                })
            }
            Happening::Swept(n) => pick(&mut world.to_sweep, n).map(|run| Event::Swept { run, left: Vec::new() }),
            Happening::Probed(n, good) => pick(&mut world.to_probe, n).map(|run| Event::Probed {
                run,
                verdict: if good {
                    Verdict::Good { status: Some(200), took: Duration::ZERO }
                } else {
                    Verdict::Bad(Fault::Refused)
                },
            }),
            Happening::Passes(ms) => {
                let actions = story.wait(Duration::from_millis(ms));
                world.obey(&actions);
                None
            }
            Happening::Start(who) => {
                let actions = story.ask(Request::Start { who: ids(&who), wait: Wait::Started });
                world.obey(&actions);
                None
            }
            Happening::Restart(who) => {
                let wait = Wait::Healthy { timeout: Duration::from_secs(9) };
                let actions = story.ask(Request::Restart { who: ids(&who), wait });
                world.obey(&actions);
                None
            }
            Happening::Stop(who) => {
                let actions = story.ask(Request::Stop { who: ids(&who) });
                world.obey(&actions);
                None
            }
            Happening::Apply(bits) => {
                let names: Vec<_> = (0..6).map(|n| format!("n{n}")).collect();
                // Whoever meets, meets in something: each may take over what the next one has.
                let heirs: Vec<_> =
                    names.iter().zip(names.iter().skip(1)).map(|(a, b)| (a.as_str(), b.as_str())).collect();
                let actions = apply(story, fleet_of(bits), &heirs);
                world.obey(&actions);
                None
            }
        };
        if let Some(event) = event {
            let actions = story.step(event);
            world.obey(&actions);
        }
        // What is due is done, and a deadline that passes without effect would spin.
        let actions = story.wait(Duration::ZERO);
        world.obey(&actions);
        assert!(story.fleet.next_deadline().is_none_or(|next| next > story.now));
    }

    fn fleet() -> Story {
        Story::of(fleet_of(0b1111))
    }

    /// Some of six instances: the lower bits say which, the others in what they are different.
    fn fleet_of(bits: u32) -> Vec<Spec> {
        let is_there = |n: u32| bits >> n & 1 == 1;
        let mut specs = Vec::new();
        for n in (0..6).filter(|n| is_there(*n)) {
            let mut spec = with_command(&format!("n{n}"), if is_there(8 + n) { "other" } else { "server" });
            if is_there(16 + n) {
                spec.restart.policy = RestartPolicy::Always;
            }
            if let Some(check) = spec.healthcheck.as_mut().filter(|_| is_there(24)) {
                check.interval *= 2;
            }
            match n {
                1 if is_there(0) => {
                    spec.depends_on = vec![Dependency { on: InstanceId(0), condition: Condition::ServiceHealthy }];
                }
                2 => spec.pre_start = vec![vec!["x".to_owned()]],
                3 => spec.healthcheck = None,
                _ => {}
            }
            specs.push(spec);
        }
        specs
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_fleet_keeps_its_promises_whatever_happens(happenings in collection::vec(happening(), 1..120)) {
            let mut story = fleet();
            let mut world = World::default();
            for happening in happenings {
                happen(&mut story, &mut world, happening);
            }
            // A stop always ends: everything that was ordered comes true, and laneway ends with nothing alive.
            let actions = story.ask(Request::Down { now: false });
            world.obey(&actions);
            for _ in 0..200 {
                for happening in [Happening::Born(0), Happening::Exits(0, false), Happening::Swept(0), Happening::Passes(1000)] {
                    happen(&mut story, &mut world, happening);
                }
            }
            assert!(world.exited && world.alive.is_empty() && world.unborn.is_empty());
            for id in story.fleet.plan().places() {
                assert_eq!(story.fleet.instance(id).goal, Goal::Down);
            }
        }

        #[test]
        fn the_same_story_is_told_the_same_way_twice(happenings in collection::vec(happening(), 1..60)) {
            let told: Vec<_> = (0..2).map(|_| {
                let mut story = fleet();
                let mut world = World::default();
                for happening in happenings.clone() {
                    happen(&mut story, &mut world, happening);
                }
                (story.told, story.fleet)
            }).collect();
            assert_eq!(told[0].0, told[1].0);
            assert!(told[0].1 == told[1].1);
        }
    }
}
