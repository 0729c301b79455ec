//! The supervisor of the simulation: the machine, and around it what `runtime::driver`, `succession`, `spawn` and `tree` do,
//! step by step, in the same order. Between any two steps it may be killed: then the call returns `Killed`, and what it
//! knew is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::{
    Action, Event, Exit, Fault, Fleet, Goal, Instance, InstanceId, Memory, Mono, Obstacle, Plan, Request, RequestId,
    Run, Spec, Standing, State, Survivor, Verdict, Wait, Work,
};
use super::promises;
use super::world::{Happening, Killed, Moment, Record, World};
use crate::plan::{self, Callers};

/// As in the driver.
const BIRTH: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const SWEEP_DEADLINE: Duration = Duration::from_secs(3);
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// Who died before this supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Supervisor,
    Both,
}

/// What it knows of a run's processes.
#[derive(Clone, Copy, Debug)]
struct Tree {
    pid: u32,
    is_reaped: bool,
}

#[derive(Debug)]
enum Fact {
    Born(Run, u32),
    Event(Event),
    Recall(Run, Mono),
}

/// A supervisor.
pub(super) struct Supervisor {
    pub(super) pid: u32,
    pub(super) fleet: Fleet,
    trees: BTreeMap<Run, Tree>,
    /// First processes: to be reaped by their run, and by nobody else.
    known: BTreeSet<u32>,
    /// Runs of which it is being found out whether they were born; until that is known nobody is a stranger.
    recalled: BTreeSet<Run>,
    /// First processes whose end is waited for.
    waiters: BTreeMap<Run, u32>,
    /// Runs that are being made, or of which it is being found out whether they were.
    pub(super) expected: BTreeSet<Run>,
    pub(super) probing: BTreeSet<Run>,
    memory: Memory,
    inbox: VecDeque<Fact>,
    spawner_is_free_at: Mono,
    /// What shall be made of each run that was ordered.
    jobs: BTreeMap<Run, Arc<Spec>>,
    reloads: VecDeque<Reload>,
    /// The one under way, with what ran when it began.
    resolving: Option<(Reload, Arc<Plan>, Vec<InstanceId>)>,
    is_reloading: bool,
    alarm: Option<Mono>,
    /// What is not on the disk, and the replies that wait for it.
    unwritten: Unwritten,
    pub(super) has_ended: bool,
}

#[derive(Default)]
struct Unwritten {
    instances: BTreeMap<usize, Record>,
    memory: Option<Memory>,
    is_under_way: bool,
    replies: Vec<RequestId>,
    /// Plans that are told to others after that.
    plans: Vec<u64>,
}

/// Somebody wants the fleet to be as the file says: a client, or whoever sent SIGHUP.
#[derive(Clone, Copy, Debug)]
struct Reload {
    id: Option<RequestId>,
    wait: Wait,
}

/// The plan of the first supervisor of a pair. As in `daemon`.
fn first_plan(world: &World) -> Arc<Plan> {
    Arc::new(match &world.published {
        Some(before) => plan::merge(before, world.file.clone(), |_| true),
        None => world.file.clone(),
    })
}

