//! `laneway db`: the databases of lanes. Asks, shows progress, prints; what is done is `upkeep`'s.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::{Db, DbBackup, DbCreate, DbDrop, DbNames, DbRestore, DbStatus};
use super::audit::audited;
use super::ctl::to_json;
use super::out::{eprintln, println};
use super::place::Fleet;
use super::report::{self, DONE, FAILED, Failure};
use crate::control::Client;
use crate::model::{InstanceName, Phase, in_bytes, in_utc};
use crate::plan::spec::{Framework, Plan, Spec};
use crate::plan::{self};
use crate::runtime::audit::Act;
use crate::runtime::clock::wall_clock;
use crate::runtime::{errand, lane};
use crate::upkeep::database::{self, Condition, Status, Trouble};
use crate::view::table;

/// Pages below which nobody waits long enough to look at a number.
const WORTH_SHOWING: u64 = 10_000;

impl From<Trouble> for Failure {
    fn from(Trouble { what, hint }: Trouble) -> Self {
        match hint {
            Some(hint) => Self::failed(what).or_hint(&hint),
            None => Self::failed(what),
        }
    }
}

/// `laneway db`.
///
/// # Errors
/// Exit code 1 when something could not be done, 2 for an unknown name.
pub fn run(fleet: &Fleet, verb: &Db) -> Result<ExitCode, Failure> {
    let plan = fleet.running_plan_or_plan()?;
    match verb {
        Db::Create(arguments) => create(&plan, arguments),
        Db::Status(arguments) => status(&plan, arguments),
        Db::Migrate(arguments) => migrate(&plan, arguments),
        Db::Backup(arguments) => backup(&plan, arguments),
        Db::Restore(arguments) => restore(fleet, &plan, arguments),
        Db::Drop(arguments) => drop(fleet, &plan, arguments),
    }
}

/// What the supervisor starts before a lane's first `pre_start` command. Its output is in the lane's log.
#[must_use]
pub fn make_by_supervisor() -> ExitCode {
    let spec = std::env::var(lane::SPEC_VARIABLE).ok().and_then(|spec| serde_json::from_str::<Spec>(&spec).ok());
    let Some(spec) = spec else {
        return Failure::usage("this one is not started by hand", "laneway db create").report();
    };
    match make(&spec, spec.facts.state.parent().unwrap_or(&spec.facts.state), false) {
        Ok(steps) => {
            for step in steps {
                println!("laneway: {step}");
            }
            ExitCode::from(DONE)
        }
        Err(failure) => failure.report(),
    }
}

/// The spec of each lane that `names` mean, once, in the order of the file.
fn lanes<'a>(plan: &'a Plan, names: &[String]) -> Result<Vec<&'a Spec>, Failure> {
    let mut lanes: Vec<&Spec> = Vec::new();
    for id in plan::select(plan, names)? {
        let spec = plan.spec(id);
        let owner = plan.owner(spec);
        if owner.name != spec.name {
            eprintln!("{} has the database of {}", spec.name, owner.name);
        }
        if !lanes.iter().any(|lane| lane.name == owner.name) {
            lanes.push(owner);
        }
    }
    Ok(lanes)
}

/// Does `act` for each lane, though it fails for some, and says whom it failed for.
fn each(lanes: &[&Spec], mut act: impl FnMut(&Spec) -> Result<(), Failure>) -> ExitCode {
    let mut code = DONE;
    for spec in lanes {
        if let Err(failure) = act(spec) {
            code = FAILED;
            match failure {
                Failure::Other { what, hint, .. } => {
                    report::say(&format!("{}: {what}", spec.facts.lane), hint.as_deref());
                }
                Failure::Problems(problems) => report::say(&problems.to_string(), None),
            }
        }
    }
    ExitCode::from(code)
}

/// Makes what is missing. Only what was made is an act.
fn make(spec: &Spec, state_dir: &Path, adopt: bool) -> Result<Vec<String>, Failure> {
    let made = database::make(spec, adopt)?;
    if !made.steps.is_empty() {
        let act = Act::of_command("db create", vec![spec.facts.lane.to_string()]).with(made.steps.join("; "));
        audited(state_dir, &act, || Ok(()))?;
    }
    Ok(made.steps)
}

