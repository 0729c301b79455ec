//! Verbs about caches: `cache status`, `cache clear`. Asks, shows progress, restarts whom nobody else can empty; the rest
//! is `upkeep`'s.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{Cache, CacheClear, CacheKind, CacheStatus, CacheVerb};
use super::audit::Audited;
use super::ctl::to_json;
use super::out::{eprintln, println};
use super::place::{Fleet, UNWATCHED_HINT, unwatched_in_words};
use super::report::{DONE, FAILED, Failure, say, troubles};
use crate::control::{Client, StartRequest, WaitFor};
use crate::model::{in_bytes, in_words};
use crate::plan::spec::Spec;
use crate::plan::{self, Plan};
use crate::runtime::audit::{Act, Ending};
use crate::runtime::home::Home;
use crate::services::redis::{Fault, Progress};
use crate::upkeep::cache::{self, Cleared, Count, Kind, Lane, Memory, ServerFacts, Status};
use crate::view::snapshot::Outcome;
use crate::view::table;

/// How long a restarted instance may take to be healthy, beside its own grace and start period.
const PATIENCE: Duration = Duration::from_mins(2);

/// Whoever is logged in by such a session has to log in again.
const LOGINS_THAT_END: &str = "live sessions that end, logins among them";
const LOGINS_ENDED: &str = "live sessions that ended, logins among them";

/// `laneway cache`.
///
/// # Errors
/// Everything that is wrong with the file; exit code 2 for an unknown name.
pub fn run(fleet: &Fleet, arguments: &Cache) -> Result<ExitCode, Failure> {
    match &arguments.verb {
        CacheVerb::Status(arguments) => status(fleet, arguments),
        CacheVerb::Clear(arguments) => clear(fleet, arguments),
    }
}

fn status(fleet: &Fleet, arguments: &CacheStatus) -> Result<ExitCode, Failure> {
    let plan = fleet.running_plan_or_plan()?;
    let asked = plan::select(&plan, &arguments.names)?;
    let lanes = cache::lanes(&plan, &asked);
    let found = with_progress(|told| cache::survey(&lanes, told));
    let of_lane = |spec: &Spec| found.iter().find(|status| status.lane == spec.facts.lane);
    let rows: Vec<_> = asked.iter().map(|id| plan.spec(*id)).filter_map(|spec| Some((spec, of_lane(spec)?))).collect();
    if arguments.json {
        let instances: Vec<_> = rows
            .iter()
            .map(|(spec, status)| {
                let mut instance = json!(status);
                instance["name"] = json!(spec.name);
                instance
            })
            .collect();
        println!("{}", to_json(&json!({"project": plan.project, "instances": instances}))?);
    } else {
        let head = ["NAME", "BACKEND", "KEYS", "SESSIONS", "SIZE", "TIMEOUT", "ANSWERS", "WHERE"];
        println!("{}", table::plain(head, &rows.iter().map(|(spec, status)| row(spec, status)).collect::<Vec<_>>()));
        for (place, server) in servers(&found) {
            println!("{place}: {}", server_in_words(server));
        }
    }
    let mut is_well = true;
    // Reading goes on, so it is no trouble of a lane's; but what the apps store there is refused.
    for (place, server) in servers(&found).into_iter().filter(|(_, server)| server.is_full) {
        let limit = in_bytes(server.info.max_memory.unwrap_or_default());
        let what = format!(
            "{place} is full: {} of {limit} (maxmemory), and it evicts nothing",
            in_bytes(server.info.used_memory)
        );
        say(&what, Fault::Full.hint());
        is_well = false;
    }
    for status in &found {
        if let Some(trouble) = &status.trouble {
            say(&format!("{}: {}", status.lane, trouble.what), trouble.hint.as_deref());
            is_well = false;
        }
    }
    Ok(ExitCode::from(if is_well { DONE } else { FAILED }))
}

fn row(spec: &Spec, status: &Status) -> [String; 8] {
    let dash = || "-".to_owned();
    let cached = status.count.filter(|_| status.reachable.is_some()).map(|count| grouped(count.cached));
    let place = match () {
        () if spec.name != status.lane => format!("{}'s lane", status.lane),
        () if status.reachable.is_none() => format!("{} (in its process)", status.place),
        () => status.place.clone(),
    };
    let answers = match (status.reachable, status.answer_ms) {
        (Some(false), _) => "no".to_owned(),
        (_, Some(milliseconds)) => format!("{milliseconds:.1} ms"),
        (Some(true), None) => "yes".to_owned(),
        (None, None) => dash(),
    };
    [
        spec.name.to_string(),
        backend(status),
        cached.unwrap_or_else(dash),
        status.count.map_or_else(dash, |count| grouped(count.live_sessions)),
        status.bytes.map_or_else(dash, in_bytes),
        in_words(status.timeout),
        answers,
        place,
    ]
}

