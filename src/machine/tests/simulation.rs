//! Whole fleets in virtual time, under random faults: servers crash and hang, disks are slow, clients ask, and keeper and
//! supervisor are killed between any two steps of theirs. One seed is one story, and is told the same way each time.
//!
//! `LANEWAY_SIM_SEEDS=100000 cargo test --lib simulation` looks at more; `LANEWAY_SIM_SEED=123` tells one.

mod dice;
mod fleets;
mod large;
mod promises;
mod supervisor;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{Goal, InstanceName, Plan, Request, RequestId, Signal, Wait};
use crate::plan;
use supervisor::{After, Supervisor};
use world::{Fault, Happening, Killed, MOMENTS, Moment, Victim, World};

/// How many stories are enough for every day.
const SEEDS: u64 = 1000;

/// Somebody who asked for something.
struct Client {
    wish: Wish,
    is_answered: bool,
    /// Both died: whoever asked was told that his connection broke, and gives up.
    gave_up: bool,
}

/// What somebody asks for, by name: places may change hands.
#[derive(Clone, Debug)]
enum Wish {
    Start(Vec<InstanceName>, Wait),
    StartAll(Wait),
    Restart(Vec<InstanceName>, Wait),
    RestartAll,
    Stop(Vec<InstanceName>),
    Kill(Vec<InstanceName>),
    Apply(Wait),
    Down { now: bool },
}

/// One story.
struct Story {
    world: World,
    supervisor: Option<Supervisor>,
    clients: BTreeMap<RequestId, Client>,
    /// What each instance is wanted to do, if that is certain.
    goals: BTreeMap<InstanceName, Goal>,
    /// Who stopped, as a person was told.
    held: BTreeSet<InstanceName>,
    /// The plan that goals and held ones are of.
    plan: Arc<Plan>,
    is_down_asked: bool,
    is_over: bool,
    events: u64,
}

