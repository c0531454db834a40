//! Who owns a connection: pods, containers and units, from control groups and from names that the host keeps in files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure;
use super::program::Programs;
use crate::owner::{NsId, Owner, OwnerKind};
use crate::record::{Loss, LossReason};

#[cfg(feature = "cri")]
mod backoff;
mod cgroup;
mod cgroups;
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
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod inodes;
mod issues;
mod logs;
mod names;
mod process;
mod runtimes;
mod sources;
mod tree;

use cgroup::{CgroupOwner, InPod};
use cgroups::Cgroups;
use inodes::{InodeOwner, Inodes};
use issues::Issues;
pub use issues::OwnerIssue;
use names::PodName;
use process::Process;
use sources::Sources;

/// The number of processes of a namespace that are tried, because some of them may have ended.
const MAX_TRIED: usize = 8;
/// The number of processes of a namespace that decide its owner.
const MAX_BELIEVED: usize = 2;

/// The paths of the host's trees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// The host's procfs, usually `/proc`.
    pub procfs: PathBuf,
    /// The host's cgroup tree, if the user named one; `None` stands for `/sys/fs/cgroup`. On a hybrid host its folder
    /// `unified` is taken.
    pub cgroup: Option<PathBuf>,
    /// The folder that holds kubelet's `pods` and `containers`, usually `/var/log`.
    pub logs: PathBuf,
    /// Whether the user named that folder. Then it is a loss if it does not exist.
    pub logs_required: bool,
    /// Docker's data root, usually `/var/lib/docker`: it has the names of containers.
    pub docker: PathBuf,
    /// Podman's storage, usually `/var/lib/containers/storage`.
    pub podman: PathBuf,
    /// The container runtime's CRI socket, if it may be asked. A build without the feature `cri` ignores it.
    pub cri: Option<PathBuf>,
}

/// Finds owners. It stores names by pod uid, container id and cgroup id, because these are never reused. The kernel
/// reuses pids and inodes of namespaces. So an owner found by them is stored only until the next sweep, in case it
/// cannot be read then.
#[derive(Debug)]
pub struct Owners {
    procfs: PathBuf,
    cgroups: Cgroups,
    inodes: Inodes,
    sources: Sources,
    /// The owners of namespaces in this sweep, and in the last one.
    namespaces: [HashMap<NsId, Owner>; 2],
    issues: Issues,
    losses: Vec<Loss>,
    programs: Programs,
}