/// The word of the file for it.
fn backend(status: &Status) -> String {
    json!(status.backend).as_str().unwrap_or_default().to_owned()
}

/// Each server once.
fn servers(found: &[Status]) -> Vec<(&str, &ServerFacts)> {
    let mut servers: Vec<(&str, &ServerFacts)> = Vec::new();
    for (place, server) in found.iter().filter_map(|status| Some((status.place.as_str(), status.server.as_ref()?))) {
        if !servers.iter().any(|(known, _)| *known == place) {
            servers.push((place, server));
        }
    }
    servers
}

fn server_in_words(server: &ServerFacts) -> String {
    let limit = match server.info.max_memory {
        Some(limit) => format!("of {} ({})", in_bytes(limit), server.info.max_memory_policy),
        None => "and no limit".to_owned(),
    };
    let asked = server.info.hits + server.info.misses;
    let share = (server.info.hits * 100).checked_div(asked).map(|share| format!(", {share} % hit")).unwrap_or_default();
    format!(
        "Redis {}; of all its clients: {} keys here, {} in use {limit}, {} look-ups{share}, {} evicted",
        server.info.version,
        grouped(server.info.keys),
        in_bytes(server.info.used_memory),
        grouped(asked),
        grouped(server.info.evicted)
    )
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// How far a work is, on a line of its own that is gone afterwards; on a terminal only, and only if it takes long.
fn with_progress<T>(work: impl FnOnce(&mut dyn FnMut(Progress, u64)) -> T) -> T {
    let is_shown = std::io::stderr().is_terminal();
    let mut shown = None;
    let result = work(&mut |progress: Progress, total| {
        let percent = progress.looked_at.min(total) * 100 / total.max(1);
        if is_shown && total > 50_000 && shown != Some(percent) {
            shown = Some(percent);
            let gone =
                if progress.removed > 0 { format!(", {} gone", grouped(progress.removed)) } else { String::new() };
            eprint(&format!("\r\x1b[K{percent} % of {} keys looked at{gone}", grouped(total)));
        }
    });
    if shown.is_some() {
        eprint("\r\x1b[K");
    }
    result
}

/// What is no line of its own.
fn eprint(words: &str) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(words.as_bytes()).and_then(|()| stderr.flush());
}

/// Who of the plan runs, and whom to ask for a restart.
struct Running {
    client: Option<Client>,
    names: BTreeSet<String>,
}

impl Running {
    fn of(fleet: &Fleet, plan: &Plan) -> Result<Self, Failure> {
        let Some(home) = fleet.running() else {
            let unwatched = Home::of(&plan.state_dir).unwatched();
            if unwatched.is_empty() {
                return Ok(Self { client: None, names: BTreeSet::new() });
            }
            return Err(Failure::failed(unwatched_in_words(&unwatched)).or_hint(UNWATCHED_HINT));
        };
        let client = Client::new(home);
        let status = client.status()?;
        let running = status.instances.iter().filter(|instance| instance.pid.is_some());
        Ok(Self { names: running.map(|instance| instance.name.to_string()).collect(), client: Some(client) })
    }

    fn has(&self, spec: &Spec) -> bool {
        self.names.contains(spec.name.as_str())
    }

    /// Starts it anew and waits until it is healthy.
    fn restart(&self, spec: &Spec) -> Result<bool, Failure> {
        let Some(client) = &self.client else { return Ok(false) };
        let start = spec.healthcheck.as_ref().map(crate::plan::spec::HealthCheck::start_deadline).unwrap_or_default();
        let patience = PATIENCE + spec.stop_grace_period + start;
        let request = StartRequest {
            instances: vec![spec.name.to_string()],
            wait: WaitFor::Healthy,
            timeout_seconds: Some(patience.as_secs_f64()),
        };
        let outcome: Outcome = client.post("/v1/restart", &request)?;
        troubles(&outcome.troubles);
        Ok(outcome.done)
    }
}

