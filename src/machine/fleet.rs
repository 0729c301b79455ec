//! All instances together: who may begin, who may end, what was wished, and when to look again. In `replan`: how another
//! plan takes the place of the one that runs.

mod replan;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::action::{Action, Answer, Trouble};
use super::brake::Brake;
use super::event::{Event, Request, RequestId, Wait};
use super::instance::{Context, Instance};
use super::state::{Cause, Sent, Stage, Starting, State, Then, Waiting};
use crate::model::{Goal, Health, InstanceId, Mono, Phase, Run, Signal};
use crate::plan::spec::{Condition, Plan, RestartPolicy};

/// The state of a whole fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    plan: Arc<Plan>,
    /// Spreads the waits of this supervisor's instances.
    seed: u64,
    instances: Vec<Instance>,
    /// What people were last told of each.
    shown: Vec<(Phase, Health, Option<usize>)>,
    /// Who depends on each, and the search among them for one that it may not end before.
    dependents: Vec<(Vec<InstanceId>, Round)>,
    /// The deadline of each that has one, and in the order of time.
    deadlines: Vec<Option<Mono>>,
    timeline: BTreeSet<(Mono, InstanceId)>,
    /// Who wants to begin or to end and may get the fleet's leave by what has changed in this step.
    woken: BTreeSet<InstanceId>,
    /// What has to be gone before each may begin: older runs of others, which have what it takes over.
    predecessors: BTreeMap<InstanceId, BTreeSet<Run>>,
    /// Who was changed by this step.
    touched: BTreeSet<InstanceId>,
    /// Somebody was changed by this step in what others go by.
    has_news: bool,
    brake: Brake,
    count: Count,
    wishes: Vec<Wish>,
    /// The last wishes that were answered, and how.
    answered: VecDeque<(RequestId, Answer)>,
    ending: bool,
    /// Whose record has to be written again.
    unsaved: BTreeSet<InstanceId>,
}

/// How many there are of some that would take a look at everybody to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// Wait for the brake.
    braked: u32,
    /// Have something left that an end of laneway waits for.
    left: usize,
}

impl Count {
    fn of<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Self {
        let mut count = Self::default();
        for instance in instances {
            count.braked += u32::from(matches!(instance.state, State::Waiting(Waiting::Brake { .. })));
            count.left += usize::from(instance.state != State::Stopped && instance.state.survivors().is_empty());
        }
        count
    }

    fn replace(&mut self, before: Self, after: Self) {
        self.braked = self.braked - before.braked + after.braked;
        self.left = self.left - before.left + after.left;
    }
}

/// What outlives a supervisor besides its instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    wishes: Vec<Wish>,
    answered: VecDeque<(RequestId, Answer)>,
    ending: bool,
    brake_full_at: Mono,
    /// The plan that the rest is about.
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    predecessors: BTreeMap<InstanceId, BTreeSet<Run>>,
}

impl Memory {
    /// What of it still holds under `plan` when nobody is left who could be answered: who waits for whose end.
    #[must_use]
    pub fn without_wishes(self, plan: &Plan) -> Self {
        Self { predecessors: self.predecessors, revision: plan.revision, ..Self::default() }
    }

    /// The same without what a fleet does without: who asks again asks anew, and who takes over a port that is still held
    /// looks again each second.
    #[must_use]
    pub fn abridged(&self) -> Self {
        Self { answered: VecDeque::new(), predecessors: BTreeMap::new(), ..self.clone() }
    }

    /// The revision of the plan that was run.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was never heard of.
    New,
    /// It was heard, and has not had its effect.
    Waits,
    /// It was answered.
    Answered(Answer),
}

/// How many answered wishes are remembered, for clients that ask again because their supervisor died.
const ANSWERED: usize = 64;

/// A request that has not had its effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wish {
    id: RequestId,
    who: Vec<InstanceId>,
    until: Until,
    deadline: Option<Mono>,
    /// Who shall be gone.
    #[serde(default)]
    gone: Vec<InstanceId>,
    /// Over its parts, for one that it waits for.
    #[serde(skip)]
    round: Round,
}

