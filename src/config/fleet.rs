//! Reads the keys of the whole file, and looks at what instances must be to each other: names, lanes, presets, profiles.
//!
//! Takes the layered documents, gives the settings; reads every layer, also those that another one hides.

use std::collections::{BTreeMap, HashMap};

use super::instance::{self, LANE_KEYS, Part};
use super::keys::{FILE, INSTANCE, PRESET, PROFILE};
use super::layers::{Layered, LayeredInstance, down};
use super::near::did_you_mean;
use super::node::{Map, Node, Value};
use super::problem::{Collector, Fault, Place};
use super::reader::{Keys, Scope, printable};
use super::settings::{Brake, Instance, Preset};
use super::value;
use super::verbs::RESERVED_VERBS;
use crate::model::InstanceName;

/// What the file says as a whole.
pub struct Fleet {
    /// `name`.
    pub name: Option<InstanceName>,
    /// `namespace`.
    pub namespace: Option<InstanceName>,
    /// `state_dir`, as written.
    pub state_dir: Option<String>,
    /// `restart_brake`.
    pub restart_brake: Option<Brake>,
    /// `presets`.
    pub presets: BTreeMap<String, Preset>,
    /// The names under `profiles`.
    pub profiles: Vec<String>,
    /// `instances`.
    pub instances: Vec<Instance>,
}

/// Reads the layered documents. `inherit` gives the value of a variable that is written without one.
pub fn read(
    layered: &Layered,
    profile: Option<&str>,
    inherit: &dyn Fn(&str) -> Option<String>,
    collector: &Collector,
) -> Option<Fleet> {
    let scope = Scope::new(collector, "");
    let mut keys = Keys::open(&scope, &layered.whole, "", &FILE)?;
    keys.take("version", version);
    let name = keys.take("name", value::name);
    let namespace = keys.take("namespace", value::name);
    let state_dir = keys.take("state_dir", value::filled_text);
    let restart_brake = brake(&mut keys);

    // First each layer by itself, so that a fault has the path under which it is written, also where another layer hides it.
    layer_faults(keys.entry("defaults").map(|entry| &entry.value), "defaults", inherit, collector);
    let profiles = profiles(&mut keys, profile, inherit, collector);

    let instances_place = keys.entry("instances").map(|entry| (entry.place, entry.value.as_map().map(Map::len)));
    match instances_place {
        None => {
            let fault = Fault::new("there are no instances").hint(super::disk::MINIMAL);
            keys.report(keys.place(), "instances", fault);
        }
        Some((place, Some(0))) => keys.report(place, "instances", Fault::new("there are no instances")),
        Some((place, None)) => {
            keys.report(place, "instances", Fault::new("must be a map from names to instances"));
        }
        Some((_, Some(_))) => {}
    }
    let instances: Vec<Instance> =
        layered.instances.iter().filter_map(|layered| read_instance(layered, inherit, collector)).collect();
    check_lanes(layered, &instances, collector);
    check_dependencies(&instances, collector);
    let presets = presets(&mut keys, layered, &profiles, collector);
    keys.finish();
    Some(Fleet { name, namespace, state_dir, restart_brake, presets, profiles, instances })
}

fn version(node: &Node) -> Result<(), Fault> {
    if value::text(node)? == "1" {
        Ok(())
    } else {
        Err(Fault::new(format!("the version `{}` is not known", node.shown())).hint("the version is 1"))
    }
}

fn brake(keys: &mut Keys<'_>) -> Option<Brake> {
    let default = Brake::default();
    let Some(entry) = keys.entry("restart_brake") else { return Some(default) };
    if let Value::Scalar(scalar) = &entry.value.value {
        if !["off", "false"].contains(&scalar.text.as_str()) {
            let fault =
                Fault::new(format!("`{}` is no brake", entry.value.shown())).hint("{starts: 10, per: 1s}, or off");
            keys.report(entry.value.place, "restart_brake", fault);
        }
        return None;
    }
    let mut nested = keys.open_key("restart_brake")?;
    let starts = nested.take("starts", |node| value::whole(node, &1, &10_000)).unwrap_or(default.starts);
    let per = nested.take("per", value::positive_duration).unwrap_or(default.per);
    nested.finish();
    Some(Brake { starts, per })
}

/// Reads one layer for its faults only.
fn layer_faults(node: Option<&Node>, path: &str, inherit: &dyn Fn(&str) -> Option<String>, collector: &Collector) {
    let Some(node) = node else { return };
    let scope = Scope::new(collector, path);
    let Ok(name) = InstanceName::parse("defaults") else { return };
    if let Some(mut keys) = Keys::open(&scope, node, "", &INSTANCE) {
        instance::read(&mut keys, &mut Instance::new(name, node.place), inherit, Part::Layer);
        keys.finish();
    }
}

