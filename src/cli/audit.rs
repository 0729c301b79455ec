//! `laneway audit`, and the way of verbs that act without a supervisor into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::args::{Audit, AuditCheck, AuditVerify, PointInTime};
use super::ctl::to_json;
use super::out::{eprintln, println};
use super::place::Fleet;
use super::report::{self, DONE, FAILED, Failure};
use crate::model::in_utc;
use crate::runtime::audit::{Act, AuditLog, Begun, Ending, Entry};
use crate::runtime::clock::wall_clock;
use crate::view::table;

/// An act: the line of its wish and the line of its end.
#[derive(Debug, Serialize)]
struct Row {
    seq: u64,
    at: String,
    uid: Option<u32>,
    user: Option<String>,
    pid: Option<u32>,
    door: Option<String>,
    verb: Option<String>,
    instances: Vec<String>,
    detail: Option<String>,
    /// When it ended; nothing is known of the end of an act that somebody died over.
    ended_at: Option<String>,
    outcome: Option<String>,
    outcome_detail: Option<String>,
}

/// `laneway audit`.
///
/// # Errors
/// When the file cannot be read; exit code 1 when the chain is broken.
pub fn run(fleet: &Fleet, arguments: &Audit) -> Result<ExitCode, Failure> {
    let log = AuditLog::of(&state_dir(fleet)?);
    if let Some(AuditCheck::Verify(arguments)) = &arguments.check {
        return verify(&log, arguments);
    }
    let mut rows = rows(log.entries().map_err(|error| unreadable(&log, &error))?);
    if let Some(since) = &arguments.since {
        let since = match since {
            PointInTime::Ago(ago) => in_utc(wall_clock().saturating_sub(*ago)),
            PointInTime::At(at) => at.clone(),
        };
        // RFC 3339 in UTC sorts as it reads.
        rows.retain(|row| row.at >= since);
    }
    rows.drain(..rows.len().saturating_sub(arguments.lines));
    if arguments.json {
        println!("{}", to_json(&rows)?);
    } else if rows.is_empty() {
        eprintln!("nothing stands in {}", log.path().display());
    } else {
        let cells: Vec<_> = rows.iter().map(cells).collect();
        println!("{}", table::plain(["TIME (UTC)", "WHO", "DOOR", "WHAT", "INSTANCES", "ENDED"], &cells));
    }
    Ok(ExitCode::from(DONE))
}

fn verify(log: &AuditLog, arguments: &AuditVerify) -> Result<ExitCode, Failure> {
    let verdict = log.verify(arguments.head.as_deref()).map_err(|error| unreadable(log, &error))?;
    let is_good = verdict.fault.is_none() && verdict.has_head;
    if arguments.json {
        println!("{}", to_json(&verdict)?);
        return Ok(ExitCode::from(if is_good { DONE } else { FAILED }));
    }
    if let Some(fault) = &verdict.fault {
        let what = format!("{}, line {}: {}", fault.file.display(), fault.line, fault.what);
        return Err(
            Failure::failed(what).or_hint("what stands before it is as it was written; what follows proves nothing")
        );
    }
    let path = log.path().display();
    match &verdict.head {
        None => println!("{path}: no lines yet"),
        Some(head) => {
            println!("{path}: lines {} to {} are as they were written\nhead {head}", verdict.first, verdict.last);
        }
    }
    if verdict.first > 1 {
        eprintln!("lines before {} were rotated away, or somebody removed their files", verdict.first);
    }
    if verdict.mended > 0 {
        eprintln!("{} line(s) without an end: their writers died, and the next ones noted it", verdict.mended);
    }
    if verdict.torn > 0 {
        eprintln!("the last line has no end ({} bytes): its writer died, or somebody cut it", verdict.torn);
    }
    if !verdict.has_head {
        let what = "the head that was kept is not in the chain: its end was cut off, or it was made anew";
        return Err(Failure::failed(what));
    }
    if arguments.head.is_none() && verdict.head.is_some() {
        eprintln!("a chain cannot show that its end was cut off: keep the head elsewhere, and give it to --head later");
    }
    Ok(ExitCode::from(DONE))
}

