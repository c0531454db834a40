//! Reads the owner from a cgroup path: pure grammar over the layouts of kubelet, container runtimes and systemd.
//!
//! The start of a path does not matter: a reader inside a cgroup namespace sees `/../../` first, and a node that is
//! itself a container (kind, k3d) sees its own container first.
//!
//! The owner of a delegated cgroup may create any name below it. So we accept a pod or a container's id only if no user
//! and no unit other than a runtime is above it.

use crate::host::names::printable;

/// The owner of a cgroup, as its path shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupOwner {
    /// The pods on the path, outermost first. There are several if a cluster's node is itself a pod.
    pub pods: Vec<InPod>,
    /// The outermost container that is in no pod.
    pub container_id: Option<String>,
    /// The innermost systemd unit, slices aside, that is in no container.
    pub unit: Option<String>,
    /// The path contains a cgroup that is delegated to a user, so the container's id proves nothing.
    pub is_delegated: bool,
}

/// A pod's cgroup, or one of a container in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InPod {
    pub uid: String,
    pub container_id: Option<String>,
}

/// Reads one cgroup path.
pub(super) fn owner_of_path(path: &str) -> CgroupOwner {
    let mut owner = CgroupOwner::default();
    let mut in_kubepods = false;
    let mut parents = ["", ""];
    // a removed cgroup may still have processes that are ending
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    for component in path.split('/').flat_map(split_triple).filter(|component| !matches!(*component, "" | "..")) {
        in_kubepods |= component.contains("kubepods");
        let is_in_container = owner.container_id.is_some() || !owner.pods.is_empty();
        let pod = pod_uid(component, in_kubepods).filter(|_| !owner.is_delegated);
        if let Some(uid) = pod {
            owner.pods.push(InPod { uid, container_id: None });
        } else if let Some(id) = container_id(component, parents, !owner.pods.is_empty()) {
            let slot = owner.pods.last_mut().map_or(&mut owner.container_id, |pod| &mut pod.container_id);
            // systemd escapes the hyphens in the name of a machine
            slot.get_or_insert_with(|| printable(&id.replace("\\x2d", "-")));
        } else {
            owner.is_delegated |= !is_in_container && is_delegated(component);
            if owner.container_id.is_none() && is_unit(component, parents[1], owner.unit.is_some()) {
                // systemd puts an underscore before a name that would collide with a file of the kernel
                owner.unit = Some(printable(component.strip_prefix('_').unwrap_or(component)));
            }
        }
        parents = [parents[1], component];
    }
    owner
}

/// Reads `/proc/PID/cgroup`: one line per hierarchy, `ID:CONTROLLERS:PATH`. The most specific line wins: on hybrid
/// hosts the version 2 line may have less information than the others.
pub(super) fn owner_of_process(text: &str) -> CgroupOwner {
    let mut best = (0, false, CgroupOwner::default());
    for line in text.lines() {
        let Some((controllers, path)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':')) else {
            continue;
        };
        let owner = owner_of_path(path);
        let specificity = owner.specificity();
        if specificity == CgroupOwner::MOST_SPECIFIC {
            return owner;
        }
        let first = matches!(controllers, "" | "name=systemd");
        if (specificity, first) > (best.0, best.1) {
            best = (specificity, first, owner);
        }
    }
    best.2
}

impl CgroupOwner {
    /// A pod and its container.
    const MOST_SPECIFIC: u8 = 4;

    /// A measure of how specific the owner is, to choose between hierarchies.
    pub fn specificity(&self) -> u8 {
        match (self.pods.last(), &self.container_id, &self.unit) {
            (Some(pod), ..) if pod.container_id.is_some() => Self::MOST_SPECIFIC,
            (Some(_), ..) => 3,
            (None, Some(_), _) => 2,
            (None, None, Some(_)) => 1,
            (None, None, None) => 0,
        }
    }
}

