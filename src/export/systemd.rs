//! A fleet as a systemd service: the text of its unit and of the file with its variables.
//!
//! The unit's main process is `laneway up`, a client. Keeper, supervisor and servers live in the unit's cgroup, but
//! systemd signals the main process only: whoever kills that one has killed a client, and systemd starts the next, which
//! finds the fleet running. Knows no disk and no systemctl.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::plan::{Plan, start_order};

/// How every file of a service begins, before the path of the fleet's file.
const MARKER: &str = "# Made by `laneway install-service` for ";

/// How long `laneway up` waits for health before it says how the fleet is.
const START: Duration = Duration::from_mins(2);
/// What stopping takes beyond the grace periods: clearing the tree of an instance; ending laneway itself.
const CLEARING: Duration = Duration::from_secs(3);
const ENDING: Duration = Duration::from_secs(15);
/// How long the supervisor may be silent. It is replaced within two seconds when it dies; only one that hangs is silent.
const WATCHDOG: Duration = Duration::from_secs(30);

/// Whose service manager runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The machine's: starts at boot, runs as this user.
    System {
        /// `User=`.
        run_as: String,
    },
    /// A user's own: starts when that user logs in, or at boot if the user lingers.
    User,
}

/// What a unit is made of, beside the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Who runs it.
    pub manager: Manager,
    /// The program, absolute.
    pub program: PathBuf,
    /// What comes before the verb: the files, the profile, the values set.
    pub place: Vec<String>,
    /// Where the file with its variables is, absolute.
    pub environment_file: PathBuf,
}

/// The name of a fleet's unit. Checkouts that have a namespace to run side by side get a unit each.
#[must_use]
pub fn unit_name(project: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("laneway-{project}-{namespace}"),
        None => format!("laneway-{project}"),
    }
}

/// The fleet that a unit, or its file of variables, was made for; `None` if laneway did not make it.
#[must_use]
pub fn made_for(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text.lines().next()?.strip_prefix(MARKER)?))
}

/// The text of the unit. The paths of the fleet's file and of the file with the variables must hold no line break.
#[must_use]
pub fn unit(plan: &Plan, service: &Service) -> String {
    let file = plan.file.display().to_string();
    let mut text = format!("{MARKER}{file}\n");
    let mut section = |name: &str, lines: &[(&str, String)]| {
        let _ = writeln!(text, "\n[{name}]");
        for (key, value) in lines {
            let _ = writeln!(text, "{key}={value}");
        }
    };
    let (order, user, target) = match &service.manager {
        Manager::System { run_as } => (order(), vec![("User", run_as.clone())], "multi-user.target"),
        // A user's manager knows none of the machine's units.
        Manager::User => (Vec::new(), Vec::new(), "default.target"),
    };
    let description = specifier_literal(&format!("laneway: the fleet {} of {file}", plan.project));
    // It never gives up: what hinders a start is mended by people, sooner or later.
    let of_unit = vec![("Description", description), ("StartLimitIntervalSec", "0".to_owned())];
    section("Unit", &[of_unit, order].concat());
    section("Service", &[user, of_service(plan, service)].concat());
    section("Install", &[("WantedBy", target.to_owned())]);
    text
}

fn order() -> Vec<(&'static str, String)> {
    let network = "network-online.target";
    let servers = "redis.service redis-server.service postgresql.service";
    vec![("Wants", network.to_owned()), ("After", format!("{network} {servers}"))]
}

fn of_service(plan: &Plan, service: &Service) -> Vec<(&'static str, String)> {
    let folder = plan.file.parent().unwrap_or(Path::new("/")).display().to_string();
    let variables = glob_literal(&service.environment_file.display().to_string());
    let command = |verb: &str| {
        let words = std::iter::once(service.program.display().to_string()).chain(service.place.iter().cloned());
        let words: Vec<_> = words.map(|word| quoted(&word)).collect();
        // The colon: `$` in a word is a `$`, and no variable of systemd's.
        format!(":{} {verb}", words.join(" "))
    };
    let word = str::to_owned;
    vec![
        ("Type", word("notify")),
        ("NotifyAccess", word("main")),
        ("WorkingDirectory", specifier_literal(&folder)),
        ("EnvironmentFile", specifier_literal(&variables)),
        ("ExecStart", command("up")),
        ("ExecReload", command("apply")),
        ("ExecStop", command("down")),
        ("Restart", word("always")),
        ("RestartSec", word("1s")),
        // 0: somebody took the fleet down, and it stays down. 2: the file is wrong, and trying again does not mend it.
        ("RestartPreventExitStatus", word("0 2")),
        ("KillMode", word("process")),
        ("Delegate", word("yes")),
        ("OOMPolicy", word("continue")),
        ("WatchdogSec", seconds(WATCHDOG)),
        ("TimeoutStartSec", seconds(START + ENDING)),
        ("TimeoutStopSec", seconds(stopping(plan) + ENDING)),
    ]
}

/// The text of the file with the variables: values never stand in the unit, which everybody may read.
#[must_use]
pub fn environment_file(file: &Path, variables: &BTreeMap<String, String>) -> String {
    let first = format!("{MARKER}{}\n", file.display());
    variables.iter().fold(first, |mut text, (name, value)| {
        let _ = write!(text, "{name}=\"");
        for character in value.chars() {
            if matches!(character, '"' | '\\' | '`' | '$') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push_str("\"\n");
        text
    })
}

/// How long the fleet may take to stop: whoever depends on another ends first, the others at the same time.
fn stopping(plan: &Plan) -> Duration {
    let mut ends = vec![Duration::ZERO; plan.specs.len()];
    for id in start_order(plan) {
        let spec = plan.spec(id);
        let others = spec.depends_on.iter().filter_map(|dependency| ends.get(dependency.on.index())).max().copied();
        let own = others.unwrap_or_default() + spec.stop_grace_period + CLEARING;
        if let Some(end) = ends.get_mut(id.index()) {
            *end = own;
        }
    }
    ends.into_iter().max().unwrap_or_default()
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

/// One word of a command line.
fn quoted(word: &str) -> String {
    let word = specifier_literal(word).replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    let is_plain = |character: char| character.is_alphanumeric() || "/._-=:,+%@".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) { word } else { format!("\"{word}\"") }
}

/// `%` begins a specifier everywhere in a unit.
fn specifier_literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// The path of an `EnvironmentFile` is a pattern.
fn glob_literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, character| {
        if matches!(character, '*' | '?' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
        escaped
    })
}
