//! Runs a pod as kubelet does: sandbox, containers, log folders and links.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Result, bail};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
};

use crate::cri::Cri;

/// The parts of a pod's description that these tests need.
#[derive(Clone, Default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub host_network: bool,
    pub host_pid: bool,
    pub sysctls: HashMap<String, String>,
    /// The number of its earlier sandboxes.
    pub attempt: u32,
    /// Whether only labels give its names to the runtime.
    pub labels_only: bool,
    pub containers: Vec<Container>,
}

/// One of its containers.
#[derive(Clone, Default)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub security: LinuxContainerSecurityContext,
    pub memory_limit: i64,
}

/// A running pod.
pub struct Running {
    pub pod: Pod,
    pub sandbox: String,
    pub ip: String,
    /// The id of each container, and its link in the folder of container logs.
    containers: Vec<(String, String)>,
}

impl Pod {
    /// A pod with a new uid.
    pub fn new(namespace: &str, name: &str, containers: Vec<Container>) -> Result<Self> {
        let uid = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
        Ok(Self { namespace: namespace.into(), name: name.into(), uid, containers, ..Self::default() })
    }

    /// Starts it below the cgroup `root`.
    pub async fn run(self, cri: &mut Cri, root: &str) -> Result<Running> {
        let config = self.sandbox(root);
        let (sandbox, ip) = cri.run_sandbox(&config).await?;
        let mut running = Running { pod: self, sandbox, ip, containers: Vec::new() };
        for container in running.pod.containers.clone() {
            running.start(cri, &config, &container, 0).await?;
        }
        Ok(running)
    }

    fn sandbox(&self, root: &str) -> PodSandboxConfig {
        let folder = format!("/var/log/pods/{}_{}_{}", self.namespace, self.name, self.uid);
        let word = |word: &String| if self.labels_only { String::new() } else { word.clone() };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: word(&self.name),
                uid: word(&self.uid),
                namespace: word(&self.namespace),
                attempt: self.attempt,
            }),
            // a pod in the host's network has the host's name
            hostname: if self.host_network { String::new() } else { self.name.clone() },
            log_directory: folder,
            labels: self.labels().collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{root}/kubepods/burstable/pod{}", self.uid),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(self.namespaces()),
                    ..Default::default()
                }),
                sysctls: self.sysctls.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// kubelet's own labels, on the sandbox and on each container.
    fn labels(&self) -> impl Iterator<Item = (String, String)> {
        let labels = [("name", &self.name), ("namespace", &self.namespace), ("uid", &self.uid)];
        labels.map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.clone())).into_iter()
    }

    fn namespaces(&self) -> NamespaceOption {
        let mode = |host| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
        NamespaceOption {
            network: mode(self.host_network).into(),
            pid: if self.host_pid { NamespaceMode::Node } else { NamespaceMode::Container }.into(),
            ipc: NamespaceMode::Pod.into(),
            ..Default::default()
        }
    }
}

impl Container {
    /// A container of this program's own image.
    pub fn load(name: &str, words: &[&str]) -> Self {
        let args = ["load"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        Self { name: name.into(), image: crate::image::LOAD.into(), args, ..Self::default() }
    }

    fn config(&self, pod: &Pod, attempt: u32) -> ContainerConfig {
        let env = self.env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() });
        let own = ("io.kubernetes.container.name".to_owned(), self.name.clone());
        let name = if pod.labels_only { String::new() } else { self.name.clone() };
        ContainerConfig {
            metadata: Some(ContainerMetadata { name, attempt }),
            labels: pod.labels().chain([own]).collect(),
            image: Some(ImageSpec { image: self.image.clone(), ..Default::default() }),
            args: self.args.clone(),
            envs: env.collect(),
            mounts: self.mounts.clone(),
            log_path: format!("{}/{attempt}.log", self.name),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources {
                    memory_limit_in_bytes: self.memory_limit,
                    ..Default::default()
                }),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(pod.namespaces()),
                    ..self.security.clone()
                }),
            }),
            ..Default::default()
        }
    }
}

impl Running {
    /// The log of a container so far.
    pub fn log(&self, container: &str) -> String {
        let Pod { namespace, name, uid, .. } = &self.pod;
        fs::read_to_string(format!("/var/log/pods/{namespace}_{name}_{uid}/{container}/0.log")).unwrap_or_default()
    }

    async fn start(
        &mut self,
        cri: &mut Cri,
        config: &PodSandboxConfig,
        container: &Container,
        attempt: u32,
    ) -> Result<()> {
        let folder = Path::new(&config.log_directory).join(&container.name);
        fs::create_dir_all(&folder)?;
        let id = cri.run_container(&self.sandbox, config, container.config(&self.pod, attempt)).await?;
        let Pod { namespace, name, .. } = &self.pod;
        let link = format!("/var/log/containers/{name}_{namespace}_{}-{id}.log", container.name);
        symlink(folder.join(format!("{attempt}.log")), &link)?;
        self.containers.push((id, link));
        Ok(())
    }

    /// Ends its only container and starts another one with the same name, as kubelet does after a failure. The runtime
    /// lists both.
    pub async fn restart(&mut self, cri: &mut Cri, root: &str) -> Result<()> {
        let [(id, _)] = &self.containers[..] else { bail!("only a pod with one container can restart it") };
        cri.stop_container(id).await?;
        let container = self.pod.containers[0].clone();
        self.start(cri, &self.pod.sandbox(root), &container, 1).await
    }

    /// The id of its first container.
    pub fn container(&self) -> &str {
        &self.containers[0].0
    }

    /// Ends it. The runtime still lists it, and its logs stay.
    pub async fn stop(&self, cri: &mut Cri) -> Result<()> {
        cri.stop_sandbox(&self.sandbox).await
    }

    /// Ends it, and removes its logs as kubelet does.
    pub async fn remove(self, cri: &mut Cri) -> Result<()> {
        self.stop(cri).await?;
        cri.remove_sandbox(&self.sandbox).await?;
        for (_, link) in &self.containers {
            fs::remove_file(link)?;
        }
        let Pod { namespace, name, uid, .. } = &self.pod;
        Ok(fs::remove_dir_all(format!("/var/log/pods/{namespace}_{name}_{uid}"))?)
    }
}
