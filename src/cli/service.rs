//! `laneway install-service` and `uninstall-service`: writes what `export` says, and asks systemctl for the rest.
//!
//! Touches only units that laneway wrote, and only those of this very file.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::unistd::{Uid, User, geteuid};

use super::args::{InstallService, ServiceName, UninstallService};
use super::audit::audited;
use super::out::{eprintln, println};
use super::place::Fleet;
use super::report::{DONE, Failure};
use crate::config::{self, Settings};
use crate::export::systemd::{self, Manager, Service};
use crate::plan::Plan;
use crate::runtime::audit::Act;

/// Where the machine's own units are.
const SYSTEM_UNITS: &str = "/etc/systemd/system";
/// What systemd itself sets for the user of a machine's service; the installer's would be another user's.
const OF_THE_USER: [&str; 2] = ["HOME", "USER"];

/// `laneway install-service`.
///
/// # Errors
/// Everything that is wrong with the file; a unit that is somebody else's; what systemctl refuses.
pub fn install(fleet: &Fleet, arguments: &InstallService) -> Result<ExitCode, Failure> {
    let plan = fleet.plan()?;
    let (settings, _) = config::read(fleet.source());
    let settings = settings.ok_or_else(|| Failure::failed("the file changed while it was read"))?;
    let place = Place::of(&arguments.service, &settings)?;
    let is_user = arguments.service.user;
    let manager = if is_user {
        Manager::User
    } else {
        Manager::System { run_as: run_as(arguments.run_as.as_deref(), &plan.file)? }
    };
    let service = Service {
        manager,
        program: std::env::current_exe()?,
        place: words(fleet, &plan),
        environment_file: place.environment_file(),
    };
    for path in [&plan.file, &service.program, &service.environment_file] {
        if path.to_string_lossy().contains(char::is_control) {
            let what = format!("{}: a unit cannot speak of a path with control characters", path.display());
            return Err(Failure::usage(what, "rename it"));
        }
    }
    let unit = systemd::unit(&plan, &service);
    let variables = variables(&plan, &settings, fleet, is_user);
    if arguments.dry_run {
        println!("{}", unit.trim_end());
        let names: Vec<_> = variables.keys().map(String::as_str).collect();
        eprintln!(
            "would write {}, and {} with {}",
            place.unit().display(),
            place.environment_file().display(),
            names.join(", ")
        );
        return Ok(ExitCode::from(DONE));
    }
    place.check(&plan.file)?;
    let act = Act::of_command("install-service", vec!["*".to_owned()]).with(&place.name);
    audited(&plan.state_dir, &act, || {
        DirBuilder::new().recursive(true).mode(0o755).create(&place.folder)?;
        replace(&place.environment_file(), &systemd::environment_file(&plan.file, &variables), 0o600)?;
        replace(&place.unit(), &unit, 0o644)?;
        place.systemctl(&["daemon-reload"])?;
        let verb: &[&str] = if arguments.now { &["enable", "--now"] } else { &["enable"] };
        place.systemctl(&[verb, &[&place.name]].concat())
    })?;
    println!("{} is installed", place.unit().display());
    if !arguments.now {
        eprintln!("to start it now: {} start {}", place.control(), place.name);
    }
    if is_user {
        let user = User::from_uid(geteuid()).ok().flatten().map_or_else(|| geteuid().to_string(), |user| user.name);
        eprintln!("to start it at boot, before {user} logs in: loginctl enable-linger {user}");
    }
    Ok(ExitCode::from(DONE))
}

/// `laneway uninstall-service`.
///
/// # Errors
/// Exit code 3 when there is no such service; a unit that is somebody else's; what systemctl refuses.
pub fn uninstall(fleet: &Fleet, arguments: &UninstallService) -> Result<ExitCode, Failure> {
    let (settings, problems) = config::read(fleet.source());
    // A file that is broken otherwise still says what its service is called.
    let Some(settings) = settings else { return Err(problems.into()) };
    let place = Place::of(&arguments.service, &settings)?;
    if !place.unit().exists() {
        return Err(Failure::not_running(format!("there is no service {}", place.unit().display()))
            .or_hint("--user and --name say which one; install-service makes it"));
    }
    place.check(&settings.file)?;
    let act = Act::of_command("uninstall-service", vec!["*".to_owned()]).with(&place.name);
    audited(&settings.state_dir, &act, || {
        place.systemctl(&["disable", "--now", &place.name])?;
        for path in [place.unit(), place.environment_file()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::failed(format!("{}: {error}", path.display())));
                }
                Ok(()) | Err(_) => {}
            }
        }
        place.systemctl(&["daemon-reload"])
    })?;
    println!("{} is removed", place.unit().display());
    Ok(ExitCode::from(DONE))
}

/// Where a unit is, and who is asked about it.
struct Place {
    is_user: bool,
    folder: PathBuf,
    name: String,
}

