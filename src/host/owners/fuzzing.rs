//! Entry points for the fuzz targets of `fuzz/` into private grammars of the host. The program itself does not contain
//! them.

use super::cgroup;
use crate::host::{counters, fds, program};

/// A cgroup path, as the kernel shows it.
pub fn cgroup_path(text: &str) {
    let _ = cgroup::owner_of_path(text);
}

/// Files below `/proc` that another user's process can influence.
pub fn proc_files(text: &str) {
    let _ = cgroup::owner_of_process(text);
    let _ = counters::fields(text, "Tcp:", ["CurrEstab"]);
    let _ = fds::socket_inode(text);
    program::fuzz(text);
}

/// Answers of a container runtime: its lists of sandboxes and containers, and the status of each sandbox.
#[cfg(feature = "cri")]
pub fn cri_answers(lists: [&[u8]; 2], status: &[u8]) {
    use super::cri_answers::Answers;
    use super::cri_messages::{ListContainersResponse, ListPodSandboxResponse, PodSandboxStatusResponse};
    use prost::Message as _;

    let mut answers = Answers::default();
    let Ok(sandboxes) = ListPodSandboxResponse::decode(lists[0]) else { return };
    let Ok(containers) = ListContainersResponse::decode(lists[1]) else { return };
    let ids: Vec<_> = containers.containers.iter().map(|container| container.id.clone()).collect();
    answers.take(sandboxes.items, containers.containers);
    for id in answers.without_netns(4) {
        answers.take_status(&id, PodSandboxStatusResponse::decode(status).ok().as_ref());
    }
    for id in ids {
        let _ = answers.container_by_id(&id);
    }
    let _ = answers.pod_by_netns("cni-1");
}
