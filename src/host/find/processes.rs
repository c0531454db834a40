//! The network namespaces of a procfs's processes, and of their threads: a thread may have entered another one.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use super::super::failure::{is_gone, reason, sentence};
use super::super::netns::parse_link;
use crate::owner::NsId;
use crate::record::LossReason;

/// The number of processes that we keep to name an owner and to enter a namespace. Some of them may end meanwhile.
const MAX_PIDS: usize = 4;

/// The namespaces of the processes of one procfs.
#[derive(Debug, Default)]
pub(super) struct Processes {
    pub namespaces: BTreeMap<NsId, Vec<u32>>,
    /// Threads whose namespace is not that of their process.
    pub threads: Threads,
    /// The reason why some processes could not be listed.
    pub failure: Option<(LossReason, String)>,
    /// Processes whose namespace cannot be read.
    pub refused: BTreeMap<LossReason, Refused>,
}

/// A thread that is in a namespace for less than this only passes through: runtimes and other audits do that.
const PASSING: Duration = Duration::from_millis(50);

/// Threads by the namespace that they have entered.
pub(super) type Threads = BTreeMap<NsId, Vec<u32>>;

#[derive(Debug)]
pub(super) struct Refused {
    pub pids: BTreeSet<u32>,
    pub first: io::Error,
}

impl Processes {
    pub fn failed(error: &io::Error) -> Self {
        let failure = Some((reason(error), sentence("list", "the processes of this machine", error)));
        Self { failure, ..Self::default() }
    }

    /// Reads all processes. `known` are the threads of the last sweep that lead to other namespaces: then no other
    /// thread is read. There may be thousands.
    pub fn read(procfs: &Path, known: Option<Threads>) -> Self {
        let reads_threads = known.is_none();
        let mut read = Self::default();
        let failed = |error: &io::Error| Some((reason(error), sentence("list", procfs.display(), error)));
        let entries = match fs::read_dir(procfs) {
            Ok(entries) => entries,
            Err(error) => return Self { failure: failed(&error), ..read },
        };
        let (mut any, mut init) = (false, false);
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    read.failure = failed(&error);
                    break;
                }
            };
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                (any, init) = (true, init || pid == 1);
                let id = read.process(procfs, pid);
                if let Some(id) = id.filter(|_| reads_threads) {
                    read.threads(procfs, pid, id);
                }
            }
        }
        if !read.threads.is_empty() {
            thread::sleep(PASSING);
            read.drop_passing(procfs);
        }
        for thread in known.unwrap_or_default().into_values().flatten() {
            if let Some(id) = read.process(procfs, thread) {
                read.threads.entry(id).or_default().push(thread);
            }
        }
        if read.failure.is_none() && !any {
            let detail = format!("{} has no processes: mount a procfs there (--path.procfs)", procfs.display());
            read.failure = Some((LossReason::Missing, detail));
        } else if read.failure.is_none() && !init {
            let detail = format!(
                "{} hides the processes of other users (it has no process 1; see hidepid in proc(5)): their network \
                 namespaces are not \
                 audited. Run as root or with CAP_SYS_PTRACE",
                procfs.display()
            );
            read.failure = Some((LossReason::Hidden, detail));
        }
        read
    }

    /// The namespace of one process, or of a thread.
    fn process(&mut self, procfs: &Path, pid: u32) -> Option<NsId> {
        match fs::read_link(procfs.join(pid.to_string()).join("ns/net")) {
            Ok(link) => {
                let id = parse_link(&link)?;
                let pids = self.namespaces.entry(id).or_default();
                if pids.len() < MAX_PIDS {
                    pids.push(pid);
                }
                return Some(id);
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                let reason = reason(&error);
                let refused = self.refused.entry(reason);
                refused.or_insert_with(|| Refused { pids: BTreeSet::new(), first: error }).pids.insert(pid);
            }
        }
        None
    }

    /// Drops the threads that have left the namespace in which they were seen.
    fn drop_passing(&mut self, procfs: &Path) {
        for (id, threads) in std::mem::take(&mut self.threads) {
            let is_there = |tid: &u32| {
                let link = fs::read_link(procfs.join(tid.to_string()).join("ns/net"));
                link.is_ok_and(|link| parse_link(&link) == Some(id))
            };
            let (stay, passed): (Vec<u32>, Vec<u32>) = threads.into_iter().partition(is_there);
            if let Some(pids) = self.namespaces.get_mut(&id) {
                pids.retain(|pid| !passed.contains(pid));
                if pids.is_empty() {
                    self.namespaces.remove(&id);
                }
            }
            if !stay.is_empty() {
                self.threads.insert(id, stay);
            }
        }
    }

    /// The namespaces of the other threads of a process, where they are not the one of the process. A thread that
    /// cannot be read has ended, because its process could be read.
    fn threads(&mut self, procfs: &Path, pid: u32, of_process: NsId) {
        let directory = procfs.join(pid.to_string()).join("task");
        // two links of the directory itself, and one of each thread
        if fs::metadata(&directory).is_ok_and(|found| found.nlink() <= 3) {
            return;
        }
        for task in fs::read_dir(&directory).into_iter().flatten().map_while(Result::ok) {
            let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let link = fs::read_link(task.path().join("ns/net"));
            let Some(id) = link.ok().and_then(|link| parse_link(&link)).filter(|id| *id != of_process) else {
                continue;
            };
            for threads in [self.namespaces.entry(id).or_default(), self.threads.entry(id).or_default()] {
                if threads.len() < MAX_PIDS {
                    threads.push(tid);
                }
            }
        }
    }
}
