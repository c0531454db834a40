//! The memory between sweeps: one small entry a connection, and nothing else.
//!
//! A connection is known by its namespace and cookie, so that a tuple that is used again is a new connection. Entries of one namespace lie in
//! the order of the kernel's walk; an index over them is asked only where that order changed. What a dump did not show has closed and is
//! dropped with that dump: no time to live, no leak. (Two maps swapped each sweep would do the same with twice the memory.)

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashTable;

use super::keepidle::{self, Sample};
use super::silence::SHORTEST_MS;
use crate::owner::NsId;
use crate::socket::{Cookie, Endpoint, Socket, State, Timer};

/// Sockets are read some milliseconds after the clock that dates them; a silence shorter than this proves nothing.
const MARGIN_MS: u32 = 500;
/// Half of [`MARGIN_MS`]: by how much a clock must exceed the time between two looks to have run through.
const JITTER_MS: u32 = MARGIN_MS / 2;

/// A moment of the monotonic clock, in tenths of a second: 32 bits last 13 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u32);

impl Tick {
    /// The first tick that is not before `ms`: silence counted from it is never too long.
    fn after(ms: u64) -> Self {
        Self(u32::try_from(ms.div_ceil(100)).unwrap_or(u32::MAX))
    }

    /// Milliseconds from this tick to `now` (milliseconds), 0 if it has not passed.
    #[must_use]
    pub fn until(self, now: u64) -> u64 {
        now.saturating_sub(u64::from(self.0) * 100)
    }
}

/// What is known of the keepalive timer, across looks at which another timer masks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Armed {
    /// Never seen unmasked.
    #[default]
    Unknown,
    /// No keepalive timer at the last unmasked look.
    No,
    /// A keepalive timer at the last unmasked look.
    Yes,
}

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

/// One connection: what was last seen of it, and what must be remembered.
#[derive(Clone, Debug)]
pub struct Tracked {
    cookie: Cookie,
    /// When it was last seen, monotonic milliseconds, wrapping.
    seen_at: u32,
    /// Index into the namespace's origins.
    origin: u32,
    /// The socket's inode, 0 while nobody has accepted it.
    pub inode: u32,
    /// First seen, or earlier where `tcp_info` showed an older event at first sight.
    born: Tick,
    /// The first moment after the last movement of any kind that we know of; from here on we have watched silence.
    moved: Tick,
    /// When a probe of the other end was last noticed; 0: never.
    peer_probe: Tick,
    /// Between the last two noticed probes of the other end, in ticks; 0: fewer than two.
    peer_period: u32,
    segs_in: u32,
    segs_out: u32,
    data_sent: u32,
    data_recv: u32,
    ack_recv: u32,
    expires: u32,
    /// Lower bound of KEEPIDLE, milliseconds; 0: none yet.
    keepidle: u32,
    /// The other end.
    pub remote: Endpoint,
    /// This end's port.
    pub local_port: u16,
    timer: Timer,
    /// Retransmissions, or unanswered probes.
    pub retransmits: u8,
    /// Whether a keepalive timer is armed, as far as is known.
    pub armed: Armed,
    flags: u8,
}

/// Shown by the dump that is under way, or was by the last one.
const SEEN: u8 = 1;
/// We sent last.
const WAITING: u8 = 2;
/// The verdict was `overdue`, and nothing was heard since.
const OVERDUE: u8 = 4;
/// The three clocks are known.
const CLOCKS: u8 = 8;
/// The other end's last probe came after the connection was [`STALE`].
const LATE_PEER: u8 = 16;
/// The path's idle timeout was watched in silence.
const STALE: u8 = 32;
/// The last movement showed in the segment counters alone.
const UNEXPLAINED: u8 = 64;

const _: () = assert!(size_of::<Tracked>() <= 96, "the memory of one connection is at most 96 bytes");