impl Wish {
    /// The one at this place among those that it is about, and what shall become of it.
    fn part(&self, place: usize) -> Option<(InstanceId, Until)> {
        let gone = || Some((*self.gone.get(place.checked_sub(self.who.len())?)?, Until::Stopped));
        self.who.get(place).map(|id| (*id, self.until)).or_else(gone)
    }

    fn is_late(&self, now: Mono) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// A search for somebody who is still on the way, which goes on where it ended before: there it most likely ends again, and
/// those that it has passed have arrived. So the steps of many, with a search at each, cost about one look at everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round(usize);

impl Round {
    /// Whether there is one among `count`.
    fn finds(&mut self, count: usize, is_on_the_way: impl Fn(usize) -> bool) -> bool {
        let found = (self.0..count).chain(0..self.0.min(count)).find(|place| is_on_the_way(*place));
        self.0 = found.unwrap_or(0);
        found.is_some()
    }
}

/// When a wish is fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Until {
    Started,
    Healthy,
    Stopped,
}

/// How far one instance is on the way to a wish.
enum Progress {
    Done,
    OnTheWay,
    Stuck(Trouble),
}

impl Fleet {
    /// A fleet at rest. `seed` spreads restarts in time.
    #[must_use]
    pub fn new(plan: Arc<Plan>, seed: u64) -> Self {
        let instances = vec![Instance::at_rest(false); plan.specs.len()];
        Self::restore(plan, seed, instances, Memory::default())
    }

    /// A fleet as an earlier supervisor left it: `instances` in the order of the plan. Call `resume` next.
    #[must_use]
    pub fn restore(plan: Arc<Plan>, seed: u64, instances: Vec<Instance>, memory: Memory) -> Self {
        let Memory { wishes, answered, ending, brake_full_at, revision: _, predecessors } = memory;
        Self {
            seed,
            shown: instances.iter().map(words).collect(),
            count: Count::of(&instances),
            instances,
            dependents: dependents(&plan),
            deadlines: vec![None; plan.specs.len()],
            timeline: BTreeSet::new(),
            woken: BTreeSet::new(),
            predecessors,
            touched: BTreeSet::new(),
            has_news: false,
            brake: Brake::new(plan.restart_brake, brake_full_at),
            wishes,
            answered,
            ending,
            unsaved: BTreeSet::new(),
            plan,
        }
    }

