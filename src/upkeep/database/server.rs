//! Databases on a PostgreSQL server: a role and a database for each lane, owned by the role, closed to all others.
//!
//! What laneway made says so in its comment, with a fingerprint of the lane's password: a role that somebody else made, or
//! another lane, is never taken over unasked.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Condition, Made, ServerStatus, Status, Trouble, at};
use crate::plan::spec::{DatabaseSetup, Spec};
use crate::runtime::clock::Clock;
use crate::runtime::lane;
use crate::services::postgres::{
    self as service, PostgresError, RoleWish, Server, Trouble as Kind, fingerprint, libpq_environment,
};

/// How long a connection, a look and a small change may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a database may take to be copied from its template, or what is in it to be removed.
const LONG: Duration = Duration::from_mins(30);
/// What laneway's own sessions are called, so that nobody takes them for the lane's.
const OURSELVES: &str = "laneway";

/// What laneway makes for a lane.
struct Creation<'a> {
    role: &'a str,
    admin_url: &'a str,
    max_connections: Option<u32>,
    template: Option<&'a str>,
    password: String,
}

impl<'a> Creation<'a> {
    fn of(spec: &'a Spec) -> Result<Option<Self>, Trouble> {
        let Some(DatabaseSetup::Create { role, admin_url, max_connections, template, .. }) = &spec.database_setup
        else {
            return Ok(None);
        };
        let password = lane::database_password(spec)?.unwrap_or_default();
        let template = template.as_deref();
        Ok(Some(Self { role, admin_url, max_connections: *max_connections, template, password }))
    }

    /// A connection of the administrator's to `database`, else to the one that the URL names.
    fn admin(&self, database: Option<&str>) -> Result<Server, PostgresError> {
        let url = match database {
            Some(database) => service::with_database(self.admin_url, database),
            None if service::has_database(self.admin_url) => self.admin_url.to_owned(),
            None => service::with_database(self.admin_url, "postgres"),
        };
        let named = |error: PostgresError| PostgresError {
            hint: error.hint.map(|hint| format!("`database.admin_url`: {hint}")),
            ..error
        };
        Server::connect(&url, OURSELVES, PATIENCE).map_err(named)
    }

    fn key(&self) -> String {
        format!("key {}", fingerprint(&self.password))
    }

    fn comment(&self, spec: &Spec) -> String {
        let folder = spec.facts.state.parent().unwrap_or(&spec.facts.state).display();
        format!("laneway: {} of {folder}, {}", spec.facts.lane, self.key())
    }
}

/// Makes role and database where they are missing, and sees that the role gets in.
pub fn make(spec: &Spec, url: &str, name: &str, adopt: bool) -> Result<Made, Trouble> {
    let Some(creation) = Creation::of(spec)? else { return Ok(Made::default()) };
    let mut made = Made::default();
    let mut admin = creation.admin(None)?;
    admin.allow(LONG)?;
    // Others who make it wait here; those who come by another database of the server meet the checks below.
    admin.lock(&format!("laneway {name}"))?;
    make_role(spec, &creation, &mut admin, adopt, &mut made)?;
    make_database(&creation, &mut admin, name, &mut made)?;
    let own_url = service::with_password(url, &creation.password);
    match Server::connect(&own_url, OURSELVES, PATIENCE) {
        Err(error) if error.trouble == Kind::Refused => {
            // Somebody gave the role another password; this one is the lane's.
            admin.mend_role(&wish(&creation, &creation.comment(spec)))?;
            made.steps.push(format!("gave the role {} its password back", creation.role));
            let again = Server::connect(&own_url, OURSELVES, PATIENCE);
            again.map(drop).map_err(|error| Trouble::from(error).hint("does pg_hba.conf let the lane's role in?"))?;
        }
        // The instance runs, and uses what it may.
        Err(error) if error.trouble == Kind::Full => {}
        connected => drop(connected?),
    }
    Ok(made)
}

