//! What people are told: answers to requests, changes as they happen, the status.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Driver;
use crate::machine::{RequestId, Trouble};
use crate::model::{Health, InstanceId, InstanceName, Phase};
use crate::plan::Change;
use crate::plan::spec::{Database, Framework};
use crate::runtime::clock::wall_clock;
use crate::runtime::reload::Asker;
use crate::view::explain;
use crate::view::snapshot::{self, Applied, FleetStatus, InstanceStatus, Outcome, Surroundings, TroubleStatus};

/// How long an answer waits for the disk.
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// Somebody who waits for an answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub who: Vec<InstanceId>,
    /// Whom the wish left alone.
    pub kept_stopped: Vec<InstanceName>,
    pub reply: Reply,
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum Reply {
    Outcome(oneshot::Sender<Outcome>),
    /// With what changed.
    Applied(Vec<Change>, Asker),
}

impl Reply {
    fn send(self, outcome: Outcome) {
        match self {
            Self::Outcome(reply) => {
                let _ = reply.send(outcome);
            }
            Self::Applied(changes, reply) => {
                let _ = reply.send(Ok(Applied { changes, outcome }));
            }
        }
    }
}

impl Driver {
    pub(super) fn changed(&mut self, id: InstanceId) {
        self.look_for_ignored_facts(id);
        let status = self.instance(id);
        self.publisher.tell(&status.name, status.word());
        let level = (status.phase, status.health);
        let line = format!("{}: {}, {}: {}", status.name, status.phase, status.health, status.explanation.reason);
        match level {
            (Phase::Backoff | Phase::Failed | Phase::Waiting, _) | (_, Health::Unhealthy | Health::PortConflict) => {
                warn!("{line}");
            }
            _ => info!("{line}"),
        }
        let _ = self.watchers.send(status);
    }

    /// The apps hear of the instances of the plan from now on.
    pub(super) fn follow_plan(&mut self) {
        let plan = Arc::clone(self.fleet.plan());
        self.publisher.follow(&plan);
        for status in plan.ids().map(|id| self.instance(id)) {
            self.publisher.tell(&status.name, status.word());
        }
    }

    /// A Django app that answers well without its lane's database file has not read its facts.
    pub(super) fn look_for_ignored_facts(&mut self, id: InstanceId) {
        let facts = &self.fleet.plan().spec(id).facts;
        if self.fleet.instance(id).state.health() != Health::Healthy {
            return;
        }
        match &facts.database {
            Database::Sqlite { path } if facts.framework == Framework::Django && !path.exists() => {
                self.warnings.insert(id, explain::ignored_database(path));
            }
            Database::Sqlite { .. } | Database::Postgres { .. } => {
                self.warnings.remove(&id);
            }
        }
    }

    /// `undelivered`: signals that could not be sent, each with the request that it was for.
    pub(super) fn reply(
        &mut self,
        id: RequestId,
        troubles: &[(InstanceId, Trouble)],
        undelivered: &[(RequestId, TroubleStatus)],
    ) {
        let Some(Waiting { who, kept_stopped, reply }) = self.waiting.remove(&id) else { return };
        let told =
            troubles.iter().map(|(id, trouble)| snapshot::trouble(&self.fleet, *id, *trouble, &self.instance(*id)));
        let undelivered = undelivered.iter().filter(|(of, _)| *of == id).map(|(_, trouble)| trouble.clone());
        let troubles: Vec<_> = told.chain(undelivered).collect();
        let outcome = Outcome {
            done: troubles.is_empty(),
            troubles,
            instances: who.iter().map(|id| self.instance(*id)).collect(),
            kept_stopped,
        };
        let flushed = self.records.flushed();
        let (mut published, revision) = (self.published.subscribe(), self.fleet.plan().revision);
        tokio::spawn(async move {
            // What was wished is on the disk before it is answered, and the plan that it speaks of, unless the disk hangs.
            let written = async {
                flushed.await;
                let _ = published.wait_for(|known| *known >= revision).await;
            };
            if timeout(DISK_PATIENCE, written).await.is_err() {
                warn!("the disk does not take the records; they are in memory");
            }
            reply.send(outcome);
        });
    }

    pub(super) fn instance(&self, id: InstanceId) -> InstanceStatus {
        let spec = self.fleet.plan().spec(id);
        let now = u64::try_from(wall_clock().as_micros()).unwrap_or(u64::MAX);
        let log_troubles =
            self.journal.as_ref().map(|journal| self.care.trouble(id, spec, journal, now)).unwrap_or_default();
        let surroundings =
            Surroundings { log: spec.log_file(), log_troubles, warning: self.warnings.get(&id).cloned() };
        snapshot::instance(&self.fleet, id, self.clock.now(), surroundings)
    }

    pub(super) fn status(&self) -> FleetStatus {
        let plan = self.fleet.plan();
        FleetStatus {
            project: plan.project.clone(),
            file: plan.file.clone(),
            profile: plan.profile.clone(),
            supervisor_pid: std::process::id(),
            keeper_pid: self.tools.keeper.pid(),
            uptime_seconds: self.clock.now().since(self.started).as_secs_f64(),
            ending: self.fleet.is_ending(),
            instances: self.fleet.present().into_iter().map(|id| self.instance(id)).collect(),
        }
    }
}