impl Story {
    fn new(seed: u64, is_told: bool) -> Self {
        let mut world = World::new(seed, is_told);
        world.soon(0, 1, Happening::Up);
        let is_long = world.dice.chance(20);
        let troubled = if is_long { 60 } else { 20 };
        for _ in 0..world.dice.between(2, 10) {
            world.soon(0, troubled * 1000, Happening::NewRequest);
        }
        for _ in 0..world.dice.between(1, 12) {
            let fault = match world.dice.between(0, 9) {
                0 => Fault::DiskHangs,
                1 => Fault::Obstacle,
                _ => Fault::Kill {
                    whom: match world.dice.between(0, 9) {
                        0..6 => Victim::Supervisor,
                        6..9 => Victim::Keeper,
                        _ => Victim::Both,
                    },
                    when: world.dice.pick(&MOMENTS),
                    after: world.dice.between(0, 12),
                },
            };
            world.soon(0, troubled * 1000, Happening::Fault(fault));
        }
        // Some come in a row.
        if world.dice.chance(50) {
            let at = world.dice.millis(0, troubled * 1000);
            for number in 0..world.dice.between(2, 5) {
                let whom = world.dice.pick(&[Victim::Supervisor, Victim::Keeper]);
                let when = world.dice.pick(&MOMENTS);
                let fault = Fault::Kill { whom, when, after: world.dice.between(0, 3) };
                world.after(at + Duration::from_millis(7 * number), Happening::Fault(fault));
            }
        }
        world.after(Duration::from_secs(troubled), Happening::Calm);
        world.soon(100, 900, Happening::Look);
        for _ in 0..world.dice.between(0, 4) {
            let at = world.dice.millis(0, troubled * 1000);
            world.after(at, Happening::Edited);
            if world.dice.chance(40) {
                world.after(at + Duration::from_millis(1), Happening::HangUp);
            }
        }
        // Births are short; whoever wants to see kills amid them has to aim.
        if world.dice.chance(50) {
            let at = world.dice.millis(0, troubled * 1000);
            let when = world.dice.pick(&[Moment::Cloned, Moment::Noted, Moment::Executed]);
            let after = world.dice.between(0, 2);
            if world.dice.chance(60) {
                let kill = Fault::Kill { whom: Victim::Keeper, when: Moment::Any, after: 0 };
                world.after(at, Happening::Fault(kill));
            }
            let kill = Fault::Kill { whom: Victim::Supervisor, when, after };
            world.after(at + Duration::from_millis(10), Happening::Fault(kill));
            world.after(at + Duration::from_millis(10), Happening::NewRequest);
        }
        let plan = Arc::clone(world.plan());
        Self {
            world,
            supervisor: None,
            clients: BTreeMap::new(),
            goals: BTreeMap::new(),
            held: BTreeSet::new(),
            plan,
            is_down_asked: false,
            is_over: false,
            events: 0,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        while !self.is_over && self.world.broken.is_none() {
            let Some(happening) = self.world.next() else {
                self.world.broke("nothing happens any more");
                break;
            };
            self.events += 1;
            if self.events > 400_000 {
                self.world.broke("it never ends");
            }
            let result = self.happens(happening);
            self.bury(result);
        }
        self.world.broken.clone().map_or(Ok(()), Err)
    }

    /// Whoever was killed forgets everything.
    fn bury(&mut self, _: Result<(), Killed>) {
        if self.supervisor.as_ref().map(|supervisor| supervisor.pid) != self.world.supervisor {
            self.supervisor = None;
        }
        if self.supervisor.as_ref().is_some_and(|supervisor| supervisor.has_ended) {
            self.ends();
        }
        self.go_over();
        if self.world.is_pending(|it| matches!(it, Happening::Up)) {
            self.goals.clear();
            for client in self.clients.values_mut() {
                client.gave_up = true;
            }
        }
    }

    /// Another plan may have taken the place of the one that ran.
    fn go_over(&mut self) {
        let plan = Arc::clone(self.world.plan());
        if Arc::ptr_eq(&plan, &self.plan) {
            return;
        }
        let old = std::mem::replace(&mut self.plan, Arc::clone(&plan));
        self.goals.retain(|name, _| plan.find(name.as_str()).is_some());
        self.held.retain(|name| plan.find(name.as_str()).is_some());
        let mut next = Vec::new();
        for id in plan.ids() {
            let name = &plan.spec(id).name;
            match old.find(name.as_str()) {
                None => {
                    self.goals.insert(name.clone(), Goal::Up);
                    self.held.remove(name);
                    next.push(id);
                }
                Some(was) if plan::needs_restart(old.spec(was), plan.spec(id)) => next.push(id),
                Some(_) => {}
            }
        }
        // What the new ones depend on is started, unless somebody stopped it.
        while let Some(one) = next.pop() {
            for dependency in &plan.spec(one).depends_on {
                let name = &plan.spec(dependency.on).name;
                if self.goals.get(name) == Some(&Goal::Down) {
                    self.goals.remove(name);
                }
                next.push(dependency.on);
            }
        }
    }

    /// `down` is done.
    fn ends(&mut self) {
        self.is_over = true;
        let left = self.world.living(|process| process.conduct.dying < 3000);
        if !left.is_empty() {
            self.world.broke(format!("laneway has ended, and {left:?} are left"));
        }
        if !self.is_down_asked {
            self.world.broke("laneway has ended, and nobody asked for that");
        }
    }

    fn happens(&mut self, happening: Happening) -> Result<(), Killed> {
        match &happening {
            Happening::Fault(fault) => self.breaks(*fault),
            Happening::NewRequest | Happening::Edited | Happening::HangUp if self.world.is_calm => {}
            Happening::NewRequest => self.new_request(None),
            Happening::Edited => self.world.edit(),
            Happening::HangUp => {
                if let Some(supervisor) = &mut self.supervisor {
                    return supervisor.happens(&mut self.world, &happening);
                }
            }
            Happening::Asks(id) => return self.asks(*id),
            Happening::Replies { supervisor, id } => {
                if self.world.supervisor == Some(*supervisor) {
                    self.answered(*id);
                }
            }
            Happening::Notes(pid) => {
                self.world.notes(*pid);
                return self.world.pass(world::Moment::Noted);
            }
            Happening::Forks(pid) => self.world.forks(*pid),
            Happening::Execs(pid) => {
                let maker = self.world.processes.get(pid).map(|process| process.parent);
                match &mut self.supervisor {
                    Some(supervisor) if maker == Some(supervisor.pid) => {
                        return supervisor.happens(&mut self.world, &happening);
                    }
                    Some(_) | None => {
                        self.world.execs(*pid);
                    }
                }
            }
            Happening::Dies { pid, exit } => {
                if self.world.dies(*pid, *exit) {
                    self.world.pass(world::Moment::Died)?;
                    if let Some(supervisor) = &mut self.supervisor {
                        return supervisor.happens(&mut self.world, &happening);
                    }
                }
            }
            Happening::Reaps { keeper, pid } => {
                if self.world.keeper == Some(*keeper) && self.world.reap(*pid, *keeper) {
                    return self.world.pass(world::Moment::Reaped);
                }
            }
            Happening::Job { supervisor, .. }
            | Happening::Noticed { supervisor, .. }
            | Happening::SweepRound { supervisor, .. }
            | Happening::ProbeEnds { supervisor, .. }
            | Happening::Flushed { supervisor }
            | Happening::Resolved { supervisor }
            | Happening::Published { supervisor, .. }
            | Happening::Recalls { supervisor, .. }
            | Happening::Deadline { supervisor, .. }
            | Happening::KeeperIsMissed { supervisor } => {
                let of = *supervisor;
                if let Some(supervisor) = self.supervisor.as_mut().filter(|supervisor| supervisor.pid == of) {
                    return supervisor.happens(&mut self.world, &happening);
                }
            }
            Happening::SupervisorStarts { keeper } => {
                if self.world.keeper == Some(*keeper) {
                    let after = if self.world.is_kept { After::Supervisor } else { After::Both };
                    return self.supervisor_starts(*keeper, after);
                }
            }
            Happening::Up => return self.up(),
            Happening::Look => self.look(),
            Happening::Calm => self.calm(),
            Happening::AllIsWell => self.all_is_well(),
            Happening::TheEnd => self.world.broke("down does not end"),
        }
        Ok(())
    }

    fn breaks(&mut self, fault: Fault) {
        if self.world.is_calm {
            return;
        }
        let now = self.world.now;
        match fault {
            Fault::Kill { whom, when, after } => {
                self.world.tell(|| format!("{whom:?} shall die at {when:?} after {after}"));
                self.world.set_trap(whom, when, after);
            }
            Fault::DiskHangs => self.world.disk_hangs_until = now + self.world.dice.millis(100, 3000),
            Fault::Obstacle => self.world.obstacle_until = now + self.world.dice.millis(100, 3000),
        }
    }

    fn supervisor_starts(&mut self, parent: u32, after: After) -> Result<(), Killed> {
        let pid = self.world.start(parent);
        self.world.tell(|| format!("supervisor {pid} starts after {after:?}"));
        self.world.supervisor = Some(pid);
        let before = self.world.shared.instances.clone();
        let seed = self.world.dice.between(0, u64::MAX - 1);
        let supervisor = Supervisor::start(&mut self.world, pid, after, seed)?;
        if after == After::Supervisor {
            promises::about_a_successor(&mut self.world, &before, &supervisor.fleet);
        }
        self.supervisor = Some(supervisor);
        if after == After::Both {
            // Whatever the file says of new ones, somebody has to start them.
            self.goals.clear();
            self.plan = Arc::clone(self.world.plan());
            self.held.retain(|name| self.plan.find(name.as_str()).is_some());
        }
        self.go_over();
        self.holds();
        for (id, _) in self.clients.iter().filter(|(_, client)| !client.is_answered && !client.gave_up) {
            self.world.soon(0, 20, Happening::Asks(*id));
        }
        Ok(())
    }

    /// A person types `up`.
    fn up(&mut self) -> Result<(), Killed> {
        let keeper = self.world.start(world::INIT);
        self.world.keeper = Some(keeper);
        if !self.world.is_calm && self.world.dice.chance(30) {
            let after = self.world.dice.between(0, 3);
            self.breaks(Fault::Kill { whom: Victim::Supervisor, when: Moment::Started, after });
        }
        let names = || self.world.file.specs.iter().map(|spec| spec.name.clone()).collect();
        let everybody = Wish::Start(names(), Wait::Started);
        let wish = if self.world.dice.chance(50) { everybody } else { Wish::StartAll(Wait::Started) };
        self.new_request(Some(wish));
        self.supervisor_starts(keeper, After::Both)
    }

    /// What a person was told is remembered by whoever comes after both died.
    fn holds(&mut self) {
        let Some(supervisor) = &self.supervisor else { return };
        let plan = supervisor.fleet.plan();
        let is_held =
            |name: &&InstanceName| plan.find(name.as_str()).is_none_or(|id| supervisor.fleet.instance(id).held);
        let forgotten: Vec<_> = self.held.iter().filter(|name| !is_held(name)).collect();
        if !forgotten.is_empty() {
            self.world.broke(format!("{forgotten:?} were stopped, a person was told so, and nobody remembers"));
        }
    }

    fn new_request(&mut self, wish: Option<Wish>) {
        if self.is_down_asked {
            return;
        }
        let dice = &mut self.world.dice;
        let wish = wish.unwrap_or_else(|| {
            let names: Vec<_> = self.plan.ids().map(|id| self.plan.spec(id).name.clone()).collect();
            let mut who: Vec<_> = (0..dice.between(1, 3)).map(|_| names[dice.position(names.len())].clone()).collect();
            who.sort_unstable();
            who.dedup();
            let wait =
                if dice.chance(50) { Wait::Started } else { Wait::Healthy { timeout: dice.millis(500, 20_000) } };
            match dice.between(0, 9) {
                0 | 1 => Wish::Start(who, wait),
                2 | 3 => Wish::Restart(who, wait),
                4 | 5 => Wish::Stop(who),
                6 => Wish::Kill(who),
                7 => Wish::StartAll(wait),
                _ => Wish::Apply(wait),
            }
        });
        if matches!(wish, Wish::Apply(_)) && !self.world.is_calm {
            self.world.edit();
        }
        let id = RequestId(self.clients.len() as u64 + 1);
        self.clients.insert(id, Client { wish, is_answered: false, gave_up: false });
        self.world.soon(0, 5, Happening::Asks(id));
    }

    fn asks(&mut self, id: RequestId) -> Result<(), Killed> {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_answered && !client.gave_up) else {
            return Ok(());
        };
        let Some(supervisor) = &mut self.supervisor else { return Ok(()) };
        let (plan, wish) = (Arc::clone(supervisor.fleet.plan()), client.wish.clone());
        self.world.tell(|| format!("a client asks {id:?}: {wish:?}"));
        let (Wish::Start(names, _) | Wish::Restart(names, _) | Wish::Stop(names) | Wish::Kill(names)) = &wish else {
            return self.asks_of_all(id, &wish);
        };
        let Some(who) = names.iter().map(|name| plan.find(name.as_str())).collect::<Option<Vec<_>>>() else {
            // One of them is not in the file any more, and a person is told so at once.
            client.gave_up = true;
            return Ok(());
        };
        if supervisor.fleet.standing(id) == super::Standing::New && !supervisor.fleet.is_ending() {
            if let Wish::Stop(names) = &wish {
                self.goals.extend(names.iter().map(|name| (name.clone(), Goal::Down)));
            } else if !matches!(wish, Wish::Kill(_)) {
                let mut next = who.clone();
                while let Some(one) = next.pop() {
                    self.goals.insert(plan.spec(one).name.clone(), Goal::Up);
                    self.held.remove(&plan.spec(one).name);
                    next.extend(plan.spec(one).depends_on.iter().map(|dependency| dependency.on));
                }
            }
        }
        let request = match wish {
            Wish::Start(_, wait) => Request::Start { who, wait },
            Wish::Restart(_, wait) => Request::Restart { who, wait },
            Wish::Kill(_) => Request::Signal { who, signal: Signal::KILL },
            Wish::Stop(_) | Wish::StartAll(_) | Wish::RestartAll | Wish::Apply(_) | Wish::Down { .. } => {
                Request::Stop { who }
            }
        };
        supervisor.asked(&mut self.world, id, &request)
    }

