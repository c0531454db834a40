//! What is made of a runtime's answers. The conversation itself is tested on a real containerd, end to end.

use super::super::cri_messages::{Container, ContainerMetadata, PodSandbox, PodSandboxMetadata};
use super::*;

fn sandbox(id: &str, namespace: &str, name: &str, uid: &str, state: i32) -> PodSandbox {
    let metadata = PodSandboxMetadata { name: name.into(), uid: uid.into(), namespace: namespace.into() };
    PodSandbox { id: id.into(), metadata: Some(metadata), state }
}

fn container(id: &str, sandbox: &str, name: &str) -> Container {
    let metadata = Some(ContainerMetadata { name: name.into() });
    Container { id: id.into(), pod_sandbox_id: sandbox.into(), metadata }
}

fn status(info: &str) -> PodSandboxStatusResponse {
    PodSandboxStatusResponse { info: [("info".to_owned(), info.to_owned())].into() }
}

#[test]
fn sandboxes_and_containers_have_names() {
    let mut cri = Cri::new(Path::new("unix:///run/containerd/containerd.sock"));
    assert_eq!(cri.socket, Path::new("/run/containerd/containerd.sock"));
    let web = PodName::new("shop", "web-0");
    cri.take(
        ListPodSandboxResponse { items: vec![sandbox("s1", "shop", "web-0", "u1", READY)] },
        ListContainersResponse { containers: vec![container("c1", "s1", "app"), container("c2", "s9", "app")] },
    );
    assert_eq!(cri.pod_by_uid("u1"), web.as_ref());
    let named = |id| cri.container_by_id(id).map(|known| (known.uid.as_deref(), known.container.as_deref()));
    assert_eq!(named("c1"), Some((Some("u1"), Some("app"))));
    assert_eq!(named("s1"), Some((Some("u1"), None)), "the sandbox is a container without a name");
    assert_eq!(named("c2"), None, "of a sandbox that was not listed");
}

#[test]
fn names_that_kubernetes_forbids_are_not_taken() {
    let mut cri = Cri::new(Path::new("/run/cri.sock"));
    let items = vec![
        sandbox("s1", "Shop", "web", "u1", READY),
        sandbox("s2", "shop", "web/..", "u2", READY),
        sandbox("s3", "shop", "web", "../u3", READY),
        PodSandbox { id: "s4".into(), metadata: None, state: READY },
        sandbox("s5", "shop", "web", "u5", READY),
    ];
    cri.take(
        ListPodSandboxResponse { items },
        ListContainersResponse { containers: vec![container("c1", "s5", "a b")] },
    );
    assert_eq!(cri.pods.keys().collect::<Vec<_>>(), ["u5"]);
    assert_eq!(cri.containers.keys().collect::<Vec<_>>(), ["s5"]);
}

#[test]
fn a_namespace_is_that_of_the_ready_sandbox() {
    let mut cri = Cri::new(Path::new("/run/cri.sock"));
    let none = ListContainersResponse { containers: Vec::new() };
    let first = sandbox("s1", "shop", "web-0", "u1", READY);
    cri.take(ListPodSandboxResponse { items: vec![first] }, none.clone());
    assert_eq!(cri.pod_by_netns("cni-1"), None, "not asked for yet");
    cri.sandboxes.get_mut("s1").expect("ready").netns = Some("cni-1".into());
    assert_eq!(cri.pod_by_netns("cni-1").map(|(uid, _)| uid), Some("u1"));

    // the sandbox ended; another attempt of the same pod took its place
    let items = vec![sandbox("s1", "shop", "web-0", "u1", 1), sandbox("s2", "shop", "web-0", "u1", READY)];
    cri.take(ListPodSandboxResponse { items }, none);
    assert_eq!(cri.pod_by_netns("cni-1"), None);
    assert_eq!(cri.sandboxes.keys().collect::<Vec<_>>(), ["s2"]);
    cri.sandboxes.get_mut("s2").expect("ready").netns = Some(String::new());
    assert_eq!(cri.pod_by_netns(""), None, "a pod of the host's namespace has none of its own");
}

#[test]
fn the_namespace_path_is_in_the_oci_spec() {
    let containerd = r#"{"pid":4711,"runtimeSpec":{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"pid"},
        {"type":"network","path":"/var/run/netns/cni-6f5bd7a8"},{"type":"uts"}]}}}"#;
    assert_eq!(netns_of(&status(containerd)).as_deref(), Some("cni-6f5bd7a8"));
    let host_network = r#"{"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"}]}}}"#;
    let no_path = r#"{"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}"#;
    for silent in [host_network, no_path, "", "{}", "[]", "{", r#"{"runtimeSpec":7}"#] {
        assert_eq!(netns_of(&status(silent)), None, "{silent}");
    }
    assert_eq!(netns_of(&PodSandboxStatusResponse::default()), None);
}

#[test]
fn a_socket_that_is_not_there_is_no_answer() {
    let mut cri = Cri::new(Path::new("/nonexistent/cri.sock"));
    cri.begin_sweep();
    assert!(!cri.ask_for("u1", false));
    assert!(cri.ask_for("u2", false), "it is not asked twice, and one failure is told once");
}