impl Owners {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self {
            procfs: roots.procfs.clone(),
            cgroups: Cgroups::new(roots.cgroup.clone(), roots.procfs.clone()),
            inodes: Inodes::new(roots.procfs.clone()),
            sources: Sources::new(roots),
            namespaces: Default::default(),
            issues: Issues::default(),
            losses: Vec::new(),
            programs: Programs::default(),
        }
    }

    /// Names programs with these.
    #[must_use]
    pub(super) fn with_programs(mut self, programs: Programs) -> Self {
        self.inodes.set_programs(programs.clone());
        Self { programs, ..self }
    }

    /// Begins a sweep, before its thread enters a namespace: every source may be read once more.
    pub fn begin_sweep(&mut self) {
        self.losses.clear();
        self.namespaces.swap(0, 1);
        self.namespaces[0].clear();
        self.sources.begin_sweep(&mut self.losses);
        self.issues.note_if(!self.sources.cri_is_reachable(), OwnerIssue::Cri);
        self.cgroups.begin_sweep(&mut self.issues, &mut self.losses);
    }

    /// The owner of a namespace: from processes in it (any of them may be gone or unreadable), else from the name of
    /// its bind mount, else from the name of a program in it. `host_ns`: it is the host's own namespace.
    pub fn of_namespace(&mut self, id: NsId, name: Option<&str>, pids: &[u32], host_ns: bool) -> Owner {
        if host_ns {
            return Owner::default();
        }
        let mut read = self.read_processes(id, pids);
        // the namespace belongs to the pod, not to the container whose process was read
        read.best.pods.iter_mut().for_each(|pod| pod.container_id = None);
        let mut owner = owner_of(&read.best, &mut self.sources, &mut self.issues, &mut self.losses);
        if owner.kind != OwnerKind::Pod {
            if let Some((uid, pod)) = name.and_then(|name| self.sources.pod_by_netns(name, &mut self.issues)) {
                owner = pod_owner(uid, Some(pod));
            } else if let Some(known) = self.namespaces[1].get(&id).filter(|_| read.failed) {
                owner = known.clone();
            } else if owner.kind == OwnerKind::Host {
                // it is not the host's, so its name is a mount's, a program's, or its number
                let name = name
                    .map(str::to_owned)
                    .or_else(|| read.program(&self.programs))
                    .unwrap_or_else(|| format!("net:[{id}]"));
                owner = Owner { kind: OwnerKind::Netns, container: Some(name), ..Owner::default() };
            }
        }
        self.namespaces[0].insert(id, owner.clone());
        owner
    }

    /// Reads processes of a namespace until enough of them have shown an owner.
    fn read_processes(&mut self, id: NsId, pids: &[u32]) -> ReadProcesses {
        let mut read = ReadProcesses::default();
        for &pid in pids.iter().take(MAX_TRIED) {
            match read.process(&self.procfs, pid, id) {
                Err(error) if failure::is_gone(&error) => {}
                Err(error) => {
                    read.failed = true;
                    if failure::reason(&error) != LossReason::Permission {
                        self.losses.push(failure::loss("read the control group of process", pid, &error));
                    }
                }
                Ok(()) if !read.best.pods.is_empty() || read.inside.len() == MAX_BELIEVED => break,
                Ok(()) => {}
            }
        }
        read
    }

    /// The owners of cgroup v2 ids, found by at most one walk of the tree in each sweep.
    pub fn of_cgroups(&mut self, ids: &BTreeSet<u64>) -> BTreeMap<u64, Owner> {
        self.cgroups.learn(ids, &mut self.issues, &mut self.losses);
        let mut owners = BTreeMap::new();
        for id in ids {
            if let Some(cgroup) = self.cgroups.get(*id) {
                owners.insert(*id, owner_of(cgroup, &mut self.sources, &mut self.issues, &mut self.losses));
            }
        }
        owners
    }

    /// The holders of the sockets with these inodes, found by one pass over at most this number of file descriptors.
    /// The name of a process without a unit is its program. Each holder comes once, with its sockets.
    pub fn of_inodes(&mut self, wanted: &BTreeSet<u32>, descriptors: usize) -> Vec<(Owner, Vec<u32>)> {
        let unread = self.inodes.learn(wanted, descriptors);
        self.issues.note_if(!self.inodes.has_read_all(), OwnerIssue::Unsearched);
        self.issues.note_if(unread.refused > 0, OwnerIssue::FdTables);
        if let Some(error) = unread.error.filter(|_| unread.failed > 0) {
            let what = format!("the file descriptors of processes in {}", self.procfs.display());
            self.losses.push(failure::loss("read", what, &error));
        }
        let mut held: HashMap<*const InodeOwner, (Arc<InodeOwner>, Vec<u32>)> = HashMap::new();
        for inode in wanted {
            let Some(known) = self.inodes.get(*inode) else { continue };
            let (_, inodes) = held.entry(Arc::as_ptr(known)).or_insert_with(|| (Arc::clone(known), Vec::new()));
            inodes.push(*inode);
        }
        let named = held.into_values().map(|(known, inodes)| {
            let owner = owner_of(&known.cgroup, &mut self.sources, &mut self.issues, &mut self.losses);
            let container = owner.container.clone().or_else(|| known.program.clone());
            let container = if owner.kind == OwnerKind::Host { container } else { owner.container };
            (Owner { container, ..owner }, inodes)
        });
        named.collect()
    }

    /// Whether the inodes of sockets are needed too, because cgroup v2 ids do not identify every container here.
    #[must_use]
    pub fn needs_inodes(&self) -> bool {
        !self.cgroups.name_containers()
    }

    /// The issues since the last call, with their numbers.
    pub fn issues(&mut self) -> BTreeMap<OwnerIssue, u64> {
        self.issues.take()
    }

    /// The losses of this sweep.
    pub fn losses(&mut self) -> Vec<Loss> {
        let mut seen = BTreeSet::new();
        let mut losses = std::mem::take(&mut self.losses);
        losses.retain(|loss| seen.insert((loss.reason, loss.detail.clone())));
        losses
    }
}

