//! The hot paths, one at a time, for counting: `scripts/instructions` runs each under callgrind, which counts what is done
//! within `measured` and nothing else. Counts do not know how busy a machine is, so they are compared where times are not.
//!
//! Without arguments it names its cases; with `CASE` it runs that one, and says how many events were measured and how many
//! bytes stayed allocated for them. `CASE` is a name and a number of instances, such as `probe/100`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what is measured must happen as it is described")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use laneway::config::Source;
use laneway::machine::{Action, Event, Fault, Fleet, Memory, Request, RequestId, Verdict, Wait};
use laneway::model::{Exit, Health, InstanceId, InstanceName, Mono, Run};
use laneway::plan::spec::{Condition, Dependency};
use laneway::plan::{self, Plan};
use laneway::runtime::records::{Record, Records};
use laneway::view::snapshot::{self, FleetStatus, Surroundings};

/// What `scripts/instructions` compares. Any other number of instances can be asked for.
const CASES: [&str; 20] = [
    "probe/100",
    "probe/1000",
    "waiting/100",
    "waiting/1000",
    "crash/100",
    "crash/1000",
    "start-all/100",
    "start-all/1000",
    "crash-all/100",
    "crash-all/1000",
    "down/100",
    "down/1000",
    "resume/100",
    "resume/1000",
    "records/100",
    "status/100",
    "status/1000",
    "check/100",
    "check/1000",
    "collisions/1000",
];

/// How often the short ones are repeated.
const TIMES: u32 = 50;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: by the word of the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: by the word of the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size, Ordering::Relaxed);
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: by the word of the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Callgrind looks for this name. Returns the events, and the bytes that stayed.
#[inline(never)]
fn measured(work: &mut dyn FnMut() -> u64) -> (u64, usize) {
    let before = ALLOCATED.load(Ordering::Relaxed);
    let events = work();
    (events, ALLOCATED.load(Ordering::Relaxed).saturating_sub(before))
}

fn main() {
    let Some(case) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        return CASES.iter().for_each(|case| println!("{case}"));
    };
    let (name, count) = case.split_once('/').unwrap();
    let count = count.parse().unwrap();
    let (events, bytes) = match name {
        "probe" => probe(count),
        "waiting" => waiting(count),
        "crash" => crash(count),
        "start-all" => start_all(count),
        "crash-all" => crash_all(count),
        "down" => down(count),
        "resume" => resume(count),
        "records" => records(count),
        "status" => status(count),
        "check" => check(&settings(count, false)),
        "collisions" => collisions(count),
        "fleet" => fleet(count),
        "plan" => whole_plan(count),
        _ => panic!("there is no case {name}"),
    };
    println!("{events} {bytes}");
}

/// Settings of `count` instances; the second and all after it wait for the first.
fn settings(count: u32, collide: bool) -> String {
    let mut text = String::from(
        "name: bench\nstate_dir: var\ndefaults:\n  framework: django\n  command: [.venv/bin/gunicorn, --bind, \"{host}:{port}\"]\n  \
         environment: {DJANGO_SETTINGS_MODULE: site.settings, DEBUG: \"0\"}\n  \
         database: {engine: sqlite}\n  cache: {backend: redis, url: \"redis://127.0.0.1:6379/0\", timeout: 1h}\n  \
         healthcheck: {path: /health/, interval: 1h, start_interval: 200ms}\ninstances:\n",
    );
    for number in 0..count {
        let _ = write!(text, "  shop_{number:05}:\n    port: {}\n", 8000 + number);
        if number > 0 {
            text.push_str("    depends_on: {shop_00000: {condition: service_healthy}}\n");
        }
        if collide {
            text.push_str("    cookies: {session: same}\n");
        }
    }
    text
}

fn source(settings: &str) -> Source {
    let directory = std::env::current_dir().unwrap();
    let file = directory.join("instances.yaml");
    std::fs::write(&file, settings).unwrap();
    let environment = BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]);
    Source { files: vec![file], directory, profile: None, set: Vec::new(), environment }
}

/// Two instances as they come from settings, and the second again and again: the file takes fewer than the machine.
fn plan(count: u32) -> Plan {
    let mut plan = plan::resolve(&source(&settings(2, false))).unwrap();
    let template = plan.specs.pop().unwrap();
    for number in 1..count {
        let mut spec = template.clone();
        spec.name = InstanceName::parse(&format!("shop_{number:05}")).unwrap();
        spec.depends_on = vec![Dependency { on: InstanceId(0), condition: Condition::ServiceHealthy }];
        plan.specs.push(spec);
    }
    plan.order = (0..count).map(InstanceId).collect();
    plan
}

