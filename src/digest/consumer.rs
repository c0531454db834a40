//! Decides what the next part of a sweep must read, by the known facts so far.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Digest, Reads};
use crate::judge::assess::flagged;
use crate::judge::groups::OwnerOf as _;
use crate::judge::memory::{Millis, Moment, NamespaceMemory, Origin, TrackedConnection};
use crate::judge::pair::Pairs;
use crate::judge::policy::Listed;
use crate::owner::NsId;
use crate::record::{Consumer, HolderSearch, Namespace, Record, SocketsToRead, WhatToRead};
use crate::socket::{Cookie, SocketName};

/// The highest number of sockets without another owner whose programs one sweep searches: the longest idle ones.
const MAX_NAMELESS: usize = 2048;
/// The highest number of descriptors that a search for holders reads, where it is not asked for all. On a node with
/// many connections, a search for owners reads up to a tenth of their number. Reading one costs as much as five
/// connections.
const MAX_DESCRIPTORS: usize = 20_000;
/// The same for the programs of an audit, which has no second search.
const MAX_DESCRIPTORS_OF_AUDIT: usize = 65_536;
/// Longer than a search takes: what is flagged when it ends is searched for, too.
const SEARCH: Millis = Millis::from_secs(3);

impl Consumer for Digest {
    type Error = std::io::Error;

    fn consume(&mut self, record: &Record<'_>) -> std::io::Result<()> {
        self.feed(record);
        Ok(())
    }

    fn what_to_read(&self, namespace: &Namespace) -> WhatToRead {
        let Some(memory) = self.tracker.namespace(namespace.id) else { return WhatToRead::Everything };
        let counters = namespace.counters.unwrap_or_default();
        let Some(activity) = self.activity_of(namespace.id, &counters) else { return WhatToRead::Everything };
        if self.skips_for.is_zero() {
            return WhatToRead::Everything;
        }
        // not all in one sweep, although all were read first in one
        let is_first = memory.baseline().is_some_and(|baseline| baseline.is_first);
        let sooner = if is_first { namespace.id.0.to_le_bytes()[0] % 16 } else { 0 };
        let longest = self.skips_for.saturating_sub(self.skips_for / 16 * u32::from(sooner));
        let now = Moment::from_millis(namespace.clock);
        memory.what_to_read(&activity, now, longest.into(), self.lookup_cost, self.follows())
    }

    fn compares_probes(&self, namespace: NsId) -> bool {
        !self.follows() || self.tracker.namespace(namespace).is_none_or(|memory| !memory.is_followed())
    }

    fn unknown_cgroups(&self) -> BTreeSet<u64> {
        // kubelet names a container a moment after it has started: ask again for what has no name yet
        let known = |id: &u64| self.owners.cgroups.get(id).is_some_and(|owner| owner.is_named());
        let cgroups = self.tracker.namespaces().flat_map(|(_, memory)| memory.cgroups());
        cgroups.filter(|id| !known(id)).collect()
    }

    fn unknown_inodes(&self, all: bool) -> BTreeSet<u32> {
        let mut wanted: BTreeMap<NsId, Vec<bool>> = BTreeMap::new();
        for (id, memory) in self.tracker.namespaces() {
            // before Linux 5.8 the kernel sends no cgroup id
            let of_origin =
                |origin: &Origin| all || origin.cgroup.is_none() || self.owners.is_nameless(id, origin.cgroup);
            let of_origins: Vec<bool> = memory.origins().iter().map(of_origin).collect();
            if of_origins.contains(&true) {
                wanted.insert(id, of_origins);
            }
        }
        if wanted.is_empty() {
            return BTreeSet::new();
        }
        let mut nameless = Vec::new();
        self.each_sought(|id, _, tracked| {
            let is_wanted = wanted.get(&id).and_then(|of_origins| of_origins.get(tracked.origin())) == Some(&true);
            // a holder is the same for as long as the socket exists; only its container's name may come later
            let is_named = || self.owners.inodes.get(&tracked.inode).is_some_and(|owner| owner.is_named());
            if is_wanted && tracked.inode != 0 && (!all || !is_named()) {
                nameless.push((Reverse(tracked.wire_idle(self.sweep.now)), tracked.inode));
            }
        });
        if !all && nameless.len() > MAX_NAMELESS {
            nameless.select_nth_unstable(MAX_NAMELESS);
            nameless.truncate(MAX_NAMELESS);
        }
        let is_named = |inode: &u32| self.owners.inodes.get(inode).is_some_and(|owner| owner.is_named());
        nameless.into_iter().map(|(_, inode)| inode).filter(|inode| !is_named(inode)).collect()
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
        let Reads { options, holders, .. } = self.reads;
        let mut wanted = SocketsToRead::default();
        if !options && !holders {
            return if self.names_programs { self.sockets_of_programs() } else { wanted };
        }
        if self.seeks_flagged() {
            self.each_sought(|_, _, tracked| {
                wanted.holders.insert(tracked.inode);
            });
            wanted.holders.remove(&0);
            return wanted;
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

    fn descriptors_to_read(&self, search: HolderSearch) -> usize {
        match search {
            _ if self.searches_all() => usize::MAX,
            HolderSearch::Programs if !self.names_programs => MAX_DESCRIPTORS_OF_AUDIT,
            HolderSearch::Programs => MAX_DESCRIPTORS,
            HolderSearch::Owners => MAX_DESCRIPTORS.max(self.tracker.len() / 10),
        }
    }
}

impl Digest {
    /// Whether the sweep reads only what is due of namespaces with traffic.
    fn follows(&self) -> bool {
        self.tracker.follows() && !self.reads_all.now
    }

    /// Whether the holders of all sockets are wanted, because what is asked for depends on them.
    fn searches_all(&self) -> bool {
        let Self { reads, policy, .. } = self;
        let by_holder = match policy.lists {
            Listed::All => reads.holders && !self.names_programs,
            Listed::Flagged => !policy.ignore.is_empty(),
        };
        reads.all || reads.options || by_holder || policy.select.by_name()
    }

    /// Whether only the holders of flagged connections are wanted.
    fn seeks_flagged(&self) -> bool {
        self.policy.lists == Listed::Flagged && !self.searches_all()
    }

    /// Passes the connections whose holders are wanted to `each`: those that this sweep lists.
    fn each_sought<'a>(&'a self, mut each: impl FnMut(NsId, &'a NamespaceMemory, &'a TrackedConnection)) {
        if self.seeks_flagged() {
            let by_node = self.policy_by_node();
            let policy = by_node.as_ref().unwrap_or(&self.policy);
            let select = &policy.select;
            flagged(&self.tracker, policy, self.sweep.now.plus(SEARCH), |id, memory, tracked| {
                if select.takes_namespace(id) && select.takes(|| memory.local(tracked), || tracked.remote()) {
                    each(id, memory, tracked);
                }
            });
            return;
        }
        for (id, memory) in self.tracker.namespaces() {
            memory.connections().for_each(|tracked| each(id, memory, tracked));
        }
    }

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