fn unreadable(log: &AuditLog, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", log.path().display()))
}

/// Where the fleet that runs keeps what it has, else the one that the file describes.
fn state_dir(fleet: &Fleet) -> Result<PathBuf, Failure> {
    let home = fleet.running().or_else(|| fleet.home_at_rest());
    match home.as_ref().and_then(|home| home.directory().parent()) {
        Some(state_dir) => Ok(state_dir.to_owned()),
        None => Ok(fleet.plan()?.state_dir),
    }
}

/// Wishes, each with its end.
fn rows(entries: Vec<Entry>) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    for entry in entries {
        if let Some(of) = entry.of {
            // The wish itself may have been rotated away.
            if let Some(row) = rows.get_mut(&of) {
                let Row { ended_at, outcome, outcome_detail, .. } = row;
                (*ended_at, *outcome, *outcome_detail) = (Some(entry.at), entry.outcome, entry.detail);
            }
            continue;
        }
        let row = Row {
            seq: entry.seq,
            at: entry.at,
            uid: entry.uid,
            user: entry.user,
            pid: entry.pid,
            door: entry.door.map(|door| door.to_string()),
            verb: entry.verb,
            instances: entry.instances.unwrap_or_default(),
            detail: entry.detail,
            ended_at: None,
            outcome: None,
            outcome_detail: None,
        };
        rows.insert(entry.seq, row);
    }
    rows.into_values().collect()
}

fn cells(row: &Row) -> [String; 6] {
    let uid = row.uid.map(|uid| uid.to_string());
    let user = row.user.clone().or(uid).unwrap_or_else(|| "?".to_owned());
    let who = row.pid.map_or(user.clone(), |pid| format!("{user} ({pid})"));
    let words = |first: &Option<String>, second: &Option<String>| {
        let words: Vec<_> = first.iter().chain(second).map(|text| text.escape_debug().to_string()).collect();
        words.join(": ")
    };
    let ended = if row.outcome.is_some() { words(&row.outcome, &row.outcome_detail) } else { "unknown".to_owned() };
    let what = match &row.detail {
        Some(detail) => format!("{} ({})", row.verb.as_deref().unwrap_or("?"), detail.escape_debug()),
        None => row.verb.clone().unwrap_or_else(|| "?".to_owned()),
    };
    let at = row.at.get(..19).unwrap_or(&row.at).replace('T', " ");
    let instances = if row.instances == ["*"] { "all".to_owned() } else { row.instances.join(" ") };
    [at, who, row.door.clone().unwrap_or_default(), what, instances, ended]
}

/// An act of this very command, which no supervisor sees: it is written down before it is done, and again when it ended.
/// Where that cannot be written, it is said, and the act goes on.
#[derive(Debug)]
pub struct Audited {
    log: AuditLog,
    begun: Option<Begun>,
}

impl Audited {
    /// It is about to be done, in the fleet with this state directory.
    #[must_use]
    pub fn begin(state_dir: &Path, act: &Act) -> Self {
        let log = AuditLog::of(state_dir);
        let begun = log.begin(act).map_err(|error| complain(&log, &error)).ok();
        Self { log, begun }
    }

    /// It is over.
    pub fn end(self, ending: &Ending) {
        if let Some(Err(error)) = self.begun.map(|begun| begun.end(ending)) {
            complain(&self.log, &error);
        }
    }
}

/// Does `what` and writes it down.
///
/// # Errors
/// Those of `what`.
pub fn audited<T>(state_dir: &Path, act: &Act, what: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let audited = Audited::begin(state_dir, act);
    let result = what();
    audited.end(&match &result {
        Ok(_) => Ending::done(),
        Err(failure) => Ending::failed(failure.in_words()),
    });
    result
}

fn complain(log: &AuditLog, error: &std::io::Error) {
    report::say(&format!("{} lacks a line: {error}", log.path().display()), None);
}
