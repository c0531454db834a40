//! The memory between sweeps: one small entry a connection, and nothing else.
//!
//! A connection is known by its namespace and cookie, so that a tuple that is used again is a new connection. Entries of one namespace lie in
//! the order of the kernel's walk; an index over them is asked only where that order changed. What a dump did not show has closed and is
//! dropped with that dump: no time to live, no leak. (Two maps swapped each sweep would do the same with twice the memory.)

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;

pub mod baseline;
pub mod connection;
pub mod fresh;
pub mod keepidle;

use crate::judge::silence::SHORTEST_MS;
use crate::owner::{Holder, NsId};
use crate::record::WhatToRead;
use crate::socket::{Cookie, Endpoint, KeepaliveOptions, Socket, SocketName, State};
use baseline::{Activity, Baseline, DumpCost, NextChange};
pub use connection::{KeepaliveTimer, PeerProbes, TrackedConnection};

/// What the entries of one namespace share: few distinct values for many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The address of this end.
    pub local: IpAddr,
    /// The socket's user id.
    pub uid: u32,
    /// The socket's cgroup v2 id.
    pub cgroup: Option<u64>,
}

/// One namespace: its connections, its listeners, and how to find them again.
#[derive(Debug, Default)]
pub struct NamespaceMemory {
    entries: Vec<TrackedConnection>,
    /// Positions in `entries`, by cookie.
    index: HashTable<u32>,
    origins: Vec<Origin>,
    /// Sorted when a dump has ended.
    listeners: Vec<(u16, IpAddr)>,
    /// Where the kernel's order says that the next socket is.
    cursor: usize,
    /// Silences that ended during the dump under way: position and milliseconds.
    ended: Vec<(usize, u64)>,
    /// The last look, if it was whole.
    baseline: Option<Baseline>,
    dump: DumpCost,
    /// When the last sweeps found it unchanged and did not look: since the last look, the last such moment, monotonic milliseconds.
    held: Option<u64>,
}

impl NamespaceMemory {
    /// A look begins.
    fn begin(&mut self) {
        self.ended.clear();
        self.baseline = None;
        self.cursor = 0;
        self.catch_up();
        for entry in &mut self.entries {
            entry.forget_look();
        }
    }

    /// Makes up for the dumps that were skipped: leaves the entries as those would have.
    fn catch_up(&mut self) {
        if let Some(held) = self.held.take() {
            self.entries.iter_mut().for_each(|entry| entry.unchanged_until(held));
        }
    }

    /// One socket of the dump, read at `now` (monotonic milliseconds).
    fn see(&mut self, socket: &Socket, now: u64) {
        if socket.state == State::Listen {
            self.listeners.push((socket.local.port, socket.local.addr));
            return;
        }
        if let Some(at) = self.find(socket.cookie) {
            self.cursor = at + 1;
            if let Some(silence) = self.entries[at].update(socket, now).filter(|&silence| silence >= SHORTEST_MS) {
                self.ended.push((at, silence));
            }
            return;
        }
        let origin = self.intern(Origin { local: socket.local.addr, uid: socket.uid, cgroup: socket.cgroup });
        if self.entries.len() == self.entries.capacity() {
            // by an eighth, not by doubling: memory is bounded, and growth still costs constant time a connection
            self.entries.reserve_exact((self.entries.len() / 8).max(16));
        }
        let at = self.entries.len();
        self.entries.push(TrackedConnection::new(socket, origin, now));
        let entries = &self.entries;
        if let Ok(at) = u32::try_from(at) {
            self.index.insert_unique(hash(socket.cookie), at, |&at| hash(entries[at as usize].cookie()));
        }
    }

    fn find(&self, cookie: Cookie) -> Option<usize> {
        if self.entries.get(self.cursor).is_some_and(|entry| entry.cookie() == cookie) {
            return Some(self.cursor);
        }
        self.index.find(hash(cookie), |&at| self.entries[at as usize].cookie() == cookie).map(|&at| at as usize)
    }

