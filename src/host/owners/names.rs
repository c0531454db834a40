//! The names of pods and containers, and the forms that Kubernetes allows.

/// A pod's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PodName {
    pub namespace: String,
    pub pod: String,
}

/// The names of a container and its pod. `container` is absent for the sandbox itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerName {
    pub pod: PodName,
    /// The pod's uid, if the source has it.
    pub uid: Option<String>,
    pub container: Option<String>,
}

impl PodName {
    /// A name that Kubernetes would accept.
    pub fn new(namespace: &str, pod: &str) -> Option<Self> {
        (is_label(namespace) && is_subdomain(pod))
            .then(|| Self { namespace: namespace.to_owned(), pod: pod.to_owned() })
    }
}

/// A DNS label of RFC 1123: the form of namespaces and containers.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// A DNS subdomain of RFC 1123: the form of pod names.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A pod uid: a UUID, a digest, or the uid in a static pod's manifest.
pub(super) fn is_uid(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
