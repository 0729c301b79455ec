//! Whole files through `load`: what is taken, and what is said of everything else.

use std::time::{Duration, Instant};

use super::scratch::Scratch;
use super::{CacheBackend, Condition, Instance, RestartPolicy, Settings, TestSettings, load};

/// A file with one instance, `web`, that has a command; `rest` is indented below it.
fn web(rest: &str) -> String {
    let rest: String = rest.lines().map(|line| format!("    {line}\n")).collect();
    format!("instances:\n  web:\n    command: [serve]\n{rest}")
}

fn settings(text: &str) -> Settings {
    Scratch::with(text).load().unwrap_or_else(|problems| panic!("{problems}\n\n{text}"))
}

fn first(text: &str) -> Instance {
    settings(text).instances.into_iter().next().unwrap()
}

/// The problems of each text, one block each.
fn said<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let blocks = texts.into_iter().map(|text| {
        let text = text.as_ref();
        let shown: String = text.escape_debug().take(400).collect();
        format!(
            "--- {}\n{}",
            shown.replace("\\n", "\n    ").replace("\\\"", "\"").trim_end(),
            Scratch::with(text).problems()
        )
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

/// Compares with `snapshots/NAME.snap`.
fn holds(name: &str, text: &str) {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, text);
    });
}

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
        &said([web(
            "replicas: 3\nlisten: inherit\nisolation: strict\ndatabase: {create: true, max_connections: 20, template: x}\ncache: {clear: true}",
        )]),
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
fn environment_values_that_look_like_booleans_need_quotes() {
    let booleans = ["NO", "no", "yes", "on", "off", "y", "n", "true", "False"];
    for text in booleans {
        let problems = Scratch::with(&web(&format!("environment: {{A: {text}}}"))).problems();
        assert!(problems.contains(&format!("hint: write \"{text}\"")), "{text}: {problems}");
        let quoted = first(&web(&format!("environment: {{A: \"{text}\"}}")));
        assert_eq!(quoted.environment.get("A").map(String::as_str), Some(text));
    }
    let numbers = first(&web("environment: {A: 1, B: 0123, C: 1.10, D: 1e3, E: 22:22, F: nope}"));
    let values: Vec<&str> = numbers.environment.values().map(String::as_str).collect();
    assert_eq!(values, ["1", "0123", "1.10", "1e3", "22:22", "nope"]);
    holds(
        "environment_values_that_look_like_booleans_need_quotes",
        &said([web("environment: {DEBUG: NO, GOOD: \"NO\"}")]),
    );
}

