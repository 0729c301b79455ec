//! Status never lies: what a check asks, what counts as an answer, and whose answer it was.

use crate::harness::{Fleet, PATIENCE, Stranger, get, number, timed, wait_until};

/// `why` comes to say this of an instance whose puppet does `words`, with these keys of `healthcheck`.
#[track_caller]
fn explains(words: &str, check: &str, expected: &[&str]) {
    let fleet = Fleet::new(&format!(
        "a: {{port: $0, environment: {{PUPPET: \"{words}\"}}, healthcheck: {{start_period: 60s, {check}}}}}"
    ));
    fleet.run(&["up", "-d"]).expect(0);
    let mut why = String::new();
    let is_said = wait_until(PATIENCE, || {
        why = fleet.run(&["why", "a"]).expect(0).out;
        expected.iter().all(|word| why.contains(word))
    });
    assert!(is_said, "never said {expected:?}: {why}");
    fleet.run(&["down", "--now"]).expect(0);
}

#[test]
fn a_server_that_hangs_becomes_unhealthy_and_is_replaced() {
    let fleet = Fleet::new("a: {port: $0, healthcheck: {interval: 100ms, timeout: 100ms}}");
    fleet.up();
    let old = fleet.pid("a");
    fleet.ask("a", "/hang");
    fleet.wait_for("a", |a| number(&a["pid"]) != old && a["health"] == "healthy");
    assert_eq!(fleet.processes_of("a").len(), 1);
    fleet.run(&["why", "a"]).expect(0).shows(&["last failure", "unhealthy: 2 bad answers in a row"]);
}

#[test]
fn without_restarts_a_hanging_server_stays_and_is_called_unhealthy() {
    let fleet = Fleet::new("a: {port: $0, healthcheck: {interval: 100ms, timeout: 100ms, on_unhealthy: none}}");
    fleet.up();
    let old = fleet.pid("a");
    fleet.ask("a", "/hang");
    let a = fleet.wait_for_health("a", "unhealthy");
    assert_eq!((&a["phase"], number(&a["pid"])), (&"running".into(), old));
    fleet.run(&["status"]).expect(1).says(&["no answer within 0.1s", "listens but does not answer"]);
}

#[test]
fn wrong_answers_carry_the_hint_that_mends_them() {
    explains("status=404", "timeout: 400ms", &["status 404", "mend `healthcheck.path`"]);
    explains("status=400", "timeout: 400ms", &["status 400", "ALLOWED_HOSTS"]);
    explains("status=500", "timeout: 400ms", &["status 500", "laneway logs a"]);
    explains("status=403", "timeout: 400ms", &["status 403", "without a login"]);
}

#[test]
fn a_redirect_is_no_answer_and_is_never_followed() {
    let stranger_port = crate::harness::port();
    let _stranger = Stranger::listening("127.0.0.1", stranger_port, "");
    let there = format!("status=302 location=http://127.0.0.1:{stranger_port}/health/");
    explains(&there, "timeout: 400ms", &["status 302, redirect to http://127.0.0.1", "a redirect is no answer"]);
    explains("status=301 location=https://x/health/", "timeout: 400ms", &["SECURE_SSL_REDIRECT"]);
}

#[test]
fn the_body_is_looked_at_where_a_text_is_expected() {
    let fleet = Fleet::new("a: {port: $0, healthcheck: {body: alive}, environment: {PUPPET: body=all-alive-here}}");
    fleet.up();
    explains("body=dead", "body: alive", &["the expected text is not in the body"]);
}

#[test]
fn a_range_of_statuses_may_be_expected() {
    let fleet = Fleet::new(concat!(
        "a: {port: $0, healthcheck: {expect_status: 200-399}, environment: {PUPPET: status=302}}\n",
        "b: {port: $1, healthcheck: {expect_status: 503}, environment: {PUPPET: status=503}}",
    ));
    fleet.up();
    fleet.run(&["why", "b"]).expect(0).shows(&["503 in"]);
}

#[test]
fn a_tcp_check_is_content_with_a_connection() {
    let fleet = Fleet::raw(
        "instances: {a: {port: $0, command: [python3, -IS, $puppet], environment: {PUPPET: hang}, healthcheck: {start_interval: 20ms}}}",
    );
    fleet.up();
    fleet.run(&["why", "a"]).expect(0).shows(&["connect to 127.0.0.1"]);
}