fn wish<'a>(creation: &'a Creation<'_>, comment: &'a str) -> RoleWish<'a> {
    let Creation { role, password, max_connections, .. } = creation;
    RoleWish { name: role, password, max_connections: *max_connections, comment }
}

fn make_role(
    spec: &Spec,
    creation: &Creation<'_>,
    admin: &mut Server,
    adopt: bool,
    made: &mut Made,
) -> Result<(), Trouble> {
    let comment = creation.comment(spec);
    let wish = wish(creation, &comment);
    let role = creation.role;
    let found = match admin.role(role)? {
        Some(found) => Some(found),
        None => match admin.make_role(&wish) {
            Ok(()) => None,
            Err(error) if error.trouble == Kind::Exists => admin.role(role)?,
            Err(error) => return Err(error.into()),
        },
    };
    let Some(found) = found else {
        let limit = creation.max_connections.map(|most| format!(" (at most {most} sessions)")).unwrap_or_default();
        made.steps.push(format!("made the role {role}{limit}"));
        return Ok(());
    };
    let said = found.comment.as_deref().unwrap_or_default();
    if found.is_superuser {
        let what = format!("the role {role} of PostgreSQL {} may do everything, so it is no lane's", admin.shown());
        return Err(Trouble::new(what).hint("give `database.name` another value, or `url` another user"));
    }
    if !said.ends_with(&creation.key()) && !adopt {
        let whose = match said.strip_prefix("laneway: ").and_then(|said| said.rsplit_once(", key ")) {
            Some((lane, _)) => format!("belongs to the lane {lane}"),
            None => "was not made by laneway".to_owned(),
        };
        let what = format!("the role {role} of PostgreSQL {} is there already, and {whose}", admin.shown());
        let hint = format!(
            "if that is this lane (its folder is a new one): laneway db create --adopt {}; else give `database.name` \
             another value",
            spec.facts.lane
        );
        return Err(Trouble::new(what).hint(hint));
    }
    if said != comment || found.max_connections != creation.max_connections {
        admin.mend_role(&wish)?;
        made.steps.push(format!("changed the role {role} to what the file says"));
    }
    Ok(())
}

fn make_database(creation: &Creation<'_>, admin: &mut Server, name: &str, made: &mut Made) -> Result<(), Trouble> {
    let found = match admin.database(name)? {
        Some(found) => Some(found),
        None => match admin.make_database(name, creation.role, creation.template) {
            Ok(()) => {
                let template = creation.template.map(|template| format!(" from {template}")).unwrap_or_default();
                made.steps.push(format!("made the database {name}{template}"));
                None
            }
            Err(error) if error.trouble == Kind::Exists => admin.database(name)?,
            Err(error) if error.trouble == Kind::InUse && creation.template.is_some() => {
                return Err(
                    Trouble::from(error).hint("nobody may be connected to `database.template` while it is copied")
                );
            }
            Err(error) => return Err(error.into()),
        },
    };
    if let Some(found) = found {
        if found.owner != creation.role {
            let what = format!("the database {name} of PostgreSQL {} belongs to {}", admin.shown(), found.owner);
            let owner = service::identifier(creation.role);
            let hint = format!("ALTER DATABASE {} OWNER TO {owner} makes it the lane's", service::identifier(name));
            return Err(Trouble::new(what).hint(hint));
        }
        // Whoever made it came to an end.
        if found.comment.is_some_and(|said| said == READY) {
            return Ok(());
        }
    }
    admin.close_to_all(name)?;
    if creation.template.is_some() {
        // A copy's tables belong to whom they belonged to in the template.
        creation.admin(Some(name))?.hand_over(creation.role)?;
    }
    Ok(admin.note_database(name, READY)?)
}

/// What a database says that is made to the end.
const READY: &str = "made by laneway";

