//! Landlock: what an instance may write, read, bind and connect to, held by the kernel. Made here as a rule set in a
//! descriptor, which a child enters between its clone and its exec (`birth`), and which nobody ever leaves again.
//!
//! Knows what the plan lets an instance do, and the kernel. What the kernel cannot hold it to is said in words.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use nix::errno::Errno;
use nix::libc;

use super::kernel::old_kernel;
use super::lane::LaneError;
use super::processes;
use super::spawn::MARKER;
use crate::plan;
use crate::plan::spec::{Database, Enforced, Isolation, Plan, Spec};

/// Since this version truncating a file counts as writing it (Linux 6.2).
const FILES: i32 = 3;
/// Since this version there are rules about TCP ports (Linux 6.7).
const NETWORK: i32 = 4;
/// Since this version signals and abstract sockets end at the rule set (Linux 6.12).
const SCOPE: i32 = 6;
/// What later ones add is not asked for: nobody has tried it here.
const KNOWN: i32 = 7;

/// Read by programs before they come to their own: names of hosts, users and time zones, certificates, types of files.
const SYSTEM: [&str; 26] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/opt",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/passwd",
    "/etc/group",
    "/etc/localtime",
    "/etc/ssl",
    "/etc/ca-certificates",
    "/etc/mime.types",
    "/dev/random",
    "/dev/urandom",
];
/// Written by everybody, and nobody's.
const SINKS: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"];

/// The version of Landlock that this kernel has; 0 = none.
#[must_use]
pub fn version() -> i32 {
    if old_kernel() {
        return 0;
    }
    // SAFETY: with this flag it only says its version.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, 1_u32) };
    i32::try_from(version).unwrap_or(0).clamp(0, KNOWN)
}

/// What of `isolation` this kernel cannot enforce: each part with the reason.
#[must_use]
pub fn missing(isolation: &Isolation) -> Vec<(Enforced, String)> {
    if !concerns(isolation) {
        return Vec::new();
    }
    missing_with(isolation, version())
}

fn missing_with(isolation: &Isolation, version: i32) -> Vec<(Enforced, String)> {
    let needs = [(Enforced::Files, FILES, "6.2"), (Enforced::Network, NETWORK, "6.7")];
    let lacking = needs.into_iter().filter(|(what, least, _)| isolation.has(*what) && version < *least);
    let why = |linux: &str| match version {
        0 => format!("it needs Landlock of Linux {linux}, and this kernel has none (older, or turned off at boot)"),
        version => format!("it needs Landlock of Linux {linux}, and this kernel has version {version} of it"),
    };
    lacking.map(|(what, _, linux)| (what, why(linux))).collect()
}

/// What to do where something cannot be enforced.
pub const HINT: &str = "take it out of `enforce`, or say `on_missing: warn` to start without";

/// Whom of `plan` this kernel cannot hold to what is asked, and why.
pub fn refusals(plan: &Plan) -> impl Iterator<Item = (&Spec, String)> {
    plan.ids().map(|id| plan.spec(id)).filter_map(|spec| Some((spec, refusal(&spec.isolation)?)))
}

/// What is wrong with an instance for this kernel, in words; none where everything can be enforced, or need not be.
fn refusal(isolation: &Isolation) -> Option<String> {
    if isolation.may_be_missing {
        return None;
    }
    let (what, why) = missing(isolation).into_iter().next()?;
    Some(format!("isolation: {what} cannot be enforced: {why}"))
}

