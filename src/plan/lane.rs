//! What placeholders stand for in one instance, and where a wrong one is reported.
//!
//! `{host}` is the plain address; before a `:` an IPv6 address gets its brackets, so that `{host}:{port}` is right for both.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::{Collector, Fault, Instance, Place, Settings, nearest_name, tidy};

use super::placeholder::expand;

/// The names, for suggestions.
const NAMES: [&str; 9] = ["instance", "lane", "project", "port", "host", "state", "state_dir", "root", "profile"];

/// One instance in its lane: fills templates.
pub struct Lane<'a> {
    /// The whole.
    pub settings: &'a Settings,
    /// Whose templates are filled.
    pub instance: &'a Instance,
    /// The instance that owns the lane; the same, unless `lane:` says otherwise.
    pub owner: &'a Instance,
    /// Where wrong ones are reported.
    pub collector: &'a Collector,
}

impl Lane<'_> {
    /// `{lane}`: the owner's name, the namespace before it.
    pub fn name(&self) -> String {
        let owner = &self.owner.name;
        match &self.settings.namespace {
            Some(namespace) => format!("{namespace}_{owner}"),
            None => owner.to_string(),
        }
    }

    /// `{state}`: the lane's directory.
    pub fn state(&self) -> PathBuf {
        self.settings.state_dir.join(self.name())
    }

    /// `template` filled in; what is wrong with it is reported at `key`.
    pub fn fill(&self, key: &str, template: &str) -> String {
        self.filled(|| self.instance.origin(key), key, template)
    }

    /// The same where the place is known better.
    pub fn fill_at(&self, place: Place, key: &str, template: &str) -> String {
        self.filled(|| place, key, template)
    }

    fn filled(&self, place: impl Fn() -> Place, key: &str, template: &str) -> String {
        match expand(template, &|name, after| self.value(name, after)) {
            Ok(filled) => filled,
            Err(bad) => {
                let place = place();
                for bad in bad {
                    let written = format!("{{{}}}", bad.name);
                    let found = self.collector.sources.slice(place).find(&written);
                    let place =
                        found.map_or(place, |offset| self.collector.sources.within(place, offset, written.len()));
                    if let Some(fault) = self.fault(&bad.name) {
                        self.report(place, key, fault);
                    }
                }
                template.to_owned()
            }
        }
    }

    /// `template` as an absolute path, relative to the file's folder.
    pub fn path(&self, key: &str, template: &str) -> PathBuf {
        tidy(&self.settings.root.join(self.fill(key, template)))
    }

    /// Reports `fault` of `key`.
    pub fn report(&self, place: Place, key: &str, fault: Fault) {
        self.collector.report(place, &format!("instances.{}.{key}", self.instance.name), fault);
    }

    fn value(&self, name: &str, after: &str) -> Option<String> {
        let instance = self.instance;
        match name {
            "instance" => Some(instance.name.to_string()),
            "lane" => Some(self.name()),
            "project" => Some(self.settings.project.clone()),
            "port" => instance.port.map(|port| port.to_string()),
            "host" => Some(match instance.host {
                IpAddr::V6(host) if after.starts_with(':') => format!("[{host}]"),
                host => host.to_string(),
            }),
            "state" => Some(self.state().display().to_string()),
            "state_dir" => Some(self.settings.state_dir.display().to_string()),
            "root" => Some(self.settings.root.display().to_string()),
            "profile" => Some(self.settings.profile.clone().unwrap_or_default()),
            _ => None,
        }
    }

    fn fault(&self, name: &str) -> Option<Fault> {
        if name == "port" {
            // A port that was refused has been reported.
            let is_refused = self.instance.origins.contains_key("port");
            let fault = Fault::new("`{port}` stands here, and this instance has no port");
            return (!is_refused).then(|| fault.hint("give it a `port`, or write `{{port}` for the literal text"));
        }
        let hint = match nearest_name(name, NAMES) {
            Some(nearest) => format!("did you mean `{{{nearest}}}`?"),
            None => format!("known are {}; a literal brace is written {{{{", NAMES.join(", ")),
        };
        Some(Fault::new(format!("`{{{name}}}` is no placeholder")).hint(hint))
    }
}
