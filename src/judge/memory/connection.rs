//! One connection, as it is remembered from sweep to sweep: what was last seen of it, and what each look adds.

use super::fresh::never_probed;
use super::keepidle::{Known, Pending, Sample, infer};
use crate::socket::{Cookie, Endpoint, Socket, TcpInfo, Timer};

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
pub enum KeepaliveTimer {
    /// Never seen unmasked.
    #[default]
    Unknown,
    /// No keepalive timer at the last unmasked look.
    Off,
    /// A keepalive timer at the last unmasked look.
    Armed,
}

/// One connection: what was last seen of it, and what must be remembered.
#[derive(Clone, Debug)]
pub struct TrackedConnection {
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
    /// [`Known::keepidle`].
    keepidle: u32,
    /// [`Known::either`].
    either: u32,
    /// The other end.
    pub remote: Endpoint,
    /// This end's port.
    pub local_port: u16,
    /// The lowest bits of the number of segments that this end sent without data.
    bare_out: u8,
    /// [`Timer::idiag`].
    timer: u8,
    /// Retransmissions, or unanswered probes.
    pub retransmits: u8,
    /// Whether a keepalive timer is armed, as far as is known.
    pub armed: KeepaliveTimer,
    flags: u16,
}

/// Shown by the dump that is under way, or was by the last one.
const SEEN: u16 = 1;
/// We sent last.
const WAITING: u16 = 2;
/// The verdict was `overdue`, and nothing was heard since.
const OVERDUE: u16 = 4;
/// The three clocks are known.
const CLOCKS: u16 = 8;
/// The other end's last probe came after the connection was [`STALE`].
const LATE_PEER: u16 = 16;
/// The path's idle timeout was watched in silence.
const STALE: u16 = 32;
/// The last movement showed in the segment counters alone.
const UNEXPLAINED: u16 = 64;
/// [`Known::turned_on`].
const TURNED_ON: u16 = 512;
/// [`Known::settled`].
const SETTLED: u16 = 128;
/// [`Known::unprobed`].
const UNPROBED: u16 = 256;

const _: () = assert!(size_of::<TrackedConnection>() <= 96, "the memory of one connection is at most 96 bytes");

