//! Limits that the node's own settings give, and what they mean for a path.
//!
//! Configured limits and profiles win. A limit that was read counts only on the default path, and only if it is shorter
//! than the default of 350 s: the shortest of several middleboxes decides, and a node says nothing of those beyond it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{LimitSource, Path, Policy};
use crate::owner::NsId;
use crate::socket::Endpoint;

/// What the node's settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLimits {
    /// The namespace that translates addresses for all others.
    pub host: Option<NsId>,
    /// `nf_conntrack_tcp_timeout_established` of each namespace whose connections conntrack follows.
    pub conntrack: BTreeMap<NsId, Duration>,
    /// The shortest of these where conntrack takes a segment of a flow that it has dropped for invalid.
    pub strict_conntrack: Option<Duration>,
    /// The established timeout of IPVS.
    pub ipvs: Option<Duration>,
    /// The virtual services of IPVS.
    pub ipvs_services: BTreeSet<Endpoint>,
}

impl NodeLimits {
    /// The shortest limit of conntrack that a connection of this namespace meets: the namespace's own, and the host's.
    #[must_use]
    pub fn conntrack_of(&self, id: NsId) -> Option<Duration> {
        let host = self.host.and_then(|host| self.conntrack.get(&host));
        host.into_iter().chain(self.conntrack.get(&id)).min().copied()
    }
}

/// The paths that the node's limits make.
#[derive(Clone, Debug, Default)]
pub struct NodePaths {
    limits: NodeLimits,
    /// By limit.
    conntrack: BTreeMap<Duration, Arc<Path>>,
    ipvs: Option<Arc<Path>>,
    /// Between two namespaces of this node.
    between: Option<Arc<Path>>,
}

impl NodePaths {
    fn new(limits: NodeLimits, default: &Path) -> Self {
        let between = limits.strict_conntrack.map(|idle_timeout| {
            let name = "conntrack".to_owned();
            Arc::new(Path { name, idle_timeout, source: LimitSource::ReadFromNode, ..Path::default() })
        });
        if default.source != LimitSource::Default {
            return Self { limits, between, ..Self::default() };
        }
        let path = |name: &str, idle_timeout: Duration| {
            let path = Path {
                name: name.to_owned(),
                idle_timeout,
                refreshed_by: default.refreshed_by,
                reads_http2: default.reads_http2,
                source: LimitSource::ReadFromNode,
            };
            (idle_timeout < default.idle_timeout).then(|| Arc::new(path))
        };
        let conntrack =
            limits.conntrack.values().filter_map(|&limit| Some((limit, path("conntrack", limit)?))).collect();
        let ipvs = limits.ipvs.and_then(|limit| path("ipvs", limit));
        Self { limits, conntrack, ipvs, between }
    }

    /// The paths that are shorter than the default.
    pub fn paths(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.conntrack.values().chain(&self.ipvs)
    }

    /// The path of a connection of this namespace for which nothing is configured, where the node shortens it.
    pub(super) fn path(&self, id: NsId, remote: Endpoint) -> Option<&Arc<Path>> {
        if self.conntrack.is_empty() && self.ipvs.is_none() {
            return None;
        }
        let conntrack = self.limits.conntrack_of(id).and_then(|limit| self.conntrack.get(&limit));
        let ipvs = self.ipvs.as_ref().filter(|_| self.limits.ipvs_services.contains(&remote));
        conntrack.into_iter().chain(ipvs).min_by_key(|path| path.idle_timeout)
    }
}

impl Policy {
    /// The same policy with what the node says now; `None` where it says what it said before.
    #[must_use]
    pub fn with_node_limits(&self, limits: NodeLimits) -> Option<Self> {
        if !self.reads_node_limits || limits == self.node.limits {
            return None;
        }
        Some(Self { node: NodePaths::new(limits, &self.default_path), ..self.clone() })
    }

    /// The path of a connection between two namespaces of this node that nothing translates. We do not know which other
    /// namespaces it crosses, so the strictest conntrack of all counts.
    #[must_use]
    pub fn path_between(&self) -> Option<&Arc<Path>> {
        self.node.between.as_ref()
    }

    /// What the node says.
    #[must_use]
    pub fn node_limits(&self) -> &NodeLimits {
        &self.node.limits
    }

    /// Whether IPVS shortens the limit of its services.
    #[must_use]
    pub fn has_ipvs_path(&self) -> bool {
        self.node.ipvs.is_some()
    }

    /// The shortest limit that the node gives a connection of this namespace on the default path.
    #[must_use]
    pub fn node_limit_of(&self, id: NsId) -> Option<Duration> {
        self.node.path(id, Endpoint::UNSPECIFIED).map(|path| path.idle_timeout)
    }
}

/// A cloud that the firmware names, and the profiles that may fit there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cloud {
    /// Its name.
    pub name: &'static str,
    /// Profiles: a proposal, never more.
    pub profiles: &'static [&'static str],
}