#[test]
fn a_command_check_runs_in_the_lane_and_shows_its_last_line() {
    let fleet = Fleet::raw(concat!(
        "defaults: {command: [python3, -IS, $puppet]}\n",
        "instances:\n",
        "  good: {port: $0, healthcheck: {test: [CMD-SHELL, 'test \"$$INSTANCE_NAME\" = good'], start_interval: 20ms}}\n",
        "  bad: {port: $1, healthcheck: {test: [sh, -c, 'echo one; echo the last line >&2; exit 7'], start_interval: 20ms, start_period: 100ms, interval: 50ms}}\n",
    ));
    fleet.run(&["up", "-d", "--wait", "good"]).expect(0);
    fleet.run(&["start", "--wait", "bad"]).expect(1).says(&["no good answer within"]);
    fleet.run(&["why", "bad"]).expect(0).shows(&["exit code 7: the last line"]);
}

#[test]
fn a_command_check_that_hangs_is_killed_with_all_its_children() {
    let fleet = Fleet::raw(concat!(
        "instances:\n",
        "  a: {command: [sleep, '1000'], stop_grace_period: 100ms,\n",
        "      healthcheck: {test: [sh, -c, 'sleep 4321 & sleep 4321'], timeout: 100ms, start_interval: 20ms, interval: 30s, start_period: 20s}}\n",
    ));
    fleet.run(&["up", "-d"]).expect(0);
    fleet.wait_for("a", |a| a["reason"].as_str().is_some_and(|why| why.contains("no answer within 0.1s")));
    // One check may be under way; ten would be those that were not killed.
    fleet.wait_for("a", |a| a["uptime_seconds"].as_f64() > Some(0.8));
    let sleeping = fleet.processes().into_iter().filter(|p| p.command.contains("sleep 4321")).count();
    assert!(sleeping <= 3, "{:?}", fleet.processes());
    fleet.run(&["down"]).expect(0);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_start_has_a_deadline() {
    let fleet = Fleet::new(concat!(
        "a: {port: $0, restart: \"no\", environment: {PUPPET: never-listen}, ",
        "healthcheck: {start_period: 300ms, interval: 50ms, retries: 2}}",
    ));
    let (took, output) = timed(|| fleet.run(&["up", "-d", "--wait"]));
    output.expect(1).says(&["no good answer within 0.4s of its start"]);
    assert!(took.as_secs() < 5, "{took:?}");
    fleet.run(&["why", "a"]).expect(0).shows(&["connection refused", "does `command` make it listen on"]);
    assert_eq!(fleet.processes_of("a"), []);
}

#[test]
fn a_server_on_another_port_than_told_is_not_ready() {
    let fleet = Fleet::new(concat!(
        "a: {port: $0, restart: \"no\", environment: {PUPPET: listen=$9}, ",
        "healthcheck: {start_period: 200ms, interval: 50ms}}",
    ));
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&["does `command` make it listen on"]);
}

#[test]
fn a_twin_on_the_same_port_is_a_conflict_that_names_it() {
    let fleet = Fleet::new("a: {port: $0, environment: {PUPPET: reuseport}}");
    fleet.up();
    let twin = Stranger::listening("127.0.0.1", fleet.port(0), "reuseport");
    let a = fleet.wait_for_health("a", "port-conflict");
    assert_eq!(a["phase"], "running");
    fleet.run(&["status"]).expect(1).says(&[&format!("pid {}", twin.id()), "puppet.py"]);
    drop(twin);
    fleet.wait_for_health("a", "healthy");
}

#[test]
fn a_wildcard_beside_the_own_address_is_a_conflict_too() {
    let fleet = Fleet::new("a: {port: $0, environment: {PUPPET: reuseport}}");
    fleet.up();
    let wildcard = Stranger::listening("0.0.0.0", fleet.port(0), "reuseport");
    fleet.wait_for_health("a", "port-conflict");
    fleet.run(&["why", "a"]).expect(0).shows(&[&format!("pid {}", wildcard.id()), "0.0.0.0"]);
}

#[test]
fn an_answer_by_another_instance_is_not_this_ones_health() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1, environment: {PUPPET: never-listen}}");
    fleet.run(&["up", "-d"]).expect(0);
    fleet.wait_for_health("a", "healthy");
    fleet.wait_for_phase("b", "starting");
    fleet.ask("a", &format!("/listen?{}", fleet.port(1)));
    assert_eq!(get(fleet.port(1), "/health/").unwrap().0, 200, "a answers on b's port");
    let named = format!("the port is also held by pid {}", fleet.pid("a"));
    let b = fleet.wait_for("b", |b| b["reason"].as_str().is_some_and(|why| why.contains(&named)));
    assert_eq!(b["phase"], "starting");
}

#[test]
fn a_frozen_server_is_replaced() {
    let fleet = Fleet::new("a: {port: $0, healthcheck: {interval: 100ms, timeout: 100ms}}");
    fleet.up();
    let old = fleet.pid("a");
    fleet.ask("a", "/freeze");
    fleet.wait_for("a", |a| number(&a["pid"]) != old && a["health"] == "healthy");
}