/// A fleet, its driver as far as it decides, and a world in which everything comes at once and as it is wished.
struct World {
    fleet: Fleet,
    memory: Memory,
    now: Mono,
    facts: VecDeque<Event>,
    events: u64,
    spawned: u64,
    replies: u64,
    is_over: bool,
}

impl World {
    fn new(count: u32) -> Self {
        Self::of(Arc::new(plan(count)))
    }

    fn of(plan: Arc<Plan>) -> Self {
        let fleet = Fleet::new(plan, 7);
        let (memory, facts) = (Memory::default(), VecDeque::new());
        Self { fleet, memory, now: Mono::default(), facts, events: 0, spawned: 0, replies: 0, is_over: false }
    }

    /// One where everything is healthy.
    fn healthy(count: u32) -> Self {
        let mut world = Self::new(count);
        world.start_all();
        world.run_until(|world| world.replies == 1);
        assert!(world.fleet.plan().ids().all(|id| world.fleet.instance(id).state.health() == Health::Healthy));
        world
    }

    fn start_all(&mut self) {
        self.ask(Request::StartAll { wait: Wait::Healthy { timeout: Duration::from_hours(9) } });
    }

    fn ask(&mut self, request: Request) {
        let actions = self.step(Event::Request { id: RequestId(self.events), request });
        self.obey(actions);
    }

    /// As the driver does it.
    fn step(&mut self, event: Event) -> Vec<Action> {
        self.events += 1;
        let actions = self.fleet.step(event, self.now);
        black_box(self.fleet.take_unsaved());
        if !self.fleet.is_kept_in(&self.memory) {
            self.memory = self.fleet.memory();
        }
        actions
    }

    fn obey(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { run, .. } | Action::Recall { run } => {
                    self.spawned += 1;
                    self.facts.push_back(Event::Spawned { run, pid: run.instance.0 + 100 });
                }
                Action::Signal { run, .. } | Action::Deliver { run, .. } | Action::Kill { run } => {
                    self.facts.push_back(Event::Exited { run, exit: Exit::Code(0) });
                }
                Action::Sweep { run } => self.facts.push_back(Event::Swept { run, left: Vec::new() }),
                Action::Probe { run } => self.facts.push_back(Event::Probed { run, verdict: good() }),
                Action::Changed { .. } => {}
                Action::Reply { answer, .. } => {
                    assert!(answer.troubles.is_empty(), "{answer:?}");
                    self.replies += 1;
                }
                Action::Exit => self.is_over = true,
            }
        }
    }

    fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        while !is_done(self) {
            let event = self.facts.pop_front().unwrap_or_else(|| {
                self.now = self.now.max(self.fleet.next_deadline().unwrap());
                Event::DeadlinePassed
            });
            let actions = self.step(event);
            self.obey(actions);
        }
    }

    fn run_of(&self, number: u32) -> Run {
        self.fleet.instance(InstanceId(number)).state.run().unwrap()
    }

    fn crashed(&self, number: u32) -> Event {
        Event::Exited { run: self.run_of(number), exit: Exit::Code(1) }
    }
}

fn good() -> Verdict {
    Verdict::Good { status: Some(200), took: Duration::from_millis(3) }
}

/// Some of `count`, from all over it.
fn some(count: u32) -> impl Iterator<Item = u32> {
    (1..=TIMES).map(move |number| 1 + number * 7919 % (count - 1))
}

/// A good answer of who is healthy: nothing changes but its age.
fn probe(count: u32) -> (u64, usize) {
    let mut world = World::healthy(count);
    measured(&mut || {
        for number in some(count) {
            let run = world.run_of(number);
            let actions = world.step(Event::Probed { run, verdict: good() });
            assert!(actions.is_empty(), "{actions:?}");
        }
        u64::from(TIMES)
    })
}

/// A bad answer of the one that all others wait for, and somebody waits for all of them.
fn waiting(count: u32) -> (u64, usize) {
    let mut world = World::new(count);
    world.start_all();
    world.run_until(|world| world.facts.is_empty());
    let run = world.run_of(0);
    measured(&mut || {
        for _ in 0..TIMES {
            let actions = world.step(Event::Probed { run, verdict: Verdict::Bad(Fault::Refused) });
            assert!(actions.is_empty(), "{actions:?}");
        }
        u64::from(TIMES)
    })
}

