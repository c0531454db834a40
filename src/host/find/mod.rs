//! Finds network namespaces: through a process in it (`/proc/PID/ns/net`), through a bind mount (`/run/netns`), or
//! both.
//!
//! If a namespace of the last sweep is not found, it is gone only if every location that led to it could be read.
//! Otherwise it is a loss.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::{fs, io};

use super::failure::{self, is_gone, reason, sentence};
use super::netns::{self, Found, parse_link};
use super::worker::Worker;
use super::{HostPaths, names, privileges};
use crate::owner::NsId;
use crate::record::{Loss, LossReason};

mod mounts;
mod processes;

use mounts::Mounts;
use processes::{Processes, Refused, Threads};

/// All threads are read in the first sweep and in every eighth: there may be thousands, and few enter a namespace.
const THREADS_EVERY: u64 = 8;

/// Finds namespaces, sweep after sweep.
#[derive(Debug)]
pub(super) struct Finder {
    procfs: PathBuf,
    processes: Worker,
    /// Directories of bind mounts, each with the thread that reads it.
    mounts: Vec<(PathBuf, Worker)>,
    /// Whether the user named the directories: then each of them must exist.
    required: bool,
    /// Namespaces that the user named.
    named: BTreeMap<NsId, Found>,
    /// The namespaces that the last sweep found or should have found.
    known: BTreeMap<NsId, Found>,
    /// Threads that have entered another namespace than their process.
    threads: Threads,
    /// The number of sweeps.
    sweeps: u64,
    /// Our own namespace, which never changes.
    own: Option<NsId>,
    /// The host's.
    host: Option<NsId>,
}

/// The result of one search.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The namespaces to enter, our own first: the thread is already in it, and may have no permission to enter
    /// another.
    pub namespaces: Vec<(NsId, Found)>,
    /// Our own.
    pub own: Option<NsId>,
    /// The host's.
    pub host: Option<NsId>,
    /// The locations that could not be read, and the namespaces of the last sweep that they led to.
    pub losses: Vec<Loss>,
}

/// A location that could not be read. Namespaces that were found there may still exist.
struct Gap {
    reason: LossReason,
    behind: Behind,
}

enum Behind {
    /// Every process.
    Processes,
    /// These processes.
    Pids(BTreeSet<u32>),
    /// Every bind mount in this directory.
    Directory(PathBuf),
    /// These bind mounts.
    Mounts(BTreeSet<PathBuf>),
}

impl Gap {
    fn hides(&self, found: &Found) -> bool {
        let mount = found.mount.as_ref();
        match &self.behind {
            Behind::Processes => !found.pids.is_empty(),
            Behind::Pids(pids) => found.pids.iter().any(|pid| pids.contains(pid)),
            Behind::Directory(directory) => mount.is_some_and(|mount| mount.parent() == Some(directory)),
            Behind::Mounts(mounts) => mount.is_some_and(|mount| mounts.contains(mount)),
        }
    }
}

impl Finder {
    /// Reads nothing yet.
    pub fn new(paths: &HostPaths) -> Self {
        Self {
            procfs: paths.roots.procfs.clone(),
            processes: Worker::default(),
            mounts: paths.netns_dirs.iter().map(|directory| (directory.clone(), Worker::default())).collect(),
            required: paths.netns_dirs_required,
            named: paths.named.clone(),
            known: BTreeMap::new(),
            threads: Threads::new(),
            sweeps: 0,
            own: None,
            host: None,
        }
    }

    /// Every namespace. The calling thread must not have entered another one.
    pub fn find(&mut self) -> Search {
        let mut search = Search::default();
        let mut gaps = Vec::new();
        let mut found = BTreeMap::new();
        self.find_own(&mut search.losses);
        self.find_processes(&mut found, &mut gaps, &mut search.losses);
        self.find_mounts(&mut found, &mut gaps, &mut search.losses);
        if let Some(own) = self.own {
            found.entry(own).or_default();
        }
        for (id, named) in &self.named {
            let known = found.entry(*id).or_default();
            if known.mount.is_none() {
                (known.name, known.mount) = (named.name.clone(), named.mount.clone());
            }
            known.pids.extend(&named.pids);
        }
        for (id, found) in &mut found {
            let before = self.known.get(id).filter(|_| Some(*id) != self.own);
            found.is_replaced = before.is_some_and(|before| !found.shares_a_way_with(before));
        }
        let known = std::mem::replace(&mut self.known, found.clone());
        for (id, before) in known.into_iter().filter(|(id, _)| !found.contains_key(id)) {
            if let Some(gap) = gaps.iter().find(|gap| gap.hides(&before)) {
                search.losses.push(Loss::new(Some(id), gap.reason, String::new()));
                self.known.insert(id, before);
            }
        }
        // with nothing but our own namespace, a directory that hangs leaves nothing to count
        if found.len() > 1 {
            let hangs = |loss: &Loss| loss.reason == LossReason::Timeout;
            let listed = !gaps.iter().any(|gap| matches!(gap.behind, Behind::Processes));
            search.losses.iter_mut().filter(|loss| listed && hangs(loss)).for_each(|loss| loss.unlisted = false);
        }
        (search.own, search.host) = (self.own, self.host.or(self.own));
        search.namespaces = found.into_iter().collect();
        search.namespaces.sort_by_key(|&(id, _)| (Some(id) != self.own, id));
        search
    }