fn create(plan: &Plan, arguments: &DbCreate) -> Result<ExitCode, Failure> {
    Ok(each(&lanes(plan, &arguments.names)?, |spec| {
        let steps = make(spec, &plan.state_dir, arguments.adopt)?;
        for step in &steps {
            println!("{}: {step}", spec.facts.lane);
        }
        if steps.is_empty() {
            match &spec.database_setup {
                Some(_) => println!("{}: all is there", spec.facts.lane),
                None => println!("{}: the file asks for nothing to be made; the app makes it", spec.facts.lane),
            }
        }
        Ok(())
    }))
}

fn status(plan: &Plan, arguments: &DbStatus) -> Result<ExitCode, Failure> {
    let found: Vec<Status> = lanes(plan, &arguments.names)?.into_iter().map(database::status).collect();
    if arguments.json {
        println!("{}", to_json(&found)?);
    } else {
        let rows: Vec<_> = found.iter().map(row).collect();
        println!(
            "{}",
            table::plain(["LANE", "ENGINE", "STATE", "SIZE", "TABLES", "SESSIONS", "BACKUPS", "DATABASE"], &rows)
        );
        for status in &found {
            if let Some(Trouble { what, hint }) = &status.trouble {
                eprintln!("{}: {what}", status.lane);
                if let Some(hint) = hint {
                    eprintln!("  hint: {hint}");
                }
            }
        }
    }
    let is_good = found.iter().all(|status| status.condition == Condition::Good);
    Ok(ExitCode::from(if is_good { DONE } else { FAILED }))
}

fn row(status: &Status) -> [String; 8] {
    let dash = || "-".to_owned();
    let sessions = status.server.as_ref().map(|server| match server.max_connections {
        Some(most) => format!("{} of {most}", server.connections),
        None => server.connections.to_string(),
    });
    [
        status.lane.clone(),
        match &status.file {
            Some(file) => format!("{} ({})", status.engine, file.journal_mode),
            None => status.engine.to_owned(),
        },
        status.condition.to_string(),
        status.size.map_or_else(dash, in_bytes),
        status.tables.map_or_else(dash, |tables| tables.to_string()),
        sessions.unwrap_or_else(dash),
        status.backups.len().to_string(),
        status.place.clone(),
    ]
}

