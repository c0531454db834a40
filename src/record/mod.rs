//! The records of a sweep: the unchanged answers of the kernel, as a stream and as a JSONL file.
//!
//! Test fixtures, bug reports and demonstrations are such files. They contain addresses and names of their machine.
//!
//! The order of a stream: one [`Header`], the sweeps, and [`Record::End`]. A sweep is, in this order:
//!
//! 1. [`Record::Sweep`];
//! 2. for each namespace a [`Record::Namespace`], its [`Record::Datagram`]s and one [`Record::ReadEnd`]; then a
//!    [`Record::Ends`] and [`Record::Destroyed`], where flagged connections have ended;
//! 3. any number of [`Record::Owners`], [`Record::Holders`], [`Record::Unheld`] and [`Record::Options`];
//! 4. [`Record::SweepEnd`].
//!
//! A [`Record::Loss`] may come anywhere: it reports something that could not be read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::owner::{Holder, NsId, Owner};
use crate::socket::KeepaliveOptions;

mod file;
mod loss;
mod node;
mod what_to_read;

pub use file::{RecordError, Recorder, Recording, replay};
pub use loss::{Loss, LossReason};
pub use node::NodeFacts;
pub use what_to_read::{Consumer, HolderSearch, SocketsToRead, WhatToRead};

/// The version of the file format. A reader refuses a newer one.
pub const VERSION: u32 = 1;
const FORMAT: &str = "keepalive-auditor recording";
/// Raw kernel structures are in the byte order of the machine that made them.
const BYTE_ORDER: &str = if cfg!(target_endian = "little") { "little" } else { "big" };

/// One event of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record<'a> {
    /// The first record of a recording.
    Header(Header),
    /// A sweep begins.
    Sweep {
        /// Wall clock, milliseconds since the Unix epoch.
        started_at: u64,
        /// Monotonic clock, milliseconds; all times of a recording compare by this clock.
        clock: u64,
    },
    /// A network namespace was entered.
    Namespace(Namespace),
    /// One netlink datagram of the namespace's dump.
    Datagram {
        /// Monotonic clock when it was received, milliseconds.
        clock: u64,
        /// The bytes as received.
        #[serde(with = "base64_bytes")]
        bytes: Cow<'a, [u8]>,
    },
    /// The read of this namespace is over: the dump, or the last lookup.
    ReadEnd {
        /// The table changed under the walk (`NLM_F_DUMP_INTR`), or the kernel ended it with an error.
        interrupted: bool,
        /// The CPU time to send the requests and receive the answers, in microseconds.
        #[serde(skip)]
        cost: u64,
    },
    /// What the node itself says about idle timeouts.
    Node(NodeFacts),
    /// The kernel's state of flagged connections that the read did not show.
    Ends {
        /// The namespace.
        namespace: NsId,
        /// Its counters, read again after its connections.
        counters: Counters,
        /// Whether the kernel's destroy events of this namespace are received.
        #[serde(default)]
        watched: bool,
        /// The answers to lookups of these connections, one after the other: those that are still closing.
        #[serde(with = "base64_bytes")]
        bytes: Cow<'a, [u8]>,
    },
    /// The kernel has destroyed a socket (`--watch-ends`).
    Destroyed {
        /// Its namespace.
        namespace: NsId,
        /// Monotonic clock when the event was received, milliseconds.
        clock: u64,
        /// The event as received.
        #[serde(with = "base64_bytes")]
        bytes: Cow<'a, [u8]>,
    },
    /// A namespace, or part of it, could not be read.
    Loss(Loss),
    /// The owners of sockets: by cgroup id, and by socket inode if the host has no cgroup v2.
    Owners {
        /// Owner by cgroup v2 id (`INET_DIAG_CGROUP_ID`).
        #[serde(default)]
        cgroups: BTreeMap<u64, Owner>,
        /// Owner by socket inode.
        #[serde(default)]
        inodes: BTreeMap<u32, Owner>,
        /// The issues in the search for them, by kind.
        #[serde(default)]
        issues: BTreeMap<String, u64>,
    },
    /// The processes that hold sockets.
    Holders(Vec<HeldSockets>),
    /// The inodes of sockets that no process holds, of those that could be read.
    Unheld(Vec<u32>),
    /// The actual socket options (`--exact`).
    Options {
        /// Options by socket inode.
        options: BTreeMap<u32, KeepaliveOptions>,
        /// Sockets that no visible process holds, in a sentence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<String>,
    },
    /// The sweep is over.
    SweepEnd {
        /// Monotonic clock, milliseconds.
        clock: u64,
    },
    /// The recording is complete.
    End,
}

