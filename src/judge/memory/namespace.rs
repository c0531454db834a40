//! The memory of one namespace: its connections, its listeners, and the state to find them again.

use std::net::IpAddr;

use super::baseline::{Baseline, DumpCost};
use super::clock::Moment;
use super::connection::TrackedConnection;
use super::due::DueReads;
use super::half_closed::HalfClosed;
use super::idle::{AwaitedAnswers, IdleEnd};
use super::index::CookieIndex;
use super::packed::PackedCookie;
use crate::owner::NsId;
use crate::socket::{Cookie, Endpoint, Socket, State};

/// More connections than this are not believed before they are seen. A recording may say anything.
const MAX_EXPECTED: usize = 1 << 18;

/// The facts that many entries of one namespace share: there are only few distinct values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The local address.
    pub local: IpAddr,
    /// The socket's user id.
    pub uid: u32,
    /// The socket's cgroup v2 id.
    pub cgroup: Option<u64>,
    /// The device that the socket is bound to; 0 for none.
    pub device: u32,
    /// The local address need not be an address of this host.
    pub is_transparent: bool,
}

impl Origin {
    fn of(socket: &Socket) -> Self {
        let Socket { local, uid, cgroup, device, is_transparent, .. } = *socket;
        Self { local: local.addr, uid, cgroup, device, is_transparent }
    }
}

/// One namespace: its connections, its listeners, and the state to find them again.
#[derive(Debug, Default)]
pub struct NamespaceMemory {
    id: NsId,
    pub(super) entries: Vec<TrackedConnection>,
    index: CookieIndex,
    origins: Vec<Origin>,
    /// The local endpoints of listeners, sorted at the end of a dump.
    listeners: Vec<(u16, IpAddr)>,
    /// Those of the read before, while a dump is under way.
    listeners_before: Vec<(u16, IpAddr)>,
    /// The half-closed sockets of the last dump, and those that lookups have shown since.
    half_closed: Vec<HalfClosed>,
    /// The number of connections that the last read was the first to show.
    appeared: u64,
    /// The position at which the next socket is expected, by the kernel's order.
    cursor: usize,
    /// Idle times that ended during the read under way: position and how.
    ended: Vec<(usize, IdleEnd)>,
    awaited: AwaitedAnswers,
    /// The last read, if it was complete.
    pub(super) baseline: Option<Baseline>,
    /// The read before the one that is under way, if it was complete.
    pub(super) before: Option<Baseline>,
    /// Which connections are due before the next whole read.
    pub(super) due: DueReads,
    /// The segments that samples have shown as sent since the baseline, of all connections.
    pub(super) sent: u64,
    /// When the counters last showed more or fewer than these: then only a whole read says who sent them.
    pub(super) unaccounted_at: Option<Moment>,
    pub(super) dump: DumpCost,
    /// When a sweep last found it unchanged and read nothing, since the last read.
    pub(super) unchanged_at: Option<Moment>,
    /// Its `tcp_keepalive_time`, milliseconds.
    default_keepidle: Option<u32>,
    /// The last sweep could not read it, so each connection is as last seen.
    pub(super) unread: bool,
}

impl NamespaceMemory {
    /// The empty memory of this namespace.
    pub(super) fn new(id: NsId) -> Self {
        Self { id, ..Self::default() }
    }

    /// Which namespace it is.
    #[must_use]
    pub fn id(&self) -> NsId {
        self.id
    }

    /// Begins a read.
    pub(super) fn begin(&mut self, default_keepidle: Option<u32>) {
        self.default_keepidle = default_keepidle;
        self.ended.clear();
        self.unread = false;
        self.before = self.baseline.take();
        self.cursor = 0;
        self.appeared = 0;
        self.advance_unchanged();
        self.index.fill(&self.entries);
        for entry in &mut self.entries {
            entry.set_seen(false);
        }
    }

    /// Begins a lookup of some connections.
    pub(super) fn begin_due(&mut self, default_keepidle: Option<u32>) {
        self.default_keepidle = default_keepidle;
        self.ended.clear();
        self.unread = false;
        self.cursor = 0;
        self.appeared = 0;
        self.advance_unchanged();
        if let Some(baseline) = &mut self.baseline {
            baseline.is_followed = true;
        }
    }