/// The rule set of `spec`, to be entered by each of its processes; none where nothing is asked for. The lane is prepared,
/// and the directories `also_write` are there.
///
/// # Errors
/// Names a path that cannot be reached, and what this kernel cannot do.
pub fn rules(plan: &Plan, spec: &Spec, also_write: &[PathBuf]) -> Result<Option<OwnedFd>, LaneError> {
    let refused = |what: String| LaneError { path: spec.facts.state.clone(), error: io::Error::other(what) };
    if let Some(what) = refusal(&spec.isolation) {
        return Err(refused(what));
    }
    let version = version();
    let missing = missing_with(&spec.isolation, version);
    let has = |what| spec.isolation.has(what) && missing.iter().all(|(other, _)| *other != what);
    let (files, network) = (has(Enforced::Files), has(Enforced::Network));
    if !(files || network) {
        return Ok(None);
    }
    let abi = ABI::from(version);
    let failed = |error: landlock::RulesetError| refused(format!("the kernel refuses the rules: {error}"));
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let (reading, writing) = (AccessFs::from_read(abi), AccessFs::from_write(abi));
    let is_narrow = spec.isolation.narrow_reads;
    if files {
        rules = rules.handle_access(if is_narrow { reading | writing } else { writing }).map_err(failed)?;
    }
    if network {
        rules = rules.handle_access(AccessNet::BindTcp).map_err(failed)?;
        if spec.isolation.connect.is_some() {
            rules = rules.handle_access(AccessNet::ConnectTcp).map_err(failed)?;
        }
    }
    if version >= SCOPE {
        // Whom it may not write to, it may not signal either.
        rules = rules.scope(Scope::Signal | Scope::AbstractUnixSocket).map_err(failed)?;
    }
    let mut made = Made { rules: rules.create().map_err(failed)?, abi };
    if files {
        let all = if is_narrow { reading | writing } else { writing };
        for folder in plan::writable(spec).iter().chain(also_write) {
            made.path(folder, all)?;
        }
        for sink in SINKS {
            made.path_if_there(Path::new(sink), all)?;
        }
        if is_narrow {
            for path in readable(plan, spec) {
                made.path_if_there(&path, reading)?;
            }
            for path in &spec.isolation.also_read {
                made.path(path, reading)?;
            }
        }
    }
    if network {
        if let Some(port) = spec.facts.port {
            made.port(port, AccessNet::BindTcp)?;
        }
        for port in spec.isolation.connect.iter().flatten() {
            made.port(*port, AccessNet::ConnectTcp)?;
        }
    }
    Ok(made.rules.into())
}

/// A rule set on its way.
struct Made {
    rules: RulesetCreated,
    abi: ABI,
}

impl Made {
    fn path(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), LaneError> {
        self.add(path, access).map_err(|error| LaneError { path: path.to_owned(), error })
    }

    fn path_if_there(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), LaneError> {
        match self.add(path, access) {
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&error.kind()) => Ok(()),
            added => added.map_err(|error| LaneError { path: path.to_owned(), error }),
        }
    }

    fn add(&mut self, path: &Path, access: BitFlags<AccessFs>) -> io::Result<()> {
        let is_directory = fs::metadata(path)?.is_dir();
        let held = PathFd::new(path).map_err(|error| io::Error::other(error.to_string()))?;
        let access = if is_directory { access } else { access & AccessFs::from_file(self.abi) };
        let added = (&mut self.rules).add_rule(PathBeneath::new(held, access));
        added.map(drop).map_err(|error| io::Error::other(error.to_string()))
    }

    fn port(&mut self, port: u16, access: AccessNet) -> Result<(), LaneError> {
        let added = (&mut self.rules).add_rule(NetPort::new(port, access));
        let failed = |error: landlock::RulesetError| LaneError {
            path: PathBuf::from(format!("port {port}")),
            error: io::Error::other(error.to_string()),
        };
        added.map(drop).map_err(failed)
    }
}

/// What a narrow reader reads: its program, the project, what the system is made of. Its lane it may write, and so read.
fn readable(plan: &Plan, spec: &Spec) -> Vec<PathBuf> {
    let mut wanted: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    let programs = spec.pre_start.iter().chain([&spec.command]).filter_map(|words| words.first());
    for program in programs.filter(|program| program.contains('/')) {
        wanted.extend(home_of(Path::new(program)));
    }
    for folder in spec.environment.get("PATH").map(String::as_str).unwrap_or_default().split(':') {
        if folder.starts_with('/') {
            wanted.push(PathBuf::from(folder));
        }
    }
    let root = plan.file.parent().unwrap_or(Path::new("/"));
    wanted.extend([root.to_owned(), spec.working_dir.clone()]);
    let private = private(plan, spec);
    let mut around = BTreeSet::new();
    for path in wanted {
        // By their real names, as the kernel goes by them.
        let real = fs::canonicalize(&path).unwrap_or(path);
        go_around(&real, &private, &mut around);
    }
    around.into_iter().collect()
}

/// A program, and what it is installed with: of a virtual environment all of it, and the interpreter that it came from.
fn home_of(program: &Path) -> Vec<PathBuf> {
    let above = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_owned);
    // Not whatever a link leads to: a home directory may have a `bin` too.
    let is_installation = |home: &PathBuf| home.parent().is_some() && home.join("lib").is_dir();
    let mut homes = vec![program.to_owned()];
    let environment = above(program).filter(|home| home.join("pyvenv.cfg").is_file());
    homes.extend(environment.clone());
    if let Ok(real) = fs::canonicalize(program)
        && real != program
    {
        homes.extend(above(&real).filter(is_installation));
    }
    // A script of the environment: its interpreter stands beside it.
    if let Some(environment) = environment
        && let Ok(python) = fs::canonicalize(environment.join("bin/python"))
    {
        homes.extend(above(&python).filter(is_installation));
    }
    homes
}