    /// Asks for something that names nobody.
    fn asks_of_all(&mut self, id: RequestId, wish: &Wish) -> Result<(), Killed> {
        let Some(supervisor) = &mut self.supervisor else { return Ok(()) };
        let plan = Arc::clone(supervisor.fleet.plan());
        let is_new = supervisor.fleet.standing(id) == super::Standing::New && !supervisor.fleet.is_ending();
        let request = match wish {
            Wish::StartAll(wait) => {
                let kept_stopped = supervisor.fleet.kept_stopped();
                for one in plan.ids().filter(|one| is_new && !kept_stopped.contains(one)) {
                    self.goals.insert(plan.spec(one).name.clone(), Goal::Up);
                    self.held.remove(&plan.spec(one).name);
                }
                Request::StartAll { wait: *wait }
            }
            Wish::RestartAll => {
                self.goals.extend(plan.ids().map(|one| (plan.spec(one).name.clone(), Goal::Up)));
                self.held.clear();
                Request::Restart { who: plan.ids().collect(), wait: Wait::Started }
            }
            Wish::Down { now } => {
                self.goals.extend(plan.ids().map(|one| (plan.spec(one).name.clone(), Goal::Down)));
                Request::Down { now: *now }
            }
            Wish::Apply(wait) => {
                supervisor.asked_to_apply(&mut self.world, id, *wait);
                return Ok(());
            }
            Wish::Start(..) | Wish::Restart(..) | Wish::Stop(_) | Wish::Kill(_) => return Ok(()),
        };
        supervisor.asked(&mut self.world, id, &request)
    }

