//! The list of passes from settings to a plan. Everything that is wrong is collected, the faults of `config` among it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use crate::config::{
    self, Collector, EnvEntry, EnvFile, Fault, Instance, Problems, Settings, Source, TestSettings, tidy,
};
use crate::model::InstanceId;

use super::lane::Lane;
use super::spec::{Dependency, Facts, HealthCheck, HealthTest, Plan, Spec};
use super::{claims, environment, facts, order};

/// From the files to the plan, with all problems of both rooms at once.
///
/// # Errors
/// Everything that is wrong.
pub fn resolve(source: &Source) -> Result<Plan, Problems> {
    let (settings, problems) = config::read(source);
    let Some(settings) = settings else { return Err(problems) };
    match build(&settings, &source.environment) {
        Ok(plan) if problems.is_empty() => Ok(plan),
        Ok(_) => Err(problems),
        Err(more) => Err(problems.and(more)),
    }
}

/// The plan that `settings` come to. `caller` is the environment that `inherit_env` takes from.
///
/// # Errors
/// Every wrong placeholder, fact, variable, dependency and collision.
pub fn build(settings: &Settings, caller: &BTreeMap<String, String>) -> Result<Plan, Problems> {
    let collector = Collector::over(&settings.sources);
    let ids: HashMap<&str, u32> = settings.instances.iter().map(|i| i.name.as_str()).zip(0..).collect();
    let by_name = |name: &str| settings.instances.get(*ids.get(name)? as usize);
    let owner = |guest: &Instance| by_name(guest.lane.as_ref()?.as_str());
    let lane =
        |instance| Lane { settings, instance, owner: owner(instance).unwrap_or(instance), collector: &collector };
    let specs: Vec<Spec> = settings.instances.iter().map(|instance| spec(&lane(instance), &ids, caller)).collect();
    let plan = Plan {
        project: settings.project.clone(),
        namespace: settings.namespace.clone(),
        file: settings.file.clone(),
        state_dir: settings.state_dir.clone(),
        profile: settings.profile.clone(),
        restart_brake: settings.restart_brake,
        presets: settings.presets.clone(),
        order: (0..).map(InstanceId).take(specs.len()).collect(),
        revision: 0,
        specs,
    };
    order::check(settings, &plan, &collector);
    claims::check(settings, &plan, &collector);
    let problems = collector.finish();
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

fn spec(lane: &Lane<'_>, ids: &HashMap<&str, u32>, caller: &BTreeMap<String, String>) -> Spec {
    let instance = lane.instance;
    let (facts, database_setup) = facts::derive(lane);
    let environment = environment_of(lane, &facts, caller, &mut |_, _| {});
    let written = instance.pre_start.iter().enumerate();
    let written = written.map(|(index, words)| command(lane, &format!("pre_start[{index}]"), words));
    // What a person would type; `runtime` knows that it is laneway itself.
    let own = ["laneway", "db", "create", facts.lane.as_str()].map(str::to_owned).to_vec();
    let pre_start = database_setup.iter().map(|_| own.clone()).chain(written).collect();
    let depends_on = instance.depends_on.iter().filter_map(|dependency| {
        let on = InstanceId(*ids.get(dependency.on.as_str())?);
        Some(Dependency { on, condition: dependency.condition })
    });
    Spec {
        name: instance.name.clone(),
        command: command(lane, "command", &instance.command),
        inherited: inherited(instance, &environment, caller),
        environment,
        pre_start,
        pre_start_timeout: instance.pre_start_timeout,
        healthcheck: healthcheck(lane),
        restart: instance.restart,
        stop_signal: instance.stop_signal,
        stop_grace_period: instance.stop_grace_period,
        depends_on: depends_on.collect(),
        logging: instance.logging,
        database_setup,
        facts,
        working_dir: working_dir(lane),
    }
}

/// Where the instance's commands start.
fn working_dir(lane: &Lane<'_>) -> PathBuf {
    lane.path("working_dir", lane.instance.working_dir.as_deref().unwrap_or("."))
}

/// A program with a slash is made absolute, so that a missing one is named in full; one without is looked for in PATH.
pub fn command(lane: &Lane<'_>, key: &str, words: &[String]) -> Vec<String> {
    let working_dir = working_dir(lane);
    let mut words: Vec<String> =
        words.iter().enumerate().map(|(index, word)| lane.fill(&format!("{key}[{index}]"), word)).collect();
    if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
        *program = tidy(&working_dir.join(&*program)).display().to_string();
    }
    words
}

