//! Decides what the next part of a sweep must read, by the known facts so far.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Digest, Reads, activity};
use crate::judge::groups::OwnerOf as _;
use crate::judge::memory::{Moment, NamespaceMemory, TrackedConnection};
use crate::judge::pair::Pairs;
use crate::owner::NsId;
use crate::record::{Consumer, Namespace, Record, SocketsToRead, WhatToRead};
use crate::socket::{Cookie, SocketName};

/// The highest number of sockets without another owner whose programs one sweep searches: the longest idle ones.
const MAX_NAMELESS: usize = 2048;

impl Consumer for Digest {
    type Error = std::io::Error;

    fn consume(&mut self, record: &Record<'_>) -> std::io::Result<()> {
        self.feed(record);
        Ok(())
    }

    fn what_to_read(&self, namespace: &Namespace) -> WhatToRead {
        let activity = namespace.counters.as_ref().and_then(activity);
        let (Some(activity), Some(memory)) = (activity, self.tracker.namespace(namespace.id)) else {
            return WhatToRead::Everything;
        };
        if self.skips_for.is_zero() {
            return WhatToRead::Everything;
        }
        // not all in one sweep, although all were seen first in one: up to a quarter sooner
        let sooner = self.skips_for / 64 * u32::from(namespace.id.0.to_le_bytes()[0] % 16);
        let longest = self.skips_for.saturating_sub(sooner);
        memory.what_to_read(&activity, Moment::from_millis(namespace.clock), longest.into(), self.lookup_cost)
    }

    fn unknown_cgroups(&self) -> BTreeSet<u64> {
        // kubelet names a container a moment after it has started: ask again for what has no name yet
        let known = |id: &u64| self.owners.cgroups.get(id).is_some_and(|owner| owner.is_named());
        let cgroups = self.tracker.namespaces().flat_map(|(_, memory)| memory.cgroups());
        cgroups.filter(|id| !known(id)).collect()
    }

    fn unknown_inodes(&self, all: bool) -> BTreeSet<u32> {
        let mut nameless = Vec::new();
        for (id, memory) in self.tracker.namespaces() {
            // before Linux 5.8 the kernel sends no cgroup id
            let wanted: Vec<bool> = memory
                .origins()
                .iter()
                .map(|origin| all || origin.cgroup.is_none() || self.owners.is_nameless(id, origin.cgroup))
                .collect();
            if wanted.contains(&true) {
                let of = memory.connections().filter(|tracked| wanted.get(tracked.origin()) == Some(&true));
                nameless.extend(of.map(|tracked| (Reverse(tracked.wire_idle(self.sweep.now)), tracked.inode)));
            }
        }
        if !all && nameless.len() > MAX_NAMELESS {
            nameless.select_nth_unstable(MAX_NAMELESS);
            nameless.truncate(MAX_NAMELESS);
        }
        // a holder is the same for as long as the socket exists; only its container's name may come later
        let is_named = |inode: &u32| self.owners.inodes.get(inode).is_some_and(|owner| owner.is_named());
        let inodes = nameless.into_iter().map(|(_, inode)| inode);
        inodes.filter(|inode| *inode != 0 && !is_named(inode)).collect()
    }

    fn flagged(&self, namespace: NsId) -> Vec<Cookie> {
        let memory = self.tracker.namespace(namespace);
        let entries = memory.into_iter().flat_map(NamespaceMemory::entries).filter(|entry| entry.is_flagged());
        entries.map(TrackedConnection::cookie).chain(self.ends.pending(namespace)).collect()
    }

    fn ended(&self, namespace: NsId) -> Vec<SocketName> {
        self.ends.names(namespace)
    }

    fn sockets_to_read(&self) -> SocketsToRead {
        let Reads { options, holders } = self.reads;
        let mut wanted = SocketsToRead::default();
        if !options && !holders {
            return if self.names_programs { self.sockets_of_programs() } else { wanted };
        }
        let pairs = if options { Pairs::find(&self.tracker) } else { Pairs::default() };
        for (id, at, tracked) in self.shown() {
            if holders {
                wanted.holders.insert(tracked.inode);
            }
            if options {
                // the peer's keepalive is part of the verdict, whether the peer is shown or not
                wanted.options.insert(tracked.inode);
                let peer =
                    pairs.peer(id, at).and_then(|peer| self.tracker.namespace(peer.namespace)?.entries().get(peer.at));
                wanted.options.extend(peer.map(|peer| peer.inode));
            }
        }
        // a socket that nobody has accepted yet
        wanted.options.remove(&0);
        wanted.holders.remove(&0);
        wanted
    }
}

impl Digest {
    /// The connections of the sweep that are to be shown.
    fn shown(&self) -> impl Iterator<Item = (NsId, u32, &TrackedConnection)> {
        let select = &self.policy.select;
        let memories = self.tracker.namespaces().filter(|(id, _)| select.takes_namespace(*id));
        memories.flat_map(move |(id, memory)| {
            let entries = (0_u32..).zip(memory.entries()).filter(|(_, tracked)| tracked.seen());
            let shown = entries.filter(move |(_, tracked)| {
                let owner = || self.owners.owner(id, memory.origin(tracked).cgroup, tracked.inode);
                select.takes(|| memory.local(tracked), || tracked.remote())
                    && (!select.by_owner() || select.takes_owner(&owner()))
            });
            shown.map(move |(at, tracked)| (id, at, tracked))
        })
    }
}