    /// The namespaces that a sweep would have read if it had started.
    pub fn known(&self) -> impl Iterator<Item = NsId> {
        self.known.keys().copied()
    }

    /// Our own namespace and the host's. If one cannot be read again, the first result stays valid.
    fn find_own(&mut self, losses: &mut Vec<Loss>) {
        match netns::own() {
            Ok(own) => {
                if own == netns::ONLY && self.own.is_none() {
                    tracing::info!("this kernel has no network namespaces (CONFIG_NET_NS): there is one to audit");
                }
                self.own = Some(own);
            }
            Err(_) if self.own.is_some() => {}
            Err(error) => losses.push(failure::loss("read our own network namespace,", NS_NET, &error)),
        }
        if let Ok(link) = fs::read_link(self.procfs.join("1/ns/net")) {
            self.host = parse_link(&link);
        }
    }

    fn find_processes(&mut self, found: &mut BTreeMap<NsId, Found>, gaps: &mut Vec<Gap>, losses: &mut Vec<Loss>) {
        let procfs = self.procfs.clone();
        let known = (!self.sweeps.is_multiple_of(THREADS_EVERY)).then(|| std::mem::take(&mut self.threads));
        self.sweeps += 1;
        let processes = self
            .processes
            .run(move || Processes::read(&procfs, known))
            .unwrap_or_else(|error| Processes::failed(&error));
        self.threads = processes.threads;
        if processes.failure.is_some() {
            self.sweeps = 0;
        }
        for (id, pids) in processes.namespaces {
            found.entry(id).or_default().pids = pids;
        }
        if let Some((reason, detail)) = processes.failure {
            gaps.push(Gap { reason, behind: Behind::Processes });
            losses.push(Loss { unlisted: reason != LossReason::Hidden, ..Loss::new(None, reason, detail) });
        }
        for (reason, Refused { pids, first }) in processes.refused {
            let detail = self.refused(reason, pids.len(), &first);
            gaps.push(Gap { reason, behind: Behind::Pids(pids) });
            losses.push(Loss::new(None, reason, detail));
        }
    }

    fn refused(&self, reason: LossReason, count: usize, first: &io::Error) -> String {
        let procfs = self.procfs.display();
        let processes = if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
        let what = format!("the network namespace of {processes} in {procfs}");
        if reason != LossReason::Permission {
            return sentence("read", what, first);
        }
        let directories: Vec<_> = self.mounts.iter().map(|(directory, _)| directory.display().to_string()).collect();
        format!(
            "cannot read {what}: it is not audited unless it is mounted in {} or shared with a process that can be \
             read. {}",
            directories.join(" or "),
            privileges::advice(privileges::ENTER),
        )
    }

    fn find_mounts(&mut self, found: &mut BTreeMap<NsId, Found>, gaps: &mut Vec<Gap>, losses: &mut Vec<Loss>) {
        for (directory, worker) in &mut self.mounts {
            let path = directory.clone();
            let mounts = worker.run(move || Mounts::read(&path)).unwrap_or_else(Mounts::failed);
            for (path, id) in mounts.found {
                let namespace = found.entry(id).or_default();
                if namespace.mount.is_none() {
                    namespace.name = path.file_name().map(|name| names::printable(&name.to_string_lossy()));
                    namespace.mount = Some(path);
                }
            }
            if let Some(error) = mounts.failure.filter(|error| self.required || !is_gone(error)) {
                let flag = if self.required { " (--netns-dir)" } else { "" };
                let detail = sentence("list", format!("{}{flag}", directory.display()), &error);
                // a missing or forbidden path is the same in every sweep
                let unlisted = !matches!(reason(&error), LossReason::Missing | LossReason::Permission);
                losses.push(Loss { unlisted, ..Loss::new(None, reason(&error), detail) });
                gaps.push(Gap { reason: reason(&error), behind: Behind::Directory(directory.clone()) });
            }
            for (reason, (paths, first)) in mounts.refused {
                if let Some(path) = paths.first() {
                    let detail = sentence("open", path.display(), &first);
                    losses.push(Loss::new(None, reason, detail));
                }
                gaps.push(Gap { reason, behind: Behind::Mounts(paths) });
            }
        }
    }
}

const NS_NET: &str = "/proc/thread-self/ns/net";
#[cfg(test)]
mod tests;
