//! The kernel, the keeper, the disk and the clock of the simulation: what is true, whoever knows of it.
//!
//! Knows nothing of the machine but the words for runs and exits. `supervisor` acts on it and learns of it as the real
//! one does; `story` moves time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Exit, Instance, InstanceId, InstanceName, Memory, Mono, Plan, RequestId, Run, Signal, Spec, Work};
use super::dice::Dice;
use super::fleets::{self, Conduct};
use crate::plan;

/// The first process of the machine; takes what nobody else does, and reaps it at once.
pub(super) const INIT: u32 = 1;

/// Something that will happen. What belongs to a supervisor or a keeper does not happen once that one is dead.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    Fault(Fault),
    /// A client connects and asks; again, if its supervisor died before it could answer.
    Asks(RequestId),
    NewRequest,
    /// Somebody writes another file.
    Edited,
    /// SIGHUP.
    HangUp,
    /// The file was read.
    Resolved {
        supervisor: u32,
    },
    /// Clients and other fleets are told of the plan with this revision.
    Published {
        supervisor: u32,
        revision: u64,
    },
    /// The spawner thread comes to this job.
    Job {
        supervisor: u32,
        run: Run,
        work: Work,
    },
    /// A child's first act.
    Notes(u32),
    Execs(u32),
    Forks(u32),
    Dies {
        pid: u32,
        exit: Exit,
    },
    Noticed {
        supervisor: u32,
        run: Run,
    },
    SweepRound {
        supervisor: u32,
        run: Run,
        since: Mono,
    },
    Reaps {
        keeper: u32,
        pid: u32,
    },
    ProbeEnds {
        supervisor: u32,
        run: Run,
    },
    Flushed {
        supervisor: u32,
    },
    Replies {
        supervisor: u32,
        id: RequestId,
    },
    Recalls {
        supervisor: u32,
        run: Run,
        since: Mono,
    },
    Deadline {
        supervisor: u32,
        at: Mono,
    },
    KeeperIsMissed {
        supervisor: u32,
    },
    SupervisorStarts {
        keeper: u32,
    },
    /// Nobody is left; a person types `up`.
    Up,
    /// The promises are looked at.
    Look,
    /// From now on nothing breaks, and everything shall run.
    Calm,
    /// By now everything does.
    AllIsWell,
    /// It should have ended long ago.
    TheEnd,
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Somebody dies, at the `after`th moment of this kind from now on.
    Kill { whom: Victim, when: Moment, after: u64 },
    /// The disk takes nothing for a while: records, directories, programs.
    DiskHangs,
    /// Programs cannot be started for a while.
    Obstacle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Supervisor,
    Keeper,
    Both,
}

/// Points between which a kill may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Whatever it is.
    Any,
    /// A record is about to be written.
    Record,
    /// An order is about to be carried out.
    Order,
    Cloned,
    Noted,
    Executed,
    Died,
    Noticed,
    Reaped,
    Started,
    /// The plans are about to be left to the next supervisor, or were.
    Replanned,
}

pub(super) const MOMENTS: [Moment; 11] = [
    Moment::Any,
    Moment::Record,
    Moment::Order,
    Moment::Cloned,
    Moment::Noted,
    Moment::Executed,
    Moment::Died,
    Moment::Noticed,
    Moment::Reaped,
    Moment::Started,
    Moment::Replanned,
];

/// The supervisor was killed where it stands; its caller returns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Killed;

/// One process of a run.
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) run: Run,
    pub(super) work: Work,
    /// As what it was started.
    pub(super) spec: Arc<Spec>,
    pub(super) is_first: bool,
    pub(super) parent: u32,
    pub(super) born: Mono,
    pub(super) conduct: Conduct,
    /// It has become its program, and carries its marker.
    pub(super) is_marked: bool,
    /// It was not in the records when both died: nobody can know it.
    pub(super) is_forsaken: bool,
    /// A successor killed it as a leftover, and it does not go: a process that waits for a disk.
    pub(super) is_leftover: bool,
    /// No instance answers for it any more.
    pub(super) is_left: bool,
    pub(super) is_killed: bool,
    /// It has ended, and nobody has reaped it.
    pub(super) zombie: Option<Exit>,
}

