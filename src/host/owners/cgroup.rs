//! What a cgroup path says of who lives in it: pure grammar over the layouts of kubelet, container runtimes and systemd.
//!
//! Nothing here relies on where a path starts: a reader inside a cgroup namespace sees `/../../` in front, a node that is
//! itself a container (kind, k3d) sees its own container in front.

/// Who lives in a cgroup, as far as its path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupOwner {
    /// The pods on the path, outermost first: more than one where a cluster's node is itself a pod.
    pub pods: Vec<InPod>,
    /// The outermost container that is in no pod.
    pub container_id: Option<String>,
    /// The innermost systemd unit, slices aside, that is in no container.
    pub unit: Option<String>,
}

/// A pod's cgroup, or one of a container in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InPod {
    pub uid: String,
    pub container_id: Option<String>,
}

/// Reads one cgroup path.
pub(super) fn place(path: &str) -> CgroupOwner {
    let mut place = CgroupOwner::default();
    let mut kubepods = false;
    let mut parent = "";
    // a removed cgroup still has processes that are on their way out
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    for component in path.split('/').flat_map(split_slice).filter(|component| !matches!(*component, "" | "..")) {
        kubepods |= component.contains("kubepods");
        if let Some(uid) = pod_uid(component, kubepods) {
            place.pods.push(InPod { uid, container_id: None });
        } else if let Some(id) = container_id(component, parent) {
            let slot = place.pods.last_mut().map_or(&mut place.container_id, |pod| &mut pod.container_id);
            slot.get_or_insert_with(|| id.to_owned());
        } else if place.container_id.is_none() && is_unit(component, place.unit.is_some()) {
            // systemd puts an underscore before a name that would collide with a file of the kernel
            place.unit = Some(component.strip_prefix('_').unwrap_or(component).to_owned());
        }
        parent = component;
    }
    place
}

/// Reads `/proc/PID/cgroup`: one line a hierarchy, `ID:CONTROLLERS:PATH`. The line that tells most wins: on hybrid hosts the
/// version 2 line may say less than the others.
pub(super) fn place_of_process(text: &str) -> CgroupOwner {
    let mut best = (0, false, CgroupOwner::default());
    for line in text.lines() {
        let Some((controllers, path)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':')) else {
            continue;
        };
        let place = place(path);
        let telling = place.telling();
        if telling == CgroupOwner::MOST_TELLING {
            return place;
        }
        let first = matches!(controllers, "" | "name=systemd");
        if (telling, first) > (best.0, best.1) {
            best = (telling, first, place);
        }
    }
    best.2
}

impl CgroupOwner {
    /// A pod and its container.
    const MOST_TELLING: u8 = 4;

    /// How much is known, for choosing between hierarchies.
    pub fn telling(&self) -> u8 {
        match (self.pods.last(), &self.container_id, &self.unit) {
            (Some(pod), ..) if pod.container_id.is_some() => Self::MOST_TELLING,
            (Some(_), ..) => 3,
            (None, Some(_), _) => 2,
            (None, None, Some(_)) => 1,
            (None, None, None) => 0,
        }
    }
}

/// runc with the cgroupfs driver makes one folder of the systemd triple: `kubepods-pod….slice:cri-containerd:ID`.
fn split_slice(component: &str) -> impl Iterator<Item = &str> {
    let cut = component.find(".slice:").map(|at| at + ".slice".len());
    let (slice, rest) = cut.map_or((component, None), |cut| (&component[..cut], Some(&component[cut + 1..])));
    std::iter::once(slice).chain(rest)
}

/// `podUID` (cgroupfs driver) and `kubepods-burstable-podUID.slice` (systemd driver, where `_` stands for `-`).
fn pod_uid(component: &str, kubepods: bool) -> Option<String> {
    let uid = match component.strip_suffix(".slice") {
        None => component.strip_prefix("pod")?.to_owned(),
        Some(slice) => {
            let uid = slice.strip_prefix("pod").or_else(|| slice.rsplit_once("-pod").map(|(_, uid)| uid))?;
            uid.replace('_', "-")
        }
    };
    // static pods have a digest for a uid, or whatever their manifest says; the latter is only believed below kubepods
    let plain = kubepods && super::names::is_uid(&uid);
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

/// `ID`, `RUNTIME-ID`, `RUNTIME-ID.scope`, `RUNTIME:ID`; and `ctr`'s `/default/NAME`, LXC's `lxc.payload.NAME`.
fn container_id<'a>(component: &'a str, parent: &str) -> Option<&'a str> {
    if let Some(name) = component.strip_prefix("lxc.payload.") {
        return Some(name).filter(|name| !name.is_empty());
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let at = name.rfind(['-', ':', '_']).map_or(0, |at| at + 1);
    let (runtime, id) = name.split_at(at);
    // conmon watches a container from outside of it; a bare id right below libpod_parent is a podman pod
    if is_container_id(id) && !runtime.contains("conmon") && !(at == 0 && parent == "libpod_parent") {
        return Some(id);
    }
    // the namespace that `ctr` and `nerdctl` use unless told otherwise
    (parent == "default").then_some(component)
}

fn is_unit(component: &str, inside_one: bool) -> bool {
    let Some((name, kind)) = component.rsplit_once('.') else { return false };
    let known = matches!(kind, "service" | "scope" | "socket" | "mount" | "swap") && !name.is_empty();
    // `user@1000.service/init.scope` is the user's manager itself
    known && !(inside_one && component == "init.scope")
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