impl Tracked {
    fn new(socket: &Socket, origin: u32, now: u64) -> Self {
        let mut tracked = Self {
            cookie: socket.cookie,
            seen_at: wrap(now),
            origin,
            inode: socket.inode,
            born: Tick::default(),
            moved: Tick::after(now),
            peer_probe: Tick::default(),
            peer_period: 0,
            segs_in: 0,
            segs_out: 0,
            data_sent: 0,
            data_recv: 0,
            ack_recv: 0,
            expires: 0,
            keepidle: 0,
            remote: socket.remote,
            local_port: socket.local.port,
            timer: Timer::None,
            retransmits: 0,
            armed: Armed::Unknown,
            flags: 0,
        };
        tracked.take(socket, now);
        let oldest = tracked.clocks().map_or(0, |[sent, recv, ack]| sent.max(recv).max(ack));
        tracked.born = Tick::after(now.saturating_sub(u64::from(oldest)));
        if socket.timer == Timer::KeepAlive && socket.retransmits == 0 {
            tracked.keepidle = tracked.sample().map_or(0, |sample| keepidle::infer(None, sample));
        }
        tracked
    }

    /// A later look at the same socket; tells the silence that ended since the last one, if one did, in milliseconds.
    fn update(&mut self, socket: &Socket, now: u64) -> Option<u64> {
        let before = self.clone();
        self.take(socket, now);
        self.infer_keepidle(&before);

        let elapsed = self.seen_at.wrapping_sub(before.seen_at);
        let ran_on = |clocks: [u32; 3]| shortest(clocks) >= elapsed.saturating_add(JITTER_MS);
        let clocks_ran_on = self.clocks().is_none_or(ran_on);
        let sent = self.segs_out != before.segs_out;
        let received = self.segs_in != before.segs_in;
        if !sent && !received && clocks_ran_on {
            return None;
        }
        let silence = before.last_silence(now);
        // Data and answers to our own probes restart a clock. A segment each way that restarted none is a probe of the other end and its
        // answer; our own unanswered probes are sent alone. A silence too short to tell is not taken for one.
        let known_silent = before.clocks().is_some_and(|then| shortest(then) >= MARGIN_MS);
        if sent && received && clocks_ran_on && known_silent {
            let last = std::mem::replace(&mut self.peer_probe, Tick::after(now));
            self.peer_period = if last == Tick::default() { 0 } else { self.peer_probe.0.saturating_sub(last.0) };
            self.set(LATE_PEER, before.is(STALE));
        }
        self.set(UNEXPLAINED, clocks_ran_on);
        self.moved = Tick::after(now);
        self.set(STALE, false);
        if received || !clocks_ran_on && socket.tcp.segs_in.is_none() {
            self.set(OVERDUE, false);
        }
        Some(silence)
    }

    /// Copies what the kernel says now.
    fn take(&mut self, socket: &Socket, now: u64) {
        self.seen_at = wrap(now);
        self.inode = socket.inode;
        self.timer = socket.timer;
        self.expires = socket.expires;
        self.retransmits = socket.retransmits;
        let tcp = &socket.tcp;
        if let (Some(sent), Some(recv), Some(ack)) = (tcp.last_data_sent, tcp.last_data_recv, tcp.last_ack_recv) {
            (self.data_sent, self.data_recv, self.ack_recv) = (sent, recv, ack);
            self.set(CLOCKS, true);
            self.set(WAITING, sent < recv && tcp.data_segs_out != Some(0));
        } else {
            self.set(CLOCKS, false);
            self.set(WAITING, false);
        }
        self.segs_in = tcp.segs_in.unwrap_or(0);
        self.segs_out = tcp.segs_out.unwrap_or(0);
        match socket.timer {
            Timer::KeepAlive => self.armed = Armed::Yes,
            Timer::None | Timer::DelAck => self.armed = Armed::No,
            _ => {}
        }
        self.set(SEEN, true);
    }

    fn infer_keepidle(&mut self, before: &Self) {
        match self.armed {
            Armed::Yes if self.timer == Timer::KeepAlive && self.retransmits == 0 => {
                let Some(sample) = self.sample() else { return };
                let previous = (before.timer == Timer::KeepAlive && before.retransmits == 0)
                    .then(|| before.sample())
                    .flatten()
                    .map(|sample| (sample, before.keepidle));
                let bound = keepidle::infer(previous, sample);
                // after a mask the timer's deadline is unknown, the bound is not
                self.keepidle = if previous.is_some() { bound } else { bound.max(before.keepidle) };
            }
            Armed::No => self.keepidle = 0,
            _ => {}
        }
    }

