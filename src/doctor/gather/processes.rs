//! The processes of the lanes: which, what they were started with, what they have open, where they listen.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::doctor::evidence::{Listening, OpenFile, Process};
use crate::plan::spec::Spec;
use crate::runtime::processes::{self, Descriptors};
use crate::runtime::sockets::{self, Listener};
use crate::runtime::tree;
use crate::view::snapshot::FleetStatus;

/// The processes of each instance, the first one first: those that the status names, those with the marker of a run, and
/// all that descend from them.
pub fn of_fleet(fleet: Option<&str>, status: &FleetStatus, specs: &[&Spec]) -> Vec<Vec<Process>> {
    let place: HashMap<&str, usize> = specs.iter().enumerate().map(|(at, spec)| (spec.name.as_str(), at)).collect();
    let mut owner: HashMap<u32, usize> = HashMap::new();
    let mut first: HashSet<u32> = HashSet::new();
    for instance in &status.instances {
        if let (Some(pid), Some(at)) = (instance.pid, place.get(instance.name.as_str())) {
            owner.insert(pid, *at);
            first.insert(pid);
        }
    }
    for (label, pid) in fleet.map(tree::labelled).unwrap_or_default() {
        if let Some(at) = place.get(instance_of(&label)) {
            owner.insert(pid, *at);
        }
    }
    let all: Vec<_> = processes::all().into_iter().filter(processes::Process::is_alive).collect();
    let parents: HashMap<u32, u32> = all.iter().map(|process| (process.pid, process.parent)).collect();
    let mut found: Vec<Vec<Process>> = specs.iter().map(|_| Vec::new()).collect();
    for process in &all {
        let mut line = vec![process.pid];
        let at = loop {
            let Some(pid) = line.last() else { break None };
            if let Some(at) = owner.get(pid) {
                break Some(*at);
            }
            match parents.get(pid) {
                Some(parent) if !line.contains(parent) => line.push(*parent),
                _ => break None,
            }
        };
        if let Some(processes) = at.and_then(|at| found.get_mut(at)) {
            processes.push(look(process.pid));
        }
    }
    for processes in &mut found {
        processes.sort_by_key(|process| (!first.contains(&process.pid), process.pid));
    }
    found
}

/// The instance in the label of a run, which ends with its generation.
fn instance_of(label: &str) -> &str {
    label.rsplit_once('-').map_or(label, |(name, _)| name)
}

fn look(pid: u32) -> Process {
    let Descriptors { files, sockets } = processes::descriptors(pid);
    let files = files.into_iter().filter_map(|(path, writes)| open_file(path, writes)).collect();
    let command = processes::command_line(pid);
    Process { pid, command, environment: processes::environment(pid), files, sockets, has_other_secret: false }
}

/// The file as the disk knows it; `None` if it is gone by now.
pub fn open_file(path: std::path::PathBuf, writes: bool) -> Option<OpenFile> {
    let metadata = fs::metadata(&path).ok()?;
    Some(OpenFile { path, identity: (metadata.dev(), metadata.ino()), writes })
}

/// Who listens on a port of the fleet, and where else instances listen.
pub fn listeners(fleet: Option<&str>, specs: &[&Spec], found: &[Vec<Process>]) -> Vec<Listening> {
    let mut holders: HashMap<u64, (usize, &Process)> = HashMap::new();
    for (at, processes) in found.iter().enumerate() {
        for process in processes {
            holders.extend(process.sockets.iter().map(|socket| (*socket, (at, process))));
        }
    }
    let ports: HashSet<u16> = specs.iter().filter_map(|spec| spec.facts.port).collect();
    let listeners = sockets::all_listeners().unwrap_or_default();
    let seen = listeners.into_iter().filter_map(|listener| {
        let Listener { address, inode, uid } = listener;
        match holders.get(&u64::from(inode)) {
            Some((at, process)) => Some(Listening {
                address,
                pid: Some(process.pid),
                command: process.command.clone(),
                instance: specs.get(*at).map(|spec| spec.name.to_string()),
            }),
            None if ports.contains(&address.port()) => {
                let pid = processes::socket_holder(inode);
                let command = pid.map_or_else(|| format!("a process of user {uid}"), processes::command_line);
                // A server of ours that was not asked for: nobody looks at what runs, or laneway itself was killed.
                let label = fleet.zip(pid).and_then(|(fleet, pid)| {
                    processes::started_with(pid, &format!("{}={fleet}:", crate::runtime::spawn::MARKER))
                });
                Some(Listening { address, pid, command, instance: label.map(|label| instance_of(&label).to_owned()) })
            }
            None => None,
        }
    });
    seen.collect()
}
