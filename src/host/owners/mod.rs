//! Whose connection is it: pods, containers and units, from cgroups and from names that lie read-only on the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::owner::{NsId, Owner, OwnerKind};

mod trouble;

pub use trouble::OwnerTrouble;
use trouble::Troubles;

/// Where the host's trees are.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The host's procfs, usually `/proc`.
    pub procfs: PathBuf,
    /// The host's cgroup tree; `None` looks at `/sys/fs/cgroup`. On a hybrid host its folder `unified` is taken.
    pub cgroup: Option<PathBuf>,
    /// The folder that holds kubelet's `pods` and `containers`, usually `/var/log`.
    pub logs: PathBuf,
    /// The container runtime's CRI socket, if it may be asked.
    pub cri: Option<PathBuf>,
}

/// Names owners. It keeps only what cannot come to mean something else: pod uids, container ids and cgroup ids are
/// never used again, while pids and namespace inodes are, so nothing is remembered by those.
#[derive(Debug)]
pub struct Owners {
    troubles: Troubles,
}

impl Owners {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(_roots: &Roots) -> Self {
        Self { troubles: Troubles::default() }
    }

    /// Called once at the start of each sweep.
    pub fn begin_sweep(&mut self) {}

    /// Whose namespace it is: from processes in it (any of them may be gone or unreadable), else the name of its bind
    /// mount, else the host. `host_ns` says that it is the host's own, or ours.
    pub fn of_namespace(&mut self, _id: NsId, name: Option<&str>, _pids: &[u32], host_ns: bool) -> Owner {
        match name {
            Some(name) if !host_ns => {
                Owner { kind: OwnerKind::Netns, container: Some(name.to_owned()), ..Owner::default() }
            }
            _ => Owner::default(),
        }
    }

    /// Who is behind cgroup v2 ids, as far as they are known after at most one refresh of the index.
    pub fn of_cgroups(&mut self, _ids: &BTreeSet<u64>) -> BTreeMap<u64, Owner> {
        BTreeMap::new()
    }

    /// Who is behind socket inodes, for hosts without cgroup v2: one pass over the file descriptors of all processes.
    /// Empty where it cannot be had.
    pub fn of_inodes(&mut self, _wanted: &BTreeSet<u32>) -> BTreeMap<u32, Owner> {
        BTreeMap::new()
    }

    /// Whether cgroup v2 ids mean something here.
    #[must_use]
    pub fn has_cgroup2(&self) -> bool {
        false
    }

    /// What went wrong or disagreed since the last call, with how often.
    pub fn troubles(&mut self) -> BTreeMap<OwnerTrouble, u64> {
        self.troubles.take()
    }
}