fn clear(fleet: &Fleet, arguments: &CacheClear) -> Result<ExitCode, Failure> {
    let plan = fleet.running_plan_or_plan()?;
    let asked = plan::select(&plan, &arguments.names)?;
    let lanes = cache::lanes(&plan, &asked);
    if !arguments.dry_run && !arguments.yes && !std::io::stdin().is_terminal() {
        let what = "this would clear caches, and there is no terminal to ask at";
        return Err(Failure::usage(what, "-y clears without a question, --dry-run says what would go"));
    }
    for lane in &lanes {
        for guest in lane.members.iter().filter(|member| member.name != lane.owner.name) {
            eprintln!("{} lives in {}'s lane: the cache is the same, and is cleared once", guest.name, lane.owner.name);
        }
    }
    let work = match arguments.kind {
        CacheKind::Static => Work::Static,
        CacheKind::All => Work::Cache(Kind::All),
        CacheKind::Django => Work::Cache(Kind::Django),
        CacheKind::Session => Work::Cache(Kind::Session),
    };
    let words = match (arguments.json, arguments.dry_run) {
        (false, _) => Words::Said,
        (true, true) => Words::Silent,
        (true, false) => Words::Aside,
    };
    let running = match work {
        // A supervisor that is in trouble keeps nobody from what lies elsewhere.
        Work::Cache(kind) if lanes.iter().any(|lane| lane.has_memory(kind)) => Running::of(fleet, &plan)?,
        Work::Static | Work::Cache(_) => Running { client: None, names: BTreeSet::new() },
    };
    if arguments.dry_run || !arguments.yes {
        let announced = match work {
            Work::Static => announce_static(&lanes, words),
            Work::Cache(kind) => announce(&lanes, kind, &running, words),
        };
        if arguments.dry_run {
            return end(&plan, arguments, work, &announced);
        }
        if !asks("Go on?") {
            return Err(Failure::failed("nothing was cleared"));
        }
    }
    let names = asked.iter().map(|id| plan.spec(*id).name.to_string()).collect();
    let act = Act::of_command("cache clear", names).with(format!("type {}", work.in_words()));
    let audited = Audited::begin(&plan.state_dir, &act);
    let done = match work {
        Work::Static => Ok(collect(&plan, &lanes, words.without_question())),
        Work::Cache(kind) => clear_all(&plan, &lanes, kind, &running, words.without_question()),
    };
    audited.end(&match &done {
        Ok(Clearing { is_done: true, said, .. }) => Ending { outcome: "done", detail: Some(said.clone()) },
        Ok(Clearing { said, .. }) => Ending::failed(said.clone()),
        Err(failure) => Ending::failed(failure.in_words()),
    });
    end(&plan, arguments, work, &done?)
}

/// The last word, and with `--json` the only one on stdout.
fn end(plan: &Plan, arguments: &CacheClear, work: Work, done: &Clearing) -> Result<ExitCode, Failure> {
    if arguments.json {
        let told = json!({
            "project": plan.project,
            "type": work.in_words(),
            "dry_run": arguments.dry_run,
            "done": done.is_done && !arguments.dry_run,
            "lanes": done.lanes,
        });
        println!("{}", to_json(&told)?);
    }
    Ok(ExitCode::from(if done.is_done { DONE } else { FAILED }))
}

/// Where words for people go.
#[derive(Clone, Copy)]
enum Words {
    Said,
    /// To stderr, for whoever is asked a question about them.
    Aside,
    Silent,
}

impl Words {
    fn line(self, words: &str) {
        match self {
            Self::Said => println!("{words}"),
            Self::Aside => eprintln!("{words}"),
            Self::Silent => {}
        }
    }

    fn without_question(self) -> Self {
        match self {
            Self::Said => Self::Said,
            Self::Aside | Self::Silent => Self::Silent,
        }
    }
}

#[derive(Clone, Copy)]
enum Work {
    Static,
    Cache(Kind),
}

impl Work {
    fn in_words(self) -> String {
        match self {
            Self::Static => "static".to_owned(),
            Self::Cache(kind) => kind.to_string(),
        }
    }
}

/// What came of it, or would.
#[derive(Default)]
struct Clearing {
    is_done: bool,
    /// For the audit.
    said: String,
    /// For programs, one for each lane.
    lanes: Vec<Value>,
}

