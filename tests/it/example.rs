//! The example for real: the true Django project, in a copy of the repository so that nothing of a user's is touched.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use serde_json::Value;

use crate::harness::{Fleet, get, pid, timed, wait_until};
use crate::postgres_server::Postgres;
use crate::redis_server::Redis;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
const WALK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/walk.py");
/// Several Python processes start at once on a busy machine.
pub const DJANGO_PATIENCE: &str = "60s";

/// The sample fleet on ports of its own, beside a copy of the example.
pub fn chat() -> Fleet {
    let mut yaml = fs::read_to_string(format!("{REPOSITORY}/instances.yaml")).unwrap();
    for (number, port) in ["8000", "8001", "8002"].into_iter().enumerate() {
        assert!(yaml.contains(&format!("port: {port}")), "the sample fleet has moved");
        yaml = yaml.replace(&format!("port: {port}"), &format!("port: ${number}"));
    }
    let fleet = Fleet::raw(&yaml);
    let venv = PathBuf::from(format!("{REPOSITORY}/examples/django_chat/.venv"));
    assert!(venv.join("bin/python").exists(), "there is no {}; scripts/test makes it", venv.display());
    let example = fleet.folder().join("examples/django_chat");
    copy(&Path::new(REPOSITORY).join("examples/django_chat"), &example);
    symlink(venv, example.join(".venv")).unwrap();
    // Where the harness looks, and where the sample keeps its lanes.
    symlink("var", fleet.folder().join(".laneway")).unwrap();
    fs::create_dir(fleet.folder().join("scripts")).unwrap();
    let script = "scripts/start_multi_server.py";
    fs::copy(Path::new(REPOSITORY).join(script), fleet.folder().join(script)).unwrap();
    fleet
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if name == ".venv" || name == "__pycache__" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

pub fn python(fleet: &Fleet) -> Command {
    let example = fleet.folder().join("examples/django_chat");
    let mut command = fleet.clean(Command::new(example.join(".venv/bin/python")));
    command.current_dir(example);
    command
}

pub fn walk(fleet: &Fleet, number: usize, instance: &str, steps: &[&str]) -> String {
    walk_at(fleet, fleet.port(number), instance, steps)
}

/// The same at another port of the instance's lane.
pub fn walk_at(fleet: &Fleet, port: u16, instance: &str, steps: &[&str]) -> String {
    let mut command = python(fleet);
    let password = fleet.folder().join(format!("var/{instance}/secrets/staff_password"));
    command.args([WALK, &format!("http://127.0.0.1:{port}")]).arg(password).args(steps);
    fleet.run_command(command).expect(0).out
}

pub fn health(fleet: &Fleet, number: usize) -> Option<Value> {
    let (status, body) = get(fleet.port(number), "/health/?write=1")?;
    assert_eq!(status, 200, "{body}");
    Some(serde_json::from_str(&body).unwrap())
}

#[test]
fn start_chat_brings_three_isolated_servers_and_the_seeds_fault_can_be_cleared() {
    let fleet = chat();
    let yaml = fleet.text().replace("seed_demo]", "seed_demo, --no-products]");
    fleet.write(&yaml);
    fleet.run(&["start-chat", "-d", "--wait", "--wait-timeout", DJANGO_PATIENCE]).expect(0).shows(&[
        "chat_main",
        "chat_api",
        "chat_websocket",
        "healthy",
    ]);
    for (number, name) in ["chat_main", "chat_api", "chat_websocket"].into_iter().enumerate() {
        let health = health(&fleet, number).unwrap();
        assert_eq!(
            (health["instance"].as_str(), health["port"].as_u64()),
            (Some(name), Some(fleet.port(number).into()))
        );
        assert_eq!(health["pid"].as_u64(), Some(fleet.pid(name).into()), "the answer comes from the spawned process");
        assert!(fleet.folder().join(format!("var/{name}/db_{name}.sqlite3")).exists());
        let password = fleet.folder().join(format!("var/{name}/secrets/staff_password"));
        assert_eq!(fs::metadata(password).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // One browser, three instances: each has cookies of its own name. Then the fault: empty, cached, seeded, still empty.
    let none = "Henüz ürün bulunmuyor";
    assert_eq!(
        walk(&fleet, 0, "chat_main", &["login", &format!("list:{none}"), "cookies"]).trim(),
        "csrftoken_chat_main sessionid_chat_main"
    );
    let seed = ["exec", "chat_main", "--", ".venv/bin/python", "manage.py", "seed_demo"];
    fleet.run(&seed).expect(0);
    walk(&fleet, 0, "chat_main", &["login", &format!("list:{none}")]);
    let clear = ["exec", "chat_main", "--", ".venv/bin/python", "manage.py", "clear_cache", "--type=all"];
    fleet.run(&clear).expect(1).says(&["laneway cache clear", "restart"]);
    walk(&fleet, 0, "chat_main", &["login", &format!("list:{none}"), "clear:django", &format!("no:{none}"), "list:6"]);
    // The neighbours still have none, and a restart empties a LocMem cache too.
    walk(&fleet, 1, "chat_api", &["login", &format!("list:{none}")]);
    let create = "DJANGO_SUPERUSER_PASSWORD=fuer-den-test .venv/bin/python manage.py createsuperuser --noinput \
                  --username second --email second@example.org";
    fleet.run(&["exec", "chat_api", "--", "sh", "-c", create]).expect(0);
    fleet.run(&["down"]).expect(0);
    assert_eq!(health(&fleet, 0), None);
}

#[test]
fn start_dev_by_the_seeds_command_reloads_without_a_restart() {
    let fleet = chat();
    let mut command = python(&fleet);
    command.arg(fleet.folder().join("scripts/start_multi_server.py"));
    command.args(["start-dev", "-d", "--wait", "--wait-timeout", DJANGO_PATIENCE]);
    command.env("LANEWAY", env!("CARGO_BIN_EXE_laneway"));
    fleet.run_command(command).expect(0).shows(&["chat_main", "chat_api"]);
    assert_eq!(fleet.instance("chat_websocket")["phase"], "stopped");
    let before = health(&fleet, 0).unwrap();
    assert_eq!(before["cache"], "dummy");
    assert_ne!(before["pid"].as_u64(), Some(fleet.pid("chat_main").into()), "Django's reloader answers from a child");
    walk(&fleet, 1, "chat_api", &["login"]);
    // The time of a file moves forward, and the reloader looks once a second.
    let views = fleet.folder().join("examples/django_chat/chat/views.py");
    fs::write(&views, format!("{}\n", fs::read_to_string(&views).unwrap())).unwrap();
    let reloaded = wait_until(Duration::from_secs(30), || {
        get(fleet.port(0), "/health/").is_some_and(|(status, body)| {
            status == 200 && serde_json::from_str::<Value>(&body).unwrap()["pid"] != before["pid"]
        })
    });
    assert!(reloaded, "{}", fleet.log("chat_main"));
    fleet.wait_for_health("chat_main", "healthy");
    assert_eq!(fleet.instance("chat_main")["restarts"], 0);
}

#[test]
fn the_settings_fall_back_to_the_facts_of_laneway() {
    let fleet = chat();
    for name in ["chat_main", "chat_api", "chat_websocket"] {
        let facts: Value = serde_json::from_str(&fleet.run(&["env", name, "--format", "json"]).expect(0).out).unwrap();
        let mut command = python(&fleet);
        command.args(["-m", "dashboard_project.lane", name]);
        let fallback: Value = serde_json::from_str(&fleet.run_command(command).expect(0).out).unwrap();
        let fallback = fallback.as_object().unwrap();
        assert!(fallback.len() >= 18, "{fallback:?}");
        for (variable, value) in fallback {
            assert_eq!(&facts[variable], value, "{variable} of {name}");
        }
    }
}

/// A server started by hand, with whatever it forks.
pub struct ByHand(pub Child);

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = killpg(pid(self.0.id()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn the_seeds_manual_lines_work_without_laneway() {
    let fleet = chat();
    let mut servers = Vec::new();
    for (number, name) in ["chat_main", "chat_api", "chat_websocket"].into_iter().enumerate() {
        let manage = |arguments: &[&str]| {
            let mut command = python(&fleet);
            command.env("DJANGO_SERVER_INSTANCE", name).env("DJANGO_SERVER_PORT", fleet.port(number).to_string());
            command.arg("manage.py").args(arguments).stdin(Stdio::null());
            command
        };
        fleet.run_command(manage(&["migrate", "--noinput"])).expect(0);
        let address = format!("127.0.0.1:{}", fleet.port(number));
        let mut server = manage(&["runserver", &address, "--settings=dashboard_project.multi_server_settings"]);
        servers.push(ByHand(server.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()));
    }
    for (number, name) in ["chat_main", "chat_api", "chat_websocket"].into_iter().enumerate() {
        let answers = wait_until(Duration::from_mins(1), || get(fleet.port(number), "/health/").is_some());
        assert!(answers, "{name} does not answer");
        assert_eq!(health(&fleet, number).unwrap()["instance"], name);
        assert!(fleet.folder().join(format!("var/{name}/db_{name}.sqlite3")).exists());
    }
}

#[test]
fn the_prod_profile_runs_on_redis_and_postgresql() {
    // Of its own, since it goes away.
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let mut fleet = chat();
    fleet.set("REDIS_URL", &redis.url());
    fleet.set("PGADMIN_URL", &postgres.admin_url());
    let start = ["--profile", "prod", "start-chat", "-d", "--wait", "--wait-timeout", DJANGO_PATIENCE];
    let (first, output) = timed(|| fleet.run(&start));
    output.expect(0);
    let names = ["chat_main", "chat_api", "chat_websocket"];
    for (number, name) in names.into_iter().enumerate() {
        let health = health(&fleet, number).unwrap();
        assert_eq!((&health["instance"], &health["database"]), (&name.into(), &"ok".into()), "{health}");
        walk(&fleet, number, name, &["login", "list:6"]);
        let (status, _) = get(fleet.port(number), "/static/chat/style.css").unwrap();
        assert_eq!(status, 200, "uvicorn serves no files by itself");
    }
    // Each lane by what it leaves on the servers: sessions of its own name in a database of its own, keys of its prefix.
    let sessions = "SELECT DISTINCT datname, usename, application_name FROM pg_stat_activity \
                    WHERE application_name LIKE 'context7%' ORDER BY 1";
    let expected = ["chat_api", "chat_main", "chat_websocket"];
    let expected = expected.map(|name| format!("context7_erp_{name}|context7_erp_{name}|context7_{name}"));
    assert_eq!(postgres.sql(sessions), expected.join("\n"));
    let is_of_a_lane = |key: &String| names.iter().any(|name| key.starts_with(&format!("context7_{name}:")));
    assert!(redis.keys().iter().all(is_of_a_lane), "{:?}", redis.keys());
    fleet.run(&["db", "status"]).expect(0).shows(&["chat_main       postgres  good", " of 20"]);
    fleet.run(&["db", "migrate", "chat_api"]).expect(0).shows(&["No migrations to apply"]);
    fleet.run(&["doctor"]).expect(0).shows(&[
        "ok  redis            ",
        "ok  sessions         3 kinds of sessions",
        "nothing found",
    ]);
    fleet.run(&["down"]).expect(0);
    let (second, output) = timed(|| fleet.run(&start));
    output.expect(0);
    // For whoever asks with --nocapture; nothing is judged by it.
    println!("start of three on PostgreSQL: first {first:?}, second {second:?}");
    walk(&fleet, 0, "chat_main", &["login", "list:6"]);
    // Both servers go and come back: the same processes, the same data.
    let before = fleet.pid("chat_main");
    postgres.crash();
    postgres.come_back();
    let answers = wait_until(Duration::from_secs(20), || get(fleet.port(0), "/health/").is_some_and(|(s, _)| s == 200));
    assert!(answers, "{}", fleet.log("chat_main"));
    assert_eq!(fleet.pid("chat_main"), before);
    walk(&fleet, 0, "chat_main", &["login", "list:6"]);
    // While it is gone, the answers come in time and name the database.
    postgres.crash();
    let said = wait_until(Duration::from_secs(20), || {
        get(fleet.port(0), "/health/").is_some_and(|(status, body)| status == 503 && body.contains("\"database\""))
    });
    assert!(said, "{}", fleet.log("chat_main"));
    postgres.come_back();
    for name in names {
        fleet.wait_for_health(name, "healthy");
    }
    fleet.run(&["down"]).expect(0);
}

#[test]
fn start_chat_says_how_to_get_the_servers_of_the_prod_profile() {
    let script = format!("{REPOSITORY}/scripts/start-chat");
    // Port 1 is nobody's.
    let mut command = Command::new(&script);
    command.args(["--profile", "prod"]).env("REDIS_URL", "redis://127.0.0.1:1/0").stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("no Redis answers") && said.contains("apt-get install redis-server"), "{said}");
    let redis = Redis::start();
    let mut command = Command::new(&script);
    command.args(["--profile=prod"]).env("REDIS_URL", redis.url()).stdin(Stdio::null());
    let output = command.env("PGADMIN_URL", "postgres://me:geheim@127.0.0.1:1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("no PostgreSQL answers") && said.contains("createuser --createrole"), "{said}");
    assert!(!said.contains("geheim"), "{said}");
}
