//! Reads the keys of one instance into [`Instance`]; those of its health check are read in `health`.
//!
//! Knows one instance at a time; `fleet` looks at all of them. Which keys there are stands in `keys`.

use std::collections::BTreeMap;

use super::dotenv::is_variable_name;
use super::health;
use super::keys::{BACKENDS, CONDITIONS, DEPENDENCY, ENGINES, ENV_FILE, FRAMEWORKS, POLICIES};
use super::node::{Entry, Node, Scalar, Style, Value};
use super::problem::{Fault, Place};
use super::reader::{Keys, join, printable};
use super::settings::{
    CacheBackend, CacheSettings, Clear, Condition, DatabaseSettings, DependencySettings, Engine, EnvFile, Instance,
    Logging, Restart, RestartPolicy,
};
use super::value;

/// What belongs to a lane, so that a guest in one cannot have its own.
pub const LANE_KEYS: [&str; 7] = ["database", "cache", "cookies", "static_root", "media_root", "secret", "channels"];

/// How complete what is read is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A whole instance.
    Whole,
    /// One layer, read for its faults only: what is missing may stand in another.
    Layer,
}

/// Reads all keys into `instance`, which holds the defaults. `inherit` gives the value of a variable written without one.
pub fn read(keys: &mut Keys<'_>, instance: &mut Instance, inherit: &dyn Fn(&str) -> Option<String>, part: Part) {
    fn set<T>(target: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *target = value;
        }
    }
    set(&mut instance.framework, keys.take("framework", |node| value::one_of(node, &FRAMEWORKS)));
    instance.working_dir = keys.take("working_dir", value::filled_text);
    read_command(keys, instance, part);
    read_environment(keys, instance, inherit);
    set(&mut instance.env_file, env_files(keys));
    set(&mut instance.inherit_env, keys.list("inherit_env", "such as [PATH, HOME]", variable_name));
    set(&mut instance.host, keys.take("host", value::host));
    instance.port = keys.take("port", value::port);
    instance.lane = keys.take("lane", value::name);
    if let Some(nested) = keys.open_key("database") {
        instance.database = database(nested, part);
    }
    if let Some(nested) = keys.open_key("cache") {
        instance.cache = cache(nested, part);
    }
    if let Some(mut nested) = keys.open_key("cookies") {
        instance.session_cookie = nested.take("session", value::filled_text);
        instance.csrf_cookie = nested.take("csrf", value::filled_text);
        nested.finish();
    }
    instance.static_root = keys.take("static_root", value::filled_text);
    instance.media_root = keys.take("media_root", value::filled_text);
    if let Some(mut nested) = keys.open_key("secret") {
        instance.secret_file = nested.take("file", value::filled_text);
        set(&mut instance.secret_env, nested.take("env", value::boolean));
        nested.finish();
    }
    if let Some(mut nested) = keys.open_key("channels") {
        instance.channels_url = nested.take("url", value::filled_text);
        instance.channels_prefix = nested.take("prefix", value::filled_text);
        nested.finish();
    }
    if let Some(nested) = keys.open_key("logging") {
        instance.logging = logging(nested);
    }
    instance.healthcheck = health::read(keys, part);
    instance.restart = restart(keys, part);
    set(&mut instance.stop_signal, keys.take("stop_signal", value::signal));
    set(&mut instance.stop_grace_period, keys.take("stop_grace_period", value::duration));
    set(&mut instance.depends_on, depends_on(keys));
    set(&mut instance.pre_start, pre_start(keys));
    set(&mut instance.pre_start_timeout, keys.take("pre_start_timeout", value::positive_duration));
}

fn read_command(keys: &mut Keys<'_>, instance: &mut Instance, part: Part) {
    let place = keys.place();
    match keys.entry("command") {
        Some(entry) => instance.command = command(keys, &entry.value, "command").unwrap_or_default(),
        None if part == Part::Whole => {
            let fault = Fault::new("there is no command to start the server with");
            keys.report(place, "command", fault.hint("such as `command: [.venv/bin/python, manage.py, runserver]`"));
        }
        None => {}
    }
}

