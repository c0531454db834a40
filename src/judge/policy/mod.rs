//! The policy: the paths of connections, their idle timeouts, and the connections that are not judged.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobMatcher;
use ipnet::IpNet;

pub mod filter;
pub mod node_limits;
pub mod profiles;

use crate::owner::{NsId, Owner};
use crate::socket::Endpoint;
use filter::Select;
use node_limits::NodePaths;

/// The idle timeout of a path without configuration: AWS's NLB, NAT gateway and conntrack have this one.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(350);
/// The age from which a connection counts as long-lived.
pub const DEFAULT_LONG_LIVED: Duration = Duration::from_mins(5);

/// The longest time between two reads of a namespace that has connections, whatever the idle timeouts.
const LONGEST_BETWEEN_READS: Duration = Duration::from_mins(2);

/// The path between the two ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Its name, a metric label.
    pub name: String,
    /// The shortest time after which a middlebox on it drops an idle connection.
    pub idle_timeout: Duration,
    /// What restarts that time.
    pub refreshed_by: RefreshedBy,
    /// A middlebox on it reads HTTP/2 itself: it answers PING frames, and they do not restart that time.
    pub reads_http2: bool,
    /// Where the idle timeout comes from.
    pub source: LimitSource,
}

/// What restarts the idle timeout of a path. The order is from the weaker to the stricter requirement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshedBy {
    /// Any TCP segment, keepalive probes included: load balancers of layer 4, NAT, conntrack.
    #[default]
    Segment,
    /// Only data: proxies, and load balancers of layer 7. TCP keepalive protects nothing there.
    Payload,
}

impl RefreshedBy {
    /// The JSON value and configuration value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Payload => "payload",
        }
    }
}

/// Where the idle timeout of a path comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitSource {
    /// A flag, an environment variable or the configuration file gives the time.
    Configured,
    /// A profile gives it.
    Profile,
    /// The node's own settings give it.
    ReadFromNode,
    /// None of these: it is [`DEFAULT_IDLE_TIMEOUT`].
    #[default]
    Default,
}

impl LimitSource {
    /// The JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Profile => "profile",
            Self::ReadFromNode => "read_from_node",
            Self::Default => "default",
        }
    }
}

impl Default for Path {
    /// The path of connections without configuration.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            refreshed_by: RefreshedBy::default(),
            reads_http2: false,
            source: LimitSource::default(),
        }
    }
}

/// Which connections take a path.
#[derive(Clone, Debug)]
pub struct PathRule {
    /// Remote addresses; empty: any.
    pub cidrs: Vec<IpNet>,
    /// Service ports; empty: any.
    pub ports: Vec<RangeInclusive<u16>>,
    /// The path they take.
    pub path: Arc<Path>,
}

impl PathRule {
    fn matches(&self, remote: IpAddr, service_port: u16) -> bool {
        (self.cidrs.is_empty() || self.cidrs.iter().any(|cidr| cidr.contains(&remote)))
            && (self.ports.is_empty() || self.ports.iter().any(|ports| ports.contains(&service_port)))
    }
}

/// Owners whose connections are not judged and not counted as flagged.
#[derive(Clone, Debug)]
pub struct Ignore {
    /// The pod's namespace; absent: any, and owners outside pods.
    pub namespace: Option<GlobMatcher>,
    /// The pod's name.
    pub pod: Option<GlobMatcher>,
    /// The container's name, or the unit's.
    pub container: Option<GlobMatcher>,
}

impl Ignore {
    fn matches(&self, owner: &Owner) -> bool {
        let fits = |glob: &Option<GlobMatcher>, value: &Option<String>| {
            glob.as_ref().is_none_or(|glob| glob.is_match(value.as_deref().unwrap_or_default()))
        };
        fits(&self.namespace, &owner.namespace)
            && fits(&self.pod, &owner.pod)
            && fits(&self.container, &owner.container)
    }
}

/// Which pairs on this node count as `local`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalScope {
    /// Both ends in one namespace, or exactly reversed tuples in two namespaces of this node.
    #[default]
    Node,
    /// Both ends in one namespace.
    Namespace,
}

/// What makes a connection overdue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverdueBy {
    /// The kernel's clocks, in one sweep. They do not show the peer's probes, and `why` says so.
    #[default]
    Clocks,
    /// An idle time that we watched for the whole idle timeout.
    Watch,
}

/// Everything but the facts that a judgement depends on.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The path of connections that no rule matches.
    pub default_path: Arc<Path>,
    /// First match wins.
    pub rules: Vec<PathRule>,
    /// The owners whose connections are not judged.
    pub ignore: Vec<Ignore>,
    /// From this age on a connection is long-lived.
    pub long_lived: Duration,
    /// Which pairs count as `local`.
    pub local_scope: LocalScope,
    /// What makes a connection overdue.
    pub overdue_by: OverdueBy,
    /// Which connections are counted and shown.
    pub select: Select,
    /// The number of connections that are kept in detail, worst first.
    pub max_findings: usize,
    /// Which connections are kept in detail.
    pub lists: Listed,
    /// Whether limits that are read from the node count.
    pub reads_node_limits: bool,
    /// The paths that the node's own limits make.
    pub node: NodePaths,
}

/// Which connections are kept in detail. All of them are judged and counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// Every one.
    #[default]
    All,
    /// The flagged ones, and those between two network namespaces of this node, which the overview counts.
    Flagged,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_path: Arc::new(Path::default()),
            rules: Vec::new(),
            ignore: Vec::new(),
            long_lived: DEFAULT_LONG_LIVED,
            local_scope: LocalScope::default(),
            overdue_by: OverdueBy::default(),
            select: Select::default(),
            max_findings: usize::MAX,
            lists: Listed::default(),
            reads_node_limits: true,
            node: NodePaths::default(),
        }
    }
}

impl Policy {
    /// The configured path of a connection, by its remote address and the port of its listening end.
    #[must_use]
    pub fn path(&self, remote: IpAddr, service_port: u16) -> &Arc<Path> {
        self.rules.iter().find(|rule| rule.matches(remote, service_port)).map_or(&self.default_path, |rule| &rule.path)
    }

    /// The path of a connection of this namespace: the configured one, or a shorter one that the node's limits make of
    /// the default.
    #[must_use]
    pub fn path_from(&self, namespace: NsId, remote: Endpoint, service_port: u16) -> &Arc<Path> {
        let configured = self.path(remote.addr, service_port);
        let is_default = Arc::ptr_eq(configured, &self.default_path);
        is_default.then(|| self.node.path(namespace, remote)).flatten().unwrap_or(configured)
    }

    /// Every path, the default first.
    pub fn paths(&self) -> impl Iterator<Item = &Arc<Path>> {
        std::iter::once(&self.default_path).chain(self.rules.iter().map(|rule| &rule.path)).chain(self.node.paths())
    }

    /// The longest time between two reads of a namespace that has connections: a quarter of the shortest idle timeout,
    /// two minutes at most.
    ///
    /// An option that a program sets on an open connection changes no counter. With this bound we notice it long before
    /// the idle timeout.
    #[must_use]
    pub fn longest_between_reads(&self) -> Duration {
        let shortest = self.paths().map(|path| path.idle_timeout).min().unwrap_or_default();
        (shortest / 4).min(LONGEST_BETWEEN_READS)
    }

    /// Whether an owner's connections are not judged.
    #[must_use]
    pub fn ignores(&self, owner: &Owner) -> bool {
        self.ignore.iter().any(|rule| rule.matches(owner))
    }
}
