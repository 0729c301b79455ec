//! One story of a fleet so large that no step may look at everybody: all start, all crash at once, the supervisor dies amid
//! it, all end. What is bounded are the steps, and the records that they write; the clock on the wall says nothing.
//!
//! `LANEWAY_SIM_INSTANCES=100000 cargo test --lib large` tells it of more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::{
    Action, Answer, Brake, Condition, Dependency, Event, Exit, Fault, Fleet, Health, InstanceId, Mono, Obstacle, Plan,
    Request, RequestId, Run, Spec, Verdict, Wait, plan, spec,
};
use super::dice::Dice;
use super::variable;

/// How many depend on one of them: each instance of the tree but those at its end.
const BRANCHES: u32 = 100;

fn tree(count: u32) -> Arc<Plan> {
    let one = |number: u32| {
        let on = InstanceId(number.saturating_sub(1) / BRANCHES);
        let dependency = Dependency { on, condition: Condition::ServiceHealthy };
        let depends_on = if number == 0 { Vec::new() } else { vec![dependency] };
        Spec { depends_on, ..spec(&format!("i{number}")) }
    };
    let mut plan = Arc::unwrap_or_clone(plan((0..count).map(one).collect()));
    // Else most of the story would be the checks of those that have come back.
    plan.restart_brake = Some(Brake { starts: count / 10, per: Duration::from_secs(1) });
    Arc::new(plan)
}

struct Story {
    fleet: Fleet,
    now: Mono,
    dice: Dice,
    /// What has happened and was not told yet; it is told in any order.
    facts: Vec<Event>,
    alive: BTreeSet<Run>,
    healthy: BTreeSet<InstanceId>,
    answers: BTreeMap<RequestId, Answer>,
    is_over: bool,
    steps: u64,
    records: u64,
}

impl Story {
    fn of(count: u32) -> Self {
        Self {
            fleet: Fleet::new(tree(count), 7),
            now: Mono::default(),
            dice: Dice::new(7),
            facts: Vec::new(),
            alive: BTreeSet::new(),
            healthy: BTreeSet::new(),
            answers: BTreeMap::new(),
            is_over: false,
            steps: 0,
            records: 0,
        }
    }

    fn ask(&mut self, id: u64, request: Request) {
        self.step(Event::Request { id: RequestId(id), request });
    }

    fn step(&mut self, event: Event) {
        let actions = self.fleet.step(event, self.now);
        self.steps += 1;
        self.obey(actions);
    }

    fn obey(&mut self, actions: Vec<Action>) {
        self.records += self.fleet.take_unsaved().len() as u64;
        for action in actions {
            match action {
                Action::Spawn { run, .. } => self.facts.push(Event::Spawned { run, pid: run.instance.0 + 2 }),
                Action::Recall { run } if self.alive.contains(&run) => {
                    self.facts.push(Event::Spawned { run, pid: run.instance.0 + 2 });
                }
                Action::Recall { run } => self.facts.push(Event::Unborn { run }),
                Action::Signal { run, .. } | Action::Deliver { run, .. } | Action::Kill { run } => self.dies(run, 0),
                Action::Sweep { run } => self.facts.push(Event::Swept { run, left: Vec::new() }),
                Action::Probe { run } => {
                    let verdict = self.verdict();
                    self.facts.push(Event::Probed { run, verdict });
                }
                Action::Changed { instance } => {
                    if self.fleet.instance(instance).state.health() == Health::Healthy {
                        self.healthy.insert(instance);
                    } else {
                        self.healthy.remove(&instance);
                    }
                }
                Action::Reply { id, answer } => {
                    assert!(self.answers.insert(id, answer).is_none(), "{id:?} was answered twice");
                }
                Action::Exit => self.is_over = true,
            }
        }
    }

    fn verdict(&mut self) -> Verdict {
        if self.dice.chance(10) {
            return Verdict::Bad(Fault::Refused);
        }
        Verdict::Good { status: Some(200), took: Duration::from_millis(3) }
    }

    fn dies(&mut self, run: Run, code: i32) {
        if self.alive.remove(&run) {
            self.facts.push(Event::Exited { run, exit: Exit::Code(code) });
        }
    }

    /// The next of what has happened, or the next deadline.
    fn goes_on(&mut self) {
        if self.facts.is_empty() {
            self.now = self.now.max(self.fleet.next_deadline().expect("somebody waits for something"));
            return self.step(Event::DeadlinePassed);
        }
        let fact = self.facts.swap_remove(self.dice.position(self.facts.len()));
        if let Event::Spawned { run, .. } = fact {
            self.alive.insert(run);
            if self.dice.chance(1) {
                self.alive.remove(&run);
                let obstacle = Obstacle::Resources { error: "no process to give".to_owned() };
                return self.step(Event::NotSpawned { run, obstacle });
            }
        }
        self.step(fact);
    }

    /// Until `is_done`, with at most so many steps, and so many records, for each instance.
    fn until(&mut self, is_done: impl Fn(&Self) -> bool, most: u64) {
        let count = self.fleet.plan().specs.len() as u64;
        (self.steps, self.records) = (0, 0);
        while !is_done(self) {
            self.goes_on();
            assert!(
                self.steps.max(self.records) <= most * count,
                "{} of {count} are healthy after {} steps and {} records",
                self.healthy.len(),
                self.steps,
                self.records
            );
        }
        println!("at {}: {} steps, {} records", self.now, self.steps, self.records);
        assert_eq!(self.fleet.overlooked(self.now), []);
    }

    /// Another supervisor comes after this one. What was to be made is not; what is alive stays so.
    fn supervisor_dies(&mut self) {
        self.facts.retain(|fact| !matches!(fact, Event::Spawned { .. }));
        let plan = Arc::clone(self.fleet.plan());
        let instances = plan.places().map(|id| self.fleet.instance(id).clone()).collect();
        self.fleet = Fleet::restore(plan, 8, instances, self.fleet.memory());
        let actions = self.fleet.resume(self.now);
        self.obey(actions);
        assert_eq!(self.fleet.overlooked(self.now), []);
    }
}

#[test]
fn a_large_fleet_costs_each_of_its_instances_no_more_than_a_small_one() {
    let count = variable("LANEWAY_SIM_INSTANCES").map_or(10_000, |count| u32::try_from(count).unwrap());
    let mut story = Story::of(count);
    let all_are_healthy = |story: &Story| story.healthy.len() == count as usize;

    story.ask(1, Request::StartAll { wait: Wait::Healthy { timeout: Duration::from_hours(1) } });
    story.until(all_are_healthy, 6);

    let runs: Vec<_> = story.alive.iter().copied().collect();
    for run in runs {
        story.dies(run, 1);
    }
    story.until(|story| story.healthy.is_empty(), 6);
    story.until(|story| story.healthy.len() > count as usize / 2, 6);
    story.supervisor_dies();
    // The last ones are back after 14 s: all others are checked thrice meanwhile.
    story.until(all_are_healthy, 12);

    story.ask(2, Request::Down { now: false });
    story.until(|story| story.is_over, 6);
    assert_eq!(story.answers.get(&RequestId(2)), Some(&Answer::default()));
    assert!(story.answers.contains_key(&RequestId(1)) && story.alive.is_empty());
}
