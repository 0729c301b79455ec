//! The other process of the pair, and other binaries: the keeper's news and its death, logs that need care, the upgrade.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{Driver, Fact};
use crate::keeper::protocol::{Kept, news};
use crate::model::InstanceId;
use crate::runtime::care;
use crate::runtime::clock::pause;
use crate::runtime::link::{Log, News};
use crate::runtime::processes::{ended, pidfd_of};
use crate::runtime::threads::in_thread;
use crate::runtime::upgrade;

/// From one try to start a keeper to the next.
const KEEPER_AGAIN: Duration = Duration::from_millis(500);
/// From the answer to whoever asked for an upgrade to the upgrade.
const GOODBYE: Duration = Duration::from_millis(50);

impl Driver {
    /// Hears of its death, and of what it says until then.
    pub(super) fn listen_to_keeper(&self, keeper: OwnedFd) {
        let facts = self.facts.clone();
        tokio::spawn(async move {
            if ended(keeper).await.is_ok() {
                let _ = facts.send(Fact::KeeperDied);
            }
        });
        let (facts, socket) = (self.facts.clone(), self.tools.keeper.socket());
        tokio::spawn(async move {
            let Ok(socket) = socket else { return };
            let Ok(mut stream) = News::new(socket) else { return };
            while let Ok(news) = stream.next().await {
                let fact = match news {
                    news::CHILD => Fact::KeepersChild,
                    news::LOGS => Fact::Logs,
                    _ => continue,
                };
                let _ = facts.send(fact);
            }
        });
    }

    /// Nothing is lost by its death but the process itself: the servers write on, and what they write waits in pipes.
    pub(super) fn succeed_keeper(&mut self) {
        match self.tools.keeper.succeed(&self.tools.spawner) {
            Ok(keeper) => {
                let pid = self.tools.keeper.pid();
                warn!("the keeper died; a new one runs, pid {pid}");
                self.listen_to_keeper(keeper);
            }
            Err(error) => {
                error!("the keeper died, and no new one can be started: {error}; trying again");
                let facts = self.facts.clone();
                tokio::spawn(async move {
                    sleep(KEEPER_AGAIN).await;
                    let _ = facts.send(Fact::KeeperDied);
                });
            }
        }
    }

    pub(super) fn look_after_logs(&mut self) {
        let Some(journal) = &self.journal else { return };
        let chores = self.care.look(self.fleet.plan(), journal);
        for id in chores.to_make {
            let (plan, tools) = (Arc::clone(self.fleet.plan()), Arc::clone(&self.tools));
            let made = in_thread("lane", move || care::make_again(&plan, id, &tools.keeper));
            made.unwrap_or_else(|error| warn!("no thread to make a lane again: {error}"));
        }
        for id in chores.changed {
            let status = self.instance(id);
            for trouble in &status.log_troubles {
                warn!("{}: {}", status.name, trouble.in_words());
            }
            let _ = self.watchers.send(status);
        }
        let next = self.to_compress.join(chores.to_compress);
        self.compress(next);
    }

    pub(super) fn compress(&self, who: Option<(InstanceId, Log, u64)>) {
        let Some((id, log, last)) = who else { return };
        let (plan, tools, facts) = (Arc::clone(self.fleet.plan()), Arc::clone(&self.tools), self.facts.clone());
        tokio::spawn(async move {
            care::compress(plan, id, log, last, tools).await;
            let _ = facts.send(Fact::Compressed);
        });
    }

    /// In a thread of its own: a binary may take its time to fail.
    pub(super) fn prove_binary(&self, reply: oneshot::Sender<Result<String, String>>) {
        let keeper = &self.tools.keeper;
        if keeper.kept(Kept::Binary).is_some() {
            let _ = reply.send(Err("an upgrade is under way already: the keeper follows soon".to_owned()));
            return;
        }
        let (launch, records) = (keeper.kept(Kept::Launch), keeper.kept(Kept::Records));
        let (path, instances, facts) = (self.upgrade.clone(), self.fleet.plan().specs.len(), self.facts.clone());
        let tools = Arc::clone(&self.tools);
        // Without a thread the reply is dropped, and whoever asked hears that.
        let proving = in_thread("proof", move || {
            let (Some(launch), Some(records)) = (launch, records) else { return };
            let binary = upgrade::open_binary(&path);
            let proof = binary
                .and_then(|file| Ok((upgrade::prove(&file, &launch, &records, instances, &tools.spawner)?, file)));
            let binary = match proof {
                Ok((version, binary)) => {
                    info!("becoming laneway {version}");
                    let _ = reply.send(Ok(version));
                    binary
                }
                Err(why) => {
                    warn!("refused to become another binary: {why}");
                    let _ = reply.send(Err(why));
                    return;
                }
            };
            // Time for the answer to leave.
            pause(GOODBYE);
            let _ = facts.send(Fact::Proven(binary.into()));
        });
        proving.unwrap_or_else(|error| warn!("no thread to prove a binary: {error}"));
    }

    /// Everything is recorded already, as for a successor. If the new program dies soon, the keeper starts the old one.
    pub(super) fn become_binary(&mut self, binary: &OwnedFd) -> io::Result<()> {
        let keeper = &self.tools.keeper;
        keeper.keep(Kept::Binary, binary.try_clone()?)?;
        let peer = pidfd_of(keeper.pid())?;
        let table = keeper.leave(&peer)?;
        let Err(error) = upgrade::become_program(binary, &table);
        keeper.forget(Kept::Binary);
        Err(error)
    }
}
