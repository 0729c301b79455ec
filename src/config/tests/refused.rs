//! What is refused, and in which words.

use std::time::{Duration, Instant};

use super::{first, holds, lines, said, web};
use crate::config::load;
use crate::config::scratch::Scratch;

#[test]
fn text_that_is_no_settings_is_refused_where_it_goes_wrong() {
    holds(
        "text_that_is_no_settings_is_refused_where_it_goes_wrong",
        &said([
            "",
            "# only a comment\n",
            "---\n",
            "just text",
            "[a, list]",
            "instances:\n\tweb: {}\n",
            "instances:\n  web:\n    command: [\"serve]\n",
            "instances:\n  web: {command: [serve]\n  api: {}\n",
            "instances:\n  web: {command: [serve}]\n",
            "a: b: c\n",
            "instances: *nowhere\n",
            "instances: &a\n  web: *a\n",
            "instances: {}\n---\nmore: 1\n",
            "instances: !reset {}\n",
            "? [a]\n: b\ninstances: {web: {command: [x]}}\n",
            "name: a\ninstances: 5\n",
            "instances: {}\n",
            "name: x\n",
            "version: 2\ninstances: {web: {command: [x]}}\n",
            "instances: {web: }\n",
            "instances: {web: 5}\n",
            "instances: {web: {command: [x]}}\n<<: 5\n",
        ]),
    );
}

#[test]
fn keys_that_stand_twice_are_refused_at_every_level() {
    holds(
        "keys_that_stand_twice_are_refused_at_every_level",
        &said([
            "name: a\nname: b\ninstances:\n  web: {command: [x], port: 1, port: 2}\n  web: {command: [x]}\n",
            "instances:\n  web:\n    command: [x]\n    environment: {A: 1, A: 2}\n    cache: {timeout: 1s, timeout: 2s}\n",
            "instances:\n  web:\n    command: [x]\n    environment: [A=1, B=2, A=3]\n",
        ]),
    );
}

#[test]
fn unknown_keys_get_the_nearest_known_one() {
    holds(
        "unknown_keys_get_the_nearest_known_one",
        &said([
            "instance: {}\ninstances: {web: {command: [x]}}\nnaem: x\nvolumes: {}\n",
            &web("prot: 80\nhealth_check: {}\nenviroment: {}\nimage: x"),
            &web("port: 80\nhealthcheck: {intervall: 5s, start-period: 1s}\ncache: {ttl: 5s}\ncookies: {sesion: a}"),
            &web("x-mine: {anything: [goes]}\ndatabase: {x-note: 1}"),
        ]),
    );
}

#[test]
fn keys_of_later_versions_are_refused_and_not_ignored() {
    holds(
        "keys_of_later_versions_are_refused_and_not_ignored",
        &said([web("replicas: 3\nlisten: inherit\nisolation: strict")]),
    );
}

#[test]
fn values_of_the_wrong_kind_say_how_they_are_written_right() {
    holds(
        "values_of_the_wrong_kind_say_how_they_are_written_right",
        &said([
            web("port: 0"),
            web("port: -1"),
            web("port: 65536"),
            web("port: abc"),
            web("port: 8000.0"),
            web("port: 08000"),
            web("port: \"8000\""),
            web("port: [8000]"),
            web("host: example.org"),
            web("framework: flask"),
            web("stop_signal: SIGNOPE\nstop_grace_period: 10"),
            web("restart: sometimes"),
            web("restart: on-failure:0"),
            web("restart: on-failure:3\nrestart_policy: {max_attempts: 5, delay: 0s, max_delay: 1ms}"),
            web("logging: {max_size: 10, max_files: 0}"),
            web("logging: {max_size: 1.5m}"),
            web("secret: {env: yes}"),
            web("cache: {backend: memcached, timeout: forever}"),
            web("cache: {backend: redis}"),
            web("database: {engine: mysql}"),
            web("database: {url: \"postgres://x\"}"),
            web("inherit_env: [PATH, A-B]\nworking_dir: \"\""),
            web("env_file: {required: maybe}"),
            web("environment: {1A: x, \"\": y, GOOD: {a: b}, \"A=B\": z}"),
            web("environment: [\"=x\", A=1, [b]]"),
            web("environment: text"),
            web("environment: {A: \"a\\0b\"}"),
            web("depends_on: web2\n"),
            web("depends_on: {api: {condition: service_done}}"),
            web("depends_on: [nobody]"),
            web("lane: [a]"),
        ]),
    );
}

