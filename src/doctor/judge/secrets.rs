//! Secrets: each lane's own, long, and for its owner's eyes alone. What is compared are fingerprints.

use super::{Verdict, and, count, fault, names, risk, shared};
use crate::doctor::evidence::{Evidence, Instance};

/// Shorter ones Django warns of, and laneway refuses.
const SHORTEST: usize = 50;
/// With fewer different characters it is a pattern, not a secret.
const FEWEST: usize = 5;

/// The files, and what the apps really take for their secret.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let owners = || evidence.instances.iter().filter(|instance| instance.spec.facts.lane == instance.spec.name);
    let made: Vec<&Instance<'_>> = owners().filter(|instance| instance.secret.exists).collect();
    let missing: Vec<String> = owners().filter(|i| !i.secret.exists).map(|i| i.spec.name.to_string()).collect();
    let mut verdict = Verdict::default();
    if !missing.is_empty() {
        verdict.unseen.push(format!("{}: no secret is made yet", and(&missing)));
    }
    if !made.is_empty() {
        verdict.seen =
            Some(format!("{}, all different, long, and readable by their owner alone", count(made.len(), "secret")));
    }
    for instance in &made {
        file(instance, &mut verdict);
    }
    let readable = made.iter().filter(|instance| instance.secret.error.is_none());
    for (_, holders) in shared(readable.map(|instance| (instance.secret.fingerprint, *instance, ()))) {
        let parties = names(&holders);
        let files = holders.iter().map(|(instance, ())| instance.spec.facts.secret_file.display().to_string());
        let what = format!("{} have the same secret: who can sign for one can sign for the other", and(&parties));
        let files = files.map(|file| format!("{file} holds it")).collect();
        verdict.findings.push(fault(
            parties,
            what,
            files,
            "remove all but one of the files, and restart: laneway makes new ones",
        ));
    }
    used(evidence, &mut verdict);
    verdict
}

fn file(instance: &Instance<'_>, verdict: &mut Verdict) {
    let secret = &instance.secret;
    let path = instance.spec.facts.secret_file.display();
    let mut find = |what: &str, seen: String, hint: String| {
        let name = instance.spec.name.to_string();
        verdict.findings.push(fault(vec![name.clone()], format!("{what} {name}"), vec![seen], hint));
    };
    if let Some(error) = &secret.error {
        find(
            "nobody can read the secret of",
            format!("{path}: {error}"),
            "put it right, or remove it: laneway makes a new one".to_owned(),
        );
        return;
    }
    if secret.mode & 0o177 != 0 {
        let seen = format!("{path} has mode {:04o}", secret.mode);
        find("others can read the secret of", seen, format!("chmod 600 {path}"));
    }
    if secret.length < SHORTEST || secret.distinct < FEWEST {
        let seen = format!("{path} holds {} characters, {} different ones", secret.length, secret.distinct);
        find(
            "weak is the secret of",
            seen,
            format!("remove {path} and restart: laneway makes one of 64 random characters"),
        );
    }
}

/// What Django really has as `SECRET_KEY`: an app may not look at its lane's file.
fn used(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let asked = || evidence.instances.iter().filter_map(|instance| Some((instance, instance.settings.got()?)));
    let all = asked().map(|(instance, settings)| (settings.secret_fingerprint.clone(), instance, settings));
    let all: Vec<_> = all.filter(|(fingerprint, ..)| !fingerprint.is_empty()).collect();
    // Equal files are found above; then this says nothing new.
    let is_told = |parties: &[String]| verdict.findings.iter().any(|finding| finding.instances == parties);
    let mut found = Vec::new();
    for (_, holders) in shared(all.into_iter()) {
        let parties = names(&holders);
        if is_told(&parties) {
            continue;
        }
        let what = format!("{} use the same SECRET_KEY, whatever their lanes hold", and(&parties));
        let seen = parties.iter().map(|name| format!("{name}: Django's SECRET_KEY is not only this lane's")).collect();
        found.push(fault(parties, what, seen, "in the settings: SECRET_KEY = os.environ[\"SECRET_KEY\"]"));
    }
    for (instance, settings) in asked() {
        if settings.secret_length > 0 && (settings.secret_length < SHORTEST || settings.secret_distinct < FEWEST) {
            let name = instance.spec.name.to_string();
            let seen = format!(
                "Django's SECRET_KEY has {} characters, {} different ones",
                settings.secret_length, settings.secret_distinct
            );
            let what = format!("{name} signs with a weak SECRET_KEY");
            found.push(risk(vec![name], what, vec![seen], "in the settings: SECRET_KEY = os.environ[\"SECRET_KEY\"]"));
        }
    }
    verdict.findings.extend(found);
}
