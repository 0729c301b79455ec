//! A Redis server that was restarted has forgotten its users, and with them those of the lanes: they are made again,
//! without a restart of anybody. One look every few seconds, on a thread, and none where no lane has such a user.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::plan::Plan;
use crate::runtime::handle::Handle;
use crate::runtime::threads::in_thread;
use crate::upkeep::isolation;

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(2);

/// Looks as long as this process lives.
pub(super) async fn keep(mut handle: Handle) {
    let mut complaint = None;
    loop {
        let plan = handle.plan();
        if plan.ids().all(|id| plan.spec(id).facts.cache.user.is_none()) {
            if handle.another_plan().await {
                continue;
            }
            return;
        }
        sleep(EVERY).await;
        let (done, looked) = oneshot::channel();
        let begun = in_thread("grants", move || {
            let _ = done.send(restore(&plan));
        });
        if begun.is_err() {
            continue;
        }
        match looked.await {
            Ok(Ok(users)) => {
                complaint = None;
                for user in users {
                    info!("Redis had forgotten the user {user}; it knows it again");
                }
            }
            // Each trouble is said once.
            Ok(Err(error)) if complaint.as_ref() != Some(&error) => {
                warn!("the lanes' users on Redis cannot be looked after: {error}");
                complaint = Some(error);
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Those of lanes that were started before: a start makes its own.
fn restore(plan: &Plan) -> Result<Vec<String>, String> {
    let mut seen = BTreeSet::new();
    let lanes = plan.ids().map(|id| plan.spec(id)).filter(|spec| seen.insert(&spec.facts.lane));
    let known = lanes.filter(|spec| spec.facts.cache.user.as_ref().is_some_and(|user| user.password_file.exists()));
    isolation::restore(known).map_err(|trouble| trouble.to_string())
}
