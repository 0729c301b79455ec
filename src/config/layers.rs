//! Several documents and a profile to one map per instance. Knows the shape of a file, not the keys of an instance.
//!
//! The rule: **what is said of one instance beats what is said of all; among equals the later beats the earlier**, and the
//! order is: the file, its profile, each `-f` overlay in turn with its own profile, each `--set`. So, lowest first:
//! defaults, profile defaults, overlay defaults, instance, profile instance, overlay instance, `--set instances.x...`.
//! Maps merge deep, lists and single values replace, `~` sets back to laneway's own default. A list of `K=V` in
//! `environment` counts as a map. A health check is one question: a layer that asks another one replaces it.

use std::collections::HashSet;

use super::dotenv::is_variable_name;
use super::near::did_you_mean;
use super::node::{Entry, Map, Node, Scalar, Style, Value};
use super::problem::{Collector, Fault, Place};
use super::reader::printable;
use super::settings::Part;

/// Far above what 2000 instances need.
const MAX_NODES: usize = 1_000_000;
/// More is a mistake.
const MAX_INSTANCES: usize = 2000;
/// The questions of a health check; a layer asks one of them.
const QUESTIONS: [&str; 4] = ["path", "tcp", "test", "disable"];
/// What belongs to the question `path` only.
const PATH_ONLY: [&str; 4] = ["expect_status", "headers", "body", "scheme"];

/// All documents as one.
pub struct Layered {
    /// The whole, before any profile.
    pub whole: Node,
    /// In the order of the files.
    pub instances: Vec<LayeredInstance>,
    /// What of the files is said of more than one instance, or by the profile.
    pub parts: Vec<Part>,
}

/// One instance, all layers merged.
pub struct LayeredInstance {
    /// The key under `instances`.
    pub name: String,
    /// Where that key stands first.
    pub place: Place,
    /// Everything that is said of it, the defaults below.
    pub merged: Node,
    /// What is said of it alone.
    pub own: Node,
}

/// A document and how it came.
pub struct Document {
    /// Its content, a map.
    pub root: Node,
    /// Whether it is a `--set`, which changes instances and makes none.
    pub is_set: bool,
}

/// Lays `documents` over each other, and `profile` over each of them.
pub fn layer(mut documents: Vec<Document>, profile: Option<&str>, collector: &Collector) -> Option<Layered> {
    for document in &mut documents {
        level_environments(&mut document.root, collector);
    }
    let mut roots = documents.iter().map(|document| &document.root);
    let first = roots.next()?.clone();
    let whole = roots.fold(first, |lower, upper| merge(&lower, upper));
    let known = check_names(&documents, collector)?;

    // Each document, then its profile.
    let sheets: Vec<&Node> = documents
        .iter()
        .flat_map(|document| [Some(&document.root), profile.and_then(|name| down(&document.root, &["profiles", name]))])
        .flatten()
        .collect();
    let all = |path: &[&str]| {
        let nodes = sheets.iter().filter_map(|sheet| down(sheet, path)).filter(|node| !node.is_null());
        nodes.fold(None, |lower: Option<Node>, upper| {
            Some(lower.map_or_else(|| upper.clone(), |lower| merge(&lower, upper)))
        })
    };
    let defaults = all(&["defaults"]).unwrap_or_else(|| Node::empty_map(whole.place));
    let names: Vec<&Entry> =
        down(&whole, &["instances"]).and_then(Node::as_map).map(|map| map.iter().collect()).unwrap_or_default();
    let size = defaults.count();
    if size.saturating_mul(names.len()) > MAX_NODES {
        let what = format!("{} instances with {size} values of defaults each are more than {MAX_NODES}", names.len());
        collector.report(defaults.place, "defaults", Fault::new(what));
        return None;
    }
    let instances = names
        .into_iter()
        .filter(|entry| known.contains(&entry.key))
        .map(|entry| {
            let own = all(&["instances", &entry.key]).unwrap_or_else(|| Node::empty_map(entry.place));
            let merged = if own.as_map().is_some() { merge(&defaults, &own) } else { own.clone() };
            LayeredInstance { name: entry.key.clone(), place: entry.place, merged, own }
        })
        .collect();
    let parts = parts(&documents, profile);
    Some(Layered { whole, instances, parts })
}

/// Which stretches of the files are `defaults`, or the profile's.
fn parts(documents: &[Document], profile: Option<&str>) -> Vec<Part> {
    let mut parts = Vec::new();
    for Document { root, .. } in documents.iter().filter(|document| !document.is_set) {
        let mut add = |path: &[&str], words: String| {
            parts.extend(down(root, path).map(|node| Part { place: stretch(node), words }));
        };
        add(&["defaults"], "defaults".to_owned());
        if let Some(profile) = profile {
            add(&["profiles", profile, "defaults"], format!("defaults of the profile {profile}"));
            add(&["profiles", profile, "instances"], format!("profile {profile}"));
        }
    }
    parts
}

/// From the start of `node` to the end of the last value in it; what an alias brought stands before it, and does not count.
fn stretch(node: &Node) -> Place {
    fn end(node: &Node, start: Place) -> u32 {
        let own = if (node.place.file, node.place.start) < (start.file, start.start) { 0 } else { node.place.end };
        let below = match &node.value {
            Value::Scalar(_) => None,
            Value::List(items) => items.iter().map(|item| end(item, start)).max(),
            Value::Map(map) => map.iter().map(|entry| end(&entry.value, start)).max(),
        };
        own.max(below.unwrap_or(0))
    }
    Place { end: end(node, node.place), ..node.place }
}

