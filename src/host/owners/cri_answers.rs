//! Reads the answers of a container runtime: the names of pods and containers, and the current sandbox of each pod.

use std::collections::HashMap;
use std::path::Path;

use super::cri_messages::{Container, PodSandbox, PodSandboxMetadata, PodSandboxStatusResponse};
use super::names::{ContainerName, PodName, is_label, is_uid};

/// `SANDBOX_READY`
const READY: i32 = 0;
/// kubelet's labels: the pod's on every sandbox and container, the container's own on that.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

type Labels = HashMap<String, String>;

/// The last answers. The key of a sandbox is its id, which is never reused.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The name of the newest sandbox, by pod uid.
    pods: HashMap<String, Attempt>,
    /// Names by container id. A sandbox is a container without its own name.
    containers: HashMap<String, ContainerName>,
    /// The ready sandboxes by id: the others no longer have a network namespace.
    sandboxes: HashMap<String, Sandbox>,
}

#[derive(Debug)]
struct Attempt {
    /// The number that kubelet increases for each sandbox of a pod. Of two with the same number, the ready one is
    /// newer.
    order: (u32, bool),
    name: PodName,
}

#[derive(Debug)]
struct Sandbox {
    uid: String,
    attempt: u32,
    name: PodName,
    /// The file name of its network namespace. `None`: not queried yet. Empty: it has none of its own.
    netns: Option<String>,
}

impl Answers {
    /// Stores the runtime's lists, but only names that Kubernetes would accept.
    pub fn take(&mut self, sandboxes: Vec<PodSandbox>, containers: Vec<Container>) {
        let mut old = std::mem::take(self);
        for sandbox in sandboxes {
            let metadata = sandbox.metadata.unwrap_or_default();
            let Some((uid, name)) = pod(&metadata, &sandbox.labels) else { continue };
            let ready = sandbox.state == READY;
            let order = (metadata.attempt, ready);
            if self.pods.get(&uid).is_none_or(|known| known.order < order) {
                self.pods.insert(uid.clone(), Attempt { order, name: name.clone() });
            }
            let of_sandbox = ContainerName { pod: name.clone(), uid: Some(uid.clone()), container: None };
            self.containers.insert(sandbox.id.clone(), of_sandbox);
            if ready {
                let netns = old.sandboxes.remove(&sandbox.id).and_then(|known| known.netns);
                self.sandboxes.insert(sandbox.id, Sandbox { uid, attempt: metadata.attempt, name, netns });
            }
        }
        for container in containers {
            let metadata = container.metadata.unwrap_or_default();
            let name = word(&metadata.name, &container.labels, CONTAINER_NAME);
            // a sandbox that was created between the two lists is missing from the first one
            let of_labels = || {
                let (uid, pod) = pod(&PodSandboxMetadata::default(), &container.labels)?;
                Some(ContainerName { pod, uid: Some(uid), container: None })
            };
            let of_pod = self.containers.get(&container.pod_sandbox_id).cloned().or_else(of_labels);
            if let Some(of_pod) = of_pod.filter(|_| is_label(name)) {
                let container_name = Some(name.to_owned());
                self.containers.insert(container.id, ContainerName { container: container_name, ..of_pod });
            }
        }
    }

    pub fn pod_by_uid(&self, uid: &str) -> Option<&PodName> {
        self.pods.get(uid).map(|attempt| &attempt.name)
    }

    /// The name of a container. Each attempt has its own id, so there is no ambiguity.
    pub fn container_by_id(&self, id: &str) -> Option<&ContainerName> {
        self.containers.get(id)
    }

    /// The uid and name of the pod whose network namespace is bound at this file name. `None` if two pods claim it.
    pub fn pod_by_netns(&self, netns: &str) -> Option<(&str, &PodName)> {
        let claims = || self.sandboxes.values().filter(|sandbox| sandbox.netns.as_deref() == Some(netns));
        let newest = claims().filter(|_| !netns.is_empty()).max_by_key(|sandbox| sandbox.attempt)?;
        claims().all(|sandbox| sandbox.uid == newest.uid).then_some((newest.uid.as_str(), &newest.name))
    }

    /// The ids of sandboxes whose network namespace was not queried yet.
    pub fn without_netns(&self, limit: usize) -> Vec<String> {
        let unasked = self.sandboxes.iter().filter(|(_, sandbox)| sandbox.netns.is_none());
        unasked.map(|(id, _)| id.clone()).take(limit).collect()
    }

    /// Stores the runtime's answer for one sandbox. Without an answer, the sandbox has no namespace.
    pub fn take_status(&mut self, sandbox: &str, status: Option<&PodSandboxStatusResponse>) {
        if let Some(sandbox) = self.sandboxes.get_mut(sandbox) {
            sandbox.netns = Some(status.and_then(netns_of).unwrap_or_default());
        }
    }
}

/// The uid and name of a sandbox's pod.
fn pod(metadata: &PodSandboxMetadata, labels: &Labels) -> Option<(String, PodName)> {
    let namespace = word(&metadata.namespace, labels, POD_NAMESPACE);
    let name = PodName::new(namespace, word(&metadata.name, labels, POD_NAME))?;
    let uid = word(&metadata.uid, labels, POD_UID);
    is_uid(uid).then(|| (uid.to_owned(), name))
}

/// The value of the metadata, or else of a label.
fn word<'a>(metadata: &'a str, labels: &'a Labels, label: &str) -> &'a str {
    let of_label = || labels.get(label).map_or("", String::as_str);
    if metadata.is_empty() { of_label() } else { metadata }
}

/// The last part of the sandbox's network namespace path, from verbose answers: the OCI spec of containerd and CRI-O,
/// or containerd's own metadata where a runtime such as Kata has no OCI spec of the sandbox.
fn netns_of(status: &PodSandboxStatusResponse) -> Option<String> {
    let info: serde_json::Value = serde_json::from_str(status.info.get("info")?).ok()?;
    let of_spec = || {
        let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
        namespaces.iter().find(|namespace| namespace["type"] == "network")?["path"].as_str()
    };
    let of_metadata = || {
        let spec = info.get("runtimeSpec").filter(|spec| !spec.is_null());
        let metadata = info.get("sandboxMetadata").filter(|_| spec.is_none())?;
        metadata.get("Metadata").unwrap_or(metadata)["NetNSPath"].as_str()
    };
    let path = of_spec().or_else(of_metadata)?;
    Some(Path::new(path).file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
#[path = "cri_answers_tests.rs"]
mod tests;