    fn sample(&self) -> Option<Sample> {
        self.clocks().map(|[data_sent, data_recv, ack_recv]| Sample {
            at: self.seen_at,
            expires: self.expires,
            data_sent,
            data_recv,
            ack_recv,
        })
    }

    fn clocks(&self) -> Option<[u32; 3]> {
        self.is(CLOCKS).then_some([self.data_sent, self.data_recv, self.ack_recv])
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u8, on: bool) {
        if on { self.flags |= flag } else { self.flags &= !flag }
    }

    /// Whether the last dump showed it.
    #[must_use]
    pub fn seen(&self) -> bool {
        self.is(SEEN)
    }

    /// Milliseconds from the last look to `now`.
    fn since_seen(&self, now: u64) -> u64 {
        u64::from(wrap(now).wrapping_sub(self.seen_at))
    }

    /// Position among the origins of its namespace.
    #[must_use]
    pub fn origin(&self) -> usize {
        self.origin as usize
    }

    /// The socket's cookie.
    #[must_use]
    pub fn cookie(&self) -> Cookie {
        self.cookie
    }

    /// The timer at the last look.
    #[must_use]
    pub fn timer(&self) -> Timer {
        self.timer
    }

    /// Milliseconds from `now` until the timer fires.
    #[must_use]
    pub fn expires(&self, now: u64) -> u64 {
        u64::from(self.expires).saturating_sub(self.since_seen(now))
    }

    /// Lower bound of KEEPIDLE in milliseconds, where one is known.
    #[must_use]
    pub fn keepidle(&self) -> Option<u32> {
        (self.keepidle > 0).then_some(self.keepidle)
    }

    /// Lower bound of the connection's age at `now`, milliseconds.
    #[must_use]
    pub fn age(&self, now: u64) -> u64 {
        self.born.until(now)
    }

    /// For how long we have ourselves watched no segment move, milliseconds: a lower bound.
    #[must_use]
    pub fn watched(&self, now: u64) -> u64 {
        self.moved.until(now)
    }

    /// Time since the last payload byte in either direction, milliseconds; `None` on kernels that do not tell.
    #[must_use]
    pub fn data_idle(&self, now: u64) -> Option<u64> {
        self.clocks().map(|[sent, recv, _]| u64::from(sent.min(recv)) + self.since_seen(now))
    }

    /// Time since the last segment of any kind that we know of, milliseconds: by the kernel's clocks and by what we saw move.
    #[must_use]
    pub fn wire_idle(&self, now: u64) -> Option<u64> {
        let clocks = self.clocks().map(|clocks| u64::from(shortest(clocks)) + self.since_seen(now))?;
        Some(if self.is(UNEXPLAINED) { clocks.min(self.watched(now)) } else { clocks })
    }

    /// The silence as it was at the last look; `now` is any later moment.
    fn last_silence(&self, now: u64) -> u64 {
        self.wire_idle(now.saturating_sub(self.since_seen(now))).unwrap_or(0)
    }

    /// We sent last, and nothing came back since.
    #[must_use]
    pub fn waiting_for_reply(&self) -> bool {
        self.is(WAITING)
    }

    /// What is sent stays unacknowledged: retransmitting without an answer.
    #[must_use]
    pub fn unanswered(&self) -> bool {
        self.timer == Timer::Retransmit && self.retransmits > 0
    }

    /// Whether its last verdict was `overdue`, and nothing was heard from the other end since.
    #[must_use]
    pub fn was_overdue(&self) -> bool {
        self.is(OVERDUE)
    }

    /// Remembers that the verdict is `overdue`.
    pub fn mark_overdue(&mut self) {
        self.set(OVERDUE, true);
    }

    /// Remembers that the path's idle timeout was watched in silence, so that a later probe of the other end is known to be late.
    pub fn mark_stale(&mut self) {
        self.set(STALE, true);
    }

    /// The other end's probes: how long ago the last was noticed, and the observed period; milliseconds.
    #[must_use]
    pub fn peer_probes(&self, now: u64) -> Option<PeerProbes> {
        (self.peer_probe != Tick::default()).then(|| PeerProbes {
            ago: self.peer_probe.until(now),
            period: (self.peer_period > 0).then(|| u64::from(self.peer_period) * 100),
            late: self.is(LATE_PEER),
        })
    }
}