/// What is known of an instance to whoever comes after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: InstanceName,
    pub(super) instance: Instance,
    pub(super) process: Option<u32>,
}

/// Records: in memory that both processes hold, or on the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) memory: Memory,
    pub(super) instances: Vec<Option<Record>>,
}

/// The plans that are left to the next supervisor.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) running: Arc<Plan>,
    pub(super) next: Option<Arc<Plan>>,
    /// The keeper of today has it.
    pub(super) is_left: bool,
}

impl Launch {
    pub(super) fn plan(&self, revision: u64) -> &Arc<Plan> {
        self.next.as_ref().filter(|next| next.revision == revision).unwrap_or(&self.running)
    }
}

/// Everything but the supervisor's own mind.
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Mono,
    /// What the file says now: nobody has a place yet.
    pub(super) file: Plan,
    names: u64,
    pub(super) launch: Launch,
    /// On the disk.
    pub(super) published: Option<Arc<Plan>>,
    agenda: BTreeMap<(Mono, u64), Happening>,
    entries: u64,
    pub(super) processes: BTreeMap<u32, Process>,
    pids: u32,
    /// When a process of each instance ended last.
    pub(super) last_ends: BTreeMap<InstanceId, Mono>,
    /// Whose child each process of laneway is.
    parents: BTreeMap<u32, u32>,
    pub(super) keeper: Option<u32>,
    pub(super) supervisor: Option<u32>,
    pub(super) shared: Records,
    /// The keeper of today has the records.
    pub(super) is_kept: bool,
    /// Runs with a process that was left to the first process of the machine.
    pub(super) orphans: BTreeSet<Run>,
    /// Requests that were recorded: this pair knows them, whoever asks again.
    pub(super) heard: BTreeSet<RequestId>,
    /// Which run each instance's last birth note is for, and who was born.
    pub(super) births: Vec<(u64, u32)>,
    pub(super) disk: Records,
    pub(super) disk_hangs_until: Mono,
    pub(super) obstacle_until: Mono,
    pub(super) is_calm: bool,
    /// The kills that wait for their moments.
    traps: Vec<(Victim, Moment, u64)>,
    pub(super) kills: u64,
    /// When a person last wished something that may end a healthy server, and which run it was about: it may not be
    /// born yet.
    pub(super) wished_away: Vec<Option<(Mono, Option<Run>)>>,
    /// Which request signalled whom.
    delivered: BTreeSet<(RequestId, InstanceId)>,
    pub(super) broken: Option<String>,
    /// What happened, if anybody wants to know.
    story: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, is_told: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = fleets::fleet(&mut dice);
        let mut world = Self {
            dice,
            now: Mono::from_millis(1_000_000),
            agenda: BTreeMap::new(),
            entries: 0,
            processes: BTreeMap::new(),
            pids: 100,
            last_ends: BTreeMap::new(),
            parents: BTreeMap::new(),
            keeper: None,
            supervisor: None,
            shared: Records::default(),
            is_kept: false,
            orphans: BTreeSet::new(),
            heard: BTreeSet::new(),
            births: Vec::new(),
            disk: Records::default(),
            disk_hangs_until: Mono::default(),
            obstacle_until: Mono::default(),
            is_calm: false,
            traps: Vec::new(),
            kills: 0,
            wished_away: Vec::new(),
            delivered: BTreeSet::new(),
            broken: None,
            story: is_told.then(Vec::new),
            names: plan.specs.len() as u64,
            file: Plan::clone(&plan),
            published: None,
            launch: Launch { running: plan, next: None, is_left: false },
        };
        world.make_room();
        world
    }

    /// The plan that counts: whoever comes next goes by it.
    pub(super) fn plan(&self) -> &Arc<Plan> {
        self.launch.plan(self.shared.memory.revision())
    }

    /// For as many places as the plan has.
    pub(super) fn make_room(&mut self) {
        let count = self.plan().specs.len().max(self.births.len());
        self.shared.instances.resize(count, None);
        self.disk.instances.resize(count, None);
        self.births.resize(count, (0, 0));
        self.wished_away.resize(count, None);
    }

    /// Somebody writes another file.
    pub(super) fn edit(&mut self) {
        self.file = fleets::edited(&mut self.dice, &self.file, &mut self.names);
        self.tell(|| "the file is another one".to_owned());
    }

    /// Leaves plans to the next supervisor.
    pub(super) fn leave(&mut self, running: &Arc<Plan>, next: Option<&Arc<Plan>>) -> Result<(), Killed> {
        self.pass(Moment::Replanned)?;
        self.launch = Launch { running: Arc::clone(running), next: next.cloned(), is_left: true };
        self.pass(Moment::Replanned)
    }

    /// Notes a line of the story.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            story.push(format!("{now} {}", brief(&line())));
        }
    }

    /// The last so many lines of the story.
    pub(super) fn story(&self, lines: usize) -> String {
        let all = self.story.as_deref().unwrap_or_default();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Notes the first promise that was broken.
    pub(super) fn broke(&mut self, promise: impl fmt::Display) {
        self.tell(|| format!("BROKEN: {promise}"));
        self.broken.get_or_insert_with(|| promise.to_string());
    }

    pub(super) fn after(&mut self, wait: Duration, happening: Happening) {
        self.entries += 1;
        self.agenda.insert((self.now + wait, self.entries), happening);
    }

    /// Between `low` and `high` milliseconds from now.
    pub(super) fn soon(&mut self, low: u64, high: u64, happening: Happening) {
        let wait = self.dice.millis(low, high);
        self.after(wait, happening);
    }

    /// Moves time on to what happens next.
    pub(super) fn next(&mut self) -> Option<Happening> {
        let ((at, _), happening) = self.agenda.pop_first()?;
        self.now = self.now.max(at);
        Some(happening)
    }

    pub(super) fn is_pending(&self, is_it: impl Fn(&Happening) -> bool) -> bool {
        self.agenda.values().any(is_it)
    }

    pub(super) fn new_pid(&mut self) -> u32 {
        self.pids += 1;
        self.pids
    }

    /// Starts a process of laneway.
    pub(super) fn start(&mut self, parent: u32) -> u32 {
        let pid = self.new_pid();
        self.parents.insert(pid, parent);
        pid
    }

    // ---- kills of laneway ----

    pub(super) fn set_trap(&mut self, whom: Victim, when: Moment, after: u64) {
        self.traps.push((whom, when, after));
    }

    pub(super) fn disarm(&mut self) {
        self.traps.clear();
    }

    /// A moment at which a kill may come.
    pub(super) fn pass(&mut self, moment: Moment) -> Result<(), Killed> {
        let is_it = |when: &Moment| *when == moment || *when == Moment::Any;
        let sprung = self.traps.iter().position(|(_, when, left)| is_it(when) && *left == 0);
        for (_, _, left) in self.traps.iter_mut().filter(|(_, when, _)| is_it(when)) {
            *left = left.saturating_sub(1);
        }
        let Some(sprung) = sprung else { return Ok(()) };
        let (whom, _, _) = self.traps.remove(sprung);
        self.tell(|| format!("kill -9 {whom:?} at {moment:?}"));
        self.kill(whom)
    }

    fn kill(&mut self, whom: Victim) -> Result<(), Killed> {
        self.kills += 1;
        if matches!(whom, Victim::Keeper | Victim::Both)
            && let Some(keeper) = self.keeper.take()
        {
            self.bequeath(keeper);
            if let Some(supervisor) = self.supervisor {
                self.soon(0, 3, Happening::KeeperIsMissed { supervisor });
            }
        }
        let mut result = Ok(());
        if matches!(whom, Victim::Supervisor | Victim::Both)
            && let Some(supervisor) = self.supervisor.take()
        {
            self.bequeath(supervisor);
            if let Some(keeper) = self.keeper {
                let longest = if self.dice.chance(25) { 60 } else { 8 };
                self.soon(1, longest, Happening::SupervisorStarts { keeper });
            }
            result = Err(Killed);
        }
        if self.keeper.is_none() && self.supervisor.is_none() {
            self.both_died();
        }
        result
    }

    /// Only the disk remembers. Who is not on it as it is will not be known again.
    fn both_died(&mut self) {
        if self.is_pending(|happening| matches!(happening, Happening::Up)) {
            return;
        }
        self.is_kept = false;
        self.heard.clear();
        self.tell(|| "both are dead".to_owned());
        let known: BTreeSet<u32> = (self.shared.instances.iter().flatten())
            .filter(|record| self.disk.instances.contains(&Some((*record).clone())))
            .filter_map(|record| record.process)
            .collect();
        let runs: BTreeSet<Run> =
            self.processes.iter().filter(|(pid, _)| known.contains(pid)).map(|(_, process)| process.run).collect();
        for process in self.processes.values_mut() {
            process.is_forsaken |= !runs.contains(&process.run);
        }
        self.launch = Launch { running: Arc::clone(self.plan()), next: None, is_left: false };
        self.shared = Records::default();
        self.soon(20, 2500, Happening::Up);
    }

    /// The children of a dead process of laneway go to the nearest of its ancestors that takes orphans.
    fn bequeath(&mut self, dead: u32) {
        let heir = self.heir_of(dead);
        let children: Vec<_> =
            self.processes.iter().filter(|(_, process)| process.parent == dead).map(|(pid, _)| *pid).collect();
        for pid in children {
            self.give(pid, heir);
        }
        for parent in self.parents.values_mut().filter(|parent| **parent == dead) {
            *parent = heir;
        }
    }

    fn heir_of(&self, pid: u32) -> u32 {
        let mut heir = pid;
        while heir != INIT {
            heir = self.parents.get(&heir).copied().unwrap_or(INIT);
            if self.keeper == Some(heir) || self.supervisor == Some(heir) {
                break;
            }
        }
        heir
    }

    fn give(&mut self, pid: u32, parent: u32) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.parent = parent;
            if parent == INIT {
                self.orphans.insert(process.run);
            }
            if parent == INIT && process.zombie.is_some() {
                self.processes.remove(&pid);
            }
        }
    }

    // ---- processes of runs ----

    /// Whether something that does not go still has what an instance takes over.
    pub(super) fn is_port_taken(&self, spec: &Spec) -> bool {
        !self.living(|process| process.is_leftover && process.spec.facts.port == spec.facts.port).is_empty()
    }

    /// A child of the supervisor, which has done nothing yet.
    pub(super) fn make(&mut self, run: Run, work: Work, spec: Arc<Spec>, parent: u32) -> u32 {
        let is_in_the_way = |process: &Process| {
            let is_one = process.run.instance == run.instance || process.spec.name == spec.name;
            !process.is_left && (is_one || process.spec.facts.port == spec.facts.port)
        };
        if let Some(pid) = self.living(is_in_the_way).first() {
            let other = &self.processes[pid];
            let promise =
                format!("{run} ({}) begins while pid {pid} of {} ({}) lives", spec.name, other.run, other.spec.name);
            self.broke(format!("two live runs: {promise}"));
        }
        let conduct = match work {
            Work::PreStart(_) => fleets::preparation(&mut self.dice, self.is_calm),
            Work::Server => fleets::server(&mut self.dice, &spec, self.is_calm),
        };
        let pid = self.new_pid();
        let process = Process {
            run,
            work,
            spec,
            is_first: true,
            parent,
            born: self.now,
            conduct,
            is_marked: false,
            is_forsaken: false,
            is_leftover: false,
            is_left: false,
            is_killed: false,
            zombie: None,
        };
        self.processes.insert(pid, process);
        self.tell(|| format!("pid {pid} is cloned for {run}"));
        self.soon(0, 1, Happening::Notes(pid));
        pid
    }

    pub(super) fn notes(&mut self, pid: u32) {
        let Some(process) = self.processes.get(&pid).filter(|process| process.zombie.is_none()) else { return };
        self.births[process.run.instance.index()].1 = pid;
        self.tell(|| format!("pid {pid} notes its birth"));
        let slow = if self.disk_hangs_until > self.now { 400 } else { 2 };
        self.soon(0, slow, Happening::Execs(pid));
    }

    /// Returns whether it became its program.
    pub(super) fn execs(&mut self, pid: u32) -> bool {
        let is_refused = self.obstacle_until > self.now;
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.zombie.is_none()) else {
            return false;
        };
        if is_refused {
            // It takes back what it noted: it never became anything.
            self.births[process.run.instance.index()].1 = 0;
            self.dies(pid, Exit::Code(127));
            return false;
        }
        process.is_marked = true;
        let Conduct { ends, children, ready, .. } = process.conduct;
        if let Some((at, code)) = ends {
            self.after(at, Happening::Dies { pid, exit: Exit::Code(code) });
        }
        for _ in 0..children {
            let most = ready.mul_f64(0.5).min(Duration::from_secs(1));
            let at = if self.dice.chance(50) { self.dice.millis(0, 1) } else { most };
            self.after(at, Happening::Forks(pid));
        }
        true
    }

    pub(super) fn forks(&mut self, parent: u32) {
        let Some(process) = self.processes.get(&parent).filter(|process| process.zombie.is_none()) else { return };
        let child = Process { is_first: false, parent, is_killed: false, ..process.clone() };
        let run = child.run;
        let pid = self.new_pid();
        self.processes.insert(pid, child);
        self.tell(|| format!("pid {parent} of {run} forks pid {pid}"));
    }

    /// Returns whether it was alive.
    pub(super) fn dies(&mut self, pid: u32, exit: Exit) -> bool {
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.zombie.is_none()) else {
            return false;
        };
        process.zombie = Some(exit);
        self.last_ends.insert(process.run.instance, self.now);
        let (run, parent, is_first) = (process.run, process.parent, process.is_first);
        self.tell(|| format!("pid {pid} of {run} ends: {exit}"));
        let is_laneways = [self.keeper, self.supervisor].contains(&Some(parent));
        if !is_laneways {
            // Its own parent, or the first process, reaps it at once.
            self.processes.remove(&pid);
        }
        let heir = if is_laneways { parent } else { INIT };
        let children: Vec<_> = self.processes.iter().filter(|(_, p)| p.parent == pid).map(|(pid, _)| *pid).collect();
        for child in children {
            self.give(child, heir);
        }
        if let (true, Some(supervisor)) = (is_first, self.supervisor) {
            self.soon(0, 2, Happening::Noticed { supervisor, run });
        }
        true
    }

    pub(super) fn is_alive(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.zombie.is_none())
    }

    pub(super) fn living(&self, is_it: impl Fn(&Process) -> bool) -> Vec<u32> {
        let alive = self.processes.iter().filter(|(_, process)| process.zombie.is_none() && is_it(process));
        alive.map(|(pid, _)| *pid).collect()
    }

    /// Everything that lives of an instance and that its machine has to answer for.
    pub(super) fn living_for(&self, id: InstanceId) -> Vec<u32> {
        self.living(|process| process.run.instance == id && !process.is_left)
    }

    pub(super) fn living_of(&self, run: Run) -> Vec<u32> {
        self.living(|process| process.run == run)
    }

    /// A signal to the group of a run's first process.
    pub(super) fn signal(&mut self, run: Run) {
        for pid in self.living_of(run) {
            self.must_be_deserved(pid, "is asked to end");
            if !self.processes[&pid].conduct.ignores_term {
                let exit = if self.dice.chance(50) {
                    Exit::Code(0)
                } else {
                    Exit::Signal { signal: Signal::TERM, core: false }
                };
                self.soon(0, 300, Happening::Dies { pid, exit });
            }
        }
    }

    /// A person's SIGKILL to a run's first process, which comes once if at all.
    pub(super) fn deliver(&mut self, id: RequestId, run: Run) {
        if !self.delivered.insert((id, run.instance)) {
            self.broke(format!("{id:?} signalled {:?} twice", run.instance));
        }
        for pid in self.living(|process| process.run == run && process.is_first) {
            self.kill_process(pid);
        }
    }

    pub(super) fn kill_run(&mut self, run: Run) {
        for pid in self.living_of(run) {
            self.kill_process(pid);
        }
    }

    pub(super) fn kill_process(&mut self, pid: u32) {
        self.must_be_deserved(pid, "is killed");
        let Some(process) = self.processes.get_mut(&pid).filter(|process| !process.is_killed) else { return };
        // Who waits for a disk hears a second kill no sooner than the first.
        process.is_killed = true;
        let dying = process.conduct.dying;
        let exit = Exit::Signal { signal: Signal::KILL, core: false };
        self.soon(0, dying, Happening::Dies { pid, exit });
    }

    /// A successor ends what nobody knows any more, and waits for it: not for ever. Returns whether it is gone.
    pub(super) fn end_leftover(&mut self, pid: u32) -> bool {
        self.kill_process(pid);
        let goes = self.processes[&pid].conduct.dying < 3000;
        if goes {
            self.dies(pid, Exit::Unknown);
        } else if let Some(process) = self.processes.get_mut(&pid) {
            process.is_leftover = true;
        }
        goes
    }

    /// It does not go, and no instance answers for it.
    pub(super) fn is_left(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.is_left = true;
        }
    }

    /// What is left of a run is called by the place that its instance has now.
    pub(super) fn renumber(&mut self, pid: u32, run: Run) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.run = run;
        }
    }

    /// A healthy server is ended because a person wants it so, and for no other reason.
    fn must_be_deserved(&mut self, pid: u32, what: &str) {
        let process = &self.processes[&pid];
        let first = self.processes.values().find(|other| other.run == process.run && other.is_first);
        let is_whole = first.is_some_and(|first| first.zombie.is_none());
        let is_wished = self.wished_away[process.run.instance.index()]
            .is_some_and(|(at, run)| at >= process.born || run == Some(process.run));
        let is_good = process.work == Work::Server && !process.conduct.is_bad(&process.spec, process.born, self.now);
        if is_good && is_whole && !is_wished && !process.is_forsaken {
            let promise = format!("a healthy server, pid {pid} of {}, {what}", process.run);
            self.broke(promise);
        }
    }

    /// Takes a zombie away. Returns whether there was one.
    pub(super) fn reap(&mut self, pid: u32, parent: u32) -> bool {
        let is_its = self.processes.get(&pid).is_some_and(|p| p.zombie.is_some() && p.parent == parent);
        if is_its {
            self.tell(|| format!("pid {pid} is reaped"));
            self.processes.remove(&pid);
        }
        is_its
    }

    pub(super) fn zombies_of(&self, parent: u32) -> Vec<u32> {
        let zombies = self.processes.iter().filter(|(_, p)| p.zombie.is_some() && p.parent == parent);
        zombies.map(|(pid, _)| *pid).collect()
    }

    pub(super) fn ids(&self) -> Vec<InstanceId> {
        self.plan().ids().collect()
    }

    /// Every place, also those of instances that the file has no more.
    pub(super) fn places(&self) -> Vec<InstanceId> {
        self.plan().places().collect()
    }

    /// Whether a process runs as what the plan says of its instance.
    pub(super) fn is_as_planned(&self, process: &Process) -> bool {
        let plan = self.plan();
        plan.find(process.spec.name.as_str()) == Some(process.run.instance)
            && !plan::needs_restart(&process.spec, plan.spec(process.run.instance))
    }
}

/// Runs and instances as people write them: `3.1` is the first run of instance 3.
fn brief(line: &str) -> String {
    let line =
        line.replace("Run { instance: InstanceId(", "").replace("), generation: ", ".").replace("InstanceId(", "i(");
    line.replace("run: ", "").replace(" },", ",")
}
