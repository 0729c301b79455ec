//! The names of the cookies that servers really set. Cookies know no ports: two servers of one host that use one name
//! overwrite each other's, and people are logged out.

use super::{Verdict, and, count, fault, names, reasons, risk, shared};
use crate::doctor::evidence::{Cookie, Evidence, Instance};
use crate::plan::spec::Framework;

/// Each cookie of one lane, and those of the session and the forms as planned.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let asked: Vec<(&Instance<'_>, &Vec<Cookie>)> =
        evidence.instances.iter().filter_map(|instance| Some((instance, instance.cookies.got()?))).collect();
    let why = evidence.instances.iter().filter_map(|i| Some((i, i.cookies.why_not()?)));
    let mut verdict = Verdict { unseen: reasons(why), ..Verdict::default() };
    let silent = asked.iter().filter(|(_, cookies)| cookies.is_empty());
    verdict.unseen.extend(reasons(silent.map(|(instance, _)| (*instance, "its pages set none to strangers"))));
    let number: usize = asked.iter().map(|(_, cookies)| cookies.len()).sum();
    if number == 0 {
        return verdict;
    }
    verdict.seen = Some(format!("{} that servers really set, no name twice", count(number, "cookie")));
    let all = asked.iter().flat_map(|(instance, cookies)| {
        // Browsers keep what comes from one address apart from another's.
        let host = instance.spec.facts.reachable_host();
        cookies.iter().map(move |cookie| ((host, cookie.name.clone(), cookie.path.clone()), *instance, cookie))
    });
    let mut told: Vec<(String, String)> = Vec::new();
    for ((_, cookie, _), holders) in shared(all) {
        let parties = names(&holders);
        told.extend(parties.iter().map(|name| (name.clone(), cookie.clone())));
        let what =
            format!("{} use one cookie name, {cookie}: each visit to one undoes what the other set", and(&parties));
        let seen = holders.iter().map(|(instance, cookie)| shown(instance, cookie)).collect();
        verdict.findings.push(fault(parties, what, seen, hint(&cookie)));
    }
    for (instance, cookies) in &asked {
        for cookie in *cookies {
            let name = instance.spec.name.to_string();
            let Some(planned) = planned(instance, cookie) else { continue };
            if planned == cookie.name || told.contains(&(name.clone(), cookie.name.clone())) {
                continue;
            }
            let what = format!("{name} uses the cookie {}, and its lane's is {planned}", cookie.name);
            verdict.findings.push(risk(vec![name], what, vec![shown(instance, cookie)], hint(&cookie.name)));
        }
    }
    verdict
}

/// The name that the plan gives to what this cookie is, where that can be told.
fn planned(instance: &Instance<'_>, cookie: &Cookie) -> Option<String> {
    let facts = &instance.spec.facts;
    let is_of_forms = facts.framework == Framework::Django && cookie.name.starts_with("csrf");
    if cookie.is_taken_back || cookie.name == "sessionid" {
        Some(facts.session_cookie.clone())
    } else if is_of_forms {
        Some(facts.csrf_cookie.clone())
    } else {
        None
    }
}

fn shown(instance: &Instance<'_>, cookie: &Cookie) -> String {
    let name = &instance.spec.name;
    if cookie.is_taken_back {
        format!("{name}: GET {} with an unknown session takes {} back", cookie.page, cookie.name)
    } else {
        format!("{name}: GET {} sets {}", cookie.page, cookie.name)
    }
}

fn hint(cookie: &str) -> &'static str {
    if cookie.starts_with("csrf") {
        "in the settings: CSRF_COOKIE_NAME = os.environ[\"CSRF_COOKIE_NAME\"]"
    } else if cookie.starts_with("session") {
        "in the settings: SESSION_COOKIE_NAME = os.environ[\"SESSION_COOKIE_NAME\"]"
    } else {
        "put the instance's name into the cookie's name (INSTANCE_NAME in its environment)"
    }
}