#[test]
fn commands_are_lists() {
    holds(
        "commands_are_lists",
        &said([
            "instances: {web: {command: gunicorn app:wsgi -b :80}}".to_owned(),
            "instances: {web: {command: \"a | b\"}}".to_owned(),
            "instances: {web: {command: []}}".to_owned(),
            "instances: {web: {command: [\"\"]}}".to_owned(),
            "instances: {web: {command: [a, {port}, ~]}}".to_owned(),
            "instances: {web: {}}".to_owned(),
            web("pre_start: migrate"),
            web("pre_start: [python, manage.py, migrate]"),
            web("pre_start: [[python, manage.py], migrate, []]"),
        ]),
    );
}

#[test]
fn a_health_check_asks_one_question_that_can_be_asked() {
    holds(
        "a_health_check_asks_one_question_that_can_be_asked",
        &said([
            web("healthcheck: {path: /}"),
            web("healthcheck: {tcp: true}"),
            web("port: 80\nhealthcheck: {path: /, tcp: true}"),
            web("port: 80\nhealthcheck: {tcp: false}"),
            web("port: 80\nhealthcheck: {path: \"http://localhost:80/health\"}"),
            web("port: 80\nhealthcheck: {path: health, expect_status: 99}"),
            web("port: 80\nhealthcheck: {path: \"/a b\", expect_status: 300-200}"),
            web("port: 80\nhealthcheck: {tcp: true, expect_status: 204, headers: {Host: x}}"),
            web("port: 80\nhealthcheck: {path: /, scheme: ftp, headers: {\"a b\": x, Host: \"a\\nb\"}}"),
            web("port: 80\nhealthcheck: {interval: 0s, timeout: 0s, retries: 0, start_interval: 0s, timeout: 1h}"),
            web("port: 80\nhealthcheck: {timeout: 1h, on_unhealthy: reboot, disable: no}"),
            web("healthcheck: {test: curl -f http://localhost}"),
            web("healthcheck: {test: [CMD]}"),
            web("healthcheck: {test: []}"),
            web("port: abc\nhealthcheck: {path: /}"),
        ]),
    );
}

#[cfg(not(feature = "tls"))]
#[test]
fn https_without_the_feature_names_the_feature() {
    holds(
        "https_without_the_feature_names_the_feature",
        &said([web("port: 80\nhealthcheck: {path: /, scheme: https}")]),
    );
}

#[test]
fn names_are_checked_where_they_stand() {
    let long = "a".repeat(300);
    holds(
        "names_are_checked_where_they_stand",
        &said([
            "instances: {../x: {command: [x]}}".to_owned(),
            "instances: {\"\": {command: [x]}}".to_owned(),
            format!("instances:\n  ? {long}\n  : {{command: [x]}}"),
            "instances: {\"a b\": {command: [x]}}".to_owned(),
            "instances: {\"a\\nb\": {command: [x]}}".to_owned(),
            "instances: {şube_ankara: {command: [x]}}".to_owned(),
            "name: My Project\nnamespace: -x\ninstances: {web: {command: [x]}}".to_owned(),
        ]),
    );
}