/// The names of all profiles; each is read for its faults, the chosen one must exist.
fn profiles(
    keys: &mut Keys<'_>,
    chosen: Option<&str>,
    inherit: &dyn Fn(&str) -> Option<String>,
    collector: &Collector,
) -> Vec<String> {
    let mut names = Vec::new();
    let nested = keys.open_key("profiles");
    let map = keys.entry("profiles").and_then(|entry| entry.value.as_map());
    for (nested, entry) in
        nested.iter().flat_map(|nested| map.iter().flat_map(move |map| map.iter().map(move |entry| (nested, entry))))
    {
        let shown = printable(&entry.key);
        if let Err(fault) = value::parse_name(&entry.key) {
            nested.report(entry.place, &shown, fault);
        }
        names.push(entry.key.clone());
        let Some(mut sheet) = nested.nested(&entry.value, &shown, &PROFILE) else { continue };
        let defaults = sheet.entry("defaults").map(|entry| &entry.value);
        layer_faults(defaults, &format!("profiles.{shown}.defaults"), inherit, collector);
        let instances = sheet.entry("instances").map(|entry| &entry.value);
        match instances.map(|node| (node, node.as_map())) {
            Some((_, Some(map))) => {
                for entry in map.iter() {
                    let path = format!("profiles.{shown}.instances.{}", printable(&entry.key));
                    layer_faults(Some(&entry.value), &path, inherit, collector);
                }
            }
            Some((node, None)) => {
                sheet.report(node.place, "instances", Fault::new("must be a map from names to values"));
            }
            None => {}
        }
        sheet.finish();
    }
    if let Some(chosen) = chosen.filter(|chosen| !names.iter().any(|name| name == chosen)) {
        let known =
            if names.is_empty() { "there are none".to_owned() } else { format!("known are {}", names.join(", ")) };
        let fault = Fault::new(format!("there is no profile `{}`", printable(chosen))).hint(known);
        collector.report_file(collector.sources.name(keys.place()), fault);
    }
    names
}

fn read_instance(
    layered: &LayeredInstance,
    inherit: &dyn Fn(&str) -> Option<String>,
    collector: &Collector,
) -> Option<Instance> {
    let name = match value::parse_name(&layered.name) {
        Ok(name) => name,
        Err(fault) => {
            collector.report(layered.place, "instances", fault);
            return None;
        }
    };
    if name.as_str() == "access" {
        let what = "an instance cannot be called `access`: its log would have the name of the access log";
        collector.report(layered.place, "instances", Fault::new(what).hint("`access_1` would be a name"));
    }
    let scope = Scope::new(collector, format!("instances.{name}"));
    let mut instance = Instance::new(name, layered.place);
    // What is no map was reported, and is an instance all the same: others may name it.
    if let Some(mut keys) = Keys::open(&scope, &layered.merged, "", &INSTANCE) {
        instance::read(&mut keys, &mut instance, inherit, Part::Whole);
        keys.finish();
    }
    instance.origins = scope.into_origins();
    // What prepares a lane is done by its owner: a guest that inherits it would migrate the same database beside it.
    let is_own = layered.own.as_map().is_some_and(|own| own.entry("pre_start").is_some());
    if instance.lane.is_some() && !is_own {
        instance.pre_start.clear();
        instance.origins.retain(|path, _| path != "pre_start" && !path.starts_with("pre_start["));
    }
    Some(instance)
}

/// `lane:` names an instance with a lane of its own, and a guest brings none of what belongs to a lane.
fn check_lanes(layered: &Layered, instances: &[Instance], collector: &Collector) {
    let by_name: HashMap<&str, &Instance> = instances.iter().map(|i| (i.name.as_str(), i)).collect();
    let own: HashMap<&str, &Node> = layered.instances.iter().map(|i| (i.name.as_str(), &i.own)).collect();
    for guest in instances {
        let Some(lane) = &guest.lane else { continue };
        let path = format!("instances.{}.lane", guest.name);
        let report = |fault| collector.report(guest.origin("lane"), &path, fault);
        match by_name.get(lane.as_str()) {
            None => report(Fault {
                what: format!("there is no instance `{lane}`"),
                hint: did_you_mean(lane.as_str(), by_name.keys().copied()),
            }),
            Some(owner) if owner.name == guest.name => {
                report(Fault::new("names the instance itself").hint("every instance has a lane; take the key out"));
            }
            Some(owner) => {
                if let Some(next) = &owner.lane {
                    let fault = Fault::new(format!("`{lane}` has no lane of its own, it lives in that of `{next}`"));
                    report(fault.hint(format!("write `lane: {next}`")));
                }
            }
        }
        for key in LANE_KEYS {
            if let Some(entry) = own.get(guest.name.as_str()).and_then(|own| own.as_map()?.entry(key)) {
                let fault = Fault::new(format!("belongs to the lane of `{lane}`, in which this instance lives"));
                let path = format!("instances.{}.{key}", guest.name);
                collector.report(entry.place, &path, fault.hint(format!("write it at instances.{lane}")));
            }
        }
    }
}