    fn answered(&mut self, id: RequestId) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_answered && !client.gave_up) else {
            return;
        };
        client.is_answered = true;
        self.world.tell(|| format!("{id:?} is answered"));
        if let Wish::Stop(who) = &client.wish
            && self.world.disk_hangs_until <= self.world.now
        {
            let is_down = |one: &&InstanceName| self.goals.get(*one) == Some(&Goal::Down);
            self.held.extend(who.iter().filter(is_down).cloned());
        }
    }

    fn look(&mut self) {
        self.world.soon(700, 900, Happening::Look);
        let Some(supervisor) = &self.supervisor else { return };
        promises::about_standstill(&mut self.world, supervisor);
        promises::about_what_runs(&mut self.world, supervisor);
        if self.clients.values().all(|client| client.is_answered || client.gave_up) {
            for (name, goal) in &self.goals {
                if self.plan.find(name.as_str()).is_some_and(|id| *goal != supervisor.goal(id)) {
                    self.world.broke(format!("{name} is wanted {goal:?}, and that was forgotten"));
                }
            }
        }
    }

    fn calm(&mut self) {
        self.world.is_calm = true;
        self.world.disarm();
        self.world.obstacle_until = self.world.now;
        if self.supervisor.is_none() || self.world.is_pending(|it| matches!(it, Happening::Asks(_))) {
            self.world.soon(50, 100, Happening::Calm);
            return;
        }
        self.world.tell(|| "from now on nothing breaks".to_owned());
        self.world.after(Duration::from_secs(40), Happening::AllIsWell);
        // What began in bad times would go on with them.
        self.new_request(Some(Wish::RestartAll));
        self.new_request(Some(Wish::Apply(Wait::Started)));
    }

    fn all_is_well(&mut self) {
        let Some(supervisor) = &self.supervisor else {
            self.world.broke("no supervisor in calm times");
            return;
        };
        promises::about_calm(&mut self.world, &supervisor.fleet);
        let unanswered: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, client)| !client.is_answered && !client.gave_up)
            .map(|(id, _)| id)
            .collect();
        if !unanswered.is_empty() {
            self.world.broke(format!("nobody answers {unanswered:?}"));
        }
        let now = self.world.dice.chance(20);
        self.new_request(Some(Wish::Down { now }));
        self.is_down_asked = true;
        self.world.after(Duration::from_mins(1), Happening::TheEnd);
        // Not even now.
        self.world.is_calm = false;
        if self.world.dice.chance(50) {
            let (whom, when) =
                (self.world.dice.pick(&[Victim::Supervisor, Victim::Keeper]), self.world.dice.pick(&MOMENTS));
            let after = self.world.dice.between(0, 12);
            self.breaks(Fault::Kill { whom, when, after });
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How many broken stories are named before it is enough.
const ENOUGH: usize = 10;

/// What one thread told.
#[derive(Default)]
struct Tally {
    told: u64,
    events: u64,
    kills: u64,
    broken: Vec<(u64, String)>,
}

#[test]
fn no_kill_of_laneway_breaks_a_promise() {
    let seeds = match variable("LANEWAY_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("LANEWAY_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    let tell = || {
        let mut tally = Tally::default();
        while tally.broken.len() < ENOUGH {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let mut story = Story::new(seed, false);
            if let Err(promise) = story.run() {
                tally.broken.push((seed, promise));
            }
            tally.events += story.events;
            tally.kills += story.world.kills;
            tally.told += 1;
        }
        tally
    };
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let tellers: Vec<_> = (0..processors).map(|_| scope.spawn(tell)).collect();
        tellers.into_iter().map(|teller| teller.join().unwrap()).collect()
    });
    let told: u64 = tallies.iter().map(|tally| tally.told).sum();
    let events: u64 = tallies.iter().map(|tally| tally.events).sum();
    let kills: u64 = tallies.iter().map(|tally| tally.kills).sum();
    let mut broken: Vec<_> = tallies.into_iter().flat_map(|tally| tally.broken).collect();
    broken.sort_unstable();
    println!("{told} stories, {events} events, {kills} kills of laneway");
    let Some((seed, _)) = broken.first() else { return };
    let mut again = Story::new(*seed, true);
    let _ = again.run();
    let list: Vec<_> = broken.iter().map(|(seed, promise)| format!("  LANEWAY_SIM_SEED={seed}: {promise}")).collect();
    let lines = if told == 1 { usize::MAX } else { 60 };
    panic!(
        "the story of seed {seed}:
{}
broken promises in {told} stories:
{}",
        again.world.story(lines),
        list.join(
            "
"
        )
    );
}
