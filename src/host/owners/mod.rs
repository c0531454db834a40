//! Whose connection is it: pods, containers and units, from cgroups and from names that lie read-only on the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::host::holders;
use crate::owner::{NsId, Owner, OwnerKind};

#[cfg(feature = "cri")]
mod backoff;
mod cgroup;
#[cfg(feature = "cri")]
mod cri;
#[cfg(not(feature = "cri"))]
#[path = "no_cri.rs"]
mod cri;
#[cfg(feature = "cri")]
mod cri_answers;
#[cfg(feature = "cri")]
mod cri_messages;
mod dir;
mod inodes;
mod issues;
mod logs;
mod names;
mod process;
mod sources;
mod tree;

use cgroup::{CgroupOwner, InPod, is_container_id};
use inodes::Inodes;
use issues::Issues;
pub use issues::OwnerIssue;
use names::PodName;
use process::Process;
use sources::Sources;
use tree::Tree;

/// Where cgroup v2 is mounted unless told otherwise.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Of a namespace's processes so many are tried, because any may be gone, and two are believed.
const MAX_TRIED: usize = 8;
const MAX_BELIEVED: usize = 2;

/// Where the host's trees are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The host's procfs, usually `/proc`.
    pub procfs: PathBuf,
    /// The host's cgroup tree; `None` looks at `/sys/fs/cgroup`. On a hybrid host its folder `unified` is taken.
    pub cgroup: Option<PathBuf>,
    /// The folder that holds kubelet's `pods` and `containers`, usually `/var/log`.
    pub logs: PathBuf,
    /// The container runtime's CRI socket, if it may be asked; of no effect in a build without the feature `cri`.
    pub cri: Option<PathBuf>,
}

/// Names owners. It remembers only what cannot come to mean something else: pod uids, container ids and cgroup ids are never
/// used again, while pids and namespace inodes are, so nothing is remembered by those.
#[derive(Debug)]
pub struct Owners {
    procfs: PathBuf,
    tree: Option<Tree>,
    inodes: Inodes,
    sources: Sources,
    issues: Issues,
}

impl Owners {
    /// Finds the cgroup v2 tree; nothing else is read yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let tree = Tree::find(roots.cgroup.as_deref().unwrap_or(Path::new(CGROUP_ROOT)));
        let mut issues = Issues::default();
        issues.note_if(tree.is_none(), OwnerIssue::NoCgroup2);
        Self {
            procfs: roots.procfs.clone(),
            tree,
            inodes: Inodes::new(roots.procfs.clone()),
            sources: Sources::new(roots),
            issues,
        }
    }

    /// Called once at the start of each sweep: every source may be read once more.
    pub fn begin_sweep(&mut self) {
        self.sources.begin_sweep();
        self.tree.iter_mut().for_each(Tree::begin_sweep);
    }

    /// Whose namespace it is: from processes in it (any of them may be gone or unreadable), else from the name of its bind
    /// mount, else the name of a program in it. `host_ns` says that it is the host's own, or ours.
    pub fn of_namespace(&mut self, id: NsId, name: Option<&str>, pids: &[u32], host_ns: bool) -> Owner {
        if host_ns {
            return Owner::default();
        }
        let processes =
            pids.iter().take(MAX_TRIED).filter_map(|pid| Some((*pid, Process::open(&self.procfs, *pid).ok()?)));
        let inside: Vec<_> = processes.filter(|(_, process)| process.is_in(id)).collect();
        let places = inside.iter().filter_map(|(_, process)| process.place().ok());
        let mut best = CgroupOwner::default();
        for place in places.take(MAX_BELIEVED) {
            if place.telling() > best.telling() {
                best = place;
            }
            if !best.pods.is_empty() {
                break;
            }
        }
        // the namespace is the pod's, not that of the container whose process happened to be read
        best.pods.iter_mut().for_each(|pod| pod.container_id = None);
        let owner = owner_of(&best, &mut self.sources, &mut self.issues);
        if owner.kind == OwnerKind::Pod {
            return owner;
        }
        if let Some((uid, pod)) = name.and_then(|name| self.sources.pod_by_netns(name, &mut self.issues)) {
            return pod_owner(uid, Some(pod));
        }
        if owner.kind != OwnerKind::Host {
            return owner;
        }
        // it is not the host's, so its name is a mount's, a program's, or its number
        let program = || {
            let named =
                inside.iter().map(|(pid, process)| holders::holder(*pid, process.folder()).program().to_owned());
            named.into_iter().find(|name| !name.is_empty())
        };
        let name = name.map(str::to_owned).or_else(program).unwrap_or_else(|| format!("net:[{id}]"));
        Owner { kind: OwnerKind::Netns, container: Some(name), ..Owner::default() }
    }

    /// Who is behind cgroup v2 ids, as far as they are known after at most one walk of the tree a sweep.
    pub fn of_cgroups(&mut self, ids: &BTreeSet<u64>) -> BTreeMap<u64, Owner> {
        let Some(tree) = &mut self.tree else { return BTreeMap::new() };
        if let Err(error) = tree.learn(ids) {
            tracing::debug!(%error, "walking the cgroup tree");
            self.issues.note(OwnerIssue::CgroupTree);
        }
        let mut owners = BTreeMap::new();
        for id in ids {
            match tree.get(*id) {
                Some(place) => {
                    owners.insert(*id, owner_of(place, &mut self.sources, &mut self.issues));
                }
                None => self.issues.note_if(!tree.is_whole(), OwnerIssue::CgroupTree),
            }
        }
        owners
    }

    /// Who holds the sockets with these inodes: one pass over the file descriptors of all processes. A process of no unit is named by its
    /// program.
    pub fn of_inodes(&mut self, wanted: &BTreeSet<u32>) -> BTreeMap<u32, Owner> {
        let unread = self.inodes.learn(wanted);
        self.issues.note_if(!unread.is_empty(), OwnerIssue::FdTables);
        let known = wanted.iter().filter_map(|inode| Some((*inode, self.inodes.get(*inode)?)));
        let named = known.map(|(inode, known)| {
            let owner = owner_of(&known.place, &mut self.sources, &mut self.issues);
            let container = owner.container.clone().or_else(|| known.program.clone());
            (
                inode,
                Owner { container: if owner.kind == OwnerKind::Host { container } else { owner.container }, ..owner },
            )
        });
        named.collect()
    }

    /// Whether cgroup v2 ids mean something here.
    #[must_use]
    pub fn has_cgroup2(&self) -> bool {
        self.tree.is_some()
    }

    /// What went wrong or disagreed since the last call, with how often.
    pub fn issues(&mut self) -> BTreeMap<OwnerIssue, u64> {
        self.issues.take()
    }
}

