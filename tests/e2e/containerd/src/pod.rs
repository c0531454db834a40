//! A pod, run as kubelet runs one: sandbox, containers, log folders and links.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
};

use crate::cri::Cri;

/// A pod as the API server would describe it, as far as these tests need one.
#[derive(Clone, Default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub host_network: bool,
    pub host_pid: bool,
    pub sysctls: HashMap<String, String>,
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

/// A pod that runs.
pub struct Running {
    pub pod: Pod,
    pub sandbox: String,
    pub ip: String,
    links: Vec<String>,
}

impl Pod {
    /// A pod of the shop, with a uid of its own.
    pub fn new(namespace: &str, name: &str, containers: Vec<Container>) -> Result<Self> {
        let uid = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
        Ok(Self { namespace: namespace.into(), name: name.into(), uid, containers, ..Self::default() })
    }

    /// Starts it below the cgroup `root`.
    pub async fn run(self, cri: &mut Cri, root: &str) -> Result<Running> {
        let config = self.sandbox(root);
        let (sandbox, ip) = cri.run_sandbox(&config).await?;
        let mut links = Vec::new();
        for container in &self.containers {
            let folder = Path::new(&config.log_directory).join(&container.name);
            fs::create_dir_all(&folder)?;
            let id = cri.run_container(&sandbox, &config, container.config(&self)).await?;
            let link = format!("/var/log/containers/{}_{}_{}-{id}.log", self.name, self.namespace, container.name);
            symlink(folder.join("0.log"), &link)?;
            links.push(link);
        }
        Ok(Running { pod: self, sandbox, ip, links })
    }

    fn sandbox(&self, root: &str) -> PodSandboxConfig {
        let folder = format!("/var/log/pods/{}_{}_{}", self.namespace, self.name, self.uid);
        let labels = [("name", &self.name), ("namespace", &self.namespace), ("uid", &self.uid)];
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: self.name.clone(),
                uid: self.uid.clone(),
                namespace: self.namespace.clone(),
                attempt: 0,
            }),
            // a pod of the host's network has the host's name too
            hostname: if self.host_network { String::new() } else { self.name.clone() },
            log_directory: folder,
            labels: labels.iter().map(|(key, value)| (format!("io.kubernetes.pod.{key}"), (*value).clone())).collect(),
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

    fn config(&self, pod: &Pod) -> ContainerConfig {
        let env = self.env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() });
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: self.name.clone(), attempt: 0 }),
            image: Some(ImageSpec { image: self.image.clone(), ..Default::default() }),
            args: self.args.clone(),
            envs: env.collect(),
            mounts: self.mounts.clone(),
            log_path: format!("{}/0.log", self.name),
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
    /// What a container has written so far.
    pub fn log(&self, container: &str) -> String {
        let Pod { namespace, name, uid, .. } = &self.pod;
        fs::read_to_string(format!("/var/log/pods/{namespace}_{name}_{uid}/{container}/0.log")).unwrap_or_default()
    }

    /// Ends it, and removes its logs as kubelet does.
    pub async fn remove(self, cri: &mut Cri) -> Result<()> {
        cri.remove_sandbox(&self.sandbox).await?;
        for link in &self.links {
            fs::remove_file(link)?;
        }
        let Pod { namespace, name, uid, .. } = &self.pod;
        Ok(fs::remove_dir_all(format!("/var/log/pods/{namespace}_{name}_{uid}"))?)
    }
}
