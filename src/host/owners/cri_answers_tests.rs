//! Tests how the runtime's answers are read. The query itself is tested end to end, on a real containerd.

use super::super::cri_messages::ContainerMetadata;
use super::*;

const GONE: i32 = 1;

fn sandbox(id: &str, pod: (&str, &str, &str), attempt: u32, state: i32) -> PodSandbox {
    let (namespace, name, uid) = pod;
    let metadata = PodSandboxMetadata { name: name.into(), uid: uid.into(), namespace: namespace.into(), attempt };
    PodSandbox { id: id.into(), metadata: Some(metadata), state, labels: Labels::new() }
}

fn container(id: &str, sandbox: &str, name: &str) -> Container {
    let metadata = Some(ContainerMetadata { name: name.into() });
    Container { id: id.into(), pod_sandbox_id: sandbox.into(), metadata, labels: Labels::new() }
}

fn labels(pod: (&str, &str, &str)) -> Labels {
    let of_pod = [(POD_NAMESPACE, pod.0), (POD_NAME, pod.1), (POD_UID, pod.2)];
    of_pod.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A verbose status with this network namespace path.
fn status(path: &str) -> PodSandboxStatusResponse {
    info(&format!(r#"{{"runtimeSpec":{{"linux":{{"namespaces":[{{"type":"network","path":"{path}"}}]}}}}}}"#))
}

fn info(text: &str) -> PodSandboxStatusResponse {
    PodSandboxStatusResponse { info: [("info".to_owned(), text.to_owned())].into() }
}

fn answers(sandboxes: Vec<PodSandbox>, containers: Vec<Container>) -> Answers {
    let mut answers = Answers::default();
    answers.take(sandboxes, containers);
    answers
}

/// Pod, uid and container of a container id.
fn named<'a>(answers: &'a Answers, id: &str) -> Option<(&'a str, &'a str, Option<&'a str>)> {
    let name = answers.container_by_id(id)?;
    Some((name.pod.pod.as_str(), name.uid.as_deref()?, name.container.as_deref()))
}

#[test]
fn sandboxes_and_containers_have_names() {
    let answers = answers(
        vec![sandbox("s1", ("shop", "web-0", "u1"), 0, READY)],
        vec![container("c1", "s1", "app"), container("c2", "s9", "app")],
    );
    assert_eq!(answers.pod_by_uid("u1"), PodName::new("shop", "web-0").as_ref());
    assert_eq!(named(&answers, "c1"), Some(("web-0", "u1", Some("app"))));
    assert_eq!(named(&answers, "s1"), Some(("web-0", "u1", None)), "the sandbox is a container without a name");
    assert_eq!(named(&answers, "c2"), None, "of a sandbox that was not listed, and without labels");
}

#[test]
fn names_that_kubernetes_forbids_are_not_taken() {
    let answers = answers(
        vec![
            sandbox("s1", ("Shop", "web", "u1"), 0, READY),
            sandbox("s2", ("shop", "web/..", "u2"), 0, READY),
            sandbox("s3", ("shop", "web", "../u3"), 0, READY),
            PodSandbox { id: "s4".into(), ..PodSandbox::default() },
            PodSandbox { id: "s6".into(), labels: labels(("shop", "we b", "u6")), ..PodSandbox::default() },
            sandbox("s5", ("shop", "web", "u5"), 0, READY),
        ],
        vec![container("c1", "s5", "a b")],
    );
    assert_eq!(answers.pods.keys().collect::<Vec<_>>(), ["u5"]);
    assert_eq!(answers.containers.keys().collect::<Vec<_>>(), ["s5"]);
}

#[test]
fn labels_name_what_metadata_does_not() {
    let web = ("shop", "web-0", "u1");
    let mut of_labels = container("c1", "s1", "");
    of_labels.labels = [(CONTAINER_NAME.to_owned(), "app".to_owned())].into();
    let answers = answers(
        vec![
            PodSandbox { id: "s1".into(), labels: labels(web), ..PodSandbox::default() },
            // if both exist, the metadata wins
            PodSandbox { labels: labels(web), ..sandbox("s2", ("shop", "web-1", "u2"), 0, READY) },
            // one word each
            PodSandbox { labels: labels(web), ..sandbox("s3", ("", "", "u3"), 0, READY) },
        ],
        vec![
            of_labels.clone(),
            Container { metadata: None, id: "c2".into(), ..of_labels },
            Container { labels: labels(web), ..container("c3", "made-since", "app") },
            Container { labels: labels(web), ..container("c4", "s2", "app") },
        ],
    );
    assert_eq!(answers.pod_by_uid("u1"), PodName::new("shop", "web-0").as_ref());
    assert_eq!(answers.pod_by_uid("u2"), PodName::new("shop", "web-1").as_ref());
    assert_eq!(answers.pod_by_uid("u3"), PodName::new("shop", "web-0").as_ref());
    for id in ["c1", "c2", "c3"] {
        assert_eq!(named(&answers, id), Some(("web-0", "u1", Some("app"))), "{id}");
    }
    assert_eq!(named(&answers, "c4"), Some(("web-1", "u2", Some("app"))), "its sandbox is the nearer source");
}

#[test]
fn a_pod_has_the_name_of_its_newest_sandbox_whatever_the_order_of_the_list() {
    // a static pod with a uid of its own was renamed: kubelet goes on counting attempts by uid
    let old = || sandbox("s1", ("kube-system", "proxy-old", "u1"), 0, GONE);
    let new = || sandbox("s2", ("kube-system", "proxy", "u1"), 1, READY);
    let newest = || sandbox("s3", ("kube-system", "proxy-new", "u1"), 10, GONE);
    let containers = || vec![container("c1", "s1", "app"), container("c2", "s2", "app")];
    let expect = |sandboxes: Vec<PodSandbox>, pod: &str| {
        let answers = answers(sandboxes, containers());
        assert_eq!(answers.pod_by_uid("u1"), PodName::new("kube-system", pod).as_ref());
        assert_eq!(named(&answers, "c1"), Some(("proxy-old", "u1", Some("app"))), "the predecessor keeps its name");
        assert_eq!(named(&answers, "c2"), Some(("proxy", "u1", Some("app"))), "and so does the successor");
        assert_eq!(named(&answers, "s1"), Some(("proxy-old", "u1", None)));
    };
    expect(vec![old(), new()], "proxy");
    expect(vec![new(), old()], "proxy");
    // the newest counts even while it is being made
    expect(vec![newest(), new(), old()], "proxy-new");
    expect(vec![old(), new(), newest()], "proxy-new");
    // a runtime that does not count: the one that lives
    let uncounted = || sandbox("s2", ("kube-system", "proxy", "u1"), 0, READY);
    expect(vec![old(), uncounted()], "proxy");
    expect(vec![uncounted(), old()], "proxy");
}

#[test]
fn a_namespace_is_that_of_the_ready_sandbox() {
    let web = ("shop", "web-0", "u1");
    let mut answers = answers(vec![sandbox("s1", web, 0, READY)], Vec::new());
    assert_eq!(answers.pod_by_netns("cni-1"), None, "not asked for yet");
    assert_eq!(answers.without_netns(9), ["s1"]);
    answers.take_status("s1", Some(&status("/var/run/netns/cni-1")));
    assert_eq!(answers.pod_by_netns("cni-1").map(|(uid, _)| uid), Some("u1"));

    // it ended, and another attempt at the same pod replaced it
    answers.take(vec![sandbox("s1", web, 0, GONE), sandbox("s2", web, 1, READY)], Vec::new());
    assert_eq!(answers.pod_by_netns("cni-1"), None, "the name of the old one's namespace is free again");
    assert_eq!(answers.without_netns(9), ["s2"], "and its state is dropped");
    answers.take_status("s1", Some(&status("/var/run/netns/cni-1")));
    assert_eq!(answers.pod_by_netns("cni-1"), None, "it ended while it was asked for");
    answers.take_status("s2", None);
    assert_eq!(answers.without_netns(9), [""; 0], "no answer is one");
    assert_eq!(answers.pod_by_netns(""), None, "a pod of the host's namespace has none of its own");
}

#[test]
fn of_two_ready_sandboxes_with_one_namespace_the_newer_of_the_same_pod_is_meant() {
    let claims = |sandboxes: [PodSandbox; 2]| {
        let mut answers = answers(sandboxes.to_vec(), Vec::new());
        for sandbox in sandboxes {
            answers.take_status(&sandbox.id, Some(&status("/run/netns/pod-a")));
        }
        answers.pod_by_netns("pod-a").map(|(uid, name)| (uid.to_owned(), name.pod.clone()))
    };
    let old = sandbox("s1", ("shop", "old", "u1"), 1, READY);
    let new = sandbox("s2", ("shop", "new", "u1"), 2, READY);
    assert_eq!(claims([old.clone(), new.clone()]), Some(("u1".to_owned(), "new".to_owned())));
    assert_eq!(claims([new, old.clone()]), Some(("u1".to_owned(), "new".to_owned())));
    let other = sandbox("s3", ("shop", "other", "u2"), 7, READY);
    assert_eq!(claims([old, other]), None, "attempts of two pods do not compare: a guess would be wrong half the time");
}

#[test]
fn the_namespace_path_is_in_the_oci_spec() {
    let containerd = r#"{"pid":4711,"runtimeSpec":{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"pid"},
        {"type":"network","path":"/var/run/netns/cni-6f5bd7a8"},{"type":"uts"}]}}}"#;
    assert_eq!(netns_of(&info(containerd)).as_deref(), Some("cni-6f5bd7a8"));
    let host_network = r#"{"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"}]}}}"#;
    let no_path = r#"{"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}"#;
    for without_path in [host_network, no_path, "", "{}", "[]", "{", r#"{"runtimeSpec":7}"#] {
        assert_eq!(netns_of(&info(without_path)), None, "{without_path}");
    }
    assert_eq!(netns_of(&PodSandboxStatusResponse::default()), None);
}

#[test]
fn without_an_oci_spec_the_namespace_path_is_in_containerds_metadata() {
    let metadata = r#""NetNSPath":"/var/run/netns/cni-44e45c20""#;
    for info_of in [
        format!(r#"{{"runtimeSpec":null,"sandboxMetadata":{{"Version":"v1","Metadata":{{"ID":"s1",{metadata}}}}}}}"#),
        format!(r#"{{"sandboxMetadata":{{"ID":"s1",{metadata}}}}}"#),
    ] {
        assert_eq!(netns_of(&info(&info_of)).as_deref(), Some("cni-44e45c20"), "{info_of}");
    }
    // a pod in the host's network has a spec without a path; its metadata may still have one
    let host_network = format!(r#"{{"runtimeSpec":{{"linux":{{"namespaces":[]}}}},"sandboxMetadata":{{{metadata}}}}}"#);
    for silent in
        [host_network.as_str(), r#"{"sandboxMetadata":7}"#, r#"{"sandboxMetadata":{"Metadata":{"NetNSPath":""}}}"#]
    {
        assert_eq!(netns_of(&info(silent)), None, "{silent}");
    }
}
