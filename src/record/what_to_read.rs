//! The queries of a running sweep: what to read of a namespace, and which sockets still have no owner.
//!
//! This is the one arrow that turns back. The memory of earlier sweeps decides what the host reads next.

use std::collections::BTreeSet;

use super::{Namespace, Record};
use crate::owner::NsId;
use crate::socket::{Cookie, SocketName};

/// What a sweep must read of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhatToRead {
    /// Nothing: its connections cannot have changed since the last read.
    Nothing,
    /// These sockets: no connection can have been opened or closed.
    Sockets(Vec<SocketName>),
    /// These sockets, if any: no connection can have been opened or closed, and the others need no read yet.
    Due(Vec<SocketName>),
    /// All sockets.
    Everything,
}

/// Takes the records of a sweep, and answers what else the sweep must read.
pub trait Consumer {
    /// The error that ends the sweep. A sweep whose thread cannot start ends with it too.
    type Error: From<std::io::Error>;

    /// Takes one record. An error ends the sweep.
    fn consume(&mut self, record: &Record<'_>) -> Result<(), Self::Error>;

    /// What to read of a namespace that was just entered, by its counters.
    fn what_to_read(&self, namespace: &Namespace) -> WhatToRead;

    /// Whether [`what_to_read`](Self::what_to_read) needs the counter of keepalive probes, which is dear to read.
    fn compares_probes(&self, namespace: NsId) -> bool {
        let _ = namespace;
        true
    }

    /// The cgroup v2 ids of sockets whose owner is not known yet.
    fn unknown_cgroups(&self) -> BTreeSet<u64>;

    /// The inodes of sockets that only the process that holds them can name, once the owners of cgroups are known.
    /// `all`: the host has no cgroup v2, so that this is true of every socket.
    fn unknown_inodes(&self, all: bool) -> BTreeSet<u32>;

    /// The flagged connections of a namespace, whose ends are worth watching.
    fn flagged(&self, namespace: NsId) -> Vec<Cookie> {
        let _ = namespace;
        Vec::new()
    }

    /// The flagged connections that the read of this namespace, which has just ended, did not show.
    fn ended(&self, namespace: NsId) -> Vec<SocketName> {
        let _ = namespace;
        Vec::new()
    }

    /// The sockets whose holders and options are wanted, once their owners are known.
    fn sockets_to_read(&self) -> SocketsToRead;

    /// The number of file descriptors that this sweep may read to find the processes that hold sockets.
    fn descriptors_to_read(&self, search: HolderSearch) -> usize {
        let _ = search;
        usize::MAX
    }
}

/// Why a sweep searches for the processes that hold sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderSearch {
    /// To name the owners of sockets.
    Owners,
    /// To name programs, or to read the options of sockets.
    Programs,
}

/// What to read of sockets through the processes that hold them, by inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketsToRead {
    /// Read the socket options of these.
    pub options: BTreeSet<u32>,
    /// Find the processes that hold these.
    pub holders: BTreeSet<u32>,
}

impl SocketsToRead {
    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.options.is_empty() && self.holders.is_empty()
    }
}
