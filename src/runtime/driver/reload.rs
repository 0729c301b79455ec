//! Reloading: the file is read in a thread of its own, and what it comes to takes the place of the plan that runs. One at
//! a time, and each is known to everybody before the next begins.
//!
//! A supervisor that dies in between leaves both plans: its successor goes by the one that the machine had stepped to.

use std::sync::Arc;

use tokio::time::timeout;
use tracing::{info, warn};

use super::told::DISK_PATIENCE;
use super::{Driver, Fact, Reply, Waiting};
use crate::machine::{Action, Event, Request, Standing, State, Wait};
use crate::model::{InstanceId, InstanceName};
use crate::plan::{self, Callers, Change, Plan};
use crate::runtime::reload::{Asker, Refused, Reload, Resolved};
use crate::runtime::threads::in_thread;
use crate::view::snapshot::{Applied, Outcome};

/// A plan that can take the place of the one that runs.
struct Next {
    plan: Arc<Plan>,
    heirs: Vec<(InstanceName, InstanceName)>,
    changes: Vec<Change>,
}

impl Driver {
    /// SIGHUP. A reload that has not begun will read what is there then: a storm of signals is one reload.
    pub(super) fn hang_up(&mut self) {
        if self.reloads.iter().all(|reload| reload.reply.is_some()) {
            self.take_reload(Reload { id: None, wait: Wait::Started, dry_run: false, reply: None });
        }
    }

    pub(super) fn take_reload(&mut self, reload: Reload) {
        self.reloads.push_back(reload);
        self.begin_reload();
    }

    fn begin_reload(&mut self) {
        if self.is_reloading {
            return;
        }
        let Some(reload) = self.reloads.pop_front() else { return };
        self.is_reloading = true;
        let (origin, facts) = (Arc::clone(&self.origin), self.facts.clone());
        let (plan, holders) = (Arc::clone(self.fleet.plan()), self.fleet.present());
        let begun = in_thread("reload", move || {
            let resolved = origin.resolve(&plan, &holders);
            let _ = facts.send(Fact::Resolved(reload, Box::new(resolved)));
        });
        if let Err(error) = begun {
            warn!("the file cannot be read again: {error}");
            self.is_reloading = false;
        }
    }

    fn end_reload(&mut self) {
        self.is_reloading = false;
        self.begin_reload();
    }

    /// Everybody knows the plan with this revision.
    pub(super) fn published(&mut self, revision: u64) {
        self.published.send_replace(revision);
        self.end_reload();
    }

    /// The file was read.
    pub(super) fn resolved(&mut self, reload: Reload, resolved: Result<Resolved, Refused>) -> Vec<Action> {
        let Reload { id, wait, dry_run, reply } = reload;
        let old = Arc::clone(self.fleet.plan());
        let Next { plan, heirs, changes } = match resolved.and_then(|resolved| self.next_plan(resolved)) {
            Ok(next) => next,
            Err(refused) => return self.refuse_reload(reply, refused),
        };
        let id = id.unwrap_or_else(|| self.next_request());
        let standing = self.fleet.standing(id);
        let is_new = standing == Standing::New;
        if dry_run || is_new && changes.is_empty() && plan.order == old.order {
            let instances = about(&changes, &old, &old).into_iter().map(|id| self.instance(id)).collect();
            let outcome = Outcome { done: true, troubles: Vec::new(), instances, kept_stopped: Vec::new() };
            let _ = reply.map(|reply| reply.send(Ok(Applied { changes, outcome })));
            self.end_reload();
            return Vec::new();
        }
        if is_new && let Err(error) = self.origin.keep(&old, Some(&plan)) {
            let what = format!("the new plan cannot be kept: {error}");
            return self.refuse_reload(reply, Refused::Other { what, hint: None });
        }
        let who = if is_new { about(&changes, &plan, &old) } else { self.fleet.present() };
        if let Some(reply) = reply {
            // Asked again after a supervisor died over it, the changes are those of the first time, which are not known.
            let told = if is_new { changes.clone() } else { Vec::new() };
            self.waiting.insert(id, Waiting { who, kept_stopped: Vec::new(), reply: Reply::Applied(told, reply) });
        }
        match standing {
            Standing::New => {
                for change in &changes {
                    info!("taken over from the file: {change}");
                }
                let request = Request::Apply { plan: Arc::clone(&plan), heirs, wait };
                let actions = self.step(Event::Request { id, request });
                self.went_over(&old, &plan);
                actions
            }
            Standing::Waits => {
                self.end_reload();
                Vec::new()
            }
            Standing::Answered(answer) => {
                self.end_reload();
                vec![Action::Reply { id, answer }]
            }
        }
    }