pub fn status(spec: &Spec, url: &str, name: &str, application_name: &str) -> Status {
    let mut status = Status::new(spec, "postgres", service::shown(url));
    if let Err((condition, trouble)) = look(spec, name, application_name, &mut status) {
        status.condition = condition;
        status.trouble = Some(trouble);
    }
    status
}

fn look(spec: &Spec, name: &str, application_name: &str, status: &mut Status) -> Result<(), (Condition, Trouble)> {
    let broken = |trouble: Trouble| (Condition::Unreachable, trouble);
    let missing = || {
        let hint = match &spec.database_setup {
            Some(_) => format!("laneway db create {} makes it, a start does so too", spec.facts.lane),
            None => "make it, or let laneway do so: `database.create`".to_owned(),
        };
        (Condition::Missing, Trouble::new("the database is not there yet").hint(hint))
    };
    // To ask for the password would make one.
    if !has_password(spec) {
        return Err(missing());
    }
    let url = lane::database_url(spec).map_err(|error| broken(error.into()))?.unwrap_or_default();
    let creation = Creation::of(spec).map_err(broken)?;
    let clock = Clock::start();
    let asked = clock.now();
    // The lane's own role first: what it sees is what the app sees.
    let own = Server::connect(&url, OURSELVES, PATIENCE);
    status.answered_ms = own.is_ok().then(|| clock.now().since(asked).as_secs_f64() * 1e3);
    let trouble = own.as_ref().err().cloned();
    let mut server = match (own, &creation) {
        (Ok(own), _) => own,
        (Err(error), None) => return Err(broken(error.into())),
        // The administrator can tell more: nothing there yet, or nothing left for this role.
        (Err(error), Some(creation)) => creation.admin(None).map_err(|_| broken(error.into()))?,
    };
    let role = of_url(&url, "PGUSER");
    let asked = |error: PostgresError| broken(error.into());
    let version = server.version().map_err(asked)?;
    let (found_role, found) = (server.role(&role).map_err(asked)?, server.database(name).map_err(asked)?);
    let found = found.ok_or_else(missing)?;
    status.size = found.size;
    status.tables = trouble.is_none().then(|| server.tables().ok()).flatten();
    status.server = Some(ServerStatus {
        version,
        owner: found.owner,
        connections: found_role
            .as_ref()
            .map_or(0, |role| role.connections)
            .saturating_sub(u32::from(trouble.is_none())),
        max_connections: found_role.and_then(|role| role.max_connections),
        is_open_to_all: found.is_open_to_all,
        application_name: application_name.to_owned(),
    });
    match trouble {
        Some(error) => Err(broken(error.into())),
        None => Ok(()),
    }
}

/// Whether the lane's role was given its password here, or needs none of ours.
fn has_password(spec: &Spec) -> bool {
    match &spec.database_setup {
        Some(DatabaseSetup::Create { password_file, .. }) => password_file.exists(),
        Some(DatabaseSetup::Copy { .. }) | None => true,
    }
}

/// What `url` says, by the name that PostgreSQL's programs have for it.
fn of_url(url: &str, wanted: &str) -> String {
    let environment = libpq_environment(url).unwrap_or_default();
    environment.into_iter().find(|(name, _)| *name == wanted).map(|(_, value)| value).unwrap_or_default()
}

/// Writes what `pg_dump` says into `to`.
pub fn save(spec: &Spec, to: &Path) -> Result<(), Trouble> {
    // It would make a file that everybody may read.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(at(to))?;
    let file = to.as_os_str();
    run(spec, "pg_dump", &["--format=custom".as_ref(), "--no-owner".as_ref(), "--file".as_ref(), file])?;
    fs::File::open(to).and_then(|file| file.sync_all()).map_err(at(to))
}

