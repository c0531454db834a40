//! A CRI client that makes sandboxes and containers as kubelet does, over the runtime's socket.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, CreateContainerRequest, ExecSyncRequest, ListPodSandboxRequest, PodSandboxConfig, PodSandboxState,
    PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StatusRequest,
    StopContainerRequest, StopPodSandboxRequest,
};
use tonic::transport::{Channel, Endpoint};

/// The address of containerd on the node.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// A client of the runtime.
pub struct Cri(RuntimeServiceClient<Channel>);

impl Cri {
    /// Waits for the runtime and its network to be ready.
    pub async fn connect() -> Result<Self> {
        for _ in 0..600 {
            if let Ok(channel) = Endpoint::from_shared(format!("unix://{SOCKET}"))?.connect().await {
                let mut client = RuntimeServiceClient::new(channel);
                if let Ok(answer) = client.status(StatusRequest::default()).await
                    && answer
                        .get_ref()
                        .status
                        .iter()
                        .flat_map(|status| &status.conditions)
                        .all(|condition| condition.status)
                {
                    return Ok(Self(client));
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("containerd was not ready within 2 minutes")
    }

    /// Starts a sandbox. Returns its id and address.
    pub async fn run_sandbox(&mut self, config: &PodSandboxConfig) -> Result<(String, String)> {
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let id = self.0.run_pod_sandbox(request).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
        let status = self.0.pod_sandbox_status(request).await.context("PodSandboxStatus")?.into_inner().status;
        let ip = status.and_then(|status| status.network).map(|network| network.ip).unwrap_or_default();
        Ok((id, ip))
    }

    /// Creates and starts a container. Returns its id.
    pub async fn run_container(
        &mut self,
        sandbox: &str,
        pod: &PodSandboxConfig,
        container: ContainerConfig,
    ) -> Result<String> {
        let name = container.metadata.clone().unwrap_or_default().name;
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(container),
            sandbox_config: Some(pod.clone()),
        };
        let answer = self.0.create_container(request).await.with_context(|| format!("CreateContainer {name}"))?;
        let container_id = answer.into_inner().container_id;
        let request = StartContainerRequest { container_id: container_id.clone() };
        self.0.start_container(request).await.with_context(|| format!("StartContainer {name}"))?;
        Ok(container_id)
    }

    /// Runs a command in a container, as `kubectl exec` does. Returns its stdout, its stderr and its exit status.
    pub async fn exec(&mut self, container: &str, command: &[&str]) -> Result<(String, String, i32)> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 60,
        };
        let answer = self.0.exec_sync(request).await.context("ExecSync")?.into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&answer.stdout), text(&answer.stderr), answer.exit_code))
    }

    /// Ends a container. The runtime still lists it.
    pub async fn stop_container(&mut self, id: &str) -> Result<()> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: 0 };
        self.0.stop_container(request).await.context("StopContainer")?;
        Ok(())
    }

    /// Ends a sandbox with all its containers. The runtime still lists them.
    pub async fn stop_sandbox(&mut self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.0.stop_pod_sandbox(request).await.context("StopPodSandbox")?;
        Ok(())
    }

    /// Removes a sandbox that has ended.
    pub async fn remove_sandbox(&mut self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.0.remove_pod_sandbox(request).await.context("RemovePodSandbox")?;
        Ok(())
    }

    /// The sandboxes of a pod that the runtime lists: the attempt, and whether it is ready.
    pub async fn sandboxes(&mut self, uid: &str) -> Result<Vec<(u32, bool)>> {
        let listed = self.0.list_pod_sandbox(ListPodSandboxRequest::default()).await.context("ListPodSandbox")?;
        let of_pod = listed.into_inner().items.into_iter().filter_map(|sandbox| {
            let ready = sandbox.state() == PodSandboxState::SandboxReady;
            let metadata = sandbox.metadata.filter(|metadata| metadata.uid == uid)?;
            Some((metadata.attempt, ready))
        });
        let mut attempts: Vec<_> = of_pod.collect();
        attempts.sort_unstable();
        Ok(attempts)
    }
}