/// A command is a list, so that nobody has to think about a shell's quotes.
pub fn command(keys: &Keys<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    let hint = match &node.value {
        Value::Scalar(Scalar { text, style: Style::Plain | Style::Quoted })
            if !text.contains(['"', '\'', '\\', '|', '&', ';', '$']) =>
        {
            let words: Vec<String> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
            format!("write [{}]", words.join(", "))
        }
        _ => "write [program, argument, argument]".to_owned(),
    };
    let words = keys.items(node, path, &hint, value::argument)?;
    if words.first().is_none_or(String::is_empty) {
        keys.report(node.place, path, Fault::new("names no program").hint("the first item is the program"));
        return None;
    }
    Some(words)
}

fn pre_start(keys: &mut Keys<'_>) -> Option<Vec<Vec<String>>> {
    let entry = keys.entry("pre_start")?;
    let Value::List(items) = &entry.value.value else {
        let fault = Fault::new(format!("must be a list of commands, this is {}", entry.value.kind()));
        keys.report(entry.value.place, "pre_start", fault.hint("such as [[.venv/bin/python, manage.py, migrate]]"));
        return None;
    };
    let is_one_command = items.first().is_some_and(|item| matches!(item.value, Value::Scalar(_)));
    if is_one_command && items.iter().all(|item| matches!(item.value, Value::Scalar(_))) {
        let fault = Fault::new("must be a list of commands, this is one command");
        keys.report(entry.value.place, "pre_start", fault.hint("put it into one more pair of brackets: [[...]]"));
        return None;
    }
    let commands = items.iter().enumerate();
    Some(commands.filter_map(|(index, item)| command(keys, item, &format!("pre_start[{index}]"))).collect())
}

fn read_environment(keys: &mut Keys<'_>, instance: &mut Instance, inherit: &dyn Fn(&str) -> Option<String>) {
    let Some(entry) = keys.entry("environment") else { return };
    let Some(map) = entry.value.as_map() else {
        let fault = Fault::new(format!("must be a map or a list, this is {}", entry.value.kind()));
        keys.report(entry.value.place, "environment", fault.hint("such as {DEBUG: \"1\"} or [DEBUG=1]"));
        return;
    };
    for Entry { key, place, value: node } in map.iter() {
        let path = join("environment", &printable(key));
        if !is_variable_name(key) {
            let what = format!("`{}` is no name of a variable", printable(key));
            keys.report(*place, &path, Fault::new(what).hint("A-Z, a-z, 0-9 and _, not beginning with a digit"));
            continue;
        }
        keys.note(&path, node.place);
        if node.is_null() {
            // Nothing a caller has is a template.
            if let Some(value) = inherit(key) {
                instance.environment.insert(key.clone(), value.replace('{', "{{"));
            }
            continue;
        }
        match value::environment_value(node) {
            Ok(value) => {
                instance.environment.insert(key.clone(), value);
            }
            Err(fault) => keys.report(node.place, &path, fault),
        }
    }
}

fn variable_name(node: &Node) -> Result<String, Fault> {
    let text = value::text(node)?;
    if is_variable_name(&text) {
        return Ok(text);
    }
    Err(Fault::new(format!("`{}` is no name of a variable", printable(&node.shown()))))
}

fn env_files(keys: &mut Keys<'_>) -> Option<Vec<EnvFile>> {
    let entry = keys.entry("env_file")?;
    match &entry.value.value {
        Value::List(items) => {
            let items = items.iter().enumerate();
            Some(items.filter_map(|(index, item)| env_file(keys, item, &format!("env_file[{index}]"))).collect())
        }
        Value::Scalar(_) | Value::Map(_) => Some(env_file(keys, &entry.value, "env_file").into_iter().collect()),
    }
}

fn env_file(keys: &Keys<'_>, node: &Node, path: &str) -> Option<EnvFile> {
    if let Value::Map(_) = node.value {
        let mut nested = keys.nested(node, path, &ENV_FILE)?;
        let file = nested.take("path", value::filled_text);
        let required = nested.take("required", value::boolean).unwrap_or(true);
        if file.is_none() {
            nested.report(
                node.place,
                "path",
                Fault::new("is missing").hint("such as {path: chat.env, required: false}"),
            );
        }
        nested.finish();
        return file.map(|path| EnvFile { path, required, place: node.place });
    }
    match value::filled_text(node) {
        Ok(path) => Some(EnvFile { path, required: true, place: node.place }),
        Err(fault) => {
            keys.report(node.place, path, fault);
            None
        }
    }
}