    /// What to keep for the next supervisor, besides the instances.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            wishes: self.wishes.clone(),
            answered: self.answered.clone(),
            ending: self.ending,
            brake_full_at: self.brake.full_at(),
            revision: self.plan.revision,
            predecessors: self.predecessors.clone(),
        }
    }

    /// Whether `memory` is what to keep, so that it need not be copied at each step to see that nothing changed. Wishes and
    /// answers never change, so their numbers say whether they are the same.
    #[must_use]
    pub fn is_kept_in(&self, memory: &Memory) -> bool {
        let Memory { wishes, answered, ending, brake_full_at, revision, predecessors } = memory;
        wishes.iter().map(|wish| wish.id).eq(self.wishes.iter().map(|wish| wish.id))
            && answered.iter().map(|(id, _)| id).eq(self.answered.iter().map(|(id, _)| id))
            && *ending == self.ending
            && *brake_full_at == self.brake.full_at()
            && *revision == self.plan.revision
            && *predecessors == self.predecessors
    }

    /// The instances that changed since the last call: their records have to be written before the orders of the step
    /// are carried out.
    pub fn take_unsaved(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.unsaved)
    }

    /// What is known of a request that may have come before: a client asks again when its supervisor dies.
    #[must_use]
    pub fn standing(&self, id: RequestId) -> Standing {
        if self.wishes.iter().any(|wish| wish.id == id) {
            return Standing::Waits;
        }
        let answered = self.answered.iter().find(|(known, _)| *known == id);
        answered.map_or(Standing::New, |(_, answer)| Standing::Answered(answer.clone()))
    }

    /// Goes on where an earlier supervisor stopped: gives again what it may not have carried out.
    pub fn resume(&mut self, now: Mono) -> Vec<Action> {
        let mut actions = Vec::new();
        for id in self.plan.places() {
            self.with(id, now, &mut actions, Instance::resume);
        }
        self.wake_all();
        self.open_gates(now, &mut actions);
        self.settle(now, &mut actions);
        actions
    }

    /// What is being run.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The state of one instance.
    #[must_use]
    pub fn instance(&self, id: InstanceId) -> &Instance {
        &self.instances[id.index()]
    }

    /// The instances of the file, then retired ones of which something is left.
    #[must_use]
    pub fn present(&self) -> Vec<InstanceId> {
        let leaving = self.plan.retired().filter(|id| self.instance(*id).state != State::Stopped);
        self.plan.ids().chain(leaving).collect()
    }

    /// Whom `Request::StartAll` leaves alone.
    #[must_use]
    pub fn kept_stopped(&self) -> Vec<InstanceId> {
        self.plan.ids().filter(|id| self.is_kept_stopped(*id)).collect()
    }

    fn is_kept_stopped(&self, id: InstanceId) -> bool {
        self.instance(id).held && self.plan.spec(id).restart.policy == RestartPolicy::UnlessStopped
    }

    /// Whether everything is on its way down, and laneway with it.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// When `DeadlinePassed` is due if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let wish = self.wishes.iter().filter_map(|wish| wish.deadline).min();
        [self.timeline.first().map(|(at, _)| *at), wish].into_iter().flatten().min()
    }

    /// Takes in one event at `now`, and says what to do.
    pub fn step(&mut self, event: Event, now: Mono) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Request { id, request } => self.request(id, request, now, &mut actions),
            Event::Spawned { run, pid } => self.with_run(run, now, &mut actions, |i, cx| i.spawned(cx, pid)),
            Event::NotSpawned { run, obstacle } => {
                self.with_run(run, now, &mut actions, |i, cx| i.not_spawned(cx, obstacle));
            }
            Event::Unborn { run } => self.with_run(run, now, &mut actions, Instance::unborn),
            Event::Exited { run, exit } => self.with_run(run, now, &mut actions, |i, cx| i.exited(cx, exit)),
            Event::Swept { run, left } => self.with_run(run, now, &mut actions, |i, cx| i.swept(cx, left)),
            Event::Probed { run, verdict } => self.with_run(run, now, &mut actions, |i, cx| i.probed(cx, verdict)),
            Event::DeadlinePassed => {
                let due = self.timeline.range(..=(now, InstanceId(u32::MAX))).map(|(_, id)| *id);
                for id in due.collect::<Vec<_>>() {
                    self.with(id, now, &mut actions, Instance::deadline_passed);
                }
            }
        }
        self.open_gates(now, &mut actions);
        self.settle(now, &mut actions);
        actions
    }

    /// Facts about a run that is over are dropped here, and nowhere else.
    fn with_run(
        &mut self,
        run: Run,
        now: Mono,
        actions: &mut Vec<Action>,
        change: impl FnOnce(&mut Instance, &mut Context<'_>),
    ) {
        let known = self.instances.get(run.instance.index()).and_then(|instance| instance.state.run());
        if known == Some(run) {
            self.with(run.instance, now, actions, change);
        }
    }

    fn with(
        &mut self,
        id: InstanceId,
        now: Mono,
        actions: &mut Vec<Action>,
        change: impl FnOnce(&mut Instance, &mut Context<'_>),
    ) {
        let mut context = Context { id, spec: self.plan.spec(id), seed: self.seed, now, actions };
        let instance = &mut self.instances[id.index()];
        let (outlook, count) = (instance.outlook(), Count::of([&*instance]));
        change(instance, &mut context);
        self.touched.insert(id);
        if instance.outlook() != outlook {
            self.count.replace(count, Count::of([&*instance]));
            self.wake(id);
        }
    }

    /// Somebody has changed in what others go by: itself, or whoever waits for it, may begin or end.
    fn wake(&mut self, id: InstanceId) {
        self.has_news = true;
        let dependencies = self.plan.spec(id).depends_on.iter().map(|dependency| dependency.on);
        let dependents = self.dependents[id.index()].0.iter().copied();
        let waits_for_it = |(_, runs): &(_, &BTreeSet<Run>)| runs.iter().any(|run| run.instance == id);
        let heirs = self.predecessors.iter().filter(waits_for_it).map(|(heir, _)| *heir);
        let all = [id].into_iter().chain(dependencies).chain(dependents).chain(heirs);
        self.woken.extend(all.filter(|one| self.instances[one.index()].is_at_the_gate()));
    }

    /// Nothing is known of what has changed.
    fn wake_all(&mut self) {
        self.has_news = true;
        self.woken = self.plan.places().filter(|id| self.instance(*id).is_at_the_gate()).collect();
    }

    fn request(&mut self, id: RequestId, request: Request, now: Mono, actions: &mut Vec<Action>) {
        let mut gone = Vec::new();
        let (who, until, deadline) = match request {
            Request::Start { who, wait } => {
                if self.refuse(id, &who, actions) {
                    return;
                }
                self.overrule(&who, Until::Stopped, actions);
                let asked: BTreeSet<_> = who.iter().copied().collect();
                for one in self.with_dependencies(&who) {
                    let state = &self.instance(one).state;
                    let rests = matches!(state, State::Completed | State::Running { .. } | State::Starting(_));
                    if asked.contains(&one) || !rests || self.instance(one).goal == Goal::Down {
                        self.with(one, now, actions, |i, cx| i.wish_up(cx.now));
                    }
                }
                let (until, deadline) = until(wait, now);
                (who, until, deadline)
            }
            Request::StartAll { wait } => {
                let who: Vec<_> = self.plan.ids().filter(|one| !self.is_kept_stopped(*one)).collect();
                if self.refuse(id, &who, actions) {
                    return;
                }
                self.overrule(&who, Until::Stopped, actions);
                for one in &who {
                    self.with(*one, now, actions, |i, cx| i.wish_up(cx.now));
                }
                let (until, deadline) = until(wait, now);
                (who, until, deadline)
            }
            Request::Restart { who, wait } => {
                if self.refuse(id, &who, actions) {
                    return;
                }
                self.overrule(&who, Until::Stopped, actions);
                let asked: BTreeSet<_> = who.iter().copied().collect();
                for one in self.with_dependencies(&who) {
                    if asked.contains(&one) {
                        self.with(one, now, actions, |i, cx| {
                            i.wish_up(cx.now);
                            if i.state.run().is_some() {
                                i.end(cx, Then::Fresh);
                            }
                        });
                    } else if self.instance(one).goal == Goal::Down {
                        self.with(one, now, actions, |i, cx| i.wish_up(cx.now));
                    }
                }
                let (until, deadline) = until(wait, now);
                (who, until, deadline)
            }
            Request::Stop { who } => {
                self.wish_down(&who, now, actions);
                for one in &who {
                    self.with(*one, now, actions, |i, _| i.held = true);
                }
                (who, Until::Stopped, None)
            }
            Request::Apply { plan, heirs, wait } => {
                if self.refuse(id, &self.plan.order, actions) {
                    return;
                }
                let who = self.replan(plan, &heirs, now, actions, &mut gone);
                let (until, deadline) = until(wait, now);
                (who, until, deadline)
            }
            Request::Signal { who, signal } => return self.signal(id, who, signal, now, actions),
            Request::Down { now: at_once } => {
                let who = self.present();
                self.ending = true;
                self.wish_down(&who, now, actions);
                if at_once {
                    for one in &who {
                        self.with(*one, now, actions, |i, cx| {
                            if i.state.is_live() {
                                i.end(cx, Then::Rest);
                            }
                            i.kill(cx);
                        });
                    }
                }
                (who, Until::Stopped, None)
            }
        };
        self.wishes.push(Wish { id, who, until, deadline, gone, round: Round::default() });
        self.has_news = true;
    }

    /// Answered at once: what a signal does to a process shows as its end, or not at all.
    fn signal(&mut self, id: RequestId, who: Vec<InstanceId>, signal: Signal, now: Mono, actions: &mut Vec<Action>) {
        let named = !who.is_empty();
        let mut troubles = Vec::new();
        for one in if named { who } else { self.present() } {
            let state = &self.instance(one).state;
            match (state.pid(), state.run()) {
                (Some(_), Some(run)) => {
                    self.with(one, now, actions, |i, cx| i.sent = Some(Sent { signal, at: cx.now }));
                    actions.push(Action::Deliver { id, run, signal });
                }
                _ if named => troubles.push((one, Trouble::NoProcess)),
                _ => {}
            }
        }
        actions.push(Action::Reply { id, answer: Answer { troubles } });
    }

    /// Nothing begins while everything ends, nor what was taken out of the file after somebody named it.
    fn refuse(&self, id: RequestId, who: &[InstanceId], actions: &mut Vec<Action>) -> bool {
        let retired: BTreeSet<_> = self.plan.retired().collect();
        let word = if self.ending { Trouble::Ending } else { Trouble::Retired };
        let troubles: Vec<_> =
            who.iter().filter(|one| self.ending || retired.contains(one)).map(|one| (*one, word)).collect();
        let is_refused = !troubles.is_empty();
        if is_refused {
            actions.push(Action::Reply { id, answer: Answer { troubles } });
        }
        is_refused
    }

    fn wish_down(&mut self, who: &[InstanceId], now: Mono, actions: &mut Vec<Action>) {
        self.overrule(who, Until::Started, actions);
        self.overrule(who, Until::Healthy, actions);
        for one in who {
            self.with(*one, now, actions, |i, cx| {
                i.goal = Goal::Down;
                // What lives waits for its dependents at the gate.
                if !i.state.is_live() {
                    i.end(cx, Then::Rest);
                }
            });
        }
    }

    /// Answers older wishes that a new one contradicts.
    fn overrule(&mut self, who: &[InstanceId], until: Until, actions: &mut Vec<Action>) {
        let who: BTreeSet<_> = who.iter().collect();
        self.wishes.retain(|wish| {
            let lost: Vec<_> = wish.who.iter().filter(|one| wish.until == until && who.contains(one)).collect();
            if !lost.is_empty() {
                let troubles = lost.into_iter().map(|one| (*one, Trouble::Overruled)).collect();
                actions.push(Action::Reply { id: wish.id, answer: Answer { troubles } });
                return false;
            }
            true
        });
    }

    /// `who` and everything that they depend on.
    fn with_dependencies(&self, who: &[InstanceId]) -> BTreeSet<InstanceId> {
        let mut all = BTreeSet::new();
        let mut next = who.to_vec();
        while let Some(id) = next.pop() {
            if all.insert(id) {
                next.extend(self.plan.spec(id).depends_on.iter().map(|dependency| dependency.on));
            }
        }
        all
    }

    /// Lets begin whom nothing hinders, and end whom nobody needs any more, until nothing moves.
    fn open_gates(&mut self, now: Mono, actions: &mut Vec<Action>) {
        while let Some(id) = self.woken.pop_first() {
            if self.instance(id).is_at_the_gate() {
                self.open_gate(id, now, actions);
            }
        }
    }

    fn open_gate(&mut self, id: InstanceId, now: Mono, actions: &mut Vec<Action>) {
        let instance = self.instance(id);
        if instance.goal == Goal::Down {
            let (dependents, round) = &self.dependents[id.index()];
            let mut round = *round;
            let needed = round.finds(dependents.len(), |place| {
                let dependent = self.instance(dependents[place]);
                dependent.goal == Goal::Down
                    && dependent.state.run().is_some()
                    && dependent.state.survivors().is_empty()
            });
            self.dependents[id.index()].1 = round;
            if !needed {
                self.with(id, now, actions, |i, cx| i.end(cx, Then::Rest));
            }
            return;
        }
        let State::Waiting(Waiting::Turn { cause, on }) = &instance.state else { return };
        let cause = *cause;
        let missing: Vec<_> = self
            .plan
            .spec(id)
            .depends_on
            .iter()
            .filter(|dependency| !self.is_met(dependency.on, dependency.condition))
            .map(|dependency| dependency.on)
            .chain(self.holders(id))
            .collect();
        if !missing.is_empty() {
            if *on != missing {
                self.with(id, now, actions, |i, _| i.state = State::Waiting(Waiting::Turn { cause, on: missing }));
            }
            return;
        }
        self.predecessors.remove(&id);
        match if cause == Cause::Failure { self.brake.take(now, self.count.braked) } else { Ok(()) } {
            Ok(()) => self.with(id, now, actions, |i, cx| i.begin(cx, cause)),
            Err(until) => {
                self.with(id, now, actions, |i, _| i.state = State::Waiting(Waiting::Brake { until }));
            }
        }
    }

    /// Who still has what `id` takes over.
    fn holders(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> + '_ {
        let runs = self.predecessors.get(&id).into_iter().flatten();
        runs.filter(|run| self.instance(run.instance).state.run() == Some(**run)).map(|run| run.instance)
    }

    fn is_met(&self, id: InstanceId, condition: Condition) -> bool {
        let instance = self.instance(id);
        match condition {
            Condition::ServiceStarted => is_started(instance),
            Condition::ServiceHealthy => self.is_healthy(id),
            Condition::ServiceCompletedSuccessfully => instance.state == State::Completed,
        }
    }

    /// Healthy, or running where there is no check.
    fn is_healthy(&self, id: InstanceId) -> bool {
        let instance = self.instance(id);
        match instance.state.health() {
            Health::Healthy => true,
            Health::Unknown => {
                self.plan.spec(id).healthcheck.is_none() && matches!(instance.state, State::Running { .. })
            }
            Health::Starting | Health::Unhealthy | Health::PortConflict => false,
        }
    }

    /// Ends a step: deadlines, news, replies.
    fn settle(&mut self, now: Mono, actions: &mut Vec<Action>) {
        for id in std::mem::take(&mut self.touched) {
            self.unsaved.insert(id);
            let index = id.index();
            let deadline = self.instances[index].state.deadline();
            if deadline != self.deadlines[index] {
                if let Some(old) = self.deadlines[index] {
                    self.timeline.remove(&(old, id));
                }
                if let Some(new) = deadline {
                    self.timeline.insert((new, id));
                }
                self.deadlines[index] = deadline;
            }
            let words = words(&self.instances[index]);
            if words != self.shown[index] {
                self.shown[index] = words;
                self.instances[index].since = now;
                actions.push(Action::Changed { instance: id });
            }
        }
        let has_news = std::mem::take(&mut self.has_news) || self.wishes.iter().any(|wish| wish.is_late(now));
        let wishes = if has_news { std::mem::take(&mut self.wishes) } else { Vec::new() };
        for mut wish in wishes {
            match self.answer(&mut wish, now) {
                Some(answer) => actions.push(Action::Reply { id: wish.id, answer }),
                None => self.wishes.push(wish),
            }
        }
        for action in actions.iter() {
            if let Action::Reply { id, answer } = action {
                self.answered.push_back((*id, answer.clone()));
            }
        }
        let forgotten = self.answered.len().saturating_sub(ANSWERED);
        self.answered.drain(..forgotten);
        if self.ending && self.count.left == 0 {
            actions.push(Action::Exit);
        }
    }

    /// The answer to a wish that is fulfilled, cannot be, or has waited long enough.
    fn answer(&self, wish: &mut Wish, now: Mono) -> Option<Answer> {
        let count = wish.who.len() + wish.gone.len();
        let progress = |place: usize| wish.part(place).map(|(id, until)| (id, self.progress(id, until)));
        let is_on_the_way = |place: usize| matches!(progress(place), Some((_, Progress::OnTheWay)));
        let mut round = wish.round;
        if !wish.is_late(now) && round.finds(count, is_on_the_way) {
            wish.round = round;
            return None;
        }
        let troubles = (0..count).filter_map(progress).filter_map(|(id, progress)| match progress {
            Progress::Done => None,
            Progress::OnTheWay => Some((id, Trouble::TimedOut)),
            Progress::Stuck(trouble) => Some((id, trouble)),
        });
        Some(Answer { troubles: troubles.collect() })
    }

    fn progress(&self, id: InstanceId, until: Until) -> Progress {
        let instance = self.instance(id);
        match until {
            Until::Stopped if instance.state == State::Stopped => Progress::Done,
            Until::Stopped if !instance.state.survivors().is_empty() => Progress::Stuck(Trouble::Survivors),
            Until::Stopped if instance.goal == Goal::Up => Progress::Stuck(Trouble::Overruled),
            Until::Stopped => Progress::OnTheWay,
            Until::Started | Until::Healthy => match &instance.state {
                State::Completed => Progress::Done,
                State::Starting(_) if until == Until::Started && is_started(instance) => Progress::Done,
                State::Running { .. } if until == Until::Started || self.is_healthy(id) => Progress::Done,
                State::Running { .. } | State::Starting(_) if instance.state.health() == Health::PortConflict => {
                    Progress::Stuck(Trouble::NotUp)
                }
                State::Running { .. } | State::Starting(_) | State::Waiting(Waiting::Brake { .. }) => {
                    Progress::OnTheWay
                }
                State::Stopping(_) | State::Sweeping(_) if instance.state.survivors().is_empty() => Progress::OnTheWay,
                State::Stopping(_) | State::Sweeping(_) => Progress::Stuck(Trouble::Survivors),
                State::Waiting(Waiting::Turn { on, .. }) => match on.iter().find(|on| self.is_hopeless(**on)) {
                    Some(on) => Progress::Stuck(Trouble::Dependency { on: *on }),
                    None => Progress::OnTheWay,
                },
                State::Waiting(Waiting::Obstacle { .. })
                | State::Backoff { .. }
                | State::Failed { .. }
                | State::Stopped => Progress::Stuck(Trouble::NotUp),
            },
        }
    }

    /// Whether waiting for it makes little sense for a person who waits. Without recursion, and each is looked at once: those
    /// that wait for each other may be many, and meet again.
    fn is_hopeless(&self, id: InstanceId) -> bool {
        let (mut seen, mut next) = (BTreeSet::from([id]), vec![id]);
        while let Some(one) = next.pop() {
            if let State::Waiting(Waiting::Turn { on, .. }) = &self.instance(one).state {
                next.extend(on.iter().filter(|on| seen.insert(**on)));
            } else if matches!(self.progress(one, Until::Healthy), Progress::Stuck(_)) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
impl Fleet {
    /// What a look at everybody finds to do after a step: nothing, or the step has overlooked somebody.
    pub(super) fn overlooked(&self, now: Mono) -> Vec<Action> {
        assert_eq!(self.count, Count::of(&self.instances));
        let (mut all, mut actions) = (self.clone(), Vec::new());
        all.wake_all();
        all.open_gates(now, &mut actions);
        all.settle(now, &mut actions);
        actions.retain(|action| *action != Action::Exit);
        actions
    }
}

/// Who depends on each.
fn dependents(plan: &Plan) -> Vec<(Vec<InstanceId>, Round)> {
    let mut dependents = vec![(Vec::new(), Round::default()); plan.specs.len()];
    for id in plan.places() {
        for dependency in &plan.spec(id).depends_on {
            dependents[dependency.on.index()].0.push(id);
        }
    }
    dependents
}

/// What people are told of an instance when it changes.
fn words(instance: &Instance) -> (Phase, Health, Option<usize>) {
    (instance.state.phase(), instance.state.health(), instance.state.pre_start())
}

/// Whether its server exists, or did its work.
fn is_started(instance: &Instance) -> bool {
    matches!(
        instance.state,
        State::Starting(Starting { pid: Some(_), stage: Stage::Server(_), .. })
            | State::Running { .. }
            | State::Completed
    )
}

fn until(wait: Wait, now: Mono) -> (Until, Option<Mono>) {
    match wait {
        Wait::Started => (Until::Started, None),
        Wait::Healthy { timeout } => (Until::Healthy, Some(now + timeout)),
    }
}