/// A question whose answer is no unless it is yes.
fn asks(question: &str) -> bool {
    eprint(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Says what would go, and whether all of it can be reached.
fn announce(lanes: &[Lane<'_>], kind: Kind, running: &Running, words: Words) -> Clearing {
    let found = with_progress(|told| cache::survey(lanes, told));
    let mut done = Clearing { is_done: true, ..Clearing::default() };
    for (lane, status) in lanes.iter().zip(&found) {
        let mut count = status.count.unwrap_or_default();
        if kind == Kind::Session {
            count.cached = 0;
        }
        if kind == Kind::Django {
            count = Count { cached: count.cached, ..Count::default() };
        }
        let members = lane.members.iter().filter(|member| running.has(member));
        let members = members.map(|member| (member, Memory::of(member, kind)));
        let processes = members.filter(|(_, memory)| *memory != Memory::None);
        let processes = processes.map(|(member, memory)| process(member, memory, false));
        done.lanes.push(json!({
            "lane": status.lane,
            "backend": status.backend,
            "count": status.count.map(|_| count),
            "processes": processes.collect::<Vec<_>>(),
            "notes": [],
            "trouble": status.trouble,
        }));
        if let Some(trouble) = &status.trouble {
            say(&format!("{}: {}", status.lane, trouble.what), trouble.hint.as_deref());
            done.is_done = false;
            continue;
        }
        if !lane.is_in_process() {
            words.line(&format!("{}: {} ({})", status.lane, counted(&count, LOGINS_THAT_END), status.place));
        } else if count != Count::default() {
            words.line(&format!("{}: {}", status.lane, counted(&count, LOGINS_THAT_END)));
        }
        for member in &lane.members {
            match Memory::of(member, kind).in_words() {
                Some(way) if running.has(member) => {
                    words.line(&format!("{}: the memory of its process, {way}", member.name));
                }
                Some(_) => words.line(&format!("{}: does not run, so nothing is cached in its process", member.name)),
                None => {}
            }
        }
    }
    done
}

/// A process whose memory is emptied, for programs.
fn process(spec: &Spec, memory: Memory<'_>, is_done: bool) -> Value {
    json!({"name": spec.name, "by": memory.word(), "done": is_done})
}

/// What there is or was, in words.
fn counted(count: &Count, logins: &str) -> String {
    let plural = |number: u64, noun: &str| format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" });
    let mut words = vec![plural(count.cached, "key")];
    if count.session_keys + count.session_rows > 0 {
        words.push(format!("{} in the cache", plural(count.session_keys, "session")));
        words.push(format!("{} in the database", grouped(count.session_rows)));
    }
    let logins = match count.live_sessions {
        0 => String::new(),
        live => format!("; {logins}: {}", grouped(live)),
    };
    format!("{}{logins}", words.join(", "))
}

fn clear_all(
    plan: &Plan,
    lanes: &[Lane<'_>],
    kind: Kind,
    running: &Running,
    words: Words,
) -> Result<Clearing, Failure> {
    let all = with_progress(|told| cache::clear(lanes, kind, told));
    let mut is_done = true;
    let mut said = Vec::new();
    for (lane, cleared) in lanes.iter().zip(&all) {
        is_done &= tell(lane, cleared, words);
        said.push(match &cleared.trouble {
            Some(trouble) => format!("{}: {}", cleared.lane, trouble.what),
            None => format!("{}: {}", cleared.lane, counted(&cleared.gone, LOGINS_ENDED)),
        });
    }
    let mut processes: Vec<Vec<Value>> = vec![Vec::new(); all.len()];
    // Whoever cannot be asked to forget is started anew, one after the other.
    let mut restarts = Vec::new();
    for ((lane, cleared), processes) in lanes.iter().zip(&all).zip(&mut processes) {
        for member in lane.members.iter().filter(|_| cleared.trouble.is_none()) {
            let memory = Memory::of(member, kind);
            match memory {
                Memory::None => {}
                _ if !running.has(member) => {
                    words.line(&format!("{}: does not run, so nothing is cached in its process", member.name));
                }
                Memory::Restart => {
                    restarts.push(*member);
                    processes.push(process(member, memory, false));
                }
                Memory::Configured(way) => {
                    let asked = cache::ask(plan, member, way, kind);
                    processes.push(process(member, memory, asked.is_ok()));
                    match asked {
                        Ok(how) => {
                            words.line(&format!("{}: emptied the memory of its process: {how}", member.name));
                            said.push(format!("{}: {how}", member.name));
                        }
                        Err(trouble) => {
                            say(&format!("{}: {}", member.name, trouble.what), trouble.hint.as_deref());
                            said.push(format!("{}: {}", member.name, trouble.what));
                            is_done = false;
                        }
                    }
                }
            }
        }
    }
    let mut left = restarts.into_iter();
    while let Some(spec) = left.next() {
        if running.restart(spec)? {
            let what = "restarted, which emptied the memory of its process; it is well again";
            words.line(&format!("{}: {what}", spec.name));
            said.push(format!("{}: restarted", spec.name));
            let restarted = processes.iter_mut().flatten().find(|process| process["name"] == spec.name.as_str());
            if let Some(restarted) = restarted {
                restarted["done"] = json!(true);
            }
            continue;
        }
        let others: Vec<_> = left.map(|spec| spec.name.to_string()).collect();
        let rest = match others.as_slice() {
            [] => String::new(),
            names => format!("; not restarted, so not cleared: {}", names.join(", ")),
        };
        let what = format!("{} did not come back well after its restart{rest}", spec.name);
        say(&what, Some(&format!("laneway why {}", spec.name)));
        said.push(what);
        is_done = false;
        break;
    }
    let each = all.iter().zip(processes).map(|(cleared, processes)| {
        json!({
            "lane": cleared.lane,
            "backend": cleared.backend,
            "count": cleared.gone,
            "processes": processes,
            "notes": cleared.notes,
            "trouble": cleared.trouble,
        })
    });
    Ok(Clearing { is_done, said: said.join("; "), lanes: each.collect() })
}

/// Says what came of one lane.
fn tell(lane: &Lane<'_>, cleared: &Cleared, words: Words) -> bool {
    let name = &cleared.lane;
    // What is only in the process is told of when that is done.
    let is_all_inside = lane.is_in_process() && cleared.gone == Count::default();
    if cleared.trouble.is_none() && !is_all_inside {
        words.line(&format!("{name}: gone: {}", counted(&cleared.gone, LOGINS_ENDED)));
    }
    for note in &cleared.notes {
        eprintln!("{name}: {note}");
    }
    match &cleared.trouble {
        None => true,
        Some(trouble) => {
            say(&format!("{name}: {}", trouble.what), trouble.hint.as_deref());
            false
        }
    }
}

fn announce_static(lanes: &[Lane<'_>], words: Words) -> Clearing {
    let mut done = Clearing { is_done: true, ..Clearing::default() };
    for lane in lanes {
        let (name, folder) = (&lane.owner.facts.lane, &lane.owner.facts.static_root);
        let files = cache::files_in(folder);
        words.line(&format!("{name}: {files} files in {}, collected anew", folder.display()));
        done.lanes.push(json!({
            "lane": name, "folder": folder, "before": files, "after": null, "notes": [], "trouble": null,
        }));
    }
    done
}

fn collect(plan: &Plan, lanes: &[Lane<'_>], words: Words) -> Clearing {
    let mut done = Clearing { is_done: true, ..Clearing::default() };
    let mut said = Vec::new();
    for lane in lanes {
        let name = &lane.owner.facts.lane;
        match cache::collect(plan, lane) {
            Ok(collected) => {
                let (before, after) = (grouped(collected.before), grouped(collected.after));
                words.line(&format!("{name}: {after} files in {} ({before} before)", collected.folder.display()));
                said.push(format!("{name}: {after} files"));
                for note in &collected.notes {
                    eprintln!("{name}: {note}");
                }
                let mut told = json!(collected);
                (told["lane"], told["trouble"]) = (json!(name), Value::Null);
                done.lanes.push(told);
            }
            Err(trouble) => {
                say(&format!("{name}: {}", trouble.what), trouble.hint.as_deref());
                said.push(format!("{name}: {}", trouble.what));
                done.is_done = false;
                let folder = &lane.owner.facts.static_root;
                let files = cache::files_in(folder);
                done.lanes.push(json!({
                    "lane": name, "folder": folder, "before": files, "after": files, "notes": [], "trouble": trouble,
                }));
            }
        }
    }
    done.said = said.join("; ");
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        let shown: Vec<_> = [0, 12, 999, 1000, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(shown, ["0", "12", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_count_says_whose_logins_end() {
        let count = Count { cached: 1, session_keys: 2, session_rows: 3, live_sessions: 1 };
        let expected =
            "1 key, 2 sessions in the cache, 3 in the database; live sessions that end, logins among them: 1";
        assert_eq!(counted(&count, LOGINS_THAT_END), expected);
        assert_eq!(counted(&Count::default(), LOGINS_ENDED), "0 keys");
    }
}