/// The time as it stands in the name of a backup.
fn stamp() -> String {
    let now = in_utc(wall_clock());
    let seconds = now.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

/// Shows on a terminal how far it is, where it takes long enough to be read.
fn progress(lane: &InstanceName) -> impl FnMut(u64, u64) {
    let lane = lane.clone();
    let is_shown = io::stderr().is_terminal();
    let mut shown = u64::MAX;
    move |done, of| {
        let percent = done * 100 / of.max(1);
        if is_shown && of >= WORTH_SHOWING && percent != shown {
            shown = percent;
            let end = if done == of { "\n" } else { "" };
            let _ = write!(io::stderr(), "\r{lane}: {percent} %{end}");
        }
    }
}

fn backup(plan: &Plan, arguments: &DbBackup) -> Result<ExitCode, Failure> {
    let keep = arguments.keep.and_then(|keep| usize::try_from(keep).ok());
    Ok(each(&lanes(plan, &arguments.names)?, |spec| {
        let lane = &spec.facts.lane;
        let act = Act::of_command("db backup", vec![lane.to_string()]);
        let made = audited(&plan.state_dir, &act, || Ok(database::backup(spec, &stamp(), keep, &mut progress(lane))?))?;
        println!("{lane}: saved {} ({})", made.path.display(), in_bytes(made.size));
        Ok(())
    }))
}

fn restore(fleet: &Fleet, plan: &Plan, arguments: &DbRestore) -> Result<ExitCode, Failure> {
    let lanes = lanes(plan, std::slice::from_ref(&arguments.name))?;
    let [spec] = lanes.as_slice() else {
        return Err(Failure::usage(format!("`{}` means several lanes", arguments.name), "name one"));
    };
    let lane = &spec.facts.lane;
    let from = backup_of(spec, arguments.from.as_deref())?;
    if !arguments.while_running {
        let running = running(fleet, plan, lane)?;
        if !running.is_empty() {
            let what = format!("{} runs, and would see other data from one moment to the next", running.join(", "));
            let hint = format!("laneway stop {}; or --while-running", running.join(" "));
            return Err(Failure::failed(what).or_hint(&hint));
        }
    }
    let act = Act::of_command("db restore", vec![lane.to_string()]).with(from.display().to_string());
    let aside = audited(&plan.state_dir, &act, || Ok(database::restore(spec, &from, &stamp(), &mut progress(lane))?))?;
    println!("{lane}: holds now what {} holds", from.display());
    if let Some(aside) = aside {
        println!("{lane}: what it held is in {}", aside.display());
    }
    Ok(ExitCode::from(DONE))
}

/// The file that is to be put back.
fn backup_of(spec: &Spec, wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let backups = database::backups(spec);
    let Some(wanted) = wanted else {
        let newest = backups.into_iter().next().map(|backup| backup.path);
        let none = || Failure::failed(format!("there is no backup of {}", spec.facts.lane));
        return newest.ok_or_else(|| none().or_hint(&format!("laneway db backup {} makes one", spec.facts.lane)));
    };
    let is_it = |backup: &database::Backup| backup.path.file_name() == Some(wanted.as_os_str());
    let known = backups.iter().find(|backup| is_it(backup)).map(|backup| backup.path.clone());
    match known {
        Some(path) => Ok(path),
        None if wanted.is_file() => Ok(std::path::absolute(wanted)?),
        None => {
            let names: Vec<_> = backups
                .iter()
                .filter_map(|backup| Some(backup.path.file_name()?.to_string_lossy().into_owned()))
                .collect();
            let failure = Failure::failed(format!("{}: there is no such file and no such backup", wanted.display()));
            Err(if names.is_empty() { failure } else { failure.or_hint(&format!("there are {}", names.join(", "))) })
        }
    }
}

/// Who of the lane runs, or will without being asked.
fn running(fleet: &Fleet, plan: &Plan, lane: &InstanceName) -> Result<Vec<String>, Failure> {
    let lives_there =
        |name: &InstanceName| plan.find(name.as_str()).is_some_and(|id| plan.spec(id).facts.lane == *lane);
    let at_rest = [Phase::Stopped, Phase::Completed, Phase::Failed];
    let names: Vec<InstanceName> = if let Some(home) = fleet.running() {
        let instances = Client::new(home).status()?.instances;
        instances.into_iter().filter(|one| !at_rest.contains(&one.phase)).map(|one| one.name).collect()
    } else {
        let unwatched = fleet.home_at_rest().map(|home| home.unwatched()).unwrap_or_default();
        unwatched.into_iter().map(|(name, _)| name).collect()
    };
    Ok(names.into_iter().filter(lives_there).map(|name| name.to_string()).collect())
}

fn drop(fleet: &Fleet, plan: &Plan, arguments: &DbDrop) -> Result<ExitCode, Failure> {
    let lanes = lanes(plan, &arguments.names)?;
    for spec in &lanes {
        let running = running(fleet, plan, &spec.facts.lane)?;
        if !running.is_empty() {
            let failure = Failure::failed(format!("{} runs", running.join(", ")));
            return Err(failure.or_hint(&format!("laneway stop {}", running.join(" "))));
        }
    }
    let is_none = |word: &&String| !lanes.iter().any(|spec| spec.facts.lane.as_str() == word.as_str());
    if let Some(word) = arguments.yes_drop.iter().find(is_none) {
        return Err(Failure::usage(format!("--yes-drop {word} names none of them"), "name it as an argument too"));
    }
    Ok(each(&lanes, |spec| {
        let lane = &spec.facts.lane;
        if !arguments.yes_drop.iter().any(|word| word == lane.as_str()) {
            confirm(spec)?;
        }
        let act = Act::of_command("db drop", vec![lane.to_string()]).with(place(spec));
        let gone = audited(&plan.state_dir, &act, || Ok(database::drop(spec)?))?;
        for what in gone {
            println!("{lane}: {what} is gone");
        }
        Ok(())
    }))
}

fn place(spec: &Spec) -> String {
    match &spec.facts.database {
        plan::spec::Database::Sqlite { path } => path.display().to_string(),
        plan::spec::Database::Postgres { url, .. } => super::secrets::without_password(url),
    }
}

/// Whoever drops a database types its lane's name.
fn confirm(spec: &Spec) -> Result<(), Failure> {
    let lane = spec.facts.lane.as_str();
    if !io::stdin().is_terminal() {
        let failure = Failure::failed(format!("nobody is there to confirm that {} goes", place(spec)));
        return Err(failure.or_hint(&format!("--yes-drop {lane}")));
    }
    eprintln!("This removes {} and all that is in it.", place(spec));
    let _ = write!(io::stderr(), "Type {lane} to go on: ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == lane { Ok(()) } else { Err(Failure::failed("that is not its name; nothing was removed")) }
}

fn migrate(plan: &Plan, arguments: &DbNames) -> Result<ExitCode, Failure> {
    Ok(each(&lanes(plan, &arguments.names)?, |spec| {
        let words = migration(spec)?;
        for step in make(spec, &plan.state_dir, false)? {
            println!("{}: {step}", spec.facts.lane);
        }
        eprintln!("{}: {}", spec.facts.lane, words.join(" "));
        let act = Act::of_command("db migrate", vec![spec.facts.lane.to_string()]);
        audited(&plan.state_dir, &act, || in_lane(plan, spec, &words))
    }))
}

/// Runs a command in the lane, to its end, with this terminal.
fn in_lane(plan: &Plan, spec: &Spec, words: &[String]) -> Result<(), Failure> {
    let mut command =
        errand::in_lane(plan, spec, words, &[]).map_err(|hindered| Failure::failed(hindered.to_string()))?;
    let ended = command.status()?;
    if ended.success() { Ok(()) } else { Err(Failure::failed(format!("`{}` failed: {ended}", words.join(" ")))) }
}

/// What migrates the lane: what its `pre_start` migrates with, else the `manage.py` that its server is started with or that
/// stands in its working directory.
fn migration(spec: &Spec) -> Result<Vec<String>, Failure> {
    if spec.facts.framework != Framework::Django {
        let failure = Failure::failed("laneway knows how to migrate Django only, and this is no `framework: django`");
        return Err(failure.or_hint(&format!("laneway exec {} -- COMMAND", spec.name)));
    }
    let is_manage = |word: &String| word == "manage.py" || word.ends_with("/manage.py");
    let migrates = |words: &&Vec<String>| words.iter().any(is_manage) && words.iter().any(|word| word == "migrate");
    if let Some(words) = spec.pre_start.iter().find(migrates) {
        return Ok(words.clone());
    }
    let up_to_manage = match spec.command.iter().position(is_manage) {
        Some(at) => spec.command.iter().take(at + 1).cloned().collect(),
        None if spec.working_dir.join("manage.py").is_file() => {
            // The Python that the server itself is of.
            let beside = spec.command.first().and_then(|program| Some(Path::new(program).parent()?.join("python")));
            let python = beside.filter(|python| python.is_file()).map(|python| python.display().to_string());
            vec![python.unwrap_or_else(|| "python3".to_owned()), "manage.py".to_owned()]
        }
        None => {
            let failure = Failure::failed(format!("there is no manage.py in {}", spec.working_dir.display()));
            return Err(failure.or_hint(&format!("laneway exec {} -- COMMAND", spec.name)));
        }
    };
    let rest = ["migrate", "--noinput"].map(str::to_owned);
    Ok(up_to_manage.into_iter().chain(rest).collect())
}