    /// Marks that the sweep could not read it, or not completely: the entries stay as last seen.
    pub(super) fn keep_unread(&mut self) {
        self.advance_unchanged();
        self.unread = true;
        self.entries.iter_mut().for_each(|entry| entry.set_seen(true));
    }

    /// Whether the last sweep could not read it, so that each connection is as last seen.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.unread
    }

    /// Begins a dump, which shows all listeners and all half-closed sockets.
    pub(super) fn drop_listeners(&mut self) {
        self.listeners_before = std::mem::take(&mut self.listeners);
        self.half_closed.clear();
    }

    /// Updates the entries as the skipped reads would have done.
    pub(super) fn advance_unchanged(&mut self) {
        if let Some(at) = self.unchanged_at.take() {
            self.entries.iter_mut().for_each(|entry| entry.advance_unchanged(at));
        }
    }

    /// Adds one socket of the read, sampled at `now`.
    pub(super) fn sample(&mut self, socket: &Socket, now: Moment) {
        match socket.state {
            State::Established => {}
            State::Listen => {
                self.listeners.push((socket.local.port, socket.local.addr));
                return;
            }
            State::CloseWait | State::FinWait2 => {
                // a connection that was followed is half closed now: only a whole read drops it
                if self.baseline.take().is_some() {
                    return;
                }
                self.half_closed.extend(HalfClosed::of(socket));
                return;
            }
        }
        if let Some(at) = self.find(socket.cookie) {
            self.cursor = at + 1;
            let before = self.entries[at].segs_out;
            let end = self.entries[at].update(socket, self.default_keepidle, now);
            self.sent += u64::from(self.entries[at].segs_out.since(before));
            let end = self.awaited.follow(&self.entries[at], end, now);
            self.ended.extend(end.map(|end| (at, end)));
            return;
        }
        let origin = self.intern(Origin::of(socket));
        if self.entries.len() == self.entries.capacity() {
            // grows by an eighth and not by doubling, to limit the memory; the time for each connection is still
            // constant
            self.entries.reserve_exact((self.entries.len() / 8).max(16));
        }
        self.appeared += 1;
        self.index.note(PackedCookie::new(socket.cookie).get());
        self.entries.push(TrackedConnection::new(socket, origin, self.default_keepidle, now));
    }

    fn find(&mut self, cookie: Cookie) -> Option<usize> {
        let cookie = PackedCookie::new(cookie).get();
        if self.entries.get(self.cursor).is_some_and(|entry| entry.cookie() == cookie) {
            return Some(self.cursor);
        }
        self.index.find(cookie, &self.entries)
    }

    /// Makes room for this number of connections, if there are none yet.
    pub(super) fn expect_connections(&mut self, count: u64) {
        if self.entries.is_empty() {
            let count = usize::try_from(count).unwrap_or(MAX_EXPECTED).min(MAX_EXPECTED);
            self.entries.reserve_exact(count);
        }
    }

    /// The number of connections that the last read was the first to show.
    #[must_use]
    pub fn appeared(&self) -> u64 {
        self.appeared
    }

    /// The connection with this cookie.
    #[must_use]
    pub fn connection(&self, cookie: Cookie) -> Option<&TrackedConnection> {
        let cookie = PackedCookie::new(cookie).get();
        self.entries.get(self.index.get(cookie, &self.entries)?)
    }

    fn intern(&mut self, origin: Origin) -> u32 {
        // there are few distinct origins, and the newest is the most likely one
        let at = self.origins.iter().rposition(|&stored| stored == origin).unwrap_or_else(|| {
            self.origins.push(origin);
            self.origins.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// The read is over at `now`. If it was whole, the memory drops what it did not show, because that has closed.
    /// `ended` gets each idle time that ended, by movement or by closing.
    pub(super) fn end(&mut self, whole: bool, now: Moment, mut ended: impl FnMut(&Self, &TrackedConnection, &IdleEnd)) {
        self.listeners.sort_unstable();
        self.listeners_before = Vec::new();
        for (at, end) in std::mem::take(&mut self.ended) {
            ended(self, &self.entries[at], &end);
        }
        if !whole || self.entries.iter().all(TrackedConnection::seen) {
            return;
        }
        for entry in self.entries.iter().filter(|entry| !entry.seen()) {
            ended(self, entry, &entry.idle_at_close(now));
        }
        let Self { entries, awaited, .. } = self;
        entries.iter().filter(|entry| !entry.seen()).for_each(|entry| awaited.drop(entry));
        self.entries.retain(TrackedConnection::seen);
        if self.entries.capacity() > 2 * self.entries.len() + 64 {
            self.entries.shrink_to_fit();
        }
        self.index.rebuild(&self.entries);
        self.drop_unused_origins();
    }

    /// Drops the origins that no connection uses.
    fn drop_unused_origins(&mut self) {
        let mut kept = Vec::new();
        let mut new_positions = vec![None; self.origins.len()];
        for entry in &mut self.entries {
            let from = entry.origin();
            let Some(to) = new_positions.get_mut(from) else { continue };
            entry.set_origin(*to.get_or_insert_with(|| {
                kept.push(self.origins[from]);
                u32::try_from(kept.len() - 1).unwrap_or(u32::MAX)
            }));
        }
        self.origins = kept;
    }

    /// Ends the namespace and all its connections at `now`. See [`Tracker::retain`](super::Tracker::retain).
    pub(super) fn end_all(&mut self, now: Moment, ended: &mut impl FnMut(&Self, &TrackedConnection, &IdleEnd)) {
        self.advance_unchanged();
        self.entries.iter().for_each(|entry| ended(self, entry, &entry.idle_when_lost(now)));
    }

    /// The connections that the last dump showed.
    pub fn connections(&self) -> impl Iterator<Item = &TrackedConnection> {
        self.entries.iter().filter(|entry| entry.seen())
    }

    /// All entries, also those that an incomplete dump did not show. See [`TrackedConnection::seen`].
    #[must_use]
    pub fn entries(&self) -> &[TrackedConnection] {
        &self.entries
    }

    /// All entries, to set marks.
    pub fn entries_mut(&mut self) -> &mut [TrackedConnection] {
        &mut self.entries
    }

    /// The distinct origins of the namespace's connections.
    #[must_use]
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// The origin of a connection.
    #[must_use]
    pub fn origin(&self, entry: &TrackedConnection) -> Origin {
        self.origins.get(entry.origin()).copied().unwrap_or(Origin {
            local: Endpoint::UNSPECIFIED.addr,
            uid: u32::MAX,
            cgroup: None,
            device: 0,
            is_transparent: false,
        })
    }

    /// The local endpoint of a connection.
    #[must_use]
    pub fn local(&self, entry: &TrackedConnection) -> Endpoint {
        Endpoint { addr: self.origin(entry).local, port: entry.local_port }
    }

    /// The half-closed sockets that processes hold.
    #[must_use]
    pub fn half_closed(&self) -> &[HalfClosed] {
        &self.half_closed
    }

    /// The cgroup v2 ids of all its sockets, the half-closed ones included.
    pub fn cgroups(&self) -> impl Iterator<Item = u64> {
        let origins = self.origins.iter().filter_map(|origin| origin.cgroup);
        origins.chain(self.half_closed.iter().filter_map(|socket| socket.cgroup))
    }

    /// Whether the local side accepted the connection: it did not send the first segment, or a socket listens on the
    /// local endpoint. The counters are the better proof: a listener may be gone, or use the port of a client.
    #[must_use]
    pub fn accepted(&self, entry: &TrackedConnection) -> bool {
        entry.accepted().unwrap_or_else(|| listens(&self.listeners, self.local(entry)))
    }

    /// The same of a connection that the read under way does not show.
    #[must_use]
    pub fn had_accepted(&self, entry: &TrackedConnection) -> bool {
        let listened = || listens(&self.listeners_before, self.local(entry)) || self.accepted(entry);
        entry.accepted().unwrap_or_else(listened)
    }
}

/// Whether one of these listens on a local endpoint. They are sorted.
fn listens(listeners: &[(u16, IpAddr)], local: Endpoint) -> bool {
    let from = listeners.partition_point(|&(port, _)| port < local.port);
    let mut on_this_port = listeners[from..].iter().take_while(|&&(port, _)| port == local.port);
    on_this_port.any(|&(_, addr)| addr == local.addr || addr.is_unspecified())
}