/// What of `environment` is the caller's own.
fn inherited(
    instance: &Instance,
    environment: &BTreeMap<String, String>,
    caller: &BTreeMap<String, String>,
) -> BTreeSet<String> {
    let asked = instance.inherit_env.iter().filter(|name| !instance.environment.contains_key(*name));
    asked.filter(|name| caller.contains_key(*name) && environment.get(*name) == caller.get(*name)).cloned().collect()
}

/// Who gives a variable its value.
pub enum Giver {
    /// `inherit_env`.
    Caller,
    /// What holds for the framework unless somebody says otherwise.
    Framework,
    /// A line of an `env_file`.
    EnvFile(PathBuf, usize),
    /// `environment`.
    Written,
    /// A fact.
    Fact,
}

/// Lowest first: inherited, the framework's defaults, `env_file`, `environment`; facts cannot be overridden. `note` hears
/// who gives a variable its value; of several the last one does.
pub fn environment_of(
    lane: &Lane<'_>,
    facts: &Facts,
    caller: &BTreeMap<String, String>,
    note: &mut dyn FnMut(&str, Giver),
) -> BTreeMap<String, String> {
    let instance = lane.instance;
    let mut environment = BTreeMap::new();
    for name in &instance.inherit_env {
        if let Some(fault) = environment::reserved(name) {
            lane.report(instance.origin("inherit_env"), "inherit_env", fault);
        } else if let Some(value) = caller.get(name) {
            note(name, Giver::Caller);
            environment.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in environment::defaults(instance.name.as_str(), &instance.command, facts) {
        note(&name, Giver::Framework);
        environment.insert(name, value);
    }
    for file in &instance.env_file {
        env_file(lane, file, caller, note, &mut environment);
    }
    for (name, template) in &instance.environment {
        let key = format!("environment.{name}");
        if let Some(fault) = environment::reserved(name) {
            lane.report(instance.origin(&key), &key, fault);
        } else {
            note(name, Giver::Written);
            environment.insert(name.clone(), lane.fill(&key, template));
        }
    }
    for (name, value) in environment::of_facts(instance.name.as_str(), facts) {
        note(&name, Giver::Fact);
        environment.insert(name, value);
    }
    environment
}

/// The one place where a plan reads a file: its path may hold placeholders, so `config` could not.
fn env_file(
    lane: &Lane<'_>,
    file: &EnvFile,
    caller: &BTreeMap<String, String>,
    note: &mut dyn FnMut(&str, Giver),
    environment: &mut BTreeMap<String, String>,
) {
    let path = env_file_path(lane, file);
    if !file.required && !path.exists() {
        return;
    }
    let report = |fault: Fault| {
        let what = format!("{}: {}", path.display(), fault.what);
        lane.report(file.place, "env_file", Fault { what, hint: fault.hint });
    };
    match config::read_env_file(&path, &|name| caller.get(name).cloned()) {
        Ok(variables) => {
            for EnvEntry { name, value, line } in variables {
                if let Some(fault) = environment::reserved(&name) {
                    report(Fault { what: format!("line {line}: {}", fault.what), hint: fault.hint });
                    continue;
                }
                note(&name, Giver::EnvFile(path.clone(), line));
                environment.insert(name, value);
            }
        }
        Err(faults) => faults.into_iter().for_each(report),
    }
}

/// Where an `env_file` is.
pub fn env_file_path(lane: &Lane<'_>, file: &EnvFile) -> PathBuf {
    tidy(&lane.settings.root.join(lane.fill_at(file.place, "env_file", &file.path)))
}

fn healthcheck(lane: &Lane<'_>) -> Option<HealthCheck> {
    let written = lane.instance.healthcheck.as_ref()?;
    let test = match &written.test {
        TestSettings::Tcp => HealthTest::Tcp,
        TestSettings::Command(words) => HealthTest::Command(command(lane, "healthcheck.test", words)),
        TestSettings::Http { scheme, path, expect_status, headers, body } => HealthTest::Http {
            scheme: scheme.clone(),
            path: lane.fill("healthcheck.path", path),
            expect_status: *expect_status,
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), lane.fill("healthcheck.headers", value)))
                .collect(),
            body: body.as_ref().map(|body| lane.fill("healthcheck.body", body)),
        },
    };
    Some(HealthCheck {
        test,
        interval: written.interval,
        timeout: written.timeout,
        retries: written.retries,
        start_period: written.start_period,
        start_interval: written.start_interval,
        restart_unhealthy: written.restart_unhealthy,
    })
}