/// An exit, and everything until the same instance is healthy again; once for some of the instances.
fn crash(count: u32) -> (u64, usize) {
    let mut world = World::healthy(count);
    let before = world.events;
    measured(&mut || {
        for number in some(count) {
            let crashed = world.crashed(number);
            world.facts.push_back(crashed);
            world.run_until(|world| {
                world.facts.is_empty() && world.fleet.instance(InstanceId(number)).state.health() == Health::Healthy
            });
            world.now = world.now + Duration::from_secs(1);
        }
        world.events - before
    })
}

/// A start of all until all are healthy.
fn start_all(count: u32) -> (u64, usize) {
    let mut world = World::new(count);
    measured(&mut || {
        world.start_all();
        world.run_until(|world| world.replies == 1);
        world.events
    })
}

/// All crash at once; until all have been started again, as fast as the brake lets them.
fn crash_all(count: u32) -> (u64, usize) {
    let mut world = World::healthy(count);
    let crashed: Vec<_> = (0..count).map(|number| world.crashed(number)).collect();
    let (before, spawned) = (world.events, world.spawned);
    world.facts.extend(crashed);
    measured(&mut || {
        world.run_until(|world| world.spawned == spawned + u64::from(count));
        world.events - before
    })
}

/// The end of all.
fn down(count: u32) -> (u64, usize) {
    let mut world = World::healthy(count);
    let before = world.events;
    measured(&mut || {
        world.ask(Request::Down { now: false });
        world.run_until(|world| world.is_over);
        world.events - before
    })
}

/// What a supervisor does first when it comes after one that died.
fn resume(count: u32) -> (u64, usize) {
    let world = World::healthy(count);
    let instances: Vec<_> = world.fleet.plan().ids().map(|id| world.fleet.instance(id).clone()).collect();
    let mut fleet = Some(Fleet::restore(Arc::clone(world.fleet.plan()), 7, instances, world.fleet.memory()));
    measured(&mut || {
        let mut fleet = fleet.take().unwrap();
        black_box(fleet.resume(world.now));
        black_box(&fleet);
        u64::from(count)
    })
}

/// The record of one instance, into memory.
fn records(count: u32) -> (u64, usize) {
    let world = World::healthy(count);
    let mut records = Records::new(None).unwrap();
    measured(&mut || {
        for number in some(count) {
            let id = InstanceId(number);
            let name = world.fleet.plan().spec(id).name.clone();
            let instance = world.fleet.instance(id).clone();
            records.save(&[(id, Record { name, instance, process: None, output: Some(1) })], None);
        }
        u64::from(TIMES)
    })
}

/// The answer to `GET /v1/status`, to the last byte.
fn status(count: u32) -> (u64, usize) {
    let world = World::healthy(count);
    let plan = world.fleet.plan();
    measured(&mut || {
        let instance = |id| {
            let surroundings = Surroundings { log: plan.spec(id).log_file(), ..Surroundings::default() };
            snapshot::instance(&world.fleet, id, world.now, surroundings)
        };
        let status = FleetStatus {
            project: plan.project.clone(),
            file: plan.file.clone(),
            profile: plan.profile.clone(),
            supervisor_pid: 100,
            keeper_pid: 99,
            uptime_seconds: world.now.0.as_secs_f64(),
            ending: world.fleet.is_ending(),
            instances: world.fleet.present().into_iter().map(instance).collect(),
        };
        black_box(serde_json::to_vec(&status).unwrap());
        u64::from(count)
    })
}

/// `laneway check`: from the file to the plan, proof included.
fn check(settings: &str) -> (u64, usize) {
    let source = source(settings);
    measured(&mut || {
        let plan = plan::resolve(&source).unwrap();
        let count = plan.specs.len() as u64;
        black_box(plan::claims(&plan));
        count
    })
}

/// The same of a file in which each instance says what the first says too.
fn collisions(count: u32) -> (u64, usize) {
    let source = source(&settings(count, true));
    measured(&mut || {
        let problems = plan::resolve(&source).unwrap_err();
        black_box(problems.to_string());
        u64::from(count)
    })
}

/// What the machine keeps of a healthy fleet, beside its plan; not compared, but told by `scripts/instructions --growth`.
fn fleet(count: u32) -> (u64, usize) {
    let plan = Arc::new(plan(count));
    let mut kept = None;
    measured(&mut || {
        let mut world = World::of(Arc::clone(&plan));
        world.start_all();
        world.run_until(|world| world.replies == 1);
        kept = Some(world.fleet);
        u64::from(count)
    })
}

/// The same of the plan.
fn whole_plan(count: u32) -> (u64, usize) {
    let mut kept = None;
    measured(&mut || {
        kept = Some(plan(count));
        u64::from(count)
    })
}
