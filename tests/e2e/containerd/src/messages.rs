//! Compares the program's own CRI messages with those of `k8s-cri`, which are generated from Kubernetes' interface:
//! each reads what the other writes.

use std::collections::HashMap;
use std::fmt::Debug;

use k8s_cri::v1;
use prost::Message;

#[path = "../../../../src/host/owners/cri_messages.rs"]
mod ours;

/// Checks both directions. `whole` has every field set, `read` has the fields that the program reads, and `reduced` is
/// the same message in the types of `k8s-cri`. The literals of `ours` name every field, so a new field does not compile
/// here until the test compares it.
fn agree<O, T>(whole: &T, read: &O, reduced: &T)
where
    O: Message + Default + PartialEq + Debug,
    T: Message + Default + PartialEq + Debug,
{
    assert_eq!(&decoded::<O>(whole), read, "what the program reads");
    assert_eq!(&decoded::<T>(read), reduced, "what the program would write");
    assert_ne!(read, &O::default(), "a message of defaults has no bytes, so it would equal any other");
}

fn decoded<M: Message + Default>(from: &impl Message) -> M {
    M::decode(from.encode_to_vec().as_slice()).expect("protobuf")
}

fn map(name: &str) -> HashMap<String, String> {
    [(format!("{name}-key"), format!("{name}-value"))].into()
}

fn sandbox_metadata() -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata { name: "name".into(), uid: "uid".into(), namespace: "namespace".into(), attempt: 4 }
}

#[test]
fn sandboxes_agree() {
    let whole = v1::PodSandbox {
        id: "id".into(),
        metadata: Some(sandbox_metadata()),
        state: v1::PodSandboxState::SandboxNotready.into(),
        created_at: 4,
        labels: map("label"),
        annotations: map("annotation"),
        runtime_handler: "handler".into(),
    };
    let read = ours::PodSandbox {
        id: "id".into(),
        metadata: Some(ours::PodSandboxMetadata {
            name: "name".into(),
            uid: "uid".into(),
            namespace: "namespace".into(),
            attempt: 4,
        }),
        state: 1,
        labels: map("label"),
    };
    let reduced =
        v1::PodSandbox { created_at: 0, annotations: HashMap::new(), runtime_handler: String::new(), ..whole.clone() };
    agree(&whole, &read, &reduced);
    agree(
        &v1::ListPodSandboxResponse { items: vec![whole.clone(), whole] },
        &ours::ListPodSandboxResponse { items: vec![read.clone(), read] },
        &v1::ListPodSandboxResponse { items: vec![reduced.clone(), reduced] },
    );
    assert_eq!(i32::from(v1::PodSandboxState::SandboxReady), 0, "the state that the program expects");
}

#[test]
fn containers_agree() {
    let whole = v1::Container {
        id: "id".into(),
        pod_sandbox_id: "sandbox".into(),
        metadata: Some(v1::ContainerMetadata { name: "name".into(), attempt: 2 }),
        image: Some(v1::ImageSpec { image: "image".into(), ..Default::default() }),
        image_ref: "ref".into(),
        state: v1::ContainerState::ContainerExited.into(),
        created_at: 7,
        labels: map("label"),
        annotations: map("annotation"),
        image_id: "image-id".into(),
    };
    let read = ours::Container {
        id: "id".into(),
        pod_sandbox_id: "sandbox".into(),
        metadata: Some(ours::ContainerMetadata { name: "name".into() }),
        labels: map("label"),
    };
    let reduced = v1::Container {
        id: "id".into(),
        pod_sandbox_id: "sandbox".into(),
        metadata: Some(v1::ContainerMetadata { name: "name".into(), attempt: 0 }),
        labels: map("label"),
        ..Default::default()
    };
    agree(&whole, &read, &reduced);
    agree(
        &v1::ListContainersResponse { containers: vec![whole.clone(), whole] },
        &ours::ListContainersResponse { containers: vec![read.clone(), read] },
        &v1::ListContainersResponse { containers: vec![reduced.clone(), reduced] },
    );
}

#[test]
fn statuses_agree() {
    let whole = v1::PodSandboxStatusResponse {
        status: Some(v1::PodSandboxStatus { metadata: Some(sandbox_metadata()), ..Default::default() }),
        info: map("info"),
        containers_statuses: vec![v1::ContainerStatus { id: "id".into(), ..Default::default() }],
        timestamp: 4,
    };
    let read = ours::PodSandboxStatusResponse { info: map("info") };
    agree(&whole, &read, &v1::PodSandboxStatusResponse { info: map("info"), ..Default::default() });
}

#[test]
fn requests_agree() {
    let asked = v1::PodSandboxStatusRequest { pod_sandbox_id: "id".into(), verbose: true };
    agree(&asked, &ours::PodSandboxStatusRequest { pod_sandbox_id: "id".into(), verbose: true }, &asked);
    // no filter: all of them
    assert_eq!(decoded::<v1::ListPodSandboxRequest>(&ours::ListPodSandboxRequest {}).filter, None);
    assert_eq!(decoded::<v1::ListContainersRequest>(&ours::ListContainersRequest {}).filter, None);
}
