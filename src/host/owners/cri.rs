//! Queries the container runtime over its CRI socket. It is the second source of names, used only if the first one
//! lacks a name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::backoff::Backoff;
use super::cri_answers::Answers;
use super::cri_messages::{
    ListContainersRequest, ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse,
    PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use super::names::{ContainerName, PodName};

/// If the queries of one sweep take longer than this, the runtime is not queried for some sweeps.
const TIMEOUT: Duration = Duration::from_secs(1);
/// kubelet's own limit for an answer of the runtime.
const MAX_ANSWER: usize = 16 << 20;
/// The number of sandboxes whose namespace is queried in one sweep. The rest follow in the next sweeps.
const MAX_STATUSES: usize = 64;

/// A runtime and its last answers.
#[derive(Debug)]
pub(super) struct Cri {
    socket: PathBuf,
    backoff: Backoff,
    /// Whether the namespace of a sandbox is needed.
    namespaces: bool,
    answers: Answers,
}

impl Cri {
    /// Queries nothing yet. `socket` may have the runtimes' form `unix:///run/containerd/containerd.sock`.
    pub fn new(socket: &Path) -> Self {
        let socket = socket.to_str().and_then(|text| text.strip_prefix("unix://")).map_or(socket, Path::new).to_owned();
        Self { socket, backoff: Backoff::default(), namespaces: false, answers: Answers::default() }
    }

    /// Begins a sweep, which allows one more query.
    pub fn begin_sweep(&mut self) {
        self.backoff.begin_sweep();
    }

    /// Whether something listens on the socket. A restarted runtime makes a new socket, and a mount of the old one
    /// stays dead. Without this check nobody would notice it while the log folders have all the names.
    pub fn is_reachable(&self) -> bool {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let connected = SocketAddrUnix::new(&self.socket)
            .and_then(|address| connect(&socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?, &address));
        // the listener exists and its queue is full
        connected.is_ok() || connected == Err(Errno::AGAIN)
    }

    /// Queries the runtime for the unknown `key`, unless the backoff forbids it. False if the runtime did not answer.
    pub fn ask_for(&mut self, key: &str, namespaces: bool) -> bool {
        self.namespaces |= namespaces;
        if !self.backoff.may_ask(key) {
            return true;
        }
        let answer = self.refresh();
        self.backoff.asked(key, answer.is_ok());
        answer
            .inspect_err(|status| {
                tracing::debug!(socket = %self.socket.display(), status = status.message(), "asking the container \
                    runtime");
            })
            .is_ok()
    }

    pub fn pod_by_uid(&self, uid: &str) -> Option<&PodName> {
        self.answers.pod_by_uid(uid)
    }

    pub fn container_by_id(&self, id: &str) -> Option<&ContainerName> {
        self.answers.container_by_id(id)
    }

    pub fn pod_by_netns(&self, netns: &str) -> Option<(&str, &PodName)> {
        self.answers.pod_by_netns(netns)
    }

    /// Queries the sandboxes and containers, and the namespaces of new sandboxes if these are needed.
    fn refresh(&mut self) -> Result<(), Status> {
        // a new async runtime for each query: nothing stays alive between sweeps
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
        self.answers.take(sandboxes.items, containers.containers);
        if self.namespaces {
            for id in self.answers.without_netns(MAX_STATUSES) {
                let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: true };
                let answer: Result<PodSandboxStatusResponse, Status> = call(&mut client, SANDBOX_STATUS, request).await;
                // a sandbox that was removed meanwhile fails alone, not the whole query
                self.answers.take_status(&id, answer.ok().as_ref());
            }
        }
        Ok(())
    }

    /// Replaces an answer of the runtime in tests.
    #[cfg(test)]
    pub fn answer(&mut self, sandboxes: Vec<super::cri_messages::PodSandbox>) {
        self.answers.take(sandboxes, Vec::new());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_be_written_as_runtimes_write_it() {
        let cri = Cri::new(Path::new("unix:///run/containerd/containerd.sock"));
        assert_eq!(cri.socket, Path::new("/run/containerd/containerd.sock"));
    }

    #[test]
    fn a_socket_that_nobody_listens_on_any_more_is_dead() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let socket = folder.path().join("cri.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        let cri = Cri::new(&socket);
        assert!(cri.is_reachable());
        drop(listener);
        assert!(socket.exists() && !cri.is_reachable());
    }

    #[test]
    fn a_socket_that_is_not_there_is_no_answer() {
        let mut cri = Cri::new(Path::new("/nonexistent/cri.sock"));
        cri.begin_sweep();
        assert!(!cri.is_reachable());
        assert!(!cri.ask_for("u1", false));
        assert!(cri.ask_for("u2", false), "it is not queried twice, and one failure is reported once");
    }
}
