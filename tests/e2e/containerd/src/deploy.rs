//! Renders the DaemonSet of deploy/ with kustomize and translates it to CRI as kubelet does. An unknown field is an
//! error, so that the test covers the whole manifest.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{Capability, Int64Value, LinuxContainerSecurityContext, Mount, MountPropagation, SecurityProfile};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::node::output;
use crate::pod::{Container, Pod};

/// The paths of `/proc` that kubelet hides from a container with the default procMount.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PodSpec {
    #[serde(rename = "hostPID", default)]
    host_pid: bool,
    containers: Vec<ContainerSpec>,
    volumes: Vec<Volume>,
    // not used by the runtime
    #[serde(default, rename = "serviceAccountName")]
    _service_account: IgnoredAny,
    #[serde(rename = "automountServiceAccountToken")]
    _token: No,
    #[serde(default, rename = "enableServiceLinks")]
    _service_links: IgnoredAny,
    #[serde(default, rename = "terminationGracePeriodSeconds")]
    _grace: IgnoredAny,
    #[serde(default, rename = "nodeSelector")]
    _nodes: IgnoredAny,
    #[serde(default, rename = "affinity")]
    _affinity: IgnoredAny,
    #[serde(default, rename = "tolerations")]
    _tolerations: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ContainerSpec {
    name: String,
    image: String,
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Env>,
    resources: Resources,
    security_context: SecurityContext,
    volume_mounts: Vec<VolumeMount>,
    // not used by the runtime
    #[serde(default, rename = "imagePullPolicy")]
    _pull: IgnoredAny,
    #[serde(default, rename = "ports")]
    _ports: IgnoredAny,
    #[serde(default, rename = "startupProbe")]
    _startup: IgnoredAny,
    #[serde(default, rename = "livenessProbe")]
    _liveness: IgnoredAny,
    #[serde(default, rename = "readinessProbe")]
    _readiness: IgnoredAny,
    #[serde(default, rename = "terminationMessagePolicy")]
    _termination: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Env {
    name: String,
    value: Option<String>,
    value_from: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    #[serde(default, rename = "requests")]
    _requests: IgnoredAny,
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    memory: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: i64,
    run_as_group: i64,
    #[serde(rename = "runAsNonRoot")]
    _run_as_non_root: No,
    #[serde(rename = "privileged")]
    _privileged: No,
    #[serde(rename = "allowPrivilegeEscalation")]
    _allow_privilege_escalation: No,
    read_only_root_filesystem: bool,
    capabilities: Capabilities,
    seccomp_profile: SeccompProfile,
    // this machine has no AppArmor
    #[serde(default, rename = "appArmorProfile")]
    _app_armor: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capabilities {
    add: Vec<String>,
    drop: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeccompProfile {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    mount_propagation: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
    config_map: Option<ConfigMap>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostPath {
    path: String,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigMap {
    name: String,
}

/// A field that must be `false`.
#[derive(Deserialize)]
#[serde(try_from = "bool")]
struct No;

impl TryFrom<bool> for No {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Err("the agent must not ask for this") } else { Ok(Self) }
    }
}

/// The image that the manifest names.
pub fn image(folder: &Path) -> Result<String> {
    Ok(agent(folder, "", Path::new("/nonexistent"))?.containers[0].image.clone())
}

/// The agent's pod as the kustomization in `folder` describes it. Config maps are written below `scratch`.
pub fn agent(folder: &Path, name: &str, scratch: &Path) -> Result<Pod> {
    let rendered = output("kubectl", &["kustomize", &folder.display().to_string()])?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&rendered).context("what kustomize rendered")?;
    let of_kind = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
    let set = of_kind("DaemonSet").next().context("kustomize rendered no DaemonSet")?;
    let spec: PodSpec = serde_json::from_value(set["spec"]["template"]["spec"].clone())
        .context("the DaemonSet has a field that this test does not translate yet")?;
    ensure!(spec.containers.len() == 1, "the agent is one container");

    let mut containers = Vec::new();
    for container in spec.containers {
        let mut mounts = Vec::new();
        for mount in container.volume_mounts {
            let volume = spec.volumes.iter().find(|volume| volume.name == mount.name);
            let host_path = match volume.map(|volume| (&volume.host_path, &volume.config_map)) {
                Some((Some(host), None)) => host.lay_out()?,
                Some((None, Some(map))) => {
                    let map = of_kind("ConfigMap").find(|found| found["metadata"]["name"] == map.name.as_str());
                    lay_out(map.context("its config map is missing")?, scratch)?
                }
                _ => bail!("no volume is called {}, or it is of an unknown kind", mount.name),
            };
            let propagation = match mount.mount_propagation.as_deref() {
                None | Some("None") => MountPropagation::PropagationPrivate,
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                Some(other) => bail!("mountPropagation {other}"),
            };
            mounts.push(Mount {
                container_path: mount.mount_path,
                host_path,
                readonly: mount.read_only,
                propagation: propagation.into(),
                ..Default::default()
            });
        }
        containers.push(Container {
            name: container.name,
            image: container.image,
            args: container.args,
            env: container.env.into_iter().map(Env::resolve).collect::<Result<_>>()?,
            mounts,
            security: container.security_context.translate()?,
            memory_limit: mebibytes(&container.resources.limits.memory)?,
        });
    }
    Ok(Pod { host_pid: spec.host_pid, ..Pod::new("keepalive-auditor", name, containers)? })
}

impl SecurityContext {
    fn translate(self) -> Result<LinuxContainerSecurityContext> {
        ensure!(self.seccomp_profile.r#type == "RuntimeDefault", "seccomp profile {}", self.seccomp_profile.r#type);
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Ok(LinuxContainerSecurityContext {
            capabilities: Some(Capability {
                add_capabilities: self.capabilities.add,
                drop_capabilities: self.capabilities.drop,
                ..Default::default()
            }),
            run_as_user: Some(Int64Value { value: self.run_as_user }),
            run_as_group: Some(Int64Value { value: self.run_as_group }),
            readonly_rootfs: self.read_only_root_filesystem,
            no_new_privs: true,
            masked_paths: owned(&MASKED),
            readonly_paths: owned(&READ_ONLY),
            seccomp: Some(SecurityProfile {
                profile_type: ProfileType::RuntimeDefault.into(),
                localhost_ref: String::new(),
            }),
            ..Default::default()
        })
    }
}

impl Env {
    fn resolve(self) -> Result<(String, String)> {
        let field = self.value_from.as_ref().and_then(|from| from.pointer("/fieldRef/fieldPath")?.as_str());
        match (self.value, field) {
            (Some(value), None) => Ok((self.name, value)),
            (None, Some("spec.nodeName")) => Ok((self.name, "node-1".to_owned())),
            _ => bail!("environment {} is neither a value nor spec.nodeName", self.name),
        }
    }
}

impl HostPath {
    fn lay_out(&self) -> Result<String> {
        match self.r#type.as_str() {
            "Directory" => ensure!(Path::new(&self.path).is_dir(), "{} is not a directory", self.path),
            "DirectoryOrCreate" => fs::create_dir_all(&self.path)?,
            other => bail!("hostPath type {other}"),
        }
        Ok(self.path.clone())
    }
}

fn lay_out(map: &Value, scratch: &Path) -> Result<String> {
    let folder = scratch.join("config-maps").join(map["metadata"]["name"].as_str().context("a config map has a name")?);
    fs::create_dir_all(&folder)?;
    for (name, content) in map["data"].as_object().context("a config map has data")? {
        fs::write(folder.join(name), content.as_str().context("text")?)?;
    }
    Ok(folder.display().to_string())
}

fn mebibytes(quantity: &str) -> Result<i64> {
    let number = quantity.strip_suffix("Mi").with_context(|| format!("memory {quantity}"))?;
    Ok(number.parse::<i64>()? << 20)
}