/// What was noticed of the other end's keepalive probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProbes {
    /// Milliseconds since the last one was noticed.
    pub ago: u64,
    /// Milliseconds between the last two, where two were noticed.
    pub period: Option<u64>,
    /// The last one came only after the path's idle timeout had been watched in silence.
    pub late: bool,
}

/// One namespace: its connections, its listeners, and how to find them again.
#[derive(Debug, Default)]
pub struct NsMemory {
    entries: Vec<Tracked>,
    /// Positions in `entries`, by cookie.
    index: HashTable<u32>,
    origins: Vec<Origin>,
    /// Sorted when a dump has ended.
    listeners: Vec<Endpoint>,
    /// Where the kernel's order says that the next socket is.
    cursor: usize,
    /// Silences that ended during the dump under way: position and milliseconds.
    ended: Vec<(usize, u64)>,
}

/// What became of a socket that a dump showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not known before.
    New,
    /// Known, and no segment moved since.
    Silent,
    /// Known, and something moved.
    Moved,
    /// A listener.
    Listener,
}

impl NsMemory {
    /// A dump begins.
    fn begin(&mut self) {
        self.listeners.clear();
        self.ended.clear();
        self.cursor = 0;
        for entry in &mut self.entries {
            entry.set(SEEN, false);
        }
    }

    /// One socket of the dump, read at `now` (monotonic milliseconds).
    fn see(&mut self, socket: &Socket, now: u64) -> Seen {
        if socket.state == State::Listen {
            self.listeners.push(socket.local);
            return Seen::Listener;
        }
        if let Some(at) = self.find(socket.cookie) {
            self.cursor = at + 1;
            let Some(silence) = self.entries[at].update(socket, now) else { return Seen::Silent };
            if silence >= SHORTEST_MS {
                self.ended.push((at, silence));
            }
            return Seen::Moved;
        }
        let origin = self.intern(Origin { local: socket.local.addr, uid: socket.uid, cgroup: socket.cgroup });
        if self.entries.len() == self.entries.capacity() {
            // by an eighth, not by doubling: memory is bounded, and growth still costs constant time a connection
            self.entries.reserve_exact((self.entries.len() / 8).max(16));
        }
        let at = self.entries.len();
        self.entries.push(Tracked::new(socket, origin, now));
        let entries = &self.entries;
        if let Ok(at) = u32::try_from(at) {
            self.index.insert_unique(hash(socket.cookie), at, |&at| hash(entries[at as usize].cookie));
        }
        Seen::New
    }