/// Gives a place its names.
fn owner_of(place: &CgroupOwner, sources: &mut Sources, issues: &mut Issues) -> Owner {
    if let Some(outermost) = place.pods.first() {
        // where pods are nested, the one that this node has a name for is meant
        let named = place.pods.iter().rev().find_map(|pod| Some((pod, sources.pod(&pod.uid, issues)?)));
        let (pod, name) = named.map_or((outermost, None), |(pod, name)| (pod, Some(name)));
        return owner_in_pod(pod, name, sources, issues);
    }
    if let Some(id) = &place.container_id {
        return match sources.container(id, issues) {
            Some(name) => Owner {
                container: name.container,
                container_id: Some(id.clone()),
                pod_uid: name.uid,
                namespace: Some(name.pod.namespace),
                pod: Some(name.pod.pod),
                kind: OwnerKind::Pod,
            },
            None => Owner {
                kind: OwnerKind::Container,
                container: Some(if is_container_id(id) { id[..12].to_owned() } else { id.clone() }),
                container_id: Some(id.clone()),
                ..Owner::default()
            },
        };
    }
    match &place.unit {
        Some(unit) => Owner { kind: OwnerKind::Unit, container: Some(unit.clone()), ..Owner::default() },
        None => Owner::default(),
    }
}

fn owner_in_pod(place: &InPod, name: Option<PodName>, sources: &mut Sources, issues: &mut Issues) -> Owner {
    let container = place.container_id.as_ref().and_then(|id| {
        let known = sources.container(id, issues);
        issues.note_if(known.is_none(), OwnerIssue::ContainerName);
        known
    });
    // a source that tells the uid, too, tells of the very sandbox: an earlier one of this pod may have had another name
    let of_sandbox = container.as_ref().is_some_and(|container| container.uid.as_ref() == Some(&place.uid));
    let (container, pod) = container.map_or((None, None), |known| (known.container, Some(known.pod)));
    let contradicted = !of_sandbox && name.is_some() && pod.is_some() && name != pod;
    issues.note_if(contradicted, OwnerIssue::Disagree);
    let name = if of_sandbox { pod } else { name.or(pod) };
    issues.note_if(name.is_none() && !sources.logs_listed(), OwnerIssue::PodLogs);
    issues.note_if(name.is_none(), OwnerIssue::PodName);
    Owner { container, container_id: place.container_id.clone(), ..pod_owner(place.uid.clone(), name) }
}

fn pod_owner(uid: String, name: Option<PodName>) -> Owner {
    let (namespace, pod) = name.map_or((None, None), |name| (Some(name.namespace), Some(name.pod)));
    Owner { kind: OwnerKind::Pod, namespace, pod, pod_uid: Some(uid), ..Owner::default() }
}

#[cfg(test)]
mod tests;
