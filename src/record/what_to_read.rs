//! The question that a sweep asks in between: what to read of a namespace, and whose owners are still unknown.
//!
//! This is the one arrow that turns back. The memory of earlier sweeps decides what the host reads next.

use std::collections::BTreeSet;

use super::{Namespace, Record};
use crate::socket::SocketName;

/// What a sweep must read of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhatToRead {
    /// Nothing: its connections cannot have changed since the last read.
    Nothing,
    /// The state of these sockets: no connection can have come or gone.
    Sockets(Vec<SocketName>),
    /// All sockets.
    Everything,
}

/// Takes the records of a sweep, and answers what else the sweep must read.
pub trait Consumer {
    /// The error that ends the sweep; a sweep whose thread cannot start ends with it, too.
    type Error: From<std::io::Error>;

    /// Takes one record. An error ends the sweep.
    fn consume(&mut self, record: &Record<'_>) -> Result<(), Self::Error>;

    /// What to read of a namespace that was just entered, by its counters.
    fn what_to_read(&self, namespace: &Namespace) -> WhatToRead;

    /// The cgroup v2 ids of sockets whose owner is not known yet and, where `by_inode`, the inodes of all sockets.
    fn unknown_owners(&self, by_inode: bool) -> (BTreeSet<u64>, BTreeSet<u32>);
}
