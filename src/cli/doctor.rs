//! `laneway doctor`: what runs, or would run, examined; the report for people and for programs.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::args::Doctor;
use super::ctl::to_json;
use super::out::println;
use super::place::Fleet;
use super::report::{DONE, FAILED, Failure};
use crate::control::{ApplyRequest, Client};
use crate::doctor::{CheckReport, Finding, Outcome, Question, Report, Severity, examine};
use crate::model::in_words;
use crate::plan::{self, Change};
use crate::runtime::home::Home;
use crate::view::snapshot::{Applied, FleetStatus};

/// `laneway doctor`.
///
/// # Errors
/// Exit code 2 for an unknown name and, when nothing runs, for a file that is wrong.
pub fn run(fleet: &Fleet, arguments: &Doctor) -> Result<ExitCode, Failure> {
    let home = fleet.running();
    let running_plan = home.as_ref().filter(|_| !arguments.r#static).and_then(Home::running_plan);
    let (plan, running, drift) = if let Some(plan) = running_plan {
        let client = fleet.client()?;
        let status: FleetStatus = client.status()?;
        let drift = drift(&client);
        (plan, Some(status), Some(drift))
    } else {
        // What runs says by which profile.
        let profile = home.as_ref().and_then(Home::running_plan).and_then(|plan| plan.profile);
        let profile = fleet.source().profile.clone().or(profile);
        (fleet.clone().with_profile(profile).plan()?, None, None)
    };
    let home = home.unwrap_or_else(|| Home::of(&plan.state_dir));
    let marker = if home.directory().exists() { home.fleet_id().ok() } else { None };
    let chosen = if arguments.names.is_empty() { Vec::new() } else { plan::select(&plan, &arguments.names)? };
    let report = examine(&Question { plan: &plan, chosen, marker, running, drift });
    if arguments.json {
        println!("{}", to_json(&report)?);
    } else {
        show(&report);
    }
    Ok(ExitCode::from(if report.found == 0 { DONE } else { FAILED }))
}

/// How what the file says now differs from what runs: the supervisor knows with which files, profile and values it does.
fn drift(client: &Client) -> Result<Vec<Change>, String> {
    let request = ApplyRequest { dry_run: true, ..ApplyRequest::default() };
    let answer: Result<Applied, _> = client.post("/v1/apply", &request);
    answer.map(|applied| applied.changes).map_err(|error| error.to_string())
}

fn show(report: &Report) {
    let what =
        if report.live { "what runs, and what it does" } else { "the file and the disk; nothing runs, or --static" };
    let number = report.instances.len();
    let noun = if number == 1 { "instance" } else { "instances" };
    println!("{}: {number} {noun} examined: {what}", report.project);
    let width = report.checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    for check in report.checks.iter().filter(|check| check.outcome != Outcome::Found) {
        println!("{}", line(check, width));
    }
    for check in &report.checks {
        for finding in &check.findings {
            println!("\n{}", found(check, finding));
        }
    }
    let end = match report.found {
        0 => "nothing found".to_owned(),
        1 => "1 finding".to_owned(),
        more => format!("{more} findings"),
    };
    let skipped = report.checks.iter().filter(|check| check.outcome == Outcome::Skipped).count();
    let skipped = if skipped == 0 {
        String::new()
    } else {
        format!(", {skipped} of {} checks had nothing to look at", report.checks.len())
    };
    println!("\n{end}{skipped} ({})", in_words(Duration::from_millis(report.milliseconds)));
}

/// A check that found nothing, with what it could not look at.
fn line(check: &CheckReport, width: usize) -> String {
    let (word, colour) = match check.outcome {
        Outcome::Passed => ("ok", AnsiColor::Green),
        Outcome::Skipped | Outcome::Found => ("--", AnsiColor::Yellow),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let mut words = Vec::new();
    if !check.seen.is_empty() {
        words.push(check.seen.clone());
    }
    if !check.unseen.is_empty() {
        words.push(format!("not looked at: {}", check.unseen.join("; ")));
    }
    format!("  {style}{word}{style:#}  {:width$}  {}", check.id, words.join("; "))
}

fn found(check: &CheckReport, finding: &Finding) -> String {
    let (word, colour) = match finding.severity {
        Severity::Fault => ("FAULT", AnsiColor::Red),
        Severity::Risk => ("RISK", AnsiColor::Yellow),
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    let mut text = format!("{style}{word}{style:#}  {}: {}", check.id, finding.what);
    for seen in &finding.evidence {
        let _ = write!(text, "\n       {seen}");
    }
    let _ = write!(text, "\n  hint: {}", finding.hint);
    text
}