/// runc with the cgroupfs driver makes one folder from the systemd triple: `kubepods-pod….slice:cri-containerd:ID`.
fn split_triple(component: &str) -> impl Iterator<Item = &str> {
    let slice = component.find(".slice:").map(|at| at + ".slice".len());
    let cut = slice.or_else(|| component.starts_with("kubepods").then(|| component.find(':')).flatten());
    let (slice, rest) = cut.map_or((component, None), |cut| (&component[..cut], Some(&component[cut + 1..])));
    std::iter::once(slice).chain(rest)
}

/// Units in which runtimes and Kubernetes distributions run pods.
const RUNTIMES: [&str; 10] =
    ["containerd", "cri-o", "crio", "docker", "k0s", "k3s", "kubelet", "microk8s", "rke2", "garden"];

/// A user's slice, or a unit other than a runtime's. Its owner may make cgroups with any name.
fn is_delegated(component: &str) -> bool {
    let is_user = component == "user.slice" || component.starts_with("user@") || component.starts_with("user-");
    let is_unit = component.rsplit_once('.').is_some_and(|(_, kind)| matches!(kind, "service" | "scope"));
    let name = component.strip_prefix("snap.").unwrap_or(component);
    is_user || (is_unit && !RUNTIMES.iter().any(|runtime| name.starts_with(runtime)))
}

/// `podUID` (cgroupfs driver) and `kubepods-burstable-podUID.slice` (systemd driver, where `_` stands for `-`).
fn pod_uid(component: &str, in_kubepods: bool) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = name.strip_prefix("pod").or_else(|| {
        let (parents, uid) = name.rsplit_once("-pod")?;
        parents.contains("kubepods").then_some(uid)
    });
    let uid = uid?.replace('_', "-");
    // static pods have a digest for a uid, or whatever their manifest says; the latter is only believed below kubepods
    let plain = in_kubepods && super::names::is_uid(&uid) && !uid.starts_with('-');
    (is_uuid(&uid) || is_hex(&uid, 32) || plain).then_some(uid)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

pub(super) fn is_container_id(text: &str) -> bool {
    is_hex(text, 64)
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `ID`, `RUNTIME-ID`, `RUNTIME-ID.scope`, `RUNTIME:ID`; and the names that LXC, nspawn, `ctr` and others give.
fn container_id<'a>(component: &'a str, [grandparent, parent]: [&'a str; 2], in_pod: bool) -> Option<&'a str> {
    let machine = ["lxc.payload.", "lxc.payload-"].iter().find_map(|prefix| component.strip_prefix(prefix));
    let nspawn = || component.strip_prefix("systemd-nspawn@")?.strip_suffix(".service");
    // nspawn that was not started as a unit
    let registered = || parent.strip_prefix("machine-")?.strip_suffix(".scope").filter(|_| component == "payload");
    if let Some(name) = machine.or_else(nspawn).or_else(registered) {
        return Some(name).filter(|name| !name.is_empty());
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let at = name.rfind(['-', ':', '_']).map_or(0, |at| at + 1);
    let (runtime, id) = name.split_at(at);
    // conmon watches a container from outside of it; a bare id right below libpod_parent is a podman pod
    if is_container_id(id) && !runtime.contains("conmon") && !(at == 0 && parent == "libpod_parent") {
        return Some(id);
    }
    // the namespace that `ctr` and `nerdctl` use by default; LXC; Cloud Foundry; BuildKit; Fargate's tasks
    let is_parent = matches!(parent, "default" | "lxc" | "garden" | "buildkit") || grandparent == "ecs";
    (is_parent || (in_pod && is_uuid(component))).then_some(component)
}

fn is_unit(component: &str, parent: &str, is_inside_one: bool) -> bool {
    // Talos has no systemd
    if parent == "podruntime" {
        return true;
    }
    let Some((name, kind)) = component.rsplit_once('.') else { return false };
    let is_known = matches!(kind, "service" | "scope" | "socket" | "mount" | "swap") && !name.is_empty();
    // `user@1000.service/init.scope` is the user's manager itself
    is_known && !(is_inside_one && component == "init.scope")
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
