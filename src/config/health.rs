//! Reads the keys of `healthcheck`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::instance::{Part, command};
use super::keys::{SCHEMES, UNHEALTHY};
use super::node::{Node, Value};
use super::problem::Fault;
use super::reader::{Keys, join, printable};
use super::settings::{HealthSettings, TestSettings};
use super::value;

/// A probe that takes longer tells nothing in time.
const MAX_TIMEOUT: Duration = Duration::from_mins(5);

/// The health check of the instance that `keys` reads; without one, a TCP check where there is a port.
pub fn read(keys: &mut Keys<'_>, part: Part) -> Option<HealthSettings> {
    // A port that was refused is a port all the same: one fault is enough.
    let has_port = keys.entry("port").is_some();
    let Some(mut keys) = keys.open_key("healthcheck") else {
        return has_port.then(HealthSettings::default);
    };
    let disabled = keys.take("disable", value::boolean).unwrap_or(false);
    let question = question(&mut keys, has_port, part);
    let settings = times(&mut keys);
    keys.finish();
    match question {
        _ if disabled => None,
        Question::Asked(test) => Some(HealthSettings { test, ..settings }),
        Question::None if has_port => Some(settings),
        Question::None | Question::Off => None,
    }
}

enum Question {
    None,
    Off,
    Asked(TestSettings),
}

fn question(keys: &mut Keys<'_>, has_port: bool, part: Part) -> Question {
    let asked: Vec<&'static str> =
        ["path", "tcp", "test"].into_iter().filter(|key| keys.entry(key).is_some()).collect();
    if let [first, second, ..] = *asked
        && let Some(entry) = keys.entry(second)
    {
        let fault = Fault::new(format!("a health check asks one question, and `{first}` asks one already"));
        keys.report(entry.place, second, fault.hint("keep one of path, tcp and test"));
    }
    let path = keys.take("path", path);
    let tcp = keys.take("tcp", |node| {
        let is_asked = value::boolean(node)?;
        let fault = || Fault::new("is true or not there").hint("`disable: true` takes the check away");
        is_asked.then_some(()).ok_or_else(fault)
    });
    let test = keys.entry("test").map(|entry| self::test(keys, &entry.value));
    let http = http(keys, path.clone(), asked.is_empty() && part == Part::Layer || asked.contains(&"path"));
    let needs_port = asked.first().filter(|key| **key != "test");
    if let Some(key) = needs_port
        && !has_port
        && part == Part::Whole
        && let Some(entry) = keys.entry(key)
    {
        let fault = Fault::new("asks at the port, and this instance has none");
        keys.report(
            entry.place,
            key,
            fault.hint("give it a port, a `test: [command]`, or `healthcheck: {disable: true}`"),
        );
        return Question::Off;
    }
    match (path, tcp, test) {
        (Some(_), ..) => Question::Asked(http),
        (None, Some(()), _) => Question::Asked(TestSettings::Tcp),
        (None, None, Some(Some(test))) => Question::Asked(TestSettings::Command(test)),
        (None, None, Some(None)) => Question::Off,
        (None, None, None) => Question::None,
    }
}

/// What a question by path looks like in full; reports its keys where no `path` is asked for.
fn http(keys: &mut Keys<'_>, path: Option<String>, is_asked: bool) -> TestSettings {
    if !is_asked {
        for key in ["scheme", "expect_status", "headers", "body"] {
            if let Some(entry) = keys.entry(key) {
                let fault = Fault::new("belongs to a check by `path`, and there is none here");
                keys.report(entry.place, key, fault.hint("add `path`, or take the key out"));
            }
        }
    }
    TestSettings::Http {
        scheme: keys.take("scheme", scheme).unwrap_or_else(|| "http".to_owned()),
        path: path.unwrap_or_default(),
        expect_status: keys.take("expect_status", status).unwrap_or((200, 299)),
        headers: headers(keys),
        body: keys.take("body", value::filled_text),
    }
}

/// A path at the instance's own address.
pub fn path(node: &Node) -> Result<String, Fault> {
    let text = value::filled_text(node)?;
    if text.contains("://") {
        let shown = node.shown();
        let path = shown.split_once("://").and_then(|(_, rest)| rest.find('/').and_then(|slash| rest.get(slash..)));
        let fault = Fault::new("is a URL; host and port are the instance's own");
        return Err(fault.hint(format!("the path alone: {}", path.unwrap_or("/"))));
    }
    if !text.starts_with(['/', '{']) {
        let shown = node.shown();
        return Err(Fault::new(format!("`{shown}` is no path")).hint(format!("it begins with a slash: /{shown}")));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Fault::new("holds spaces or control characters").hint("write a space as %20"));
    }
    Ok(text)
}