/// Empties the database and fills it with `from`; if that fails, with `aside`.
pub fn restore(spec: &Spec, from: &Path, aside: &Path) -> Result<(), Trouble> {
    // Before anything is touched.
    run(spec, "pg_restore", &["--list".as_ref(), from.as_os_str()])?;
    let Err(trouble) = replace(spec, from) else { return Ok(()) };
    let aside = aside.display();
    match replace(spec, Path::new(&aside.to_string())) {
        Ok(()) => Err(Trouble { what: format!("{}; the database holds again what it held", trouble.what), ..trouble }),
        Err(again) => {
            let what = format!("{}; and to put back what was there failed too: {}", trouble.what, again.what);
            Err(Trouble::new(what).hint(format!("what the database held is in {aside}")))
        }
    }
}

fn replace(spec: &Spec, from: &Path) -> Result<(), Trouble> {
    let url = lane::database_url(spec)?.unwrap_or_default();
    let mut server = Server::connect(&url, OURSELVES, PATIENCE)?;
    server.allow(PATIENCE)?;
    server.empty()?;
    drop(server);
    let database = of_url(&url, "PGDATABASE");
    let flags = ["--no-owner", "--single-transaction", "--exit-on-error", "--dbname", &database];
    let words: Vec<&OsStr> = flags.into_iter().map(OsStr::new).chain([from.as_os_str()]).collect();
    run(spec, "pg_restore", &words)
}

/// Runs a program of PostgreSQL's as the lane's role. The password goes by the environment.
fn run(spec: &Spec, program: &str, words: &[&OsStr]) -> Result<(), Trouble> {
    let url = lane::database_url(spec)?.unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let output = Command::new(program)
        .args(words)
        .env_clear()
        .env("PATH", path)
        .env("PGAPPNAME", OURSELVES)
        .env("PGCONNECT_TIMEOUT", PATIENCE.as_secs().to_string())
        .envs(libpq_environment(&url)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Trouble::new(format!("{program} is not there"))
            .hint("it comes with the client programs of PostgreSQL: apt-get install postgresql-client"),
        _ => Trouble::new(format!("{program}: {error}")),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(|line| line.trim_start_matches("pg_dump: error: ")).collect();
    let last = said.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join("; ");
    Err(Trouble::new(format!("{program} of {}: {last}", service::shown(&url))))
}

/// Drops database and role, those of this lane only.
pub fn remove(spec: &Spec, url: &str, name: &str) -> Result<Vec<String>, Trouble> {
    if !has_password(spec) {
        let what = format!("this lane has no role and no database: nothing was made for {}", service::shown(url));
        return Err(Trouble::new(what));
    }
    let Some(creation) = Creation::of(spec)? else {
        let what = format!("laneway did not make {}, so it does not drop it", service::shown(url));
        return Err(Trouble::new(what).hint("`database.create: true` gives it to laneway"));
    };
    let mut admin = creation.admin(None)?;
    admin.allow(LONG)?;
    admin.lock(&format!("laneway {name}"))?;
    let role = admin.role(creation.role)?;
    if let Some(role) = &role
        && !role.comment.as_deref().unwrap_or_default().ends_with(&creation.key())
    {
        let what = format!("the role {} of PostgreSQL {} is not this lane's", creation.role, admin.shown());
        return Err(Trouble::new(what).hint(format!("laneway db create --adopt {} makes it so", spec.facts.lane)));
    }
    let mut gone = Vec::new();
    if let Some(database) = admin.database(name)? {
        if database.owner != creation.role {
            let what = format!("the database {name} of PostgreSQL {} belongs to {}", admin.shown(), database.owner);
            return Err(Trouble::new(what));
        }
        admin.drop_database(name)?;
        gone.push(format!("the database {name}"));
    }
    if role.is_some() {
        admin.drop_role(creation.role)?;
        gone.push(format!("the role {}", creation.role));
    }
    if gone.is_empty() {
        return Err(Trouble::new(format!("there is neither a role {} nor a database {name}", creation.role)));
    }
    if let Some(DatabaseSetup::Create { password_file, .. }) = &spec.database_setup {
        fs::remove_file(password_file).map_err(at(password_file))?;
        gone.push("its password".to_owned());
    }
    Ok(gone)
}