#[test]
fn presets_are_verbs_of_their_own_over_instances_that_exist() {
    holds(
        "presets_are_verbs_of_their_own_over_instances_that_exist",
        &said([concat!(
            "instances: {web: {command: [x]}, api: {command: [x]}}\n",
            "profiles: {dev: {}}\n",
            "presets:\n",
            "  start: [web]\n",
            "  web: [web]\n",
            "  Start Dev: [web]\n",
            "  none: []\n",
            "  nobody: [wbe, web, web]\n",
            "  text: web\n",
            "  wrong: {instances: [web], profile: devel, instance: 1}\n",
            "  empty: {profile: dev}\n",
            "  good: {instances: [api, web], profile: dev}\n",
        )]),
    );
}

#[test]
fn lanes_have_one_owner_and_guests_bring_nothing_of_a_lane() {
    holds(
        "lanes_have_one_owner_and_guests_bring_nothing_of_a_lane",
        &said([concat!(
            "defaults: {command: [x], cache: {timeout: 1h}}\n",
            "instances:\n",
            "  web: {}\n",
            "  worker: {lane: web}\n",
            "  beat: {lane: worker}\n",
            "  own: {lane: own}\n",
            "  lost: {lane: wbe}\n",
            "  greedy: {lane: web, cache: {timeout: 5s}, media_root: media}\n",
        )]),
    );
}

#[test]
fn a_profile_must_exist_and_change_only_what_is_there() {
    let scratch = Scratch::with(concat!(
        "instances: {web: {command: [x]}}\n",
        "profiles:\n",
        "  dev: {defaults: {prot: 1}, instances: {wbe: {port: 1}}, other: 1}\n",
        "  Prod Two: {instances: []}\n",
    ));
    let mut source = scratch.source();
    source.profile = Some("staging".to_owned());
    source.set = vec!["instances.wbe.port=5".to_owned(), "nonsense".to_owned(), "a..b=1".to_owned()];
    let without_form = load(&source).unwrap_err().to_string();
    source.set.truncate(1);
    holds(
        "a_profile_must_exist_and_change_only_what_is_there",
        &format!("{without_form}\n\n{}", load(&source).unwrap_err()),
    );
}

#[test]
fn variables_without_a_value_are_refused_at_their_position() {
    let scratch = Scratch::with(&web(
        "port: ${PORT}\nenvironment:\n  A: \"é \\\"${NAME:?say who}\\\" ${OTHER}\"\n  B: |\n    one\n    two ${LATER}\n  C: a$ b",
    ));
    scratch.write(".env", "GOOD=1\nBAD-NAME=2\n");
    holds("variables_without_a_value_are_refused_at_their_position", &scratch.problems());
}

