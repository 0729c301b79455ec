//! What the doctor says: plain values, shown by `cli` and printed as JSON.

use std::path::PathBuf;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Two lanes touch, or something does not work.
    Fault,
    /// Nothing touches yet; it does after the next change, start or clearing.
    Risk,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Both sides, in the order of the file; one name where there is one side.
    pub instances: Vec<String>,
    /// In one sentence.
    pub what: String,
    /// What was seen. No secret is ever among it.
    pub evidence: Vec<String>,
    /// What to do.
    pub hint: String,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Looked, and all is well.
    Passed,
    /// Looked, and found something.
    Found,
    /// There was nothing to look at, or nobody could be asked.
    Skipped,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Its name.
    pub id: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What was looked at.
    pub seen: String,
    /// What was not looked at, and why.
    pub unseen: Vec<String>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `{project}`.
    pub project: String,
    /// The configuration file.
    pub file: PathBuf,
    /// Whether what runs was looked at.
    pub live: bool,
    /// Whom it is about.
    pub instances: Vec<String>,
    /// How many findings there are.
    pub found: usize,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// In the order in which they are worth reading.
    pub checks: Vec<CheckReport>,
}
