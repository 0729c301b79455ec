//! What doors hold of the driver: ask for something, look, watch. Cheap to clone; knows no HTTP.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::reload::{Refused, Reload};
use crate::machine::{Request, RequestId, Wait};
use crate::plan::Plan;
use crate::view::snapshot::{Applied, FleetStatus, InstanceStatus, Outcome};

/// A way to reach the driver.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    plan: watch::Receiver<Arc<Plan>>,
}

/// What the driver is asked.
#[derive(Debug)]
pub(super) enum Order {
    /// A wish; answered after its effect. Whoever named it may ask again, if the supervisor died over it.
    Request(Option<RequestId>, Request, oneshot::Sender<Outcome>),
    /// Take over what the file says now.
    Reload(Reload),
    /// Become the binary that was named; answered with its version, or why not, before that happens.
    Upgrade(oneshot::Sender<Result<String, String>>),
    /// How is everything?
    Look(oneshot::Sender<FleetStatus>),
    /// How is everything, and tell me what changes from there on.
    Watch(oneshot::Sender<(FleetStatus, broadcast::Receiver<InstanceStatus>)>),
}

/// The supervisor is ending and answers nobody any more.
#[derive(Debug, thiserror::Error)]
#[error("the supervisor is ending")]
pub struct Gone;

impl Handle {
    pub(super) fn new(plan: watch::Receiver<Arc<Plan>>) -> (Self, mpsc::Receiver<Order>) {
        let (orders, inbox) = mpsc::channel(64);
        (Self { orders, plan }, inbox)
    }

    /// The plan that runs at this moment.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }

    /// Waits until another plan runs; `false` once the driver is gone.
    pub async fn another_plan(&mut self) -> bool {
        self.plan.changed().await.is_ok()
    }

    /// Takes over what the file says now, and waits for the effect; `dry_run` only says what that would be.
    ///
    /// # Errors
    /// When the supervisor ends first.
    pub async fn apply(
        &self,
        id: Option<RequestId>,
        wait: Wait,
        dry_run: bool,
    ) -> Result<Result<Applied, Refused>, Gone> {
        self.ask(|reply| Order::Reload(Reload { id, wait, dry_run, reply: Some(reply) })).await
    }

    /// Wishes something, and waits for its effect. With the `id` of an earlier wish it is the same wish.
    ///
    /// # Errors
    /// When the supervisor ends first.
    pub async fn request(&self, id: Option<RequestId>, request: Request) -> Result<Outcome, Gone> {
        self.ask(|reply| Order::Request(id, request, reply)).await
    }

    /// Lets the binary that was named prove itself; then the supervisor becomes it. Its version, or why not.
    ///
    /// # Errors
    /// When the supervisor ends first.
    pub async fn upgrade(&self) -> Result<Result<String, String>, Gone> {
        self.ask(Order::Upgrade).await
    }

    /// The state of the fleet.
    ///
    /// # Errors
    /// When the supervisor ends first.
    pub async fn status(&self) -> Result<FleetStatus, Gone> {
        self.ask(Order::Look).await
    }

    /// The state of the fleet, and every change of phase or health after it.
    ///
    /// # Errors
    /// When the supervisor ends first.
    pub async fn watch(&self) -> Result<(FleetStatus, broadcast::Receiver<InstanceStatus>), Gone> {
        self.ask(Order::Watch).await
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}