impl Supervisor {
    /// One that goes on with what is recorded. The world knows its pid already.
    pub(super) fn start(world: &mut World, pid: u32, after: After, seed: u64) -> Result<Self, Killed> {
        world.pass(Moment::Started)?;
        let (recorded, plan) = match after {
            After::Supervisor => (world.shared.clone(), Arc::clone(world.plan())),
            After::Both if world.launch.is_left => (world.disk.clone(), Arc::clone(world.plan())),
            After::Both => (world.disk.clone(), first_plan(world)),
        };
        let mut supervisor = Self {
            pid,
            fleet: Fleet::new(Arc::clone(&plan), seed),
            trees: BTreeMap::new(),
            known: BTreeSet::new(),
            recalled: BTreeSet::new(),
            waiters: BTreeMap::new(),
            expected: BTreeSet::new(),
            probing: BTreeSet::new(),
            memory: Memory::default(),
            inbox: VecDeque::new(),
            spawner_is_free_at: world.now,
            jobs: BTreeMap::new(),
            reloads: VecDeque::new(),
            resolving: None,
            is_reloading: false,
            alarm: None,
            unwritten: Unwritten::default(),
            has_ended: false,
        };
        let revision = recorded.memory.revision();
        let before = world.published.clone().filter(|before| before.revision == revision);
        if after == After::Both {
            forsake(world, before.as_deref(), &plan);
        }
        let is_same = |id| before.as_ref().is_some_and(|before| plan::is_same(before, &plan, id));
        let instances = supervisor.adopt(world, &plan, recorded.instances, after, is_same);
        let memory = match after {
            After::Supervisor => recorded.memory,
            After::Both => recorded.memory.without_wishes(&plan),
        };
        world.pass(Moment::Started)?;
        world.published = Some(Arc::clone(&plan));
        world.leave(&plan, None)?;
        world.make_room();
        if after == After::Both {
            supervisor.keep(world, &plan, &instances, &memory);
        }
        supervisor.fleet = Fleet::restore(plan, seed, instances, memory);
        let actions = supervisor.fleet.resume(world.now);
        assert_eq!(supervisor.fleet.overlooked(world.now), []);
        supervisor.save(world)?;
        supervisor.obey(world, actions)?;
        supervisor.reap_strangers(world)?;
        supervisor.work(world)?;
        Ok(supervisor)
    }