#[test]
fn an_environment_value_of_nothing_is_taken_from_the_caller() {
    for environment in ["{CALLER: , ABSENT: ~, EMPTY: \"\"}", "[CALLER, ABSENT, EMPTY=]"] {
        let environment = first(&web(&format!("environment: {environment}"))).environment;
        let pairs: Vec<(&str, &str)> = environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("CALLER", "from the caller"), ("EMPTY", "")]);
    }
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
fn variables_are_filled_in_from_the_caller_and_then_from_dotenv() {
    let scratch =
        Scratch::with(&web("port: ${PORT}\nenvironment: {A: \"${CALLER}\", B: \"$$X ${NONE:-d}\", C: \"${BRACES}\"}"));
    scratch.write(".env", "PORT=8000 # the port\nCALLER=from the file\nBRACES='{port}'\n");
    let settings = scratch.load().unwrap_or_else(|problems| panic!("{problems}"));
    let instance = settings.instances.first().unwrap();
    assert_eq!(instance.port, Some(8000));
    let values: Vec<&str> = instance.environment.values().map(String::as_str).collect();
    assert_eq!(values, ["from the caller", "$X d", "{{port}"]);
    let used: Vec<&str> = settings.variables.keys().map(String::as_str).collect();
    assert_eq!(used, ["BRACES", "CALLER", "NONE", "PORT"]);
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
fn anchors_and_merge_keys_work_as_in_compose() {
    let instances = settings(concat!(
        "x-base: &base {command: [serve], stop_grace_period: 3s, environment: {A: a}}\n",
        "x-more: &more {port: 1, stop_grace_period: 4s}\n",
        "instances:\n",
        "  one: {<<: *base, port: 2}\n",
        "  two: {<<: [*more, *base]}\n",
        "  three: *base\n",
    ))
    .instances;
    let seen: Vec<(Option<u16>, u64)> = instances.iter().map(|i| (i.port, i.stop_grace_period.as_secs())).collect();
    assert_eq!(seen, [(Some(2), 3), (Some(1), 4), (None, 3)]);
}

#[test]
fn bombs_are_refused_quickly() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let mut ladder = "a0: &a0 [x]\n".to_owned();
    for level in 1..2000 {
        ladder.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    let open = "[".repeat(200_000);
    let maps = "{a: ".repeat(50_000);
    let blocks: String = (0..500).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let many: String = (0..2001).map(|n| format!("  i{n}: {{}}\n")).collect();
    let wide: String = (0..900).map(|n| format!("  i{n}: {{}}\n")).collect();
    let variables: String = (0..2000).map(|n| format!("V{n}: v, ")).collect();
    let cases = [
        bomb,
        ladder,
        open,
        maps,
        blocks,
        format!("defaults: {{command: [x]}}\ninstances:\n{many}"),
        format!("defaults: {{command: [x], environment: {{{variables}}}}}\ninstances:\n{wide}"),
        format!("a: \"{}\"", "${A:-".repeat(30_000)),
    ];
    for text in cases {
        // A clock for a bound in a test, not for a decision.
        #[expect(clippy::disallowed_methods, reason = "the test measures itself")]
        let before = Instant::now();
        let problems = Scratch::with(&text).load().unwrap_err();
        let start: String = text.chars().take(20).collect();
        assert!(before.elapsed() < Duration::from_secs(5), "{start}");
        assert!(problems.len() < 10, "{start}: {}", problems.len());
        assert!(!problems.is_empty());
    }
}

#[test]
fn two_thousand_instances_are_fine() {
    let many: String = (0..2000).map(|n| format!("  i{n}: {{port: {}}}\n", 10_000 + n)).collect();
    assert_eq!(settings(&format!("defaults: {{command: [x]}}\ninstances:\n{many}")).instances.len(), 2000);
}

#[test]
fn layers_lie_as_the_rule_says() {
    let scratch = Scratch::with(concat!(
        "defaults: {command: [x], port: 1, cache: {timeout: 1s, backend: file}, environment: [A=base, B=base]}\n",
        "instances: {web: {}, api: {port: 3}}\n",
        "profiles:\n",
        "  dev:\n",
        "    defaults: {port: 2, cache: {timeout: 2s}}\n",
        "    instances: {api: {port: 4, environment: {B: profile}}}\n",
    ));
    scratch
        .write("over.yaml", "defaults: {port: 5}\ninstances: {web: {cache: {timeout: 6s}}, api: {stop_signal: INT}}\n");
    let ports = |source: &super::Source| {
        let settings = load(source).unwrap_or_else(|problems| panic!("{problems}"));
        let all: Vec<(Option<u16>, u64)> =
            settings.instances.iter().map(|i| (i.port, i.cache.timeout.as_secs())).collect();
        (all, settings)
    };
    let mut source = scratch.source();
    assert_eq!(ports(&source).0, [(Some(1), 1), (Some(3), 1)]);
    source.profile = Some("dev".to_owned());
    let (all, settings) = ports(&source);
    assert_eq!(all, [(Some(2), 2), (Some(4), 2)]);
    let api = settings.instances.get(1).unwrap();
    assert_eq!(api.cache.backend, CacheBackend::File);
    assert_eq!(api.environment.values().collect::<Vec<_>>(), ["base", "profile"]);
    source.files = vec!["instances.yaml".into(), "over.yaml".into()];
    assert_eq!(ports(&source).0, [(Some(5), 6), (Some(4), 2)]);
    source.set = vec!["instances.api.port=9".to_owned(), "instances.web.port=~".to_owned()];
    let (all, settings) = ports(&source);
    assert_eq!(all, [(None, 6), (Some(9), 2)]);
    assert_eq!(settings.sources.name(settings.instances.get(1).unwrap().origin("port")), "--set instances.api.port");
}

#[test]
fn a_layer_that_asks_another_health_question_replaces_the_first() {
    let instances = settings(concat!(
        "defaults: {command: [x], healthcheck: {path: /health/, expect_status: 204, interval: 7s}}\n",
        "instances:\n",
        "  web: {port: 1}\n",
        "  tcp: {port: 2, healthcheck: {tcp: true}}\n",
        "  worker: {healthcheck: {test: [CMD-SHELL, exit 0]}}\n",
        "  quiet: {healthcheck: {disable: true}}\n",
    ))
    .instances;
    let tests: Vec<Option<TestSettings>> =
        instances.iter().map(|i| i.healthcheck.as_ref().map(|h| h.test.clone())).collect();
    assert!(
        matches!(&tests[0], Some(TestSettings::Http { path, expect_status: (204, 204), .. }) if path == "/health/")
    );
    assert_eq!(tests[1], Some(TestSettings::Tcp));
    let shell = ["/bin/sh", "-c", "exit 0"].map(str::to_owned).to_vec();
    assert_eq!(tests[2], Some(TestSettings::Command(shell)));
    assert_eq!(tests[3], None);
    assert_eq!(instances[2].healthcheck.as_ref().unwrap().interval, Duration::from_secs(7));
}

#[test]
fn what_is_not_written_has_its_default() {
    let without_port = first(&web(""));
    assert_eq!(without_port.healthcheck, None);
    let instance = first(&web("port: 8000"));
    assert_eq!(instance.healthcheck.as_ref().map(|health| &health.test), Some(&TestSettings::Tcp));
    holds("what_is_not_written_has_its_default", &format!("{:#?}", instance));
}

#[test]
fn every_key_is_taken() {
    let text = concat!(
        "version: 1\nname: shop\nnamespace: blue\nstate_dir: state\nrestart_brake: {starts: 3, per: 5s}\n",
        "instances:\n",
        "  web:\n",
        "    framework: django\n    working_dir: app\n    command: [serve, \"{port}\"]\n",
        "    environment: {A: 1}\n    env_file: [a.env, {path: b.env, required: false}]\n    inherit_env: [PATH]\n",
        "    host: 0.0.0.0\n    port: 8000\n",
        "    database: {engine: postgres, url: \"postgres://u@h\", name: shop, path: x}\n",
        "    cache: {backend: redis+locmem, url: \"redis://h\", prefix: p, location: l, timeout: 1m}\n",
        "    cookies: {session: s, csrf: c}\n    static_root: static\n    media_root: media\n",
        "    secret: {file: key, env: false}\n    channels: {url: \"redis://h/1\", prefix: ch}\n",
        "    logging: {max_size: 1m, max_files: 2}\n",
        "    healthcheck: {path: /up, scheme: http, expect_status: 200-399, headers: {Host: x}, body: ok, interval: 1s,\n",
        "      timeout: 1s, retries: 2, start_period: 3s, start_interval: 100ms, on_unhealthy: none, disable: false}\n",
        "    restart: on-failure:4\n    restart_policy: {delay: 2s, max_delay: 20s, window: 30s}\n",
        "    stop_signal: SIGINT\n    stop_grace_period: 5s\n",
        "    depends_on: {api: {condition: service_healthy}}\n",
        "    pre_start: [[migrate]]\n    pre_start_timeout: 1m\n",
        "  api: {command: [x], restart: no, depends_on: [worker]}\n",
        "  worker: {command: [x], lane: api, restart: always}\n",
    );
    let settings = settings(text);
    let [web, api, worker] = settings.instances.as_slice() else { panic!("three instances") };
    assert_eq!(api.restart.policy, RestartPolicy::No);
    assert_eq!(worker.restart.policy, RestartPolicy::Always);
    assert_eq!(web.depends_on.first().map(|dependency| dependency.condition), Some(Condition::ServiceHealthy));
    assert_eq!(web.origin("cache.timeout").line, 17);
    let mut web = web.clone();
    web.origins.clear();
    holds(
        "every_key_is_taken",
        &format!("{:#?}", (&settings.project, &settings.namespace, settings.restart_brake, web)),
    );
}
