//! What the plan gives each lane, and what the disk makes of it.

use std::collections::BTreeSet;

use super::{Verdict, and, count, fault, names, shared};
use crate::doctor::evidence::Evidence;

/// No two instances, of this fleet or another one of this user, claim the same.
pub fn claims(evidence: &Evidence<'_>) -> Verdict {
    let instances = count(evidence.instances.len(), "instance");
    let mut verdict = Verdict::seen(format!("{} of {instances}, none shared", count(evidence.claims, "claim")));
    let mut seen = BTreeSet::new();
    for (one, other) in &evidence.shared_claims {
        if seen.insert((&one.instance, &other.instance, &other.key)) {
            let parties = vec![one.instance.clone(), other.instance.clone()];
            let what = format!("{} claims what {} claims", other.instance, one.instance);
            let meeting = other.against(one, &one.instance);
            verdict.findings.push(fault(parties, what, vec![meeting], other.hint(false)));
        }
    }
    for collision in &evidence.foreign {
        let (mine, theirs) = (&collision.mine, &collision.theirs);
        let owner = format!("{} of {}", theirs.instance, collision.folder.display());
        let parties = vec![mine.instance.clone(), owner.clone()];
        let what = format!("{} claims what {owner} claims", mine.instance);
        verdict.findings.push(fault(parties, what, vec![mine.against(theirs, &owner)], mine.hint(true)));
    }
    verdict
}

/// No two lanes have a file or folder in common, under whatever names: links and mounts are seen through.
pub fn folders(evidence: &Evidence<'_>) -> Verdict {
    let places: usize = evidence.instances.iter().map(|instance| instance.places.len()).sum();
    if places == 0 {
        return Verdict { unseen: vec!["no lane is on the disk yet".to_owned()], ..Verdict::default() };
    }
    let all = evidence.instances.iter().flat_map(|instance| {
        instance.places.iter().map(move |(what, path, identity)| (*identity, instance, (*what, path)))
    });
    let mut verdict = Verdict::seen(format!("{}, each of one lane", count(places, "folder and file")));
    verdict.seen = Some(format!("{places} folders and files, each of one lane"));
    for (_, holders) in shared(all) {
        let parties = names(&holders);
        let evidence = holders
            .iter()
            .map(|(instance, (what, path))| format!("{}: {what} is {}", instance.spec.name, path.display()));
        let what = format!("{} have one place on the disk under their names", and(&parties));
        let hint =
            "remove the link or mount, so that each lane has its own; laneway makes what is missing at the next start";
        verdict.findings.push(fault(parties.clone(), what, evidence.collect(), hint));
    }
    verdict
}
