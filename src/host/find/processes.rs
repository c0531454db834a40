//! The network namespaces of a procfs's processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

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
    /// The reason why some processes could not be listed.
    pub failure: Option<(LossReason, String)>,
    /// Processes whose namespace cannot be read.
    pub refused: BTreeMap<LossReason, Refused>,
}

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

    pub fn read(procfs: &Path) -> Self {
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
                read.process(procfs, pid);
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

    fn process(&mut self, procfs: &Path, pid: u32) {
        match fs::read_link(procfs.join(pid.to_string()).join("ns/net")) {
            Ok(link) => {
                if let Some(id) = parse_link(&link) {
                    let pids = self.namespaces.entry(id).or_default();
                    if pids.len() < MAX_PIDS {
                        pids.push(pid);
                    }
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                let reason = reason(&error);
                let refused = self.refused.entry(reason);
                refused.or_insert_with(|| Refused { pids: BTreeSet::new(), first: error }).pids.insert(pid);
            }
        }
    }
}
