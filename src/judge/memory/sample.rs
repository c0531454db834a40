//! Updates the memory of a connection with each sample of its socket.

use super::clock::{Moment, Period, Tick, wrap};
use super::connection::{
    CLOCKS, EXPIRED, FINAL, HEARD_UNEXPLAINED, LATE_PEER, OPENED_HERE, STALE, TIMER_ARMED, TIMER_OFF, TURNED_ON,
    TrackedConnection, UNEXPLAINED, UNPROBED, WAITING,
};
use super::fresh::never_probed;
use super::heartbeat::{HeartbeatWatch, Movement, Totals};
use super::idle::{EndedBy, IdleEnd};
use super::keepidle::{Bounds, Clues, Sample, TimerState, infer};
use super::packed::{TimerAndRetransmits, U24};
use crate::socket::{Socket, TcpInfo, Timer};

/// The host reads a socket some milliseconds after the recorded moment, so a shorter idle time proves nothing.
const MARGIN_MS: u32 = 500;
/// By how much a clock must exceed the time between two samples if nothing restarted it.
const JITTER_MS: u32 = MARGIN_MS / 2;
/// Samples that are further apart are rare.
const RARE_MS: u32 = 30_000;

impl TrackedConnection {
    /// Makes the entry from the first sample at `now`. `origin` is the position among the origins of the namespace, and
    /// `default_keepidle` is the namespace's `tcp_keepalive_time` in milliseconds.
    pub(super) fn new(socket: &Socket, origin: u32, default_keepidle: Option<u32>, now: Moment) -> Self {
        let mut tracked = Self::blank(socket.cookie, socket.remote, socket.local.port, origin);
        tracked.moved = Tick::after(now);
        tracked.take(socket, now);
        let tcp = &socket.tcp;
        let oldest = clocks(tcp).map_or(0, |[sent, recv, ack]| sent.max(recv).max(ack));
        tracked.born = Tick::after(now.minus(oldest.into()));
        tracked.infer_keepidle(None, tcp, default_keepidle);
        tracked.heartbeats = totals(tcp).map(HeartbeatWatch::new).unwrap_or_default();
        tracked
    }

    /// A later sample of the same socket. Returns the idle time that ended since the last one, if one did.
    pub(super) fn update(&mut self, socket: &Socket, default_keepidle: Option<u32>, now: Moment) -> Option<IdleEnd> {
        let before = self.clone();
        self.take(socket, now);
        self.infer_keepidle(Some(&before), &socket.tcp, default_keepidle);
        self.watch_heartbeats(&before, &socket.tcp, now);

        let counts_segments = socket.tcp.segs_in.is_some();
        let elapsed = self.sampled_at.wrapping_sub(before.sampled_at);
        if counts_segments && self.segs_in == before.segs_in && self.segs_out == before.segs_out {
            self.keep_clocks(&before, elapsed);
        }
        let ran_on = |clock: u32| !self.is(CLOCKS) || clock >= elapsed.saturating_add(JITTER_MS);
        let clocks_ran_on = ran_on(self.data_idle.min(self.heard_idle));
        let heard_ran_on = ran_on(self.heard_idle);
        let sent = self.segs_out != before.segs_out;
        // kernels before 4.2 do not count segments, and no clock restarts without one
        let received = if counts_segments { self.segs_in != before.segs_in } else { !heard_ran_on };

        if !received && self.is(EXPIRED) {
            // the path has dropped its state: every segment of the local side is lost until the peer answers
            if sent {
                self.moved = Tick::after(now);
            }
            return sent.then(|| before.idle_end(self, EndedBy::Send, None, now));
        }
        if !received && !sent && (counts_segments || clocks_ran_on) {
            return None;
        }
        let idle_time = before.last_idle_time(now);
        // Data and answers to our own probes restart a clock. One segment in each direction without a restarted clock
        // is a probe of the peer and its answer, because nothing is received for our own unanswered probes. An idle
        // time that is too short to measure does not count.
        let was_idle = before.is(CLOCKS) && before.data_idle.min(before.heard_idle) >= MARGIN_MS;
        if sent && received && clocks_ran_on && was_idle {
            // it came at any moment since the sample before: where that is long ago, the earliest one counts
            let probed = if elapsed > RARE_MS { before.sampled_at(now) } else { now };
            let last = std::mem::replace(&mut self.peer_probe, Tick::after(probed));
            self.peer_period = if last == Tick::default() {
                // no clock shows whether the peer has probed before: it may have waited since the last data
                Period::at_most(self.data_idle.min(self.heard_idle).into())
            } else {
                self.peer_probe.since(last)
            };
            self.set(LATE_PEER, before.is(STALE));
        }
        self.set(UNEXPLAINED, clocks_ran_on);
        self.moved = Tick::after(now);
        if received {
            self.set(HEARD_UNEXPLAINED, heard_ran_on);
            self.heard = Tick::after(now);
            self.set(EXPIRED | STALE, false);
        }
        let by = if received { EndedBy::Answer } else { EndedBy::Send };
        Some(before.idle_end(self, by, Some(idle_time), now))
    }

    /// No segment moved since the sample `before`. So a clock that is less than it was then has wrapped around, after
    /// 49.7 days.
    fn keep_clocks(&mut self, before: &Self, elapsed: u32) {
        let both_have_clocks = self.is(CLOCKS) && before.is(CLOCKS);
        let pairs = [(&mut self.data_idle, before.data_idle), (&mut self.heard_idle, before.heard_idle)];
        for (clock, was) in pairs.into_iter().filter(|_| both_have_clocks) {
            let expected = was.saturating_add(elapsed);
            if clock.saturating_add(MARGIN_MS) < expected {
                *clock = expected;
            }
        }
    }

