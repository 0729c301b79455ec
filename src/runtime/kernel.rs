//! Which kernel laneway takes this one for. Everything works from Linux 5.10 on; what came later is used where it is.

/// Set by tests to follow the way that an old kernel would have us go, on a newer one.
const OLD_KERNEL: &str = "LANEWAY_TEST_OLD_KERNEL";

/// Whether to do without what came after Linux 5.10, such as `cgroup.kill` (5.14) and `PIDFD_GET_INFO` (6.13).
#[must_use]
pub fn old_kernel() -> bool {
    std::env::var_os(OLD_KERNEL).is_some()
}
