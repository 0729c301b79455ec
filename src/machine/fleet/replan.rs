//! Another plan in the place of the one that runs. Who is unchanged is not touched: same process, same counters.
//!
//! Called by `Fleet::request`. What differs is decided in `plan`; here is what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Brake, Count, Fleet, dependents, words};
use crate::machine::{Action, Instance, State, Then};
use crate::model::{Goal, InstanceId, InstanceName, Mono};
use crate::plan::{self, Plan};

/// Who is what another plan makes of it.
#[derive(Default)]
struct Differences {
    /// Not in the file before.
    added: Vec<InstanceId>,
    /// Its process has to begin anew.
    changed: Vec<InstanceId>,
    /// Different in something that needs no restart.
    adjusted: Vec<InstanceId>,
    /// Not in the file any more.
    retired: Vec<InstanceId>,
}

impl Differences {
    fn between(old: &Plan, new: &Plan) -> Self {
        let [before, after] = [old, new].map(|plan| plan.ids().collect::<BTreeSet<_>>());
        let mut differences = Self { retired: before.difference(&after).copied().collect(), ..Self::default() };
        for id in new.ids() {
            if !before.contains(&id) {
                differences.added.push(id);
            } else if plan::needs_restart(old.spec(id), new.spec(id)) {
                differences.changed.push(id);
            } else if old.spec(id) != new.spec(id) {
                differences.adjusted.push(id);
            }
        }
        differences
    }
}

impl Fleet {
    /// Takes over `plan`. Returns who shall be up for it; who shall be gone is added to `gone`.
    pub(super) fn replan(
        &mut self,
        plan: Arc<Plan>,
        heirs: &[(InstanceName, InstanceName)],
        now: Mono,
        actions: &mut Vec<Action>,
        gone: &mut Vec<InstanceId>,
    ) -> Vec<InstanceId> {
        let Differences { added, changed, adjusted, retired } = Differences::between(&self.plan, &plan);
        let anew: Vec<_> = changed.into_iter().filter(|id| self.instance(*id).goal == Goal::Up).collect();
        // Under the old plan: a server is ended as it was promised when it was started.
        for id in &anew {
            self.with(*id, now, actions, |i, cx| i.end(cx, Then::Fresh));
        }
        let old = self.exchange(plan);
        self.wish_down(&retired, now, actions);
        for id in &adjusted {
            self.with(*id, now, actions, |i, cx| i.respec(cx, old.spec(*id)));
        }
        self.note_predecessors(&old, heirs);
        let is_new: BTreeSet<_> = added.iter().copied().collect();
        let mut up = [added.as_slice(), &anew].concat();
        for one in self.with_dependencies(&up) {
            let instance = self.instance(one);
            // What a person stopped stays stopped.
            if is_new.contains(&one) || (instance.goal == Goal::Down && !instance.held) {
                self.with(one, now, actions, |i, cx| i.wish_up(cx.now));
            }
        }
        let runs = |id: &InstanceId| matches!(self.instance(*id).state, State::Starting(_) | State::Running { .. });
        up.extend(adjusted.into_iter().filter(runs));
        gone.extend(retired);
        up
    }

    /// Makes room for `plan` and puts it in the place of the old one, which is returned.
    fn exchange(&mut self, plan: Arc<Plan>) -> Arc<Plan> {
        let old = std::mem::replace(&mut self.plan, plan);
        self.instances.resize(self.plan.specs.len(), Instance::at_rest(false));
        for (index, (instance, spec)) in self.instances.iter_mut().zip(&self.plan.specs).enumerate() {
            if old.specs.get(index).is_some_and(|was| was.name != spec.name) {
                // Runs are counted on: nothing that is said of its predecessor's is ever about this one.
                *instance = Instance::at_rest_after(instance.generation, false);
            }
        }
        let known = self.shown.len();
        self.shown.extend(self.instances.iter().skip(known).map(words));
        self.deadlines.resize(self.instances.len(), None);
        self.dependents = dependents(&self.plan);
        self.brake = Brake::new(self.plan.restart_brake, self.brake.full_at());
        self.count = Count::of(&self.instances);
        // Dependencies are others now.
        self.wake_all();
        old
    }

    /// Whoever takes over what another one has waits for the end of its run.
    fn note_predecessors(&mut self, old: &Plan, heirs: &[(InstanceName, InstanceName)]) {
        let places: BTreeMap<_, _> = old.places().map(|id| (&old.spec(id).name, id)).collect();
        let plan = Arc::clone(&self.plan);
        let names: BTreeMap<_, _> = plan.ids().map(|id| (&plan.spec(id).name, id)).collect();
        let runs: BTreeSet<_> = self.instances.iter().filter_map(|instance| instance.state.run()).collect();
        self.predecessors.retain(|_, older| {
            older.retain(|run| runs.contains(run));
            !older.is_empty()
        });
        let before = self.predecessors.clone();
        for (heir, holder) in heirs {
            let (Some(heir), Some(holder)) = (names.get(heir), places.get(holder)) else { continue };
            // Who still waits to take it over does not have it: they do whom it waits for.
            let older = before.get(holder).into_iter().flatten().copied().chain(self.instance(*holder).state.run());
            let older: Vec<_> = older.collect();
            if !older.is_empty() {
                self.predecessors.entry(*heir).or_default().extend(older);
            }
        }
    }
}