    /// Copies the current values of the kernel.
    fn take(&mut self, socket: &Socket, now: Moment) {
        self.sampled_at = wrap(now);
        self.inode = socket.inode;
        self.expires = socket.expires;
        let tcp = &socket.tcp;
        // a kernel that sends no tcp_info reports only the timer's count
        let of_timer = |is: bool| if is { socket.retransmits } else { 0 };
        let retransmits = tcp.retransmits.unwrap_or(of_timer(socket.timer == Timer::Retransmit));
        self.timer = TimerAndRetransmits::new(socket.timer, retransmits);
        self.probes = tcp.probes.unwrap_or(of_timer(matches!(socket.timer, Timer::KeepAlive | Timer::Persist)));
        let clocks = clocks(tcp);
        self.set(CLOCKS, clocks.is_some());
        let [sent, recv, ack] = clocks.unwrap_or_default();
        (self.data_idle, self.heard_idle) = (sent.min(recv), recv.min(ack));
        self.set(WAITING, sent < recv && tcp.data_segs_out != Some(0));
        self.segs_in = U24::wrapping(tcp.segs_in.unwrap_or(0));
        self.segs_out = U24::wrapping(tcp.segs_out.unwrap_or(0));
        match tcp.acknowledged_beyond_payload() {
            Some(1) => self.set(OPENED_HERE, true),
            // without a retransmission timer nothing is in flight: no SYN of the local side was acknowledged
            Some(0) if !socket.timer.masks_keepalive() => self.mark_accepted(),
            _ => {}
        }
        self.bare_out = tcp.bare_segs_out().unwrap_or(0).to_le_bytes()[0];
        if !socket.timer.masks_keepalive() {
            self.set(TIMER_ARMED, socket.timer == Timer::KeepAlive);
            self.set(TIMER_OFF, socket.timer != Timer::KeepAlive);
        }
        self.set_seen(true);
    }

    fn infer_keepidle(&mut self, before: Option<&Self>, tcp: &TcpInfo, default_keepidle: Option<u32>) {
        let (Some(sample), Some([sent, recv, ack])) = (self.sample(), clocks(tcp)) else { return };
        let bounds = if sample.timer == TimerState::Off {
            Bounds::default()
        } else {
            let sample = Sample { bare_out: sample.bare_out.filter(|_| tcp.bare_segs_out().is_some()), ..sample };
            let clues = Clues {
                acknowledged: ack,
                data_idle: sent.min(recv),
                never_probed: never_probed(tcp),
                default_keepidle,
            };
            infer(before.and_then(|before| Some((before.sample()?, before.bounds()))), sample, clues)
        };
        (self.keepidle, self.unproven) = (bounds.keepidle, bounds.unproven);
        self.set(UNPROBED, bounds.unprobed);
        self.set(FINAL, bounds.is_final);
        self.set(TURNED_ON, bounds.turned_on);
    }

    fn watch_heartbeats(&mut self, before: &Self, tcp: &TcpInfo, now: Moment) {
        let totals = totals(tcp);
        let moments = before.data_idle(before.sampled_at(now)).zip(self.data_idle(now));
        let (Some(totals), Some((idle_before, idle_now))) = (totals, moments) else {
            self.heartbeats = totals.map(HeartbeatWatch::new).unwrap_or_default();
            return;
        };
        let segments_out = u8::try_from(self.segs_out.since(before.segs_out)).ok();
        let bare_out = self.bare_out.wrapping_sub(before.bare_out);
        self.heartbeats.observe(
            totals,
            &Movement {
                segments_sent: segments_out.map(|segments| segments.wrapping_sub(bare_out)),
                segments_received: self.segs_in.since(before.segs_in),
                before: before.sampled_at(now).minus(idle_before),
                now: now.minus(idle_now),
            },
        );
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            keepidle: self.keepidle,
            unproven: self.unproven,
            unprobed: self.is(UNPROBED),
            is_final: self.is(FINAL),
            turned_on: self.is(TURNED_ON),
        }
    }

    fn sample(&self) -> Option<Sample> {
        let timer = match self.timer() {
            Timer::KeepAlive if self.probes > 0 => TimerState::Probing(self.expires),
            Timer::KeepAlive => TimerState::Armed(self.expires),
            Timer::None | Timer::DelAck => TimerState::Off,
            _ => TimerState::Hidden,
        };
        self.is(CLOCKS).then_some(Sample {
            at: self.sampled_at,
            timer,
            heard: self.heard_idle,
            segs_out: self.segs_out.get(),
            bare_out: Some(self.bare_out),
        })
    }
}

/// The payload of a connection, if the kernel counts it.
#[expect(clippy::cast_possible_truncation, reason = "only differences count")]
fn totals(tcp: &TcpInfo) -> Option<Totals> {
    tcp.data_segs_out?;
    Some(Totals { sent: tcp.bytes_sent? as u16, received: tcp.bytes_received? as u16 })
}

/// The times since the last sent data, the last received data, and the last received acknowledgement.
fn clocks(tcp: &TcpInfo) -> Option<[u32; 3]> {
    Some([tcp.last_data_sent?, tcp.last_data_recv?, tcp.last_ack_recv?])
}
