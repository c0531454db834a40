//! What the node itself says about idle timeouts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::owner::NsId;

/// What the node says about the limits of paths, verbatim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// The host's network namespace: it translates the addresses of pods and services.
    pub host: Option<NsId>,
    /// The established timeout of IPVS, seconds; absent without IPVS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipvs_tcp_timeout: Option<u32>,
    /// The virtual services of IPVS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipvs_services: Vec<(IpAddr, u16)>,
    /// What the firmware says of the machine, by the name of the file in `/sys/class/dmi/id`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dmi: BTreeMap<String, String>,
    /// What could not be read, and why, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}