/// Text in the firmware's files, and the cloud that it names.
const CLOUDS: [(&str, &str, Cloud); 6] = [
    ("sys_vendor", "Amazon EC2", Cloud { name: "AWS", profiles: &["aws-nlb", "aws-nat-gateway"] }),
    ("product_name", "Google Compute Engine", Cloud { name: "Google Cloud", profiles: &["gcp-vpc", "gcp-cloud-nat"] }),
    // the tag of every virtual machine of Azure
    (
        "chassis_asset_tag",
        "7783-7084-3265-9085-8269-3286-77",
        Cloud { name: "Azure", profiles: &["azure-lb", "azure-nat-gateway"] },
    ),
    ("chassis_asset_tag", "OracleCloud.com", Cloud { name: "Oracle Cloud", profiles: &["oci-network-lb"] }),
    ("sys_vendor", "Alibaba Cloud", Cloud { name: "Alibaba Cloud", profiles: &["alibaba-nlb"] }),
    ("sys_vendor", "Tencent Cloud", Cloud { name: "Tencent Cloud", profiles: &["tencent-clb"] }),
];

impl Cloud {
    /// The cloud that the firmware's files name.
    #[must_use]
    pub fn of(dmi: &BTreeMap<String, String>) -> Option<Self> {
        let is = |file: &str, text: &str| dmi.get(file).is_some_and(|found| found == text);
        CLOUDS.into_iter().find(|(file, text, _)| is(file, text)).map(|(.., cloud)| cloud)
    }
}

#[cfg(test)]
mod tests {
    use super::super::profiles;
    use super::*;

    const HOST: NsId = NsId(1);
    const POD: NsId = NsId(2);
    const REMOTE: Endpoint = Endpoint::UNSPECIFIED;

    fn limits(host: u64, pod: Option<u64>) -> NodeLimits {
        let pod = pod.map(|seconds| (POD, Duration::from_secs(seconds)));
        let conntrack = pod.into_iter().chain([(HOST, Duration::from_secs(host))]).collect();
        NodeLimits { host: Some(HOST), conntrack, ..NodeLimits::default() }
    }

    /// Limit and source of a connection of the pod.
    fn of_pod(policy: &Policy, limits: NodeLimits) -> (u64, LimitSource) {
        let policy = policy.with_node_limits(limits).expect("the limits are new");
        let path = policy.path_from(POD, REMOTE, 443);
        (path.idle_timeout.as_secs(), path.source)
    }

    #[test]
    fn a_limit_that_was_read_shortens_the_default_and_nothing_else() {
        use LimitSource::{Configured, Default as ByDefault, ReadFromNode};
        let policy = Policy::default();
        assert_eq!(of_pod(&policy, limits(432_000, None)), (350, ByDefault), "it must not loosen 350 s");
        assert_eq!(of_pod(&policy, limits(60, None)), (60, ReadFromNode), "the host translates for its pods");
        assert_eq!(of_pod(&policy, limits(60, Some(20))), (20, ReadFromNode), "the shortest counts");
        assert_eq!(of_pod(&policy, limits(432_000, Some(60))), (60, ReadFromNode));
        let configured = Path { idle_timeout: Duration::from_mins(4), source: Configured, ..Path::default() };
        let policy = Policy { default_path: configured.into(), ..policy };
        assert_eq!(of_pod(&policy, limits(60, None)), (240, Configured), "what is configured wins");
        let policy = Policy { reads_node_limits: false, ..Policy::default() };
        assert!(policy.with_node_limits(limits(60, None)).is_none());
    }

    #[test]
    fn a_pods_own_limit_does_not_reach_the_host() {
        let policy = Policy::default().with_node_limits(limits(432_000, Some(60))).unwrap();
        assert_eq!(policy.path_from(HOST, REMOTE, 443).idle_timeout, Path::default().idle_timeout);
        assert!(policy.with_node_limits(limits(432_000, Some(60))).is_none(), "nothing has changed");
    }

    #[test]
    fn ipvs_limits_its_virtual_services() {
        let service = Endpoint::new("10.96.0.1".parse().unwrap(), 443);
        let ipvs = Some(Duration::from_mins(2));
        let limits = NodeLimits { ipvs, ipvs_services: [service].into(), ..NodeLimits::default() };
        let policy = Policy::default().with_node_limits(limits).unwrap();
        assert_eq!((&*policy.path_from(POD, service, 443).name, policy.paths().count()), ("ipvs", 2));
        assert_eq!(policy.path_from(POD, Endpoint { port: 80, ..service }, 80).name, "default");
    }

    #[test]
    fn a_cloud_proposes_profiles_that_exist() {
        for (file, text, cloud) in CLOUDS {
            assert_eq!(Cloud::of(&[(file.to_owned(), text.to_owned())].into()), Some(cloud));
            assert!(cloud.profiles.iter().all(|name| profiles::find(name).is_some()), "{cloud:?}");
        }
        assert_eq!(Cloud::of(&[("sys_vendor".to_owned(), "Dell Inc.".to_owned())].into()), None);
    }
}