    fn find(&self, cookie: Cookie) -> Option<usize> {
        if self.entries.get(self.cursor).is_some_and(|entry| entry.cookie == cookie) {
            return Some(self.cursor);
        }
        self.index.find(hash(cookie), |&at| self.entries[at as usize].cookie == cookie).map(|&at| at as usize)
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
    fn end(&mut self, whole: bool, now: u64, mut ended: impl FnMut(&Self, &Tracked, u64)) {
        self.listeners.sort_unstable();
        for &(at, silence) in &self.ended {
            ended(self, &self.entries[at], silence);
        }
        self.ended.clear();
        if !whole || self.entries.iter().all(|entry| entry.is(SEEN)) {
            return;
        }
        for entry in self.entries.iter().filter(|entry| !entry.is(SEEN)) {
            ended(self, entry, entry.last_silence(now));
        }
        self.entries.retain(|entry| entry.is(SEEN));
        if self.entries.capacity() > 2 * self.entries.len() + 64 {
            self.entries.shrink_to_fit();
        }
        let entries = &self.entries;
        self.index.clear();
        self.index.shrink_to(entries.len(), |_| 0);
        for (at, entry) in (0_u32..).zip(entries) {
            self.index.insert_unique(hash(entry.cookie), at, |&at| hash(entries[at as usize].cookie));
        }
        self.forget_origins();
    }

    /// Drops the origins that no connection has any more.
    fn forget_origins(&mut self) {
        let mut kept = Vec::new();
        let mut moved = vec![None; self.origins.len()];
        for entry in &mut self.entries {
            let Some(to) = moved.get_mut(entry.origin as usize) else { continue };
            entry.origin = *to.get_or_insert_with(|| {
                kept.push(self.origins[entry.origin as usize]);
                u32::try_from(kept.len() - 1).unwrap_or(u32::MAX)
            });
        }
        self.origins = kept;
    }

    /// The connections that the last dump showed.
    pub fn connections(&self) -> impl Iterator<Item = &Tracked> {
        self.entries.iter().filter(|entry| entry.is(SEEN))
    }

    /// All entries, those that an incomplete dump did not show included; see [`Tracked::seen`].
    #[must_use]
    pub fn entries(&self) -> &[Tracked] {
        &self.entries
    }

    /// All entries, to be marked.
    pub fn entries_mut(&mut self) -> &mut [Tracked] {
        &mut self.entries
    }

    /// The distinct origins of the namespace's connections.
    #[must_use]
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Where a connection comes from.
    #[must_use]
    pub fn origin(&self, entry: &Tracked) -> Origin {
        self.origins.get(entry.origin as usize).copied().unwrap_or(Origin {
            local: Endpoint::UNSPECIFIED.addr,
            uid: u32::MAX,
            cgroup: None,
        })
    }

    /// This end of a connection.
    #[must_use]
    pub fn local(&self, entry: &Tracked) -> Endpoint {
        Endpoint { addr: self.origin(entry).local, port: entry.local_port }
    }

    /// Whether a socket listens where this connection ends: then it was accepted.
    #[must_use]
    pub fn listens(&self, local: Endpoint) -> bool {
        let has = |addr| self.listeners.binary_search(&Endpoint { addr, port: local.port }).is_ok();
        has(local.addr) || has(Ipv4Addr::UNSPECIFIED.into()) || has(Ipv6Addr::UNSPECIFIED.into())
    }
}

/// The memory of a whole node. See the module's text.
#[derive(Debug, Default)]
pub struct Tracker {
    namespaces: BTreeMap<NsId, NsMemory>,
    current: Option<NsId>,
}

impl Tracker {
    /// A dump of this namespace begins.
    pub fn begin(&mut self, id: NsId) {
        self.current = Some(id);
        self.namespaces.entry(id).or_default().begin();
    }

    /// One socket of the dump under way, read at `now` (monotonic milliseconds); `None` where no dump is under way.
    pub fn see(&mut self, socket: &Socket, now: u64) -> Option<Seen> {
        Some(self.namespaces.get_mut(&self.current?)?.see(socket, now))
    }

    /// The dump under way is over at `now` (monotonic milliseconds). If it was whole, what it did not show has closed and is forgotten.
    /// `ended` is told of each silence that ended, by movement or by closing, in milliseconds.
    pub fn end(&mut self, whole: bool, now: u64, ended: impl FnMut(&NsMemory, &Tracked, u64)) {
        if let Some(memory) = self.current.take().and_then(|id| self.namespaces.get_mut(&id)) {
            memory.end(whole, now, ended);
        }
    }

    /// A sweep is over: namespaces for which `keep` is false are gone, and their connections with them; see [`Tracker::end`] for `ended`.
    pub fn retain(&mut self, keep: impl Fn(NsId) -> bool, now: u64, mut ended: impl FnMut(&NsMemory, &Tracked, u64)) {
        self.namespaces.retain(|&id, memory| {
            let keep = keep(id);
            if !keep {
                memory.entries.iter().for_each(|entry| ended(memory, entry, entry.last_silence(now)));
            }
            keep
        });
    }

    /// Every namespace with its memory, by id.
    pub fn namespaces(&self) -> impl Iterator<Item = (NsId, &NsMemory)> {
        self.namespaces.iter().map(|(&id, memory)| (id, memory))
    }

    /// One namespace's memory.
    #[must_use]
    pub fn namespace(&self, id: NsId) -> Option<&NsMemory> {
        self.namespaces.get(&id)
    }

    /// One namespace's memory, to be marked.
    pub fn namespace_mut(&mut self, id: NsId) -> Option<&mut NsMemory> {
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

fn shortest([a, b, c]: [u32; 3]) -> u32 {
    a.min(b).min(c)
}

/// The low 32 bits of a millisecond clock: enough to tell two looks apart that are less than 24 days apart.
#[expect(clippy::cast_possible_truncation, reason = "wrapping is what it is for")]
fn wrap(ms: u64) -> u32 {
    ms as u32
}
