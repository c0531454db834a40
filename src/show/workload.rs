//! Workloads: pods that differ only in what a controller appended to their names are one.

use super::escape;
use crate::owner::{Owner, OwnerKind};

/// The letters of generated suffixes: without vowels and look-alikes (`k8s.io/apimachinery/pkg/util/rand`).
const GENERATED: &str = "bcdfghjklmnpqrstvwxz2456789";

/// As the table writes an owner, with the workload's name for the pod's: `shop/web (istio-proxy)`.
#[must_use]
pub fn of(owner: &Owner) -> String {
    let pod = owner.pod.as_deref().filter(|_| owner.kind == OwnerKind::Pod).map(|pod| name(pod, "").to_owned());
    escape::line(&Owner { pod, ..owner.clone() }.to_string()).into_owned()
}

/// `web-7d4b9c6f5-x2k8p` (Deployment), `agent-x2k8p` (DaemonSet, Job) and `db-0` (`StatefulSet`) without what was
/// appended, and `etcd-node-1`, a static pod of the node `node-1`, without the node's name.
#[must_use]
pub fn name<'a>(pod: &'a str, node: &str) -> &'a str {
    let of_node = pod.strip_suffix(node).and_then(|rest| rest.strip_suffix('-'));
    if let Some(manifest) = of_node.filter(|manifest| !node.is_empty() && !manifest.is_empty()) {
        return manifest;
    }
    let Some((rest, last)) = pod.rsplit_once('-') else { return pod };
    let generated = |text: &str| text.chars().all(|c| GENERATED.contains(c));
    if last.chars().all(|c| c.is_ascii_digit()) && !last.is_empty() {
        return rest;
    }
    if last.len() != 5 || !generated(last) {
        return pod;
    }
    match rest.rsplit_once('-') {
        Some((workload, hash)) if (6..=10).contains(&hash.len()) && generated(hash) => workload,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controllers_append_is_cut_off() {
        for (pod, workload) in [
            ("web-7d4b9c6f5-x2k8p", "web"),
            ("istio-ingressgateway-6b8c9d7f4b-zz5wq", "istio-ingressgateway"),
            ("node-agent-x2k8p", "node-agent"),
            ("db-0", "db"),
            ("db-primary-12", "db-primary"),
            ("web", "web"),
            ("my-pod", "my-pod"),
            ("aeiou-apple", "aeiou-apple"),
        ] {
            assert_eq!(name(pod, "n1"), workload, "{pod}");
        }
    }

    #[test]
    fn a_static_pod_is_called_as_its_manifest() {
        for (pod, node, workload) in [
            ("static-web-n1", "n1", "static-web"),
            ("etcd-ip-10-0-0-7.ec2.internal", "ip-10-0-0-7.ec2.internal", "etcd"),
            ("kube-proxy-node-1", "node-1", "kube-proxy"),
            ("-n1", "n1", "-n1"),
            ("n1", "n1", "n1"),
        ] {
            assert_eq!(name(pod, node), workload, "{pod}");
        }
    }

    #[test]
    fn other_owners_keep_their_names() {
        let unit = Owner { kind: OwnerKind::Unit, container: Some("nginx-0".into()), ..Owner::default() };
        assert_eq!(of(&unit), "nginx-0");
        let pod = Owner {
            kind: OwnerKind::Pod,
            namespace: Some("shop".into()),
            pod: Some("web-7d4b9c6f5-x2k8p".into()),
            container: Some("istio-proxy".into()),
            ..Owner::default()
        };
        assert_eq!(of(&pod), "shop/web (istio-proxy)");
    }
}
