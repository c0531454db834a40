//! The memory between sweeps: one small entry for each connection.
//!
//! Namespace and cookie identify a connection, so a reused tuple is a new connection. The entries of one namespace are
//! in the order of the kernel's walk. An index finds an entry only if that order has changed. If a complete dump does
//! not show a connection, it has closed, and the memory drops it at once.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

pub mod baseline;
mod clock;
pub mod connection;
pub mod due;
mod facts;
pub mod fresh;
pub mod half_closed;
pub mod heartbeat;
pub mod holders;
pub mod idle;
mod index;
pub mod keepidle;
mod namespace;
mod packed;
mod reads;
mod sample;

use crate::owner::NsId;
use crate::socket::{KeepaliveOptions, Socket};
use baseline::Activity;
pub use clock::{Millis, Moment};
pub use connection::{KeepaliveTimer, SHORTEST_IDLE_TIME, TrackedConnection};
pub use facts::{LastSample, PeerProbes, Unanswered};
pub use half_closed::{HalfClosed, Waits};
use holders::Holders;
use idle::IdleEnd;
pub use namespace::{NamespaceMemory, Origin};

/// The memory of a whole node. See the module's text.
#[derive(Debug, Default)]
pub struct Tracker {
    namespaces: BTreeMap<NsId, NamespaceMemory>,
    current: Option<NsId>,
    /// When the last sweep began.
    sweep_began: Moment,
    /// In namespaces with traffic the next sweep reads only connections that are due.
    follows: bool,
    /// No sweep follows the one under way.
    is_last: bool,
    /// Socket options that the last sweep read, by inode.
    options: HashMap<u32, KeepaliveOptions>,
    holders: Holders,
}

impl Tracker {
    /// Begins a sweep at `now`. Drops the options of the last one, because the kernel reuses inodes.
    pub fn begin_sweep(&mut self, now: Moment) {
        self.sweep_began = now;
        self.options.clear();
    }

    /// When the last sweep began.
    #[must_use]
    pub fn sweep_began(&self) -> Moment {
        self.sweep_began
    }

    /// Sets whether the next sweep reads only connections that are due in namespaces with traffic: see [`due`]. The
    /// judgement before it says which.
    pub fn set_follows(&mut self, follows: bool) {
        self.follows = follows;
    }

    /// Whether the next sweep reads only connections that are due in namespaces with traffic.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.follows
    }

    /// Sets that no sweep follows the next one, so that its judgement stores nothing for later.
    pub fn set_last_sweep(&mut self) {
        self.is_last = true;
    }

    /// Whether no sweep follows.
    #[must_use]
    pub fn is_last_sweep(&self) -> bool {
        self.is_last
    }

    /// Stores the options of sockets, by inode, for this sweep.
    pub fn add_options(&mut self, options: impl IntoIterator<Item = (u32, KeepaliveOptions)>) {
        self.options.extend(options);
    }

    /// The processes that hold sockets.
    #[must_use]
    pub fn holders(&self) -> &Holders {
        &self.holders
    }

    /// The same, to change.
    pub fn holders_mut(&mut self) -> &mut Holders {
        &mut self.holders
    }

    /// The options of a socket, if the last sweep read them.
    #[must_use]
    pub fn options(&self, inode: u32) -> Option<&KeepaliveOptions> {
        self.options.get(&inode)
    }

    /// Begins a dump of this namespace. `default_keepidle` is its `tcp_keepalive_time` in milliseconds, if known.
    pub fn begin_dump(&mut self, id: NsId, default_keepidle: Option<u32>) {
        self.begin_lookup(id, default_keepidle);
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.drop_listeners();
        }
    }

    /// Begins a lookup of this namespace's connections. It shows no listeners, so those of the last dump stay.
    pub fn begin_lookup(&mut self, id: NsId, default_keepidle: Option<u32>) {
        self.current = Some(id);
        self.namespaces.entry(id).or_insert_with(|| NamespaceMemory::new(id)).begin(default_keepidle);
    }

    /// Makes room for the connections of the current read.
    pub fn expect_connections(&mut self, count: u64) {
        if let Some(memory) = self.current.and_then(|id| self.namespaces.get_mut(&id)) {
            memory.expect_connections(count);
        }
    }

    /// Begins a lookup of some connections. The others stay as the last read found them.
    pub fn begin_due(&mut self, id: NsId, default_keepidle: Option<u32>) {
        self.current = Some(id);
        self.namespaces.entry(id).or_insert_with(|| NamespaceMemory::new(id)).begin_due(default_keepidle);
    }

    /// The namespace of the read under way.
    #[must_use]
    pub fn current(&self) -> Option<NsId> {
        self.current
    }

    /// Adds one socket to the current read, sampled at `now`. Without a current read it does nothing.
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

    /// Stores that a read was complete, so that the next sweeps may skip the namespace. `activity` are its counters at
    /// `at`, before the read began. `dump_cost` is the CPU time of a dump.
    pub fn store_baseline(&mut self, id: NsId, activity: Activity, at: Moment, dump_cost: Option<Duration>) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.store_baseline(activity, at, dump_cost);
        }
    }

    /// A read of some connections has ended at `now`. It may prove that the others have sent nothing, so that they are
    /// as the last whole read found them. `activity` are the counters of the namespace at `at`, before it began.
    pub fn confirm(&mut self, id: NsId, activity: Activity, at: Moment, now: Moment) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.confirm(activity, at, now);
        }
    }

    /// Skips this namespace in a sweep at `now`: its connections stay as the last read found them.
    pub fn skip(&mut self, id: NsId, now: Moment) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.skip(now);
        }
    }

    /// Marks that the sweep could not read this namespace, or not completely: its connections stay as last seen.
    pub fn keep_unread(&mut self, id: NsId) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.keep_unread();
        }
    }

    /// Drops a namespace that could not be read for too long. No idle time is counted as ended.
    pub fn drop_unread(&mut self, id: NsId) {
        self.namespaces.remove(&id);
    }

    /// Applies a changed policy: drops the state about idle timeouts, and makes the next sweep read every namespace.
    pub fn drop_judgements(&mut self) {
        self.namespaces.values_mut().for_each(NamespaceMemory::drop_judgements);
    }

    /// The limits of these namespaces have changed: see [`Tracker::drop_judgements`].
    pub fn drop_judgements_of(&mut self, has_changed: impl Fn(NsId) -> bool) {
        let changed = self.namespaces.iter_mut().filter(|(id, _)| has_changed(**id));
        changed.for_each(|(_, memory)| memory.drop_judgements());
    }

    /// Ends a sweep: drops the namespaces for which `keep` is false, with their connections. See [`Tracker::end_read`]
    /// for `ended`.
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

    /// Every namespace and its entries, by id.
    pub fn namespaces(&self) -> impl Iterator<Item = (NsId, &NamespaceMemory)> {
        self.namespaces.iter().map(|(&id, memory)| (id, memory))
    }

    /// The entries of one namespace.
    #[must_use]
    pub fn namespace(&self, id: NsId) -> Option<&NamespaceMemory> {
        self.namespaces.get(&id)
    }

    /// The entries of one namespace, to set marks.
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
