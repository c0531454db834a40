//! Names from the container runtime itself, over its CRI socket: the second source, asked only when the first is silent.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::cri_messages::{
    ListContainersRequest, ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse,
    PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use super::names::{ContainerName, PodName, is_label, is_uid};
use super::patience::Patience;

/// A runtime that takes longer than this for everything a sweep asks is left alone for a while.
const TIMEOUT: Duration = Duration::from_secs(1);
/// kubelet's own limit for an answer of the runtime.
const MAX_ANSWER: usize = 16 << 20;
/// How many sandboxes are asked for their namespace in one sweep; the rest follow in the next.
const MAX_STATUSES: usize = 64;
/// `SANDBOX_READY`
const READY: i32 = 0;

/// What the runtime last said. Sandboxes are remembered by their id, which is never used again.
#[derive(Debug)]
pub(super) struct Cri {
    socket: PathBuf,
    patience: Patience,
    /// Whether anybody wanted to know a sandbox's namespace.
    namespaces: bool,
    pods: HashMap<String, PodName>,
    containers: HashMap<String, ContainerName>,
    sandboxes: HashMap<String, Sandbox>,
}

#[derive(Debug)]
struct Sandbox {
    uid: String,
    name: PodName,
    /// The file name of its network namespace; `None`: not asked yet, empty: it has none of its own.
    netns: Option<String>,
}

impl Cri {
    /// Nothing is asked yet. `socket` may be written as runtimes write it, `unix:///run/containerd/containerd.sock`.
    pub fn new(socket: &Path) -> Self {
        let socket = socket.to_str().and_then(|text| text.strip_prefix("unix://")).map_or(socket, Path::new).to_owned();
        Self {
            socket,
            patience: Patience::default(),
            namespaces: false,
            pods: HashMap::new(),
            containers: HashMap::new(),
            sandboxes: HashMap::new(),
        }
    }

    /// Allows one more conversation.
    pub fn begin_sweep(&mut self) {
        self.patience.begin_sweep();
    }

    /// Asks the runtime, which does not know `key` yet, unless it was asked in this sweep, or often enough before.
    /// False when it did not answer.
    pub fn ask_for(&mut self, key: &str, namespaces: bool) -> bool {
        self.namespaces |= namespaces;
        if !self.patience.may_ask(key) {
            return true;
        }
        let answer = self.refresh();
        self.patience.asked(key, answer.is_ok());
        answer
            .inspect_err(|status| {
                tracing::debug!(socket = %self.socket.display(), status = status.message(), "asking the container runtime");
            })
            .is_ok()
    }

    pub fn pod_by_uid(&self, uid: &str) -> Option<&PodName> {
        self.pods.get(uid)
    }

    pub fn container_by_id(&self, id: &str) -> Option<&ContainerName> {
        self.containers.get(id)
    }

    /// The uid and name of the pod whose network namespace is bound at this file name.
    pub fn pod_by_netns(&self, name: &str) -> Option<(&str, &PodName)> {
        let of_name =
            |sandbox: &&Sandbox| sandbox.netns.as_deref().is_some_and(|netns| !netns.is_empty() && netns == name);
        self.sandboxes.values().find(of_name).map(|sandbox| (sandbox.uid.as_str(), &sandbox.name))
    }

    /// Asks for sandboxes and containers, and where namespaces are wanted for those of sandboxes not seen before.
    fn refresh(&mut self) -> Result<(), Status> {
        // a runtime of its own for one conversation: nothing lives on between sweeps
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Status::internal(format!("starting an event loop: {error}")))?;
        runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, self.ask())
                .await
                .map_err(|_| Status::deadline_exceeded(format!("no answer within {TIMEOUT:?}")))?
        })
    }

    async fn ask(&mut self) -> Result<(), Status> {
        let uri = format!("unix://{}", self.socket.display());
        let endpoint = Endpoint::from_shared(uri).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut client = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
        let sandboxes: ListPodSandboxResponse = call(&mut client, LIST_SANDBOXES, ListPodSandboxRequest {}).await?;
        let containers: ListContainersResponse = call(&mut client, LIST_CONTAINERS, ListContainersRequest {}).await?;
        self.take(sandboxes, containers);
        if self.namespaces {
            let unasked = self.sandboxes.iter_mut().filter(|(_, sandbox)| sandbox.netns.is_none());
            for (id, sandbox) in unasked.take(MAX_STATUSES) {
                let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: true };
                let answer: Result<PodSandboxStatusResponse, Status> = call(&mut client, SANDBOX_STATUS, request).await;
                // one that was removed in between fails by itself, not the whole conversation
                sandbox.netns = Some(answer.ok().and_then(|status| netns_of(&status)).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Keeps what the runtime answered, as far as Kubernetes would have accepted the names.
    pub fn take(&mut self, sandboxes: ListPodSandboxResponse, containers: ListContainersResponse) {
        let mut old = std::mem::take(&mut self.sandboxes);
        let mut all = HashMap::new();
        self.pods.clear();
        self.containers.clear();
        for sandbox in sandboxes.items {
            let metadata = sandbox.metadata.unwrap_or_default();
            let Some(name) = PodName::new(&metadata.namespace, &metadata.name) else { continue };
            if !is_uid(&metadata.uid) {
                continue;
            }
            let pod = ContainerName { pod: name.clone(), uid: Some(metadata.uid.clone()), container: None };
            all.insert(sandbox.id.clone(), pod);
            self.pods.insert(metadata.uid.clone(), name.clone());
            if sandbox.state == READY {
                let netns = old.remove(&sandbox.id).and_then(|known| known.netns);
                self.sandboxes.insert(sandbox.id, Sandbox { uid: metadata.uid, name, netns });
            }
        }
        for container in containers.containers {
            let name = container.metadata.unwrap_or_default().name;
            if let Some(pod) = all.get(&container.pod_sandbox_id).filter(|_| is_label(&name)) {
                self.containers.insert(container.id, ContainerName { container: Some(name), ..pod.clone() });
            }
        }
        self.containers.extend(all);
    }
}

const LIST_SANDBOXES: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const SANDBOX_STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";

async fn call<Q, A>(client: &mut Grpc<Channel>, method: &'static str, request: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(client.unary(Request::new(request), PathAndQuery::from_static(method), codec).await?.into_inner())
}

/// The last part of the sandbox's network namespace path, from the OCI spec that containerd and CRI-O give in verbose answers.
fn netns_of(status: &PodSandboxStatusResponse) -> Option<String> {
    let info: serde_json::Value = serde_json::from_str(status.info.get("info")?).ok()?;
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
    Some(Path::new(network["path"].as_str()?).file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
#[path = "cri_tests.rs"]
mod tests;