fn database(mut keys: Keys<'_>, part: Part) -> DatabaseSettings {
    let engine = keys.take("engine", |node| value::one_of(node, &ENGINES));
    let path = keys.take("path", value::filled_text);
    let url = keys.take("url", value::filled_text);
    let name = keys.take("name", value::filled_text);
    let create = keys.take("create", value::boolean);
    let admin_url = keys.take("admin_url", value::filled_text);
    let max_connections = keys.take("max_connections", |node| value::whole(node, &1, &100_000));
    let template = keys.take("template", value::filled_text);
    let of_a_server = [
        ("url", url.is_some()),
        ("name", name.is_some()),
        ("create", create == Some(true)),
        ("admin_url", admin_url.is_some()),
        ("max_connections", max_connections.is_some()),
    ];
    for (key, is_written) in of_a_server {
        if is_written
            && engine.is_none()
            && part == Part::Whole
            && let Some(entry) = keys.entry(key)
        {
            let fault = Fault::new("has no effect on sqlite, which is the default engine");
            keys.report(entry.place, key, fault.hint("add `engine: postgres`, or use `path`"));
        }
    }
    let engine = engine.unwrap_or_default();
    let is_created = create == Some(true);
    if engine == Engine::Postgres && part == Part::Whole {
        let of_creation = [
            ("admin_url", admin_url.is_some()),
            ("max_connections", max_connections.is_some()),
            ("template", template.is_some()),
        ];
        // Who says `create: false` turns off what another layer says.
        for (key, _) in of_creation.into_iter().filter(|(_, is_written)| *is_written && create.is_none()) {
            if let Some(entry) = keys.entry(key) {
                let fault = Fault::new("has no effect on a database that laneway does not make");
                keys.report(entry.place, key, fault.hint("add `create: true`"));
            }
        }
        if is_created && admin_url.is_none() && keys.entry("admin_url").is_none() {
            let fault = Fault::new("is missing, and somebody has to make the database");
            let hint = "such as \"${PGADMIN_URL}\": the URL of a user with CREATEROLE and CREATEDB";
            keys.report(keys.place(), "admin_url", fault.hint(hint));
        }
    }
    keys.finish();
    DatabaseSettings { engine, path, url, name, create: is_created, admin_url, max_connections, template }
}

fn cache(mut keys: Keys<'_>, part: Part) -> CacheSettings {
    let default = CacheSettings::default();
    let backend = keys.take("backend", |node| value::one_of(node, &BACKENDS)).unwrap_or(default.backend);
    let url = keys.take("url", value::filled_text);
    let needs_url = matches!(backend, CacheBackend::Redis | CacheBackend::RedisLocmem);
    if needs_url && part == Part::Whole && url.is_none() && keys.entry("url").is_none() {
        let fault = Fault::new("is missing, and redis needs to know its server");
        keys.report(keys.place(), "url", fault.hint("such as \"redis://127.0.0.1:6379/0\""));
    }
    let settings = CacheSettings {
        backend,
        url,
        prefix: keys.take("prefix", value::filled_text),
        location: keys.take("location", value::filled_text),
        timeout: keys.take("timeout", value::duration).unwrap_or(default.timeout),
        clear: keys.open_key("clear").and_then(|nested| clear(nested, part)),
    };
    keys.finish();
    settings
}

fn clear(mut keys: Keys<'_>, part: Part) -> Option<Clear> {
    let path = keys.take("path", health::path);
    let headers = health::headers(&mut keys);
    let command = keys.entry("command").and_then(|entry| {
        if path.is_some() {
            let fault = Fault::new("there is a `path` already, and one way is enough");
            keys.report(entry.place, "command", fault.hint("keep one of path and command"));
        }
        command(&keys, &entry.value, "command")
    });
    if !headers.is_empty()
        && path.is_none()
        && part == Part::Whole
        && let Some(entry) = keys.entry("headers")
    {
        let fault = Fault::new("belongs to a `path`, and there is none here");
        keys.report(entry.place, "headers", fault.hint("add `path`, or take the key out"));
    }
    keys.finish();
    path.map(|path| Clear::Http { path, headers }).or(command.map(Clear::Command))
}

