//! Who starts before whom: dependencies first, otherwise in the order of the file; and circles, which never start.

use crate::config::{Collector, Fault, Settings};
use crate::model::InstanceId;

use super::spec::Plan;

/// All instances, each after those that it depends on. Backwards it is the order of stopping.
#[must_use]
pub fn start_order(plan: &Plan) -> Vec<InstanceId> {
    walk(plan).order
}

/// Reports every circle, at the dependency that closes it.
pub(super) fn check(settings: &Settings, plan: &Plan, collector: &Collector) {
    for circle in walk(plan).circles {
        let names: Vec<&str> = circle.iter().map(|id| plan.spec(*id).name.as_str()).collect();
        let Some((last, next)) = names.iter().rev().nth(1).zip(names.last()) else { continue };
        let Some(instance) = settings.instances.iter().find(|instance| instance.name.as_str() == *last) else {
            continue;
        };
        let dependency = instance.depends_on.iter().find(|dependency| dependency.on.as_str() == *next);
        let place = dependency.map_or(instance.place, |dependency| dependency.place);
        let fault = Fault::new(format!("the instances wait for each other: {}", names.join(" -> ")));
        collector.report(
            place,
            &format!("instances.{last}.depends_on"),
            fault.hint("take one of these dependencies out"),
        );
    }
}

struct Walk {
    order: Vec<InstanceId>,
    /// Each begins and ends with the same instance.
    circles: Vec<Vec<InstanceId>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

/// Depth first, without recursion: a chain may be as long as the fleet.
fn walk(plan: &Plan) -> Walk {
    let mut marks = vec![Mark::New; plan.specs.len()];
    let mut walk = Walk { order: Vec::new(), circles: Vec::new() };
    for first in plan.ids() {
        // The path from `first`, each with how many of its dependencies were looked at.
        let mut path: Vec<(InstanceId, usize)> = Vec::new();
        if marks.get(first.index()) == Some(&Mark::New) {
            path.push((first, 0));
        }
        while let Some((id, looked_at)) = path.last_mut() {
            let id = *id;
            if let Some(mark) = marks.get_mut(id.index()) {
                *mark = Mark::Open;
            }
            let Some(dependency) = plan.spec(id).depends_on.get(*looked_at) else {
                if let Some(mark) = marks.get_mut(id.index()) {
                    *mark = Mark::Done;
                }
                walk.order.push(id);
                path.pop();
                continue;
            };
            *looked_at += 1;
            let on = dependency.on;
            match marks.get(on.index()) {
                Some(Mark::New) => path.push((on, 0)),
                Some(Mark::Open) => {
                    let circle = path.iter().map(|(id, _)| *id).skip_while(|id| *id != on);
                    walk.circles.push(circle.chain([on]).collect());
                }
                Some(Mark::Done) | None => {}
            }
        }
    }
    walk
}