/// The place and time of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always `keepalive-auditor recording`.
    pub format: String,
    /// The version of the form; see [`VERSION`].
    pub version: u32,
    /// `little` or `big`.
    pub byte_order: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The name of the node.
    pub node: String,
    /// Wall clock, milliseconds since the Unix epoch.
    pub recorded_at: u64,
    /// The last line is an end record; the first recordings had none.
    #[serde(default)]
    pub has_end: bool,
}

impl Header {
    /// The header of a new recording.
    #[must_use]
    pub fn new(kernel: String, node: String, recorded_at: u64) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            byte_order: BYTE_ORDER.to_owned(),
            kernel,
            node,
            recorded_at,
            has_end: true,
        }
    }
}

/// One network namespace, as it was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// The inode of the namespace.
    pub id: NsId,
    /// The name of its bind mount, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Monotonic clock when its dump began, milliseconds.
    pub clock: u64,
    /// The owner of the namespace.
    pub owner: Owner,
    /// The namespace's own sysctls and counters, if they could be read.
    #[serde(default)]
    pub counters: Option<Counters>,
    /// How the sweep read its connections.
    #[serde(default, skip_serializing_if = "ReadMode::is_dump")]
    pub read: ReadMode,
}

/// A process, and sockets that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSockets {
    /// The process.
    #[serde(flatten)]
    pub holder: Holder,
    /// The inodes of its sockets.
    pub inodes: Vec<u32>,
}

/// How a sweep read the connections of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadMode {
    /// It dumped every socket.
    #[default]
    Dump,
    /// It read nothing, because there is no connection (`CurrEstab` 0).
    Empty,
    /// It looked up the known connections one by one, because the counters show that none was opened or closed.
    LookUp,
    /// It looked up the connections that were due, maybe none. The others stay as the last read found them.
    Due,
    /// It read nothing, because the counters show no change.
    Skip,
}

impl ReadMode {
    /// Whether it is a dump.
    #[must_use]
    pub fn is_dump(&self) -> bool {
        *self == Self::Dump
    }
}

/// The values of a network namespace in `/proc/net/snmp`, `/proc/net/netstat` and `/proc/sys/net/ipv4`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// `Tcp: CurrEstab`: sockets in ESTABLISHED or CLOSE-WAIT.
    pub curr_estab: Option<u64>,
    /// `Tcp: ActiveOpens`.
    pub active_opens: Option<u64>,
    /// `Tcp: PassiveOpens`.
    pub passive_opens: Option<u64>,
    /// `Tcp: InSegs`.
    pub in_segs: Option<u64>,
    /// `Tcp: OutSegs`.
    pub out_segs: Option<u64>,
    /// `Tcp: RetransSegs`.
    pub retrans_segs: Option<u64>,
    /// `Tcp: EstabResets`.
    pub estab_resets: Option<u64>,
    /// `TcpExt: TCPKeepAlive`: probes sent.
    pub keepalive_probes: Option<u64>,
    /// `TcpExt: TCPAbortOnTimeout`.
    pub abort_on_timeout: Option<u64>,
    /// `TcpExt: TCPAbortOnClose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_on_close: Option<u64>,
    /// `TcpExt: TCPAbortOnData`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_on_data: Option<u64>,
    /// `net.ipv4.tcp_keepalive_time`, seconds.
    pub tcp_keepalive_time: Option<u32>,
    /// `net.netfilter.nf_conntrack_tcp_timeout_established`, seconds, where conntrack follows connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conntrack_established: Option<u32>,
    /// `net.netfilter.nf_conntrack_tcp_loose`, with the limit: whether conntrack follows a flow from a segment in the
    /// middle on. Otherwise a flow that it has dropped stays invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack_loose: Option<bool>,
}

mod base64_bytes {
    use super::{BASE64, Cow};
    use base64::Engine as _;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::ptr_arg, reason = "serde calls it with the field's own type")]
    pub fn serialize<S: Serializer>(bytes: &Cow<'_, [u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Cow<'static, [u8]>, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map(Cow::Owned).map_err(D::Error::custom)
    }
}