/// The value at `path` below `node`.
pub fn down<'a>(node: &'a Node, path: &[&str]) -> Option<&'a Node> {
    path.iter().try_fold(node, |node, key| node.as_map()?.get(key))
}

fn merge(lower: &Node, upper: &Node) -> Node {
    let (Value::Map(below), Value::Map(above)) = (&lower.value, &upper.value) else {
        return upper.clone();
    };
    let mut map = below.clone();
    for entry in above.iter() {
        let value = match below.get(&entry.key) {
            Some(under) if entry.key == "healthcheck" => {
                merge(&without_other_questions(under, &entry.value), &entry.value)
            }
            Some(under) => merge(under, &entry.value),
            None => entry.value.clone(),
        };
        map.insert(Entry { key: entry.key.clone(), place: entry.place, value });
    }
    Node { place: lower.place, value: Value::Map(map) }
}

fn without_other_questions(lower: &Node, upper: &Node) -> Node {
    let mut lower = lower.clone();
    let asks = |key: &str| upper.as_map().is_some_and(|map| map.get(key).is_some());
    if let Value::Map(map) = &mut lower.value
        && QUESTIONS.iter().any(|question| asks(question))
    {
        map.remove(&QUESTIONS);
        if !asks("path") {
            map.remove(&PATH_ONLY);
        }
    }
    lower
}

/// Profiles and `--set` change instances and make none; too many instances are refused here, before they cost anything.
fn check_names(documents: &[Document], collector: &Collector) -> Option<HashSet<String>> {
    let made: Vec<&Entry> = documents
        .iter()
        .filter(|document| !document.is_set)
        .filter_map(|document| down(&document.root, &["instances"])?.as_map())
        .flat_map(Map::iter)
        .collect();
    if let Some(entry) = made.get(MAX_INSTANCES) {
        let fault = Fault::new(format!("there are {} instances, at most {MAX_INSTANCES} are taken", made.len()));
        collector.report(entry.place, "instances", fault);
        return None;
    }
    let known: HashSet<String> = made.iter().map(|entry| entry.key.clone()).collect();
    let check = |map: &Map, path: &str| {
        for entry in map.iter().filter(|entry| !known.contains(&entry.key)) {
            let what = format!("there is no instance `{}` to change", printable(&entry.key));
            let fault = Fault { what, hint: did_you_mean(&entry.key, known.iter().map(String::as_str)) };
            collector.report(entry.place, path, fault);
        }
    };
    for document in documents {
        if document.is_set
            && let Some(map) = down(&document.root, &["instances"]).and_then(Node::as_map)
        {
            check(map, "instances");
        }
        for profile in down(&document.root, &["profiles"]).and_then(Node::as_map).into_iter().flat_map(Map::iter) {
            if let Some(map) = down(&profile.value, &["instances"]).and_then(Node::as_map) {
                check(map, &format!("profiles.{}.instances", printable(&profile.key)));
            }
        }
    }
    Some(known)
}

/// Makes every `environment` list of a document a map, so that layers in either form merge.
fn level_environments(root: &mut Node, collector: &Collector) {
    fn each_instance(sheet: &mut Node, path: &str, collector: &Collector) {
        let Value::Map(map) = &mut sheet.value else { return };
        if let Some(defaults) = map.get_mut("defaults") {
            level(defaults, &format!("{path}defaults"), collector);
        }
        if let Some(Value::Map(instances)) = map.get_mut("instances").map(|node| &mut node.value) {
            for (key, node) in instances.iter_mut() {
                level(node, &format!("{path}instances.{}", printable(key)), collector);
            }
        }
    }
    each_instance(root, "", collector);
    if let Value::Map(map) = &mut root.value
        && let Some(Value::Map(profiles)) = map.get_mut("profiles").map(|node| &mut node.value)
    {
        for (key, node) in profiles.iter_mut() {
            each_instance(node, &format!("profiles.{}.", printable(key)), collector);
        }
    }
}

fn level(instance: &mut Node, path: &str, collector: &Collector) {
    let Value::Map(map) = &mut instance.value else { return };
    let Some(environment) = map.get_mut("environment") else { return };
    let Value::List(items) = &environment.value else { return };
    let mut level = Map::default();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}.environment[{index}]");
        let Value::Scalar(Scalar { text, style }) = &item.value else {
            let fault = Fault::new(format!("must be a text `KEY=value`, this is {}", item.kind()));
            collector.report(item.place, &path, fault.hint("or write `environment` as a map"));
            continue;
        };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Node::text(item.place, value)),
            // A bare name is taken from the caller, as null is in a map.
            None => (
                text.as_str(),
                Node { place: item.place, value: Value::Scalar(Scalar { text: String::new(), style: Style::Plain }) },
            ),
        };
        if *style == Style::Filled && !is_variable_name(key) {
            // Not quoted as a key: it may be a secret.
            let fault = Fault::new(format!("`{}` comes to no `KEY=value`", item.shown()));
            collector.report(item.place, &path, fault);
        } else if let Some(first) = level.entry(key) {
            let what = format!("`{}` stands twice in this list, first in line {}", printable(key), first.place.line);
            collector.report(item.place, &path, Fault::new(what).hint("keep one of the two"));
        } else {
            level.insert(Entry { key: key.to_owned(), place: item.place, value });
        }
    }
    environment.value = Value::Map(level);
}