impl Place {
    fn of(service: &ServiceName, settings: &Settings) -> Result<Self, Failure> {
        let namespace = settings.namespace.as_ref().map(ToString::to_string);
        let name = match &service.name {
            Some(name) => checked(name)?,
            None => systemd::unit_name(&settings.project, namespace.as_deref()),
        };
        let folder = if service.user { user_units()? } else { PathBuf::from(SYSTEM_UNITS) };
        Ok(Self { is_user: service.user, folder, name: format!("{name}.service") })
    }

    fn unit(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn environment_file(&self) -> PathBuf {
        self.unit().with_extension("env")
    }

    /// What is there already must be ours, and this fleet's.
    fn check(&self, file: &Path) -> Result<(), Failure> {
        if !self.is_user && !geteuid().is_root() {
            let what = format!("{} is root's", self.folder.display());
            return Err(Failure::usage(what, "sudo laneway ..., or --user for a service of your own"));
        }
        for path in [self.unit(), self.environment_file()] {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
            };
            let owner = systemd::made_for(&text);
            if owner.as_deref() != Some(file) {
                let whose =
                    owner.map_or("not laneway's".to_owned(), |other| format!("the fleet's of {}", other.display()));
                let what = format!("{} is {whose}; nothing was changed", path.display());
                return Err(Failure::failed(what).or_hint("--name gives this fleet's service another name"));
            }
        }
        Ok(())
    }

    fn control(&self) -> &'static str {
        if self.is_user { "systemctl --user" } else { "systemctl" }
    }

    fn systemctl(&self, words: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new("systemctl");
        let status = command.args(self.is_user.then_some("--user")).args(words).status();
        let why = match status {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Failure::failed(format!("{} {}: {why}", self.control(), words.join(" ")))
            .or_hint("does systemd run here, for this user? Without it: laneway up -d"))
    }
}

/// Where a user's own units are.
fn user_units() -> Result<PathBuf, Failure> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let config =
        config.ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME says where units are", "set HOME"))?;
    Ok(config.join("systemd/user"))
}

/// A name for a unit, without its ending.
fn checked(name: &str) -> Result<String, Failure> {
    let name = name.strip_suffix(".service").unwrap_or(name);
    let is_fit = |character: char| character.is_ascii_alphanumeric() || "_-.:".contains(character);
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(is_fit) {
        let what = format!("--name {name:?}: no name for a unit");
        return Err(Failure::usage(what, "letters, digits and `_-.:`"));
    }
    Ok(name.to_owned())
}

/// The user of a machine's service. Servers of root are never what somebody means without saying so.
fn run_as(asked: Option<&str>, file: &Path) -> Result<String, Failure> {
    if let Some(name) = asked {
        let known = User::from_name(name).ok().flatten().map(|user| user.name);
        return known
            .ok_or_else(|| Failure::usage(format!("--run-as {name}: there is no such user"), "see /etc/passwd"));
    }
    if let Some(caller) = std::env::var("SUDO_USER").ok().filter(|caller| caller != "root") {
        return Ok(caller);
    }
    let owner = fs::metadata(file)?.uid();
    match User::from_uid(Uid::from_raw(owner)).ok().flatten() {
        Some(user) if owner != 0 => Ok(user.name),
        Some(_) | None => {
            let what = format!("whose servers shall these be? {} belongs to user {owner}", file.display());
            Err(Failure::usage(what, "--run-as USER; --run-as root, if the servers really need it"))
        }
    }
}

/// What says which fleet it is, before the verb.
fn words(fleet: &Fleet, plan: &Plan) -> Vec<String> {
    let source = fleet.source();
    let files = if source.files.is_empty() { std::slice::from_ref(&plan.file) } else { &source.files };
    let files = files.iter().flat_map(|file| ["-f".to_owned(), config::tidy(file).display().to_string()]);
    let profile = source.profile.iter().flat_map(|profile| ["--profile".to_owned(), profile.clone()]);
    let set = source.set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]);
    files.chain(profile).chain(set).collect()
}

/// What the fleet takes from the environment of whoever starts it, with the values of now.
fn variables(plan: &Plan, settings: &Settings, fleet: &Fleet, is_user: bool) -> BTreeMap<String, String> {
    let used = settings.variables.keys();
    let inherited = plan.specs.iter().flat_map(|spec| &spec.inherited);
    let registry = "XDG_STATE_HOME".to_owned();
    let names = used.chain(inherited).chain(std::iter::once(&registry));
    names
        .filter(|name| is_user || !OF_THE_USER.contains(&name.as_str()))
        .filter_map(|name| Some((name.clone(), fleet.source().environment.get(name)?.clone())))
        .collect()
}

/// A reader sees the old content or the new.
fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let beside = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(mode))?;
        fs::rename(&beside, path)
    };
    write().map_err(|error: io::Error| Failure::failed(format!("{}: {error}", path.display())))
}