    fn refuse_reload(&mut self, reply: Option<Asker>, refused: Refused) -> Vec<Action> {
        warn!("{refused}");
        let _ = reply.map(|reply| reply.send(Err(refused)));
        self.end_reload();
        Vec::new()
    }

    /// Merges what the file says with what runs.
    fn next_plan(&self, resolved: Resolved) -> Result<Next, Refused> {
        if self.fleet.is_ending() {
            let hint = Some("laneway up".to_owned());
            return Err(Refused::Other { what: "laneway is on its way down".to_owned(), hint });
        }
        let Resolved { plan, heirs } = resolved;
        let old = self.fleet.plan();
        let is_free = |id| self.fleet.instance(id).state == State::Stopped && self.tools.keeper.is_drained(id);
        let plan = Arc::new(plan::merge(old, plan, is_free));
        let changes = plan::diff(old, &plan, Callers::One);
        Ok(Next { plan, heirs, changes })
    }

    /// The machine has stepped from `old` to `plan`; now the others hear of it.
    fn went_over(&mut self, old: &Plan, plan: &Arc<Plan>) {
        if let Err(error) = self.origin.keep(plan, None) {
            warn!("the plan that runs cannot be kept: {error}");
        }
        self.plans.send_replace(Arc::clone(plan));
        self.follow_plan();
        let is_other = |id: InstanceId| old.specs.get(id.index()).is_none_or(|was| was.name != plan.spec(id).name);
        self.warnings.retain(|id, _| !is_other(*id));
        let logs_differ = |id: &InstanceId| !is_other(*id) && old.spec(*id).logging != plan.spec(*id).logging;
        let runs = |id: &InstanceId| self.fleet.instance(*id).state.run().is_some();
        let declared: Vec<_> = plan.ids().filter(|id| logs_differ(id) && runs(id)).collect();
        let flushed = self.records.flushed();
        let (origin, tools, facts) = (Arc::clone(&self.origin), Arc::clone(&self.tools), self.facts.clone());
        let plan = Arc::clone(plan);
        tokio::spawn(async move {
            // Whoever finds them after a death of both processes believes records only beside the plan that they are
            // about. So one comes right after the other.
            let _ = timeout(DISK_PATIENCE, flushed).await;
            let (done, revision) = (facts.clone(), plan.revision);
            let begun = in_thread("reload", move || {
                origin.publish(&plan);
                for id in declared {
                    if let Err(error) = tools.keeper.declare(id, plan.spec(id)) {
                        warn!("{}: the new limits of the log wait for its next start: {error}", plan.spec(id).name);
                    }
                }
                let _ = facts.send(Fact::Published(revision));
            });
            if let Err(error) = begun {
                warn!("the new plan cannot be made known: {error}");
                let _ = done.send(Fact::Published(revision));
            }
        });
    }
}

/// The instances that `changes` speak of; who is not in `plan` was in `old`.
fn about(changes: &[Change], plan: &Plan, old: &Plan) -> Vec<InstanceId> {
    let names = changes.iter().filter_map(|change| match change {
        Change::Fleet { .. } => None,
        Change::Added { name } | Change::Removed { name } | Change::Changed { name, .. } => Some(name.as_str()),
    });
    names.filter_map(|name| plan.find(name).or_else(|| old.find(name))).collect()
}