fn logging(mut keys: Keys<'_>) -> Logging {
    let default = Logging::default();
    let max_size = keys.take("max_size", |node| match value::size(node)? {
        size if size < 4096 => Err(Fault::new("must be at least 4k, a file of logs holds some lines")),
        size => Ok(size),
    });
    let max_files = keys.take("max_files", |node| value::whole(node, &1, &1000));
    let compress = keys.take("compress", value::boolean);
    keys.finish();
    Logging {
        max_size: max_size.unwrap_or(default.max_size),
        max_files: max_files.unwrap_or(default.max_files),
        compress: compress.unwrap_or(default.compress),
    }
}

fn restart(keys: &mut Keys<'_>, part: Part) -> Restart {
    let mut restart = Restart::default();
    if let Some((policy, attempts)) = keys.take("restart", restart_policy) {
        restart.policy = policy;
        restart.max_attempts = attempts;
    }
    let Some(mut nested) = keys.open_key("restart_policy") else { return restart };
    let delay = nested.take("delay", value::positive_duration);
    let max_delay = nested.take("max_delay", value::positive_duration);
    restart.delay = delay.unwrap_or(restart.delay);
    restart.max_delay = max_delay.unwrap_or(restart.max_delay.max(restart.delay));
    if restart.max_delay < restart.delay && part == Part::Whole {
        nested.report(nested.place(), "max_delay", Fault::new("must not be shorter than `delay`"));
    }
    if let Some(entry) = nested.entry("max_attempts")
        && restart.max_attempts.is_some()
    {
        let fault = Fault::new("is said twice: here and in `restart: on-failure:N`");
        nested.report(entry.place, "max_attempts", fault.hint("keep one of the two"));
    }
    let attempts = nested.take("max_attempts", |node| value::whole(node, &1, &1_000_000));
    restart.max_attempts = attempts.or(restart.max_attempts);
    restart.window = nested.take("window", value::duration).unwrap_or(restart.window);
    nested.finish();
    restart
}

fn restart_policy(node: &Node) -> Result<(RestartPolicy, Option<u32>), Fault> {
    if let Value::Scalar(scalar) = &node.value {
        if scalar.style == Style::Plain && ["false", "off", "No", "NO"].contains(&scalar.text.as_str()) {
            return Ok((RestartPolicy::No, None));
        }
        if let Some(attempts) = scalar.text.strip_prefix("on-failure:") {
            let attempts = value::decimal(attempts).filter(|attempts| *attempts > 0);
            let wrong = || Fault::new(format!("`{}` counts no attempts", node.shown())).hint("such as on-failure:5");
            return attempts.map(|attempts| (RestartPolicy::OnFailure, Some(attempts))).ok_or_else(wrong);
        }
    }
    value::one_of(node, &POLICIES).map(|policy| (policy, None))
}

fn depends_on(keys: &mut Keys<'_>) -> Option<Vec<DependencySettings>> {
    let entry = keys.entry("depends_on")?;
    let mut dependencies: BTreeMap<String, DependencySettings> = BTreeMap::new();
    let mut add = |text: &str, place: Place, condition: Condition, path: &str| match value::parse_name(text) {
        Ok(on) => {
            let known = dependencies.insert(text.to_owned(), DependencySettings { on, condition, place });
            if known.is_some() {
                keys.report(place, path, Fault::new(format!("`{text}` stands here twice")));
            }
        }
        Err(fault) => keys.report(place, path, fault),
    };
    match &entry.value.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("depends_on[{index}]");
                match value::name(item) {
                    Ok(name) => add(name.as_str(), item.place, Condition::ServiceStarted, &path),
                    Err(fault) => keys.report(item.place, &path, fault),
                }
            }
        }
        Value::Map(map) => {
            for item in map.iter() {
                let path = join("depends_on", &printable(&item.key));
                let mut condition = Condition::ServiceStarted;
                if let Some(mut nested) = keys.nested(&item.value, &path, &DEPENDENCY) {
                    condition = nested
                        .take("condition", |node| value::one_of(node, &CONDITIONS))
                        .unwrap_or(Condition::ServiceStarted);
                    nested.finish();
                }
                add(&item.key, item.place, condition, &path);
            }
        }
        Value::Scalar(_) => {
            let fault = Fault::new("must be a list of names or a map, this is a text");
            keys.report(entry.value.place, "depends_on", fault.hint("such as [chat_main]"));
        }
    }
    let mut dependencies: Vec<DependencySettings> = dependencies.into_values().collect();
    dependencies.sort_by_key(|dependency| dependency.place);
    Some(dependencies)
}
