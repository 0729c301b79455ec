//! Faults, each made for real, while a control instance is asked twenty times a second and must not miss one answer.
//!
//! `control` is that witness. Each other file is one promise, and says what would break it.

mod clean;
pub mod control;
mod disk;
pub mod hand_over;
mod scarce;
mod shared;
mod stop;
mod upgrade;
mod v1;

use crate::harness::Fleet;

/// How the processes of a run are found and ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// By the cgroup of the run.
    Cgroups,
    /// The same, without what came after Linux 5.10.
    OldKernel,
    /// Where no cgroup can be written: by what can be seen in `/proc`.
    Sweep,
}

impl Way {
    /// Runs a test in each way.
    pub fn each(test: impl Fn(Self)) {
        for way in [Self::Cgroups, Self::OldKernel, Self::Sweep] {
            eprintln!("way: {way:?}");
            test(way);
        }
    }

    /// A fleet that goes this way, not yet up.
    pub fn fleet(self, instances: &str) -> Fleet {
        let mut fleet = Fleet::new(instances);
        match self {
            Self::Cgroups => {}
            Self::OldKernel => fleet.set("LANEWAY_TEST_OLD_KERNEL", "1"),
            Self::Sweep => fleet.set("LANEWAY_TEST_NO_CGROUPS", "1"),
        }
        fleet
    }
}