/// The owner of a namespace, as some of its processes show it.
#[derive(Default)]
struct ReadProcesses {
    /// The most specific of their owners.
    best: CgroupOwner,
    inside: Vec<(u32, Process)>,
    /// Whether an existing process could not be read.
    failed: bool,
}

impl ReadProcesses {
    fn process(&mut self, procfs: &Path, pid: u32, id: NsId) -> io::Result<()> {
        let process = Process::open(procfs, pid)?;
        if process.is_in(id)? {
            let owner = process.owner()?;
            if owner.specificity() > self.best.specificity() {
                self.best = owner;
            }
            self.inside.push((pid, process));
        }
        Ok(())
    }

    /// The name of a program in the namespace.
    fn program(&self, programs: &Programs) -> Option<String> {
        let name = |(pid, process): &(u32, Process)| programs.read_names(*pid, process.folder()).program().to_owned();
        let names = self.inside.iter().map(name);
        names.into_iter().find(|name| !name.is_empty())
    }
}

/// Adds the names to the owner from a control group.
fn owner_of(owner: &CgroupOwner, sources: &mut Sources, issues: &mut Issues, losses: &mut Vec<Loss>) -> Owner {
    if let Some(outermost) = owner.pods.first() {
        // of nested pods, the outermost one that this node has a name for: a pod that makes control groups must not be
        // able to claim another pod's name
        let named = owner.pods.iter().find_map(|pod| Some((pod, sources.pod(&pod.uid, issues, losses)?)));
        let (pod, name) = named.map_or((outermost, None), |(pod, name)| (pod, Some(name)));
        return owner_in_pod(pod, name, sources, issues, losses);
    }
    if let Some(id) = &owner.container_id {
        let known = if owner.is_delegated { None } else { sources.container(id, issues, losses) };
        return match known {
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
                container: Some(sources.container_outside_pods(id, owner.is_delegated)),
                container_id: Some(id.clone()),
                ..Owner::default()
            },
        };
    }
    match &owner.unit {
        Some(unit) => Owner { kind: OwnerKind::Unit, container: Some(unit.clone()), ..Owner::default() },
        None => Owner::default(),
    }
}

fn owner_in_pod(
    pod: &InPod,
    name: Option<PodName>,
    sources: &mut Sources,
    issues: &mut Issues,
    losses: &mut Vec<Loss>,
) -> Owner {
    let container = pod.container_id.as_ref().and_then(|id| {
        let known = sources.container(id, issues, losses);
        issues.note_if(known.is_none(), OwnerIssue::ContainerName);
        known
    });
    // a source that also has the uid means this very sandbox: an earlier one of this pod may have had another name
    let of_sandbox = container.as_ref().is_some_and(|container| container.uid.as_ref() == Some(&pod.uid));
    let (container, named) = container.map_or((None, None), |known| (known.container, Some(known.pod)));
    let contradicted = !of_sandbox && name.is_some() && named.is_some() && name != named;
    issues.note_if(contradicted, OwnerIssue::Disagree);
    let name = if of_sandbox { named } else { name.or(named) };
    issues.note_if(name.is_none() && !sources.logs_listed(), OwnerIssue::PodLogs);
    issues.note_if(name.is_none(), OwnerIssue::PodName);
    Owner { container, container_id: pod.container_id.clone(), ..pod_owner(pod.uid.clone(), name) }
}

fn pod_owner(uid: String, name: Option<PodName>) -> Owner {
    let (namespace, pod) = name.map_or((None, None), |name| (Some(name.namespace), Some(name.pod)));
    Owner { kind: OwnerKind::Pod, namespace, pod, pod_uid: Some(uid), ..Owner::default() }
}

#[cfg(test)]
mod tests;
