//! Sessions in PostgreSQL: each in its lane's database, by its lane's role, under its lane's name.

use super::{Verdict, and, count, fault, risk};
use crate::doctor::evidence::{Evidence, Instance, Session};
use crate::plan::spec::Database;

/// What the plan says of a lane on a server.
struct Planned<'a> {
    instance: &'a Instance<'a>,
    database: &'a str,
    role: &'a str,
    application_name: &'a str,
}

/// Every session that was seen in a lane's database, or of a lane's role or name elsewhere.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    if evidence.database_servers.is_empty() {
        return Verdict { unseen: vec!["no instance is planned with PostgreSQL".to_owned()], ..Verdict::default() };
    }
    let mut verdict = Verdict::default();
    let mut seen = 0;
    for server in &evidence.database_servers {
        let planned: Vec<Planned<'_>> = evidence.instances.iter().filter_map(planned).collect();
        let planned: Vec<_> = planned
            .into_iter()
            .filter(|p| server.users.iter().any(|user| user == p.instance.spec.name.as_str()))
            .collect();
        match &server.sessions {
            Ok(sessions) => {
                seen += sessions.len();
                for session in sessions {
                    one(&server.server, session, &planned, &mut verdict);
                }
            }
            Err(why) => {
                let what = format!("the PostgreSQL of {} cannot be looked at", and(&server.users));
                verdict.findings.push(fault(server.users.clone(), what, vec![why.clone()], "laneway db status"));
            }
        }
    }
    if seen > 0 {
        verdict.seen =
            Some(format!("{}, each in its lane's database by its lane's role", count(seen, "kind of session")));
        if seen > 1 {
            verdict.seen = Some(format!("{seen} kinds of sessions, each in its lane's database by its lane's role"));
        }
    } else if verdict.findings.is_empty() {
        verdict.unseen.push("nobody had a session while the instances were asked for a write".to_owned());
    }
    verdict
}

fn planned<'a>(instance: &'a Instance<'a>) -> Option<Planned<'a>> {
    match &instance.spec.facts.database {
        Database::Postgres { url, name, application_name } => {
            let login = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map_or("", |(login, _)| login);
            let role = login.split(':').next().unwrap_or_default();
            Some(Planned { instance, database: name, role, application_name })
        }
        Database::Sqlite { .. } => None,
    }
}

fn one(server: &str, session: &Session, planned: &[Planned<'_>], verdict: &mut Verdict) {
    let Session { database, role, application_name, instance, who } = session;
    let shown = application_name.as_deref().unwrap_or("?");
    let seen = format!("{server}: {who} is in the database {database} as the role {role}, called {shown}");
    // Whose it is: by its socket, else by what it calls itself, else by its role where each lane has its own.
    let by_socket = instance.as_ref().and_then(|name| planned.iter().find(|p| p.instance.spec.name.as_str() == name));
    let by_name = || planned.iter().find(|p| Some(p.application_name) == application_name.as_deref());
    let by_role = || {
        let mut having = planned.iter().filter(|p| p.role == role);
        having.next().filter(|_| having.next().is_none())
    };
    let party = by_socket.or_else(by_name).or_else(by_role);
    let owner = planned.iter().find(|p| p.database == database);
    let name = |p: &Planned<'_>| p.instance.spec.name.to_string();
    let hint = "in the settings: \"NAME\": os.environ[\"DATABASE_NAME\"], and the user and password of DATABASE_URL";
    match (party, owner) {
        (Some(party), Some(owner)) if party.instance.spec.facts.lane == owner.instance.spec.facts.lane => {
            if party.role != role {
                let what =
                    format!("{} is in its database as {role}, and its lane's role is {}", name(party), party.role);
                verdict.findings.push(risk(vec![name(party)], what, vec![seen], hint));
            } else if application_name.as_deref().is_some_and(|real| real != party.application_name) {
                let what = format!(
                    "{} calls its sessions {shown}, and its lane's name for them is {}",
                    name(party),
                    party.application_name
                );
                let hint = format!("in the settings: OPTIONS[\"application_name\"] = \"{}\"", party.application_name);
                verdict.findings.push(risk(vec![name(party)], what, vec![seen], hint));
            }
        }
        (Some(party), Some(owner)) => {
            let what = format!("{} has a session in the database of {}", name(party), name(owner));
            verdict.findings.push(fault(vec![name(party), name(owner)], what, vec![seen], hint));
        }
        (Some(party), None) => {
            let what = format!("{} has a session in the database {database}, which is no lane's", name(party));
            verdict.findings.push(fault(vec![name(party)], what, vec![seen], hint));
        }
        (None, Some(owner)) => {
            let what = format!("somebody who is no instance has a session in the database of {}", name(owner));
            let hint = "where it is no person of yours, revoke CONNECT from its role";
            verdict.findings.push(risk(vec![name(owner)], what, vec![seen], hint));
        }
        (None, None) => {}
    }
}