    fn intern(&mut self, origin: Origin) -> u32 {
        // few and repeated: the newest is the likeliest
        let at = self.origins.iter().rposition(|&known| known == origin).unwrap_or_else(|| {
            self.origins.push(origin);
            self.origins.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// The dump is over at `now`. If it was whole, what it did not show has closed and is forgotten. `ended` is told of each silence
    /// that ended, by movement or by closing, in milliseconds.
    fn end(&mut self, whole: bool, now: u64, mut ended: impl FnMut(&Self, &TrackedConnection, u64)) {
        self.listeners.sort_unstable();
        for &(at, silence) in &self.ended {
            ended(self, &self.entries[at], silence);
        }
        self.ended.clear();
        if !whole || self.entries.iter().all(TrackedConnection::seen) {
            return;
        }
        for entry in self.entries.iter().filter(|entry| !entry.seen()) {
            ended(self, entry, entry.last_silence(now));
        }
        self.entries.retain(TrackedConnection::seen);
        if self.entries.capacity() > 2 * self.entries.len() + 64 {
            self.entries.shrink_to_fit();
        }
        let entries = &self.entries;
        self.index.clear();
        self.index.shrink_to(entries.len(), |_| 0);
        for (at, entry) in (0_u32..).zip(entries) {
            self.index.insert_unique(hash(entry.cookie()), at, |&at| hash(entries[at as usize].cookie()));
        }
        self.forget_origins();
    }

    /// Drops the origins that no connection has any more.
    fn forget_origins(&mut self) {
        let mut kept = Vec::new();
        let mut moved = vec![None; self.origins.len()];
        for entry in &mut self.entries {
            let from = entry.origin();
            let Some(to) = moved.get_mut(from) else { continue };
            entry.set_origin(*to.get_or_insert_with(|| {
                kept.push(self.origins[from]);
                u32::try_from(kept.len() - 1).unwrap_or(u32::MAX)
            }));
        }
        self.origins = kept;
    }

    /// The last look, if it was whole and its namespace may be left without another.
    #[must_use]
    pub fn baseline(&self) -> Option<&Baseline> {
        self.baseline.as_ref()
    }

    /// What must be asked of the namespace, whose counters say `activity` at `now` (monotonic milliseconds): there was a look within `longest`
    /// milliseconds at least, and to look up one connection costs `each` nanoseconds.
    #[must_use]
    pub fn what_to_read(&self, activity: &Activity, now: u64, longest: u64, each: u64) -> WhatToRead {
        let known = self.entries.len();
        match &self.baseline {
            Some(baseline) if baseline.holds(activity, now, longest) => WhatToRead::Nothing,
            Some(baseline) if baseline.can_be_renewed(activity, now, self.dump, known, each) => {
                WhatToRead::Sockets(self.names().collect())
            }
            _ => WhatToRead::Everything,
        }
    }

    /// The connections, by which they can be looked up.
    fn names(&self) -> impl Iterator<Item = SocketName> {
        self.entries.iter().map(|entry| SocketName {
            local: self.local(entry),
            remote: entry.remote,
            cookie: entry.cookie(),
        })
    }

    /// Whether the last sweep found it unchanged and did not dump it: connections are as their last look found them, but for the time.
    #[must_use]
    pub fn skipped(&self) -> bool {
        self.held.is_some()
    }

    /// Remembers what the judgement of the last look expects.
    pub fn judged(&mut self, next_change: NextChange) {
        if let Some(baseline) = &mut self.baseline {
            baseline.next_change = next_change;
        }
    }

    /// The connections that the last dump showed.
    pub fn connections(&self) -> impl Iterator<Item = &TrackedConnection> {
        self.entries.iter().filter(|entry| entry.seen())
    }

    /// All entries, those that an incomplete dump did not show included; see [`TrackedConnection::seen`].
    #[must_use]
    pub fn entries(&self) -> &[TrackedConnection] {
        &self.entries
    }

    /// All entries, to be marked.
    pub fn entries_mut(&mut self) -> &mut [TrackedConnection] {
        &mut self.entries
    }

    /// The distinct origins of the namespace's connections.
    #[must_use]
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Where a connection comes from.
    #[must_use]
    pub fn origin(&self, entry: &TrackedConnection) -> Origin {
        self.origins.get(entry.origin()).copied().unwrap_or(Origin {
            local: Endpoint::UNSPECIFIED.addr,
            uid: u32::MAX,
            cgroup: None,
        })
    }

    /// This end of a connection.
    #[must_use]
    pub fn local(&self, entry: &TrackedConnection) -> Endpoint {
        Endpoint { addr: self.origin(entry).local, port: entry.local_port }
    }

    /// Whether a socket listens where this connection ends: then it was accepted.
    #[must_use]
    pub fn listens(&self, local: Endpoint) -> bool {
        let from = self.listeners.partition_point(|&(port, _)| port < local.port);
        let on_this_port = self.listeners[from..].iter().take_while(|&&(port, _)| port == local.port);
        on_this_port.into_iter().any(|&(_, addr)| addr == local.addr || addr.is_unspecified())
    }
}

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

    /// A dump of this namespace begins.
    pub fn begin(&mut self, id: NsId) {
        self.begin_known(id);
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.listeners.clear();
        }
    }

    /// The connections of this namespace are looked up, which tells no listeners: those of the last dump stay.
    pub fn begin_known(&mut self, id: NsId) {
        self.current = Some(id);
        self.namespaces.entry(id).or_default().begin();
    }

    /// One socket of the read under way, read at `now` (monotonic milliseconds). It is ignored where no read is under way.
    pub fn see(&mut self, socket: &Socket, now: u64) {
        if let Some(memory) = self.current.and_then(|id| self.namespaces.get_mut(&id)) {
            memory.see(socket, now);
        }
    }

    /// The dump or lookup under way is over at `now` (monotonic milliseconds). If it was whole, what it did not show has closed and is forgotten.
    /// `ended` is told of each silence that ended, by movement or by closing, in milliseconds.
    pub fn end(&mut self, whole: bool, now: u64, ended: impl FnMut(&NamespaceMemory, &TrackedConnection, u64)) {
        if let Some(memory) = self.current.take().and_then(|id| self.namespaces.get_mut(&id)) {
            memory.end(whole, now, ended);
        }
    }

    /// Remembers a whole look, so that the next ones may be skipped: the namespace's counters at `at` (monotonic milliseconds), before it began,
    /// and, of a dump, what it cost, in microseconds of CPU.
    pub fn looked(&mut self, id: NsId, activity: Activity, at: u64, dump: Option<u64>) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.baseline = Some(Baseline { activity, at, next_change: NextChange::default() });
            memory.dump = dump.map_or(memory.dump, |cost| DumpCost { at, cost });
        }
    }

    /// This namespace is not dumped at `now` (monotonic milliseconds): its connections are as its last dump found them.
    pub fn skip(&mut self, id: NsId, now: u64) {
        if let Some(memory) = self.namespaces.get_mut(&id) {
            memory.held = Some(now);
        }
    }

    /// A sweep is over: namespaces for which `keep` is false are gone, and their connections with them; see [`Tracker::end`] for `ended`.
    pub fn retain(
        &mut self,
        keep: impl Fn(NsId) -> bool,
        now: u64,
        mut ended: impl FnMut(&NamespaceMemory, &TrackedConnection, u64),
    ) {
        self.namespaces.retain(|&id, memory| {
            let keep = keep(id);
            if !keep {
                memory.catch_up();
                memory.entries.iter().for_each(|entry| ended(memory, entry, entry.last_silence(now)));
            }
            keep
        });
    }

    /// Every namespace is read in the next sweep, whatever its counters say.
    pub fn drop_baselines(&mut self) {
        self.namespaces.values_mut().for_each(|memory| memory.baseline = None);
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

    /// One namespace's memory, to be marked.
    pub fn namespace_mut(&mut self, id: NsId) -> Option<&mut NamespaceMemory> {
        self.namespaces.get_mut(&id)
    }

    /// How many connections are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.namespaces.values().map(|memory| memory.entries.len()).sum()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Cookies are handed out in sequence: one multiplication spreads them over all bits.
fn hash(cookie: Cookie) -> u64 {
    cookie.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