#[test]
fn a_dozen_problems_are_reported_at_once_and_in_order() {
    let text = concat!(
        "nmae: context7\n",
        "defaults:\n",
        "  command: python manage.py runserver\n",
        "  healthcheck: {interval: 5}\n",
        "instances:\n",
        "  chat_main: {port: 80000, stop_grace_period: -1s}\n",
        "  Chat Api: {port: 8001}\n",
        "  chat_ws:\n",
        "    port: eight\n",
        "    port: 8002\n",
        "    environment: {DEBUG: on, HOST-NAME: x}\n",
        "    depends_on: [chat_mian]\n",
        "    lane: nobody\n",
        "    replicas: 2\n",
        "presets:\n",
        "  up: [chat_main]\n",
        "  some: [chat_api]\n",
    );
    let problems = Scratch::with(text).load().unwrap_err();
    assert!(problems.len() >= 12, "{}", problems.len());
    let lines: Vec<u32> = problems.iter().map(|problem| problem.line).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    holds("a_dozen_problems_are_reported_at_once_and_in_order", &problems.to_string());
    holds("a_dozen_problems_as_pictures", &problems.render(false));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_fine() {
    let text = format!("\u{feff}{}", web("port: 8000\nenvironment: {A: b}").replace('\n', "\r\n"));
    let instance = first(&text);
    assert_eq!((instance.port, instance.environment.get("A").map(String::as_str)), (Some(8000), Some("b")));
    holds(
        "a_byte_order_mark_and_windows_line_ends_are_fine",
        &said([format!("\u{feff}{}", web("port: 0").replace('\n', "\r\n"))]),
    );
}

#[test]
fn bombs_are_refused_quickly() {
    let level = |level: usize, below: String| format!("a{level}: &a{level} [{below}]\n");
    let nine = |level: usize| vec![format!("*a{}", level - 1); 9].join(", ");
    let bomb = level(0, "x".to_owned()) + &lines((1..9).map(|n| level(n, nine(n))));
    let ladder = level(0, "x".to_owned()) + &lines((1..2000).map(|n| level(n, format!("*a{}", n - 1))));
    let open = "[".repeat(200_000);
    let maps = "{a: ".repeat(50_000);
    let blocks = lines((0..500).map(|level| format!("{}a:\n", " ".repeat(level))));
    let many = lines((0..2001).map(|n| format!("  i{n}: {{}}\n")));
    let wide = lines((0..900).map(|n| format!("  i{n}: {{}}\n")));
    let variables = lines((0..2000).map(|n| format!("V{n}: v, ")));
    let cases = [
        (bomb, "more than 100000 values"),
        (ladder, "nested more than 32 deep"),
        (open, "nested more than 32 deep"),
        (maps, "nested more than 32 deep"),
        (blocks, "nested more than 32 deep"),
        (format!("defaults: {{command: [x]}}\ninstances:\n{many}"), "at most 2000"),
        (format!("defaults: {{command: [x], environment: {{{variables}}}}}\ninstances:\n{wide}"), "more than 1000000"),
        (format!("a: \"{}\"", "${A:-".repeat(30_000)), "never closed"),
        (format!("a: \"{}{}\"", "${A:-".repeat(500), "}".repeat(500)), "nested more than 16 deep"),
        (format!("a: \"{}\"", "$ ".repeat(400_000)), "`$` begins no variable"),
    ];
    for (text, what) in cases {
        // A clock for a bound in a test, not for a decision.
        #[expect(clippy::disallowed_methods, reason = "the test measures itself")]
        let before = Instant::now();
        let problems = Scratch::with(&text).load().unwrap_err();
        let start: String = text.chars().take(20).collect();
        assert!(before.elapsed() < Duration::from_secs(5), "{start}");
        assert!(problems.len() < 30, "{start}: {}", problems.len());
        assert!(problems.to_string().contains(what), "{start}: {problems}");
    }
}

#[test]
fn what_comes_out_of_a_variable_is_not_repeated_for_it_may_be_a_secret() {
    let keys = ["port", "host", "restart", "stop_grace_period", "stop_signal", "lane", "framework", "command"];
    for key in keys {
        let scratch = Scratch::with(&format!("instances: {{web: {{command: [x], {key}: \"${{CALLER}}\"}}}}"));
        let said = scratch.problems();
        assert!(said.contains(key) && !said.contains("from the caller"), "{said}");
    }
}

#[test]
fn a_message_steers_no_terminal_and_has_an_end() {
    let said = Scratch::with("instances: {web: {command: [x], port: \"\\e[31m\\u202e\"}}").problems();
    assert!(said.contains("not `\\u{1b}[31m\\u{202e}`\n  hint: without quotes: \\u{1b}[31m"), "{said}");
    let said =
        Scratch::with(&format!("instances: {{web: {{command: [x], port: {}}}}}", "9".repeat(100_000))).problems();
    assert!(said.contains("999...") && said.len() < 2000, "{} bytes", said.len());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    #[test]
    fn no_text_makes_loading_panic(
        text in proptest::prelude::any::<String>(),
        shape in "(instances|defaults|presets|profiles|web|port|command|healthcheck|environment|<<|x|[:{}\\[\\],&*!|>'\"\\-?# \n$%@~0-9]){0,60}",
    ) {
        let _ = Scratch::with(&text).problems();
        let _ = Scratch::with(&shape).problems();
        let _ = Scratch::with(&format!("instances: {{web: {{command: [x], {shape}}}}}")).problems();
    }
}
