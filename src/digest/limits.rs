//! Limits that are read from the node become policy here, before a sweep is judged.

use std::sync::Arc;
use std::time::Duration;

use super::Digest;
use crate::judge::policy::Policy;
use crate::judge::policy::node_limits::{Cloud, NodeLimits};
use crate::judge::report::NodeLimitFacts;
use crate::socket::Endpoint;

impl Digest {
    /// Judges by what the node says now. Where a limit has changed, the next sweep reads the namespace, and what is
    /// stored about idle timeouts is void.
    pub(super) fn adopt_node_limits(&mut self) {
        let Some(policy) = self.policy_by_node() else { return };
        let before = std::mem::replace(&mut self.policy, Arc::new(policy));
        let (old, new) = (before.node_limits(), self.policy.node_limits());
        let is_service_changed = (old.ipvs, &old.ipvs_services) != (new.ipvs, &new.ipvs_services)
            && before.has_ipvs_path() | self.policy.has_ipvs_path();
        let policy = &self.policy;
        self.tracker
            .drop_judgements_of(|id| is_service_changed || before.node_limit_of(id) != policy.node_limit_of(id));
        if !self.skips_for.is_zero() {
            self.skips_for = self.policy.longest_between_reads();
        }
    }

    /// The policy with the limits that this sweep has read. `None` if they have not changed.
    pub(super) fn policy_by_node(&self) -> Option<Policy> {
        let facts = self.sweep.namespaces.iter();
        let strict = facts.clone().filter(|(_, facts)| facts.is_conntrack_strict);
        self.policy.with_node_limits(NodeLimits {
            host: self.node.host,
            strict_conntrack: strict.filter_map(|(_, facts)| facts.conntrack).min(),
            conntrack: facts.filter_map(|(id, facts)| Some((*id, facts.conntrack?))).collect(),
            ipvs: self.node.ipvs_tcp_timeout.map(|seconds| Duration::from_secs(seconds.into())),
            ipvs_services: self.node.ipvs_services.iter().map(|&(addr, port)| Endpoint::new(addr, port)).collect(),
        })
    }

    /// What the node says, for faces.
    pub(super) fn node_limits(&self) -> NodeLimitFacts {
        let host = |id| Some(id) == self.node.host;
        let conntrack = |of_host: bool| {
            let facts = self.sweep.namespaces.iter().filter(move |(id, _)| host(**id) == of_host);
            facts.filter_map(|(_, facts)| facts.conntrack).min()
        };
        NodeLimitFacts {
            is_used: self.policy.reads_node_limits,
            conntrack: conntrack(true),
            shortest_conntrack_elsewhere: conntrack(false),
            ipvs: self.node.ipvs_tcp_timeout.map(|seconds| Duration::from_secs(seconds.into())),
            cloud: Cloud::of(&self.node.dmi),
            unread: self.node.unread.clone(),
        }
    }
}
