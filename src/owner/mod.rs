//! The types of owners: network namespaces, and the owners of connections.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

mod holder;

pub use holder::{Binary, Holder, Language, Linking, is_interpreter, without_version};

/// A network namespace: the inode number of its nsfs file.
///
/// The kernel reuses an inode after the namespace is gone. Within one sweep it is unique.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NsId(pub u64);

impl fmt::Display for NsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.0)
    }
}

/// The kind of an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerKind {
    /// A Kubernetes pod.
    Pod,
    /// A container outside Kubernetes (docker, podman, plain containerd).
    Container,
    /// A systemd unit.
    Unit,
    /// Only the name of the network namespace is known.
    Netns,
    /// The host itself: neither pod, container nor unit.
    #[default]
    Host,
}

/// The owner of a connection. A field that is not known is absent, never a guess.
///
/// Shapes by kind: a pod has `namespace`, `pod`, `pod_uid` (names may be missing while only the uid is known) and,
/// where the socket shows it, `container`, `container_id`. A container has `container_id` and `container` (its first
/// twelve digits). A unit and a netns have their name in `container`. A process of the host that runs in no unit has
/// its program's name there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The kind of the owner.
    pub kind: OwnerKind,
    /// The pod's Kubernetes namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The pod's name.
    #[serde(default)]
    pub pod: Option<String>,
    /// The pod's uid.
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// The container's name; for owners outside pods the unit, the short container id or the namespace's name.
    #[serde(default)]
    pub container: Option<String>,
    /// The runtime's full container id.
    #[serde(default)]
    pub container_id: Option<String>,
}

impl Owner {
    /// Whether it is more specific than "this host".
    #[must_use]
    pub fn has_name(&self) -> bool {
        self.kind != OwnerKind::Host || self.container.is_some()
    }

    /// Every name of the owner: the pod (alone and with its namespace), the namespace, the container or unit, and the
    /// name in the table.
    pub fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let plain =
            [&self.pod, &self.namespace, &self.container].into_iter().flatten().map(|name| name.as_str().into());
        let full =
            self.namespace.as_ref().zip(self.pod.as_ref()).map(|(namespace, pod)| format!("{namespace}/{pod}").into());
        plain.chain(full).chain([self.to_string().into()])
    }

    /// Whether all names are known, so that a later read cannot add one.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.kind != OwnerKind::Pod || (self.pod.is_some() && (self.container.is_some() || self.container_id.is_none()))
    }
}

/// As the table writes it: `shop/web-0 (istio-proxy)`, `nginx.service`, `host`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let container = self.container.as_deref();
        match self.kind {
            OwnerKind::Pod => {
                match (&self.namespace, &self.pod) {
                    (Some(namespace), Some(pod)) => write!(f, "{namespace}/{pod}")?,
                    _ => write!(f, "pod {}", self.pod_uid.as_deref().unwrap_or("?"))?,
                }
                container.map_or(Ok(()), |name| write!(f, " ({name})"))
            }
            OwnerKind::Container | OwnerKind::Unit | OwnerKind::Netns => f.write_str(container.unwrap_or("?")),
            OwnerKind::Host => f.write_str(container.unwrap_or("host")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_when_its_container_is_too() {
        let some = |text: &str| Some(text.to_owned());
        let pod = Owner { kind: OwnerKind::Pod, pod_uid: some("u"), ..Owner::default() };
        assert!(!pod.is_named());
        let pod = Owner { namespace: some("shop"), pod: some("web-0"), ..pod };
        assert!(pod.is_named(), "the pod itself, as the owner of a namespace");
        let container = Owner { container_id: some("0f99"), ..pod };
        assert!(!container.is_named());
        assert!(Owner { container: some("app"), ..container }.is_named());
        assert!(Owner::default().is_named());
    }
}