fn scheme(node: &Node) -> Result<String, Fault> {
    let scheme = value::one_of(node, &SCHEMES)?;
    if scheme == "https" && !cfg!(feature = "tls") {
        let fault = Fault::new("https needs a laneway built with the cargo feature `tls`");
        return Err(fault.hint("cargo install laneway --features tls"));
    }
    Ok(scheme.to_owned())
}

/// `204`, `200-299`.
fn status(node: &Node) -> Result<(u16, u16), Fault> {
    let text = value::text(node)?;
    let (least, most) = text.split_once('-').unwrap_or((&text, &text));
    let code = |text: &str| value::decimal(text.trim()).filter(|code| (100..600).contains(code));
    match (code(least), code(most)) {
        (Some(least), Some(most)) if least <= most => Ok((least, most)),
        _ => Err(Fault::new(format!("`{}` is no status and no range of them", node.shown()))
            .hint("such as 204, 200-299 or 200-399")),
    }
}

/// The headers below the key `headers`.
pub fn headers(keys: &mut Keys<'_>) -> BTreeMap<String, String> {
    let Some(entry) = keys.entry("headers") else { return BTreeMap::new() };
    let Some(map) = entry.value.as_map() else {
        let fault = Fault::new(format!("must be a map, this is {}", entry.value.kind()));
        keys.report(entry.value.place, "headers", fault.hint("such as {Host: example.org}"));
        return BTreeMap::new();
    };
    let mut headers = BTreeMap::new();
    for item in map.iter() {
        let path = join("headers", &printable(&item.key));
        if item.key.is_empty() || !item.key.bytes().all(is_token) {
            keys.report(item.place, &path, Fault::new("is no name of a header"));
            continue;
        }
        match value::text(&item.value) {
            Ok(text) if text.contains(char::is_control) => {
                keys.report(item.value.place, &path, Fault::new("holds a line break or another control character"));
            }
            Ok(text) => {
                headers.insert(item.key.clone(), text);
            }
            Err(fault) => keys.report(item.value.place, &path, fault),
        }
    }
    headers
}

/// The characters of an HTTP token, which names of headers and of cookies are made of.
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A command, also with Compose's first words `CMD`, `CMD-SHELL` and `NONE`.
fn test(keys: &Keys<'_>, node: &Node) -> Option<Vec<String>> {
    if let Value::Scalar(_) = node.value {
        let fault = Fault::new("must be a list, this is a text");
        keys.report(
            node.place,
            "test",
            fault.hint("write [program, argument], or [CMD-SHELL, \"a line for the shell\"]"),
        );
        return None;
    }
    let mut words = command(keys, node, "test")?;
    let first_word = words.first().map_or("", String::as_str);
    if first_word == "NONE" {
        return None;
    }
    // An item that was refused is an item all the same.
    let is_alone = matches!(&node.value, Value::List(items) if items.len() == 1);
    if ["CMD", "CMD-SHELL"].contains(&first_word) && is_alone {
        keys.report(node.place, "test", Fault::new("names no program"));
        return None;
    }
    match first_word {
        "CMD" => words.remove(0).clear(),
        "CMD-SHELL" => drop(words.splice(0..1, ["/bin/sh".to_owned(), "-c".to_owned()])),
        _ => {}
    }
    Some(words)
}

fn times(keys: &mut Keys<'_>) -> HealthSettings {
    let default = HealthSettings::default();
    let timeout = keys.take("timeout", |node| match value::positive_duration(node)? {
        timeout if timeout > MAX_TIMEOUT => Err(Fault::new("must not be longer than 5m")),
        timeout => Ok(timeout),
    });
    let on_unhealthy = keys.take("on_unhealthy", |node| value::one_of(node, &UNHEALTHY));
    HealthSettings {
        test: TestSettings::Tcp,
        interval: keys.take("interval", value::positive_duration).unwrap_or(default.interval),
        timeout: timeout.unwrap_or(default.timeout),
        retries: keys.take("retries", |node| value::whole(node, &1, &1000)).unwrap_or(default.retries),
        start_period: keys.take("start_period", value::duration).unwrap_or(default.start_period),
        start_interval: keys.take("start_interval", value::positive_duration).unwrap_or(default.start_interval),
        restart_unhealthy: on_unhealthy.unwrap_or(default.restart_unhealthy),
    }
}