impl TrackedConnection {
    /// First sight, at `now` (monotonic milliseconds); `origin` is its position among the origins of its namespace.
    pub(super) fn new(socket: &Socket, origin: u32, now: u64) -> Self {
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
            either: 0,
            bare_out: 0,
            remote: socket.remote,
            local_port: socket.local.port,
            timer: Timer::None.idiag(),
            retransmits: 0,
            armed: KeepaliveTimer::Unknown,
            flags: 0,
        };
        tracked.take(socket, now);
        let oldest = tracked.clocks().map_or(0, |[sent, recv, ack]| sent.max(recv).max(ack));
        tracked.born = Tick::after(now.saturating_sub(u64::from(oldest)));
        tracked.infer_keepidle(None, &socket.tcp);
        tracked
    }

    /// A later look at the same socket; tells the silence that ended since the last one, if one did, in milliseconds.
    pub(super) fn update(&mut self, socket: &Socket, now: u64) -> Option<u64> {
        let before = self.clone();
        self.take(socket, now);
        self.infer_keepidle(Some(&before), &socket.tcp);

        let elapsed = self.seen_at.wrapping_sub(before.seen_at);
        let ran_on = |clocks: [u32; 3]| shortest(clocks) >= elapsed.saturating_add(JITTER_MS);
        let clocks_ran_on = self.clocks().is_none_or(ran_on);
        let sent = self.segs_out != before.segs_out;
        let received = self.segs_in != before.segs_in;
        // no clock restarts without a segment; kernels before 4.2 do not count them
        if !sent && !received && (clocks_ran_on || socket.tcp.segs_in.is_some()) {
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
        self.timer = socket.timer.idiag();
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
        self.bare_out = tcp.bare_segs_out().unwrap_or(0).to_le_bytes()[0];
        match socket.timer {
            Timer::KeepAlive => self.armed = KeepaliveTimer::Armed,
            Timer::None | Timer::DelAck => self.armed = KeepaliveTimer::Off,
            _ => {}
        }
        self.set(SEEN, true);
    }

    fn infer_keepidle(&mut self, before: Option<&Self>, tcp: &TcpInfo) {
        let Some(mut sample) = self.sample() else { return };
        let known = if sample.timer == Pending::Off {
            Known::default()
        } else {
            sample.never_probed = never_probed(tcp);
            if tcp.bare_segs_out().is_none() {
                sample.bare_out = None;
            }
            infer(before.and_then(|before| Some((before.sample()?, before.known()))), sample)
        };
        (self.keepidle, self.either) = (known.keepidle, known.either);
        self.set(UNPROBED, known.unprobed);
        self.set(SETTLED, known.settled);
        self.set(TURNED_ON, known.turned_on);
    }

    fn known(&self) -> Known {
        Known {
            keepidle: self.keepidle,
            either: self.either,
            unprobed: self.is(UNPROBED),
            settled: self.is(SETTLED),
            turned_on: self.is(TURNED_ON),
        }
    }

    fn sample(&self) -> Option<Sample> {
        let timer = match self.timer() {
            Timer::KeepAlive if self.retransmits > 0 => Pending::Probing(self.expires),
            Timer::KeepAlive => Pending::Armed(self.expires),
            Timer::None | Timer::DelAck => Pending::Off,
            _ => Pending::Hidden,
        };
        self.clocks().map(|[data_sent, data_recv, ack_recv]| Sample {
            at: self.seen_at,
            timer,
            data_sent,
            data_recv,
            ack_recv,
            segs_out: self.segs_out,
            bare_out: Some(self.bare_out),
            never_probed: false,
        })
    }

    fn clocks(&self) -> Option<[u32; 3]> {
        self.is(CLOCKS).then_some([self.data_sent, self.data_recv, self.ack_recv])
    }

    fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u16, on: bool) {
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

    /// Makes it unseen, until a dump shows it again.
    pub(super) fn forget_look(&mut self) {
        self.set(SEEN, false);
    }

    /// Gives it another position among the origins of its namespace.
    pub(super) fn set_origin(&mut self, origin: u32) {
        self.origin = origin;
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
        Timer::from_idiag(self.timer)
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

    /// Lower bound in milliseconds of the longest silence that this end's probes leave, where one is known: of the longer one of KEEPIDLE and
    /// KEEPINTVL, as far as the timer showed it.
    #[must_use]
    pub fn probes_after(&self) -> Option<u32> {
        let longest = self.keepidle.max(self.either);
        (longest > 0).then_some(longest)
    }

    /// Whether more looks at the keepalive timer would tell nothing more of KEEPIDLE.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.is(SETTLED)
    }

    /// When it was last seen: the moment of the last look, given any `now` (milliseconds) after it.
    #[must_use]
    pub fn seen_at(&self, now: u64) -> u64 {
        now.saturating_sub(self.since_seen(now))
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
    pub(super) fn last_silence(&self, now: u64) -> u64 {
        self.wire_idle(self.seen_at(now)).unwrap_or(0)
    }

    /// Nothing moved from the last look until `held` (monotonic milliseconds), but for probes of this end: it becomes what a look at `held`
    /// would have found, or, where the keepalive timer fired before, a look at that moment.
    pub(super) fn unchanged_until(&mut self, held: u64) {
        let mut passed = u32::try_from(self.since_seen(held)).unwrap_or(u32::MAX);
        if self.armed == KeepaliveTimer::Armed {
            passed = passed.min(self.expires);
        }
        self.seen_at = self.seen_at.wrapping_add(passed);
        self.expires = self.expires.saturating_sub(passed);
        for clock in [&mut self.data_sent, &mut self.data_recv, &mut self.ack_recv] {
            *clock = clock.saturating_add(passed);
        }
    }

    /// We sent last, and nothing came back since.
    #[must_use]
    pub fn waiting_for_reply(&self) -> bool {
        self.is(WAITING)
    }

    /// What is sent stays unacknowledged: retransmitting without an answer.
    #[must_use]
    pub fn unanswered(&self) -> bool {
        self.timer() == Timer::Retransmit && self.retransmits > 0
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

fn shortest([a, b, c]: [u32; 3]) -> u32 {
    a.min(b).min(c)
}

/// The low 32 bits of a millisecond clock: enough to tell two looks apart that are less than 24 days apart.
#[expect(clippy::cast_possible_truncation, reason = "wrapping is what it is for")]
fn wrap(ms: u64) -> u32 {
    ms as u32
}