fn check_dependencies(instances: &[Instance], collector: &Collector) {
    let names: std::collections::HashSet<&str> = instances.iter().map(|instance| instance.name.as_str()).collect();
    for instance in instances {
        for dependency in instance.depends_on.iter().filter(|dependency| !names.contains(dependency.on.as_str())) {
            let fault = Fault {
                what: format!("there is no instance `{}`", dependency.on),
                hint: did_you_mean(dependency.on.as_str(), names.iter().copied()),
            };
            collector.report(dependency.place, &format!("instances.{}.depends_on", instance.name), fault);
        }
    }
}

fn presets(
    keys: &mut Keys<'_>,
    layered: &Layered,
    profiles: &[String],
    collector: &Collector,
) -> BTreeMap<String, Preset> {
    let mut presets = BTreeMap::new();
    let Some(nested) = keys.open_key("presets") else { return presets };
    let Some(map) = down(&layered.whole, &["presets"]).and_then(Node::as_map) else { return presets };
    let names: Vec<&str> = layered.instances.iter().map(|instance| instance.name.as_str()).collect();
    for entry in map.iter() {
        let shown = printable(&entry.key);
        if let Some(fault) = preset_name(&entry.key, &names) {
            nested.report(entry.place, &shown, fault);
        }
        let scope = Scope::new(collector, format!("presets.{shown}"));
        let (list, path, profile) = match &entry.value.value {
            Value::Map(_) => {
                let Some(mut preset) = Keys::open(&scope, &entry.value, "", &PRESET) else { continue };
                let profile = preset.take("profile", |node| {
                    let profile = value::text(node)?;
                    if profiles.contains(&profile) {
                        return Ok(profile);
                    }
                    let hint = did_you_mean(&profile, profiles.iter().map(String::as_str));
                    Err(Fault { what: format!("there is no profile `{}`", printable(&node.shown())), hint })
                });
                let list = preset.entry("instances").map(|entry| &entry.value);
                preset.finish();
                (list, "instances", profile)
            }
            Value::List(_) | Value::Scalar(_) => (Some(&entry.value), "", None),
        };
        let instances = preset_instances(&scope, list, entry.place, path, &names);
        presets.insert(entry.key.clone(), Preset { instances, profile });
    }
    presets
}

fn preset_name(name: &str, instances: &[&str]) -> Option<Fault> {
    if RESERVED_VERBS.contains(&name) {
        return Some(Fault::new("is a verb of laneway").hint(format!("such as `{name}-all`")));
    }
    if instances.contains(&name) {
        return Some(Fault::new("is the name of an instance").hint(format!("such as `{name}-all`")));
    }
    value::parse_name(name).err()
}

fn preset_instances(
    scope: &Scope<'_>,
    list: Option<&Node>,
    place: Place,
    path: &str,
    names: &[&str],
) -> Vec<InstanceName> {
    let Some(Value::List(items)) = list.map(|node| &node.value) else {
        let place = list.map_or(place, |node| node.place);
        scope.report(place, path, Fault::new("must be a list of instances").hint("such as [chat_main, chat_api]"));
        return Vec::new();
    };
    if items.is_empty() {
        scope.report(place, path, Fault::new("names no instance"));
    }
    let mut chosen: Vec<(usize, InstanceName)> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let name = match value::text(item) {
            Ok(name) => name,
            Err(fault) => {
                scope.report(item.place, &path, fault);
                continue;
            }
        };
        match (names.iter().position(|known| *known == name), InstanceName::parse(&name)) {
            (Some(position), Ok(_)) if chosen.iter().any(|(other, _)| *other == position) => {
                scope.report(item.place, &path, Fault::new(format!("`{name}` stands here twice")));
            }
            (Some(position), Ok(name)) => chosen.push((position, name)),
            // An instance whose name is refused was reported where it is defined.
            (Some(_), Err(_)) => {}
            (None, _) => {
                let hint = did_you_mean(&name, names.iter().copied());
                scope.report(
                    item.place,
                    &path,
                    Fault { what: format!("there is no instance `{}`", printable(&item.shown())), hint },
                );
            }
        }
    }
    chosen.sort();
    chosen.into_iter().map(|(_, name)| name).collect()
}