/// What no narrow reader of another lane reads, by real names.
fn private(plan: &Plan, spec: &Spec) -> Vec<PathBuf> {
    let others = plan.specs.iter().filter(|other| other.facts.lane != spec.facts.lane);
    let elsewhere = others.flat_map(|other| {
        let facts = &other.facts;
        let mut paths = vec![&facts.state, &facts.static_root, &facts.media_root, &facts.secret_file];
        if let Database::Sqlite { path } = &facts.database {
            paths.push(path);
        }
        // Of a large fleet nearly all lies in the one directory that is private anyway.
        paths.retain(|path| !path.starts_with(&plan.state_dir));
        paths
    });
    let private = [&plan.state_dir].into_iter().chain(elsewhere).cloned();
    let real = |path: PathBuf| fs::canonicalize(&path).unwrap_or(path);
    let mut private: Vec<_> = private.map(real).collect();
    private.sort();
    private.dedup_by(|inner, outer| inner.starts_with(outer));
    private
}

/// `path`, or what it holds but for what is private: no rule takes back what one above it gave.
fn go_around(path: &Path, private: &[PathBuf], around: &mut BTreeSet<PathBuf>) {
    if private.iter().any(|private| path.starts_with(private) || is_beside(path, private)) {
        return;
    }
    if !private.iter().any(|private| private.starts_with(path)) {
        around.insert(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        go_around(&entry.path(), private, around);
    }
}

/// A journal of SQLite, which is as private as its database.
fn is_beside(path: &Path, database: &Path) -> bool {
    let (Some(name), Some(of)) =
        (path.file_name().and_then(OsStr::to_str), database.file_name().and_then(OsStr::to_str))
    else {
        return false;
    };
    path.parent() == database.parent() && name.strip_prefix(of).is_some_and(|rest| rest.starts_with('-'))
}

/// Whether the kernel is asked to hold an instance to anything.
#[must_use]
pub fn concerns(isolation: &Isolation) -> bool {
    isolation.has(Enforced::Files) || isolation.has(Enforced::Network)
}

/// Whether the process `pid`, or one that it descends from, has entered rules of ours. A process that is gone has.
#[must_use]
pub fn holds(pid: u32) -> bool {
    let never_gains = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(status.lines().find_map(|line| line.strip_prefix("NoNewPrivs:"))?.trim() != "0")
    };
    // Who entered rules can never gain privileges again, and neither can whoever it makes. Where laneway itself is such a
    // process, a run is known by its marker.
    never_gains(&pid.to_string()).unwrap_or(true)
        && (never_gains("self") == Some(false)
            || processes::was_started_with(pid, |entry| entry.starts_with(format!("{MARKER}=").as_bytes())))
}

/// Enters the rules. Two system calls: also for a child that has only its parent's memory.
///
/// # Errors
/// The kernel's.
pub fn enter(rules: i32) -> nix::Result<()> {
    // SAFETY: plain system calls on numbers.
    unsafe {
        Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        Errno::result(libc::syscall(libc::SYS_landlock_restrict_self, rules, 0_u32)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_says_what_it_lacks() {
        let both = Isolation { enforce: vec![Enforced::Files, Enforced::Network], ..Isolation::default() };
        let lacks = |version| missing_with(&both, version).into_iter().map(|(what, _)| what).collect::<Vec<_>>();
        assert_eq!(lacks(0), [Enforced::Files, Enforced::Network]);
        assert_eq!(lacks(2), [Enforced::Files, Enforced::Network]);
        assert_eq!(lacks(3), [Enforced::Network]);
        assert_eq!(lacks(4), []);
        assert_eq!(missing_with(&Isolation::default(), 0), []);
    }

    #[test]
    fn what_is_private_is_gone_around() {
        let folder = std::env::temp_dir().join(format!("laneway-around-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for path in ["app/code.py", "var/a/db", "var/b/db", "data/b.sqlite3", "data/b.sqlite3-wal", "data/shared"] {
            fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
            fs::write(folder.join(path), "").unwrap();
        }
        let mut around = BTreeSet::new();
        go_around(&folder, &[folder.join("data/b.sqlite3"), folder.join("var")], &mut around);
        let names: Vec<_> = around.iter().map(|path| path.strip_prefix(&folder).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["app", "data/shared"]);
        let mut nothing = BTreeSet::new();
        go_around(&folder.join("var/b"), &[folder.join("var")], &mut nothing);
        assert_eq!(nothing.len(), 0);
        fs::remove_dir_all(&folder).unwrap();
    }
}