    /// Takes over what is recorded and lives, and ends everything else. As in `succession`.
    fn adopt(
        &mut self,
        world: &mut World,
        plan: &Plan,
        recorded: Vec<Option<Record>>,
        after: After,
        is_same: impl Fn(InstanceId) -> bool,
    ) -> Vec<Instance> {
        let (mut instances, mut adopted) = (Vec::new(), BTreeSet::new());
        let runs = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.instance.generation);
        let runs: Vec<u64> = recorded.iter().map(runs).collect();
        let places = (0..).map(InstanceId).zip(recorded);
        let mut records: HashMap<_, _> =
            places.filter_map(|(id, record)| record.map(|record| (record.name.clone(), (id, record)))).collect();
        for id in plan.places() {
            let generation = runs.get(id.index()).copied().unwrap_or(0);
            let Some((place, Record { instance, process, .. })) = records.remove(&plan.spec(id).name) else {
                instances.push(Instance::at_rest_after(generation, false));
                continue;
            };
            // As text, for that is how it is kept.
            let instance: Instance = serde_json::from_str(&serde_json::to_string(&instance).unwrap()).unwrap();
            let may_live = place == id && (after == After::Supervisor || is_same(id));
            let run = instance.state.run();
            let mut goes_on = may_live && after == After::Supervisor;
            match (run, process) {
                (Some(run), Some(pid)) if may_live && world.processes.contains_key(&pid) => {
                    adopted.insert(run);
                    self.live(world, run, pid);
                    goes_on = true;
                }
                (Some(run), Some(_)) if may_live => {
                    self.inbox.push_back(Fact::Event(Event::Exited { run, exit: Exit::Unknown }));
                }
                (Some(run), None) if goes_on && instance.state.pid().is_some() => {
                    self.inbox.push_back(Fact::Event(Event::Exited { run, exit: Exit::Unknown }));
                }
                (Some(run), None) if goes_on => {
                    adopted.insert(run);
                }
                (Some(_) | None, _) => {}
            }
            let rests = Instance::at_rest_after(generation.max(instance.generation), instance.held);
            instances.push(if goes_on { instance } else { rests });
        }
        for pid in Self::clear_leftovers(world, &adopted) {
            self.wait_for(world, plan, &mut instances, pid);
        }
        instances
    }

    /// An instance of which something would not go waits for its end.
    fn wait_for(&mut self, world: &mut World, plan: &Plan, instances: &mut [Instance], pid: u32) {
        let (name, generation) = (world.processes[&pid].spec.name.clone(), world.processes[&pid].run.generation);
        let Some(id) = plan.places().find(|id| plan.spec(*id).name == name) else { return world.is_left(pid) };
        let (run, instance) = (Run { instance: id, generation }, &mut instances[id.index()]);
        if instance.state.run() == Some(run) || instance.wait_for(run) {
            world.renumber(pid, run);
            self.live(world, run, pid);
        }
    }

    /// The memory that both hold is complete before the keeper has it.
    fn keep(&mut self, world: &mut World, plan: &Plan, instances: &[Instance], memory: &Memory) {
        world.births.fill((0, 0));
        world.shared.memory = memory.clone();
        self.unwritten.memory = Some(memory.clone());
        for (id, instance) in plan.places().zip(instances) {
            let record = self.record(plan, id, instance.clone());
            world.shared.instances[id.index()] = Some(record.clone());
            self.unwritten.instances.insert(id.index(), record);
        }
        world.is_kept = true;
        self.write(world);
    }

    fn record(&self, plan: &Plan, id: InstanceId, instance: Instance) -> Record {
        let process = instance.state.run().and_then(|run| self.trees.get(&run)).map(|tree| tree.pid);
        Record { name: plan.spec(id).name.clone(), instance, process }
    }

    /// Everything of earlier supervisors but the adopted runs is killed, and waited for. Returns who does not go in time.
    fn clear_leftovers(world: &mut World, adopted: &BTreeSet<Run>) -> Vec<u32> {
        let left = world.living(|process| !adopted.contains(&process.run));
        left.into_iter().filter(|pid| !world.end_leftover(*pid)).collect()
    }

    fn live(&mut self, world: &mut World, run: Run, pid: u32) {
        self.trees.insert(run, Tree { pid, is_reaped: false });
        self.known.insert(pid);
        self.waiters.insert(run, pid);
        if !world.is_alive(pid) {
            world.soon(0, 2, Happening::Noticed { supervisor: self.pid, run });
        }
    }

    /// Handles everything that came, and sets the alarm for what is due next.
    fn work(&mut self, world: &mut World) -> Result<(), Killed> {
        let mut turns = 0;
        while let Some(fact) = self.inbox.pop_front() {
            turns += 1;
            if turns > 10_000 {
                world.broke("the loop spins");
                return Ok(());
            }
            let actions = self.take(world, fact)?;
            self.obey(world, actions)?;
        }
        let next = self.fleet.next_deadline();
        if next != self.alarm {
            self.alarm = next;
            if let Some(at) = next {
                let supervisor = self.pid;
                world.after(at.since(world.now), Happening::Deadline { supervisor, at });
            }
        }
        Ok(())
    }

    fn take(&mut self, world: &mut World, fact: Fact) -> Result<Vec<Action>, Killed> {
        match fact {
            Fact::Event(event) => {
                let swept = if let Event::Swept { run, .. } = &event { Some(*run) } else { None };
                let actions = self.step(world, event)?;
                if let Some(run) = swept.filter(|run| self.fleet.instance(run.instance).state.run() != Some(*run)) {
                    self.trees.remove(&run);
                }
                Ok(actions)
            }
            Fact::Born(run, pid) => {
                self.live(world, run, pid);
                self.reap_strangers(world)?;
                self.step(world, Event::Spawned { run, pid })
            }
            Fact::Recall(run, since) => {
                let actions = self.recall(world, run, since)?;
                self.reap_strangers(world)?;
                Ok(actions)
            }
        }
    }

    fn step(&mut self, world: &mut World, event: Event) -> Result<Vec<Action>, Killed> {
        world.tell(|| format!("supervisor {}: {}", self.pid, in_brief(&event)));
        if let Event::Spawned { run, .. } | Event::NotSpawned { run, .. } | Event::Unborn { run } = &event {
            self.expected.remove(run);
        }
        promises::about_an_exit(world, &self.fleet, &event);
        let is_alarm = event == Event::DeadlinePassed;
        let actions = self.fleet.step(event, world.now);
        assert_eq!(self.fleet.overlooked(world.now), []);
        if is_alarm && self.fleet.next_deadline().is_some_and(|next| next <= world.now) {
            world.broke("a deadline that passed is still due");
        }
        promises::about_replies(world, &self.fleet, &actions);
        self.save(world)?;
        Ok(actions)
    }

    /// All of a step, or nothing.
    fn save(&mut self, world: &mut World) -> Result<(), Killed> {
        world.pass(Moment::Record)?;
        let plan = Arc::clone(self.fleet.plan());
        if !self.fleet.is_kept_in(&self.memory) {
            let memory = self.fleet.memory();
            world.shared.memory = memory.clone();
            world.make_room();
            self.memory = memory.clone();
            self.unwritten.memory = Some(memory);
            self.write(world);
        }
        for id in self.fleet.take_unsaved() {
            let record = self.record(&plan, id, self.fleet.instance(id).clone());
            promises::about_a_record(world, id, &record);
            world.shared.instances[id.index()] = Some(record.clone());
            self.unwritten.instances.insert(id.index(), record);
            self.write(world);
        }
        Ok(())
    }

    fn write(&mut self, world: &mut World) {
        if !self.unwritten.is_under_way {
            self.unwritten.is_under_way = true;
            let wait = world.dice.millis(0, 5) + world.disk_hangs_until.since(world.now);
            world.after(wait, Happening::Flushed { supervisor: self.pid });
        }
    }

    fn flushed(&mut self, world: &mut World) {
        self.unwritten.is_under_way = false;
        for (index, record) in std::mem::take(&mut self.unwritten.instances) {
            world.disk.instances[index] = Some(record);
        }
        if let Some(memory) = self.unwritten.memory.take() {
            world.disk.memory = memory;
        }
        for revision in std::mem::take(&mut self.unwritten.plans) {
            world.soon(0, 3, Happening::Published { supervisor: self.pid, revision });
        }
        self.reply(world);
    }

    /// What was wished is on the disk before it is answered, and the plan that it speaks of.
    fn reply(&mut self, world: &mut World) {
        let is_told = world.published.as_ref().is_some_and(|told| told.revision >= self.fleet.plan().revision);
        if is_told && !self.unwritten.is_under_way {
            for id in std::mem::take(&mut self.unwritten.replies) {
                world.soon(0, 1, Happening::Replies { supervisor: self.pid, id });
            }
        }
    }

    fn obey(&mut self, world: &mut World, actions: Vec<Action>) -> Result<(), Killed> {
        for action in actions {
            world.pass(Moment::Order)?;
            world.tell(|| format!("supervisor {}: order {action:?}", self.pid));
            match action {
                Action::Spawn { run, work } => self.spawn(world, run, work),
                Action::Recall { run } => {
                    self.expected.insert(run);
                    self.recalled.insert(run);
                    self.inbox.push_back(Fact::Recall(run, world.now));
                }
                Action::Signal { run, .. } => {
                    if self.must_know(world, run, "a signal").is_some_and(|tree| !tree.is_reaped) {
                        world.signal(run);
                    }
                }
                Action::Deliver { id, run, .. } => {
                    if self.must_know(world, run, "a person's signal").is_some() {
                        world.deliver(id, run);
                    }
                }
                Action::Kill { run } => {
                    if self.must_know(world, run, "a kill").is_some() {
                        world.kill_run(run);
                    }
                }
                Action::Sweep { run } => self.sweep(world, run),
                Action::Probe { run } => self.probe(world, run),
                Action::Changed { .. } => {}
                Action::Reply { id, .. } => {
                    self.unwritten.replies.push(id);
                    world.after(DISK_PATIENCE, Happening::Replies { supervisor: self.pid, id });
                    self.reply(world);
                }
                Action::Exit => self.has_ended = true,
            }
        }
        Ok(())
    }

    /// An order for a run needs somebody to carry it out on, unless he is known to be gone.
    fn must_know(&self, world: &mut World, run: Run, what: &str) -> Option<Tree> {
        let tree = self.trees.get(&run).copied();
        let is_swept =
            matches!(&self.fleet.instance(run.instance).state, State::Sweeping(sweeping) if sweeping.run == run);
        let is_known_to_be_gone = is_swept
            || self
                .inbox
                .iter()
                .any(|fact| matches!(fact, Fact::Event(Event::Exited { run: gone, .. }) if *gone == run));
        if tree.is_none() && !is_known_to_be_gone {
            world.broke(format!("{what} for {run}, of which nothing is known"));
        }
        tree
    }

    fn spawn(&mut self, world: &mut World, run: Run, work: Work) {
        world.births[run.instance.index()] = (run.generation, 0);
        self.jobs.insert(run, Arc::new(self.fleet.plan().spec(run.instance).clone()));
        self.expected.insert(run);
        let mut wait = world.dice.millis(0, 3);
        if world.disk_hangs_until > world.now {
            wait += world.dice.millis(0, 500);
        }
        let at = self.spawner_is_free_at.max(world.now) + wait;
        self.spawner_is_free_at = at;
        world.after(at.since(world.now), Happening::Job { supervisor: self.pid, run, work });
    }

    /// The spawner thread: looks for obstacles, then clones.
    fn job(&mut self, world: &mut World, run: Run, work: Work) -> Result<(), Killed> {
        let Some(spec) = self.jobs.remove(&run) else { return Ok(()) };
        if world.is_port_taken(&spec) || world.obstacle_until > world.now && world.dice.chance(50) {
            self.inbox.push_back(Fact::Event(Event::NotSpawned { run, obstacle: nothing_to_give() }));
            return self.work(world);
        }
        let pid = world.make(run, work, spec, self.pid);
        self.known.insert(pid);
        world.pass(Moment::Cloned)
    }

    /// The child became its program, or ended without.
    fn hears_of_exec(&mut self, world: &mut World, pid: u32, run: Run, is_done: bool) -> Result<(), Killed> {
        if is_done {
            self.inbox.push_back(Fact::Born(run, pid));
        } else {
            world.reap(pid, self.pid);
            self.known.remove(&pid);
            self.inbox.push_back(Fact::Event(Event::NotSpawned { run, obstacle: nothing_to_give() }));
            world.pass(Moment::Reaped)?;
        }
        self.work(world)
    }

    fn recall(&mut self, world: &mut World, run: Run, since: Mono) -> Result<Vec<Action>, Killed> {
        let (generation, pid) = world.births[run.instance.index()];
        if generation == run.generation && pid != 0 {
            self.recalled.remove(&run);
            if !world.processes.contains_key(&pid) {
                for pid in world.living_of(run) {
                    if !world.end_leftover(pid) {
                        self.live(world, run, pid);
                    }
                }
                let mut actions = self.step(world, Event::Spawned { run, pid })?;
                actions.extend(self.step(world, Event::Exited { run, exit: Exit::Unknown })?);
                return Ok(actions);
            }
            self.live(world, run, pid);
            return self.step(world, Event::Spawned { run, pid });
        }
        let has_writer = !world.living_of(run).is_empty();
        if has_writer && world.now.since(since) < BIRTH {
            world.after(LOOK_AGAIN, Happening::Recalls { supervisor: self.pid, run, since });
            return Ok(Vec::new());
        }
        self.recalled.remove(&run);
        self.step(world, Event::Unborn { run })
    }

    fn sweep(&mut self, world: &mut World, run: Run) {
        if self.trees.contains_key(&run) {
            let (supervisor, since) = (self.pid, world.now);
            world.after(Duration::ZERO, Happening::SweepRound { supervisor, run, since });
        } else {
            self.inbox.push_back(Fact::Event(Event::Swept { run, left: Vec::new() }));
        }
    }

    fn sweep_round(&mut self, world: &mut World, run: Run, since: Mono) -> Result<(), Killed> {
        let Some(tree) = self.trees.get_mut(&run) else {
            // Another sweep of the same run came to its end first.
            self.inbox.push_back(Fact::Event(Event::Swept { run, left: Vec::new() }));
            return self.work(world);
        };
        if !tree.is_reaped && !world.is_alive(tree.pid) {
            let pid = tree.pid;
            tree.is_reaped = true;
            self.known.remove(&pid);
            if !world.reap(pid, self.pid)
                && let Some(keeper) = world.keeper
            {
                world.soon(0, 1, Happening::Reaps { keeper, pid });
            }
            world.pass(Moment::Reaped)?;
        }
        let left = world.living_of(run);
        world.kill_run(run);
        let is_late = world.now.since(since) >= SWEEP_DEADLINE;
        if left.is_empty() || is_late {
            let survivor = |pid| Survivor { pid, command: String::new(), state: String::new() };
            let left = left.into_iter().map(survivor).collect();
            self.inbox.push_back(Fact::Event(Event::Swept { run, left }));
            return self.work(world);
        }
        world.soon(1, 40, Happening::SweepRound { supervisor: self.pid, run, since });
        Ok(())
    }

    fn probe(&mut self, world: &mut World, run: Run) {
        let Some(tree) = self.must_know(world, run, "a check") else { return };
        if !self.probing.insert(run) {
            world.broke(format!("two checks of {run} at once"));
        }
        let check = self.fleet.plan().spec(run.instance).healthcheck.as_ref();
        let timeout = check.map(|check| check.timeout).unwrap_or_default();
        let process = world.processes.get(&tree.pid);
        let hangs = process.is_some_and(|p| p.conduct.hangs.is_some_and(|hangs| p.born + hangs <= world.now));
        let took = if hangs { timeout } else { world.dice.millis(1, 60) };
        world.after(took, Happening::ProbeEnds { supervisor: self.pid, run });
    }

    fn probe_ends(&mut self, world: &mut World, run: Run) -> Result<(), Killed> {
        self.probing.remove(&run);
        let process = self.trees.get(&run).and_then(|tree| world.processes.get(&tree.pid));
        let is_good = process.is_some_and(|p| p.zombie.is_none() && p.conduct.answers(p.born, world.now));
        let verdict = if is_good {
            Verdict::Good { status: Some(200), took: Duration::from_millis(3) }
        } else {
            Verdict::Bad(Fault::Refused)
        };
        self.inbox.push_back(Fact::Event(Event::Probed { run, verdict }));
        self.work(world)
    }

    /// Reaps what is no run's first process: orphans of servers.
    fn reap_strangers(&mut self, world: &mut World) -> Result<(), Killed> {
        if !self.recalled.is_empty() {
            return Ok(());
        }
        for pid in world.zombies_of(self.pid) {
            if !self.known.contains(&pid) {
                world.reap(pid, self.pid);
            }
        }
        let Some(keeper) = world.keeper else { return Ok(()) };
        for pid in world.zombies_of(keeper) {
            if !self.known.contains(&pid) {
                world.soon(0, 1, Happening::Reaps { keeper, pid });
            }
        }
        world.pass(Moment::Reaped)
    }

    /// Something happened that is this supervisor's business.
    pub(super) fn happens(&mut self, world: &mut World, happening: &Happening) -> Result<(), Killed> {
        match *happening {
            Happening::Job { run, work, .. } => self.job(world, run, work),
            Happening::Noticed { run, .. } => {
                world.pass(Moment::Noticed)?;
                let Some(pid) = self.waiters.get(&run).copied() else { return Ok(()) };
                let exit = world.processes.get(&pid).map_or(Some(Exit::Unknown), |process| process.zombie);
                if let Some(exit) = exit {
                    self.waiters.remove(&run);
                    self.inbox.push_back(Fact::Event(Event::Exited { run, exit }));
                }
                self.work(world)
            }
            Happening::SweepRound { run, since, .. } => self.sweep_round(world, run, since),
            Happening::ProbeEnds { run, .. } => self.probe_ends(world, run),
            Happening::Flushed { .. } => {
                self.flushed(world);
                Ok(())
            }
            Happening::Recalls { run, since, .. } => {
                self.inbox.push_back(Fact::Recall(run, since));
                self.work(world)
            }
            Happening::Resolved { .. } => {
                let actions = self.resolved(world)?;
                self.obey(world, actions)?;
                self.work(world)
            }
            Happening::Published { revision, .. } => {
                let is_first = world.published.as_ref().is_none_or(|told| told.revision < revision);
                if is_first && self.fleet.plan().revision == revision {
                    world.published = Some(Arc::clone(self.fleet.plan()));
                    self.reply(world);
                    self.end_reload(world);
                }
                Ok(())
            }
            Happening::HangUp => {
                if self.reloads.iter().all(|reload| reload.id.is_some()) {
                    self.take_reload(world, Reload { id: None, wait: Wait::Started });
                }
                Ok(())
            }
            Happening::Deadline { at, .. } => {
                if self.alarm == Some(at) {
                    self.alarm = None;
                    let actions = self.step(world, Event::DeadlinePassed)?;
                    self.obey(world, actions)?;
                }
                self.work(world)
            }
            Happening::KeeperIsMissed { .. } => {
                let keeper = world.start(self.pid);
                world.tell(|| format!("supervisor {} starts keeper {keeper}", self.pid));
                world.keeper = Some(keeper);
                self.known.insert(keeper);
                world.pass(Moment::Started)
            }
            Happening::Execs(pid) => {
                let Some(run) = world.processes.get(&pid).map(|process| process.run) else { return Ok(()) };
                let is_done = world.execs(pid);
                world.pass(Moment::Executed)?;
                self.hears_of_exec(world, pid, run, is_done)
            }
            Happening::Dies { .. } => self.reap_strangers(world),
            Happening::Fault(_)
            | Happening::Asks(_)
            | Happening::NewRequest
            | Happening::Edited
            | Happening::Notes(_)
            | Happening::Forks(_)
            | Happening::Reaps { .. }
            | Happening::Replies { .. }
            | Happening::SupervisorStarts { .. }
            | Happening::Up
            | Happening::Look
            | Happening::Calm
            | Happening::AllIsWell
            | Happening::TheEnd => Ok(()),
        }
    }

    /// A client asks.
    pub(super) fn asked(&mut self, world: &mut World, id: RequestId, request: &Request) -> Result<(), Killed> {
        let actions = match self.fleet.standing(id) {
            Standing::New => {
                promises::note_wish(world, &self.fleet, request);
                promises::about_a_new_request(world, id);
                let actions = self.step(world, Event::Request { id, request: request.clone() })?;
                world.heard.insert(id);
                actions
            }
            Standing::Waits => Vec::new(),
            Standing::Answered(answer) => vec![Action::Reply { id, answer }],
        };
        self.obey(world, actions)?;
        self.work(world)
    }

    /// A client wants the fleet to be as the file says.
    pub(super) fn asked_to_apply(&mut self, world: &mut World, id: RequestId, wait: Wait) {
        self.take_reload(world, Reload { id: Some(id), wait });
    }

    fn take_reload(&mut self, world: &mut World, reload: Reload) {
        self.reloads.push_back(reload);
        self.begin_reload(world);
    }

    fn begin_reload(&mut self, world: &mut World) {
        if self.is_reloading {
            return;
        }
        let Some(reload) = self.reloads.pop_front() else { return };
        self.is_reloading = true;
        self.resolving = Some((reload, Arc::clone(self.fleet.plan()), self.fleet.present()));
        world.soon(0, 20, Happening::Resolved { supervisor: self.pid });
    }

    fn end_reload(&mut self, world: &mut World) {
        self.is_reloading = false;
        self.begin_reload(world);
    }

    fn resolved(&mut self, world: &mut World) -> Result<Vec<Action>, Killed> {
        let Some((Reload { id, wait }, ran, holders)) = self.resolving.take() else { return Ok(Vec::new()) };
        let heirs = plan::heirs(&ran, &holders, &world.file);
        let old = Arc::clone(self.fleet.plan());
        let is_free = |id| self.fleet.instance(id).state == State::Stopped;
        let plan = Arc::new(plan::merge(&old, world.file.clone(), is_free));
        let changes = plan::diff(&old, &plan, Callers::One);
        let standing = id.map_or(Standing::New, |id| self.fleet.standing(id));
        let is_new = standing == Standing::New;
        if self.fleet.is_ending() || is_new && changes.is_empty() && plan.order == old.order {
            if let Some(id) = id {
                world.after(Duration::ZERO, Happening::Replies { supervisor: self.pid, id });
            }
            self.end_reload(world);
            return Ok(Vec::new());
        }
        if !is_new {
            self.end_reload(world);
            return Ok(match (id, standing) {
                (Some(id), Standing::Answered(answer)) => vec![Action::Reply { id, answer }],
                (_, Standing::Answered(_) | Standing::Waits | Standing::New) => Vec::new(),
            });
        }
        world.leave(&old, Some(&plan))?;
        let id = id.unwrap_or(RequestId(world.now.0.as_nanos().try_into().unwrap_or(u64::MAX)));
        let before = self.fleet.clone();
        promises::note_apply(world, &before, &plan);
        promises::about_a_new_request(world, id);
        let actions =
            self.step(world, Event::Request { id, request: Request::Apply { plan: Arc::clone(&plan), heirs, wait } })?;
        world.heard.insert(id);
        promises::about_an_apply(world, &before, &self.fleet);
        world.leave(&plan, None)?;
        if self.unwritten.is_under_way {
            self.unwritten.plans.push(plan.revision);
            world.after(DISK_PATIENCE, Happening::Published { supervisor: self.pid, revision: plan.revision });
        } else {
            world.soon(0, 3, Happening::Published { supervisor: self.pid, revision: plan.revision });
        }
        Ok(actions)
    }

    pub(super) fn goal(&self, id: InstanceId) -> Goal {
        self.fleet.instance(id).goal
    }

    pub(super) fn knows(&self, run: Run) -> Option<u32> {
        self.trees.get(&run).map(|tree| tree.pid)
    }
}

/// Who is another one in the plan of the next pair, or at another place, is ended by it.
fn forsake(world: &mut World, before: Option<&Plan>, plan: &Plan) {
    for process in world.processes.values_mut() {
        let place = plan.find(process.spec.name.as_str());
        let is_same = place == Some(process.run.instance)
            && before.is_some_and(|before| plan::is_same(before, plan, process.run.instance));
        process.is_forsaken |= !is_same;
    }
}

/// A whole plan is too long to be told.
fn in_brief(event: &Event) -> String {
    let Event::Request { id, request: Request::Apply { plan, heirs, .. } } = event else { return format!("{event:?}") };
    let names: Vec<_> = plan.ids().map(|place| format!("{place:?} {}", plan.spec(place).name)).collect();
    let heirs: Vec<_> = heirs.iter().map(|(heir, holder)| format!("{heir} of {holder}")).collect();
    format!("{id:?}: plan {} of {}; heirs: {}", plan.revision, names.join(", "), heirs.join(", "))
}

fn nothing_to_give() -> Obstacle {
    Obstacle::Resources { error: "nothing to give".to_owned() }
}
