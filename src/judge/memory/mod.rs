//! The memory between sweeps: one small entry for each connection, and nothing else.
//!
//! A connection is known by its namespace and cookie, so a tuple that is used again is a new connection. The entries of
//! one namespace lie in the order of the kernel's walk. We use an index over them only where that order changed. A
//! connection that a whole dump did not show has closed, and the memory drops it: no time to live, no leak.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

pub mod baseline;
mod clock;
pub mod connection;
pub mod fresh;
pub mod half_closed;
pub mod heartbeat;
pub mod idle;
pub mod keepidle;
mod namespace;
mod packed;
mod sample;

use crate::owner::{Holder, NsId};
use crate::socket::{KeepaliveOptions, Socket};
use baseline::Activity;
pub use clock::{Millis, Moment};
pub use connection::{KeepaliveTimer, LastSample, PeerProbes, SHORTEST_SILENCE, TrackedConnection, Unanswered};
pub use half_closed::{HalfClosed, Waits};
use idle::IdleEnd;
pub use namespace::{NamespaceMemory, Origin};

/// The memory of a whole node. See the module's text.
#[derive(Debug, Default)]
pub struct Tracker {
    namespaces: BTreeMap<NsId, NamespaceMemory>,
    current: Option<NsId>,
    /// Socket options that the last sweep read, by inode.
    options: HashMap<u32, KeepaliveOptions>,
    /// Processes that the last sweep found to hold sockets, by inode.
    holders: HashMap<u32, Arc<Holder>>,
}

impl Tracker {
    /// A sweep begins: what processes said in the last one is dropped, because descriptors and inodes are used again.
    pub fn begin_sweep(&mut self) {
        self.options.clear();
        self.holders.clear();
    }

    /// Stores the options of sockets, by inode, for this sweep.
    pub fn add_options(&mut self, options: impl IntoIterator<Item = (u32, KeepaliveOptions)>) {
        self.options.extend(options);
    }

    /// Stores the process that holds these sockets for this sweep; the first of several processes counts.
    pub fn add_holder(&mut self, holder: &Arc<Holder>, inodes: &[u32]) {
        for inode in inodes {
            self.holders.entry(*inode).or_insert_with(|| Arc::clone(holder));
        }
    }

    /// The options of a socket, where the last sweep read them.
    #[must_use]
    pub fn options(&self, inode: u32) -> Option<&KeepaliveOptions> {
        self.options.get(&inode)
    }

    /// The process that holds a socket, where the last sweep found it.
    #[must_use]
    pub fn holder(&self, inode: u32) -> Option<&Arc<Holder>> {
        self.holders.get(&inode)
    }

    /// A dump of this namespace begins. `default_keepidle` is its `tcp_keepalive_time` in milliseconds, where it is
    /// known.
    pub fn begin_dump(&mut self, id: NsId, default_keepidle: Option<u32>) {
        self.begin_lookup(id, default_keepidle);
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.drop_listeners();
        }
    }

    /// A lookup of this namespace's connections begins. It shows no listeners: those of the last dump stay.
    pub fn begin_lookup(&mut self, id: NsId, default_keepidle: Option<u32>) {
        self.current = Some(id);
        self.namespaces.entry(id).or_insert_with(|| NamespaceMemory::new(id)).begin(default_keepidle);
    }

    /// The namespace of the read under way.
    #[must_use]
    pub fn current(&self) -> Option<NsId> {
        self.current
    }

    /// One socket of the read under way, sampled at `now`. It is ignored where no read is under way.
    pub fn sample(&mut self, socket: &Socket, now: Moment) {
        if let Some(memory) = self.current.and_then(|id| self.namespaces.get_mut(&id)) {
            memory.sample(socket, now);
        }
    }

    /// The read under way is over at `now`. If it was whole, the memory drops what it did not show, because that has
    /// closed. `ended` gets each idle time that ended, by movement or by closing.
    pub fn end_read(
        &mut self,
        whole: bool,
        now: Moment,
        ended: impl FnMut(&NamespaceMemory, &TrackedConnection, &IdleEnd),
    ) {
        if let Some(memory) = self.current.take().and_then(|id| self.namespaces.get_mut(&id)) {
            memory.end(whole, now, ended);
        }
    }

    /// Stores that a read was whole, so that the next sweeps may skip the namespace. `activity` is its counters at
    /// `at`, before the read began. `dump_cost` is the CPU time that a dump cost.
    pub fn store_baseline(&mut self, id: NsId, activity: Activity, at: Moment, dump_cost: Option<Duration>) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.store_baseline(activity, at, dump_cost);
        }
    }

    /// The sweep does not read this namespace at `now`: its connections are as the last read found them.
    pub fn skip(&mut self, id: NsId, now: Moment) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.skip(now);
        }
    }

    /// The sweep could not read this namespace, or not to the end: its connections stay as they were last seen.
    pub fn keep_unread(&mut self, id: NsId) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.keep_unread();
        }
    }

    /// Drops a namespace that could not be read for too long. No idle time is counted as ended.
    pub fn drop_unread(&mut self, id: NsId) {
        self.namespaces.remove(&id);
    }

    /// The policy has changed: the next sweep reads every namespace, and what is stored about idle timeouts is void.
    pub fn drop_judgements(&mut self) {
        self.namespaces.values_mut().for_each(NamespaceMemory::drop_judgements);
    }

    /// The limits of these namespaces have changed: see [`Tracker::drop_judgements`].
    pub fn drop_judgements_of(&mut self, has_changed: impl Fn(NsId) -> bool) {
        let changed = self.namespaces.iter_mut().filter(|(id, _)| has_changed(**id));
        changed.for_each(|(_, memory)| memory.drop_judgements());
    }

    /// A sweep is over: namespaces for which `keep` is false are gone, and their connections with them. See
    /// [`Tracker::end_read`] for `ended`.
    pub fn retain(
        &mut self,
        keep: impl Fn(NsId) -> bool,
        now: Moment,
        mut ended: impl FnMut(&NamespaceMemory, &TrackedConnection, &IdleEnd),
    ) {
        self.namespaces.retain(|&id, memory| {
            let keep = keep(id);
            if !keep {
                memory.end_all(now, &mut ended);
            }
            keep
        });
    }

    /// Every namespace with its memory, by id.
    pub fn namespaces(&self) -> impl Iterator<Item = (NsId, &NamespaceMemory)> {
        self.namespaces.iter().map(|(&id, memory)| (id, memory))
    }

    /// One namespace's memory.
    #[must_use]
    pub fn namespace(&self, id: NsId) -> Option<&NamespaceMemory> {
        self.namespaces.get(&id)
    }

    /// One namespace's memory, for marks.
    pub fn namespace_mut(&mut self, id: NsId) -> Option<&mut NamespaceMemory> {
        self.namespaces.get_mut(&id)
    }

    /// The number of connections in the memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.namespaces.values().map(|memory| memory.entries().len()).sum()
    }

    /// Whether the memory holds no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
