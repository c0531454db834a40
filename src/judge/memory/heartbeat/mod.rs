//! Recognises the application's own heartbeats by size and rhythm. It never reads payload.
//!
//! A pool that sends a query every 15 s has the rhythm of a heartbeat, but not its size. A heartbeat is one frame in
//! each direction. Its protocol fixes the length, and TLS adds a constant. So a connection has heartbeats if
//! - its exchanges have the sizes of one of the known [kinds],
//! - they are regular, and both directions keep pace,
//! - both were watched for long enough ([`Heartbeats::refresh`]).
//!
//! Other payload proves nothing and disproves nothing: the time in which it moves does not count as watched. A pool
//! never begins a watch.

pub mod kinds;
mod rhythm;

use super::clock::{Millis, Moment};
use kinds::{Kind, Protocol};
use rhythm::{Gap, PackedRhythm, Rhythm};

/// Segments within this many milliseconds are one beat. A sample may see only a part of it.
const SAME_BEAT_MS: u32 = 250;
/// The milliseconds by which a busy program may send a beat late, in addition to a quarter of the period.
const LATE_MS: u32 = 1000;
/// The highest number of beats between two samples. If there are more, their number does not prove a rhythm.
const MOST_UNSEEN: u32 = 10;
/// The lowest number of gaps in a watch: fewer gaps do not prove a rhythm.
const FEWEST_GAPS: u64 = 10;
/// Rounds a moment up to a whole second.
const ALMOST_A_SECOND: Millis = Millis::new(999);
/// The longest counted watch, in seconds: half of the range of 16 bits.
const LONGEST_WATCH: u16 = 1 << 15;

/// The payload of one connection since its first byte. The numbers wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes sent, retransmissions included.
    pub sent: u16,
    /// Bytes received.
    pub received: u16,
}

/// The traffic between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Segments sent with payload. `None` if that is not known.
    pub segments_sent: Option<u8>,
    /// Segments received, with payload or without.
    pub segments_received: u32,
    /// When payload had last moved in either direction, at the sample before.
    pub before: Moment,
    /// When payload has last moved in either direction.
    pub now: Moment,
}

impl Movement {
    fn gap(&self) -> u32 {
        u32::try_from(self.now.since(self.before).get()).unwrap_or(u32::MAX)
    }
}

/// The stored state of one connection's heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatWatch {
    totals: Totals,
    /// When the watch began, in seconds of the monotonic clock. Wraps around.
    since: u16,
    /// Since when only heartbeats moved, likewise.
    alone_since: u16,
    /// The longest gap.
    longest: Gap,
    rhythm: PackedRhythm,
}

/// The heartbeats of a connection, as the watch has shown them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeats {
    /// Their protocol.
    pub protocol: Protocol,
    /// The longest gap between two.
    pub longest_gap: Millis,
    /// The time for which only regular heartbeats were seen.
    pub watched: Millis,
    /// The time since the last payload in either direction.
    pub ago: Millis,
    /// A lower bound of the time since the last payload that was not one of them.
    pub other_ago: Millis,
}

impl Heartbeats {
    /// Whether they keep a path with this idle timeout fresh: no gap is longer than half of it, and they were watched
    /// for all of it.
    #[must_use]
    pub fn refresh(&self, idle_timeout: impl Into<Millis>) -> bool {
        let idle_timeout = idle_timeout.into();
        let longest_watch = Millis::from_secs(LONGEST_WATCH.into());
        let enough = idle_timeout.min(longest_watch).max(self.longest_gap.saturating_mul(FEWEST_GAPS));
        self.longest_gap > Millis::ZERO
            && self.longest_gap.max(self.ago) <= idle_timeout.half()
            && self.watched >= enough
    }
}

/// The heartbeats between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beats {
    sent: u16,
    received: u16,
}

impl HeartbeatWatch {
    /// Starts with the first sample.
    #[must_use]
    pub fn new(totals: Totals) -> Self {
        Self { totals, ..Self::default() }
    }

    /// Adds a later sample.
    pub fn observe(&mut self, totals: Totals, movement: &Movement) {
        let before = std::mem::replace(&mut self.totals, totals);
        let moved = Totals {
            sent: totals.sent.wrapping_sub(before.sent),
            received: totals.received.wrapping_sub(before.received),
        };
        if moved == Totals::default() && movement.segments_sent == Some(0) {
            return;
        }
        let rhythm = self.rhythm.get();
        if let Some(beats) = rhythm.and_then(|rhythm| beats(rhythm.kind, moved, movement)) {
            self.go_on(beats, movement);
            if passed(self.alone_since, movement.now) > LONGEST_WATCH {
                self.alone_since = seconds(movement.now).wrapping_sub(LONGEST_WATCH);
            }
        } else if let Some((kind, beats)) = first_beats(moved, movement) {
            // nobody saw what moved before
            let longest_ago = movement.now.minus(Millis::from_secs(LONGEST_WATCH.into()));
            self.alone_since = seconds_after(movement.before.max(longest_ago));
            self.begin(kind, difference(beats), Gap::default(), movement);
        } else {
            self.interrupt(movement);
        }
    }

    /// Whether something with the size of a heartbeat was seen.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.rhythm.get().is_some()
    }

    /// The heartbeats that were seen. `ago` is the time since the last payload in either direction.
    #[must_use]
    pub fn heartbeats(&self, ago: Millis, now: Moment) -> Option<Heartbeats> {
        let protocol = self.protocol()?;
        let last = now.minus(ago);
        let watched = Millis::from_secs(self.watched(last).into());
        let other_ago = Millis::from_secs(passed(self.alone_since, last).into()).saturating_add(ago);
        Some(Heartbeats { protocol, longest_gap: self.longest.ms().into(), watched, ago, other_ago })
    }

    /// The protocol of the heartbeats that were seen.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.rhythm.get().map(|rhythm| rhythm.kind.protocol())
    }

    /// A watch begins with this beat.
    fn begin(&mut self, kind: Kind, balance: i8, longest: Gap, movement: &Movement) {
        self.since = seconds_after(movement.now);
        self.longest = longest;
        self.rhythm = PackedRhythm::new(Rhythm { kind, balance, short: false });
    }

    /// Regular beats continue the watch. Other beats start it again.
    fn go_on(&mut self, beats: Beats, movement: &Movement) {
        let Some(rhythm) = self.rhythm.get() else { return };
        let gap = movement.gap();
        // an answer to a beat of the sample before is no new beat
        let [answers, asked] = [rhythm.balance, -rhythm.balance].map(|ahead| ahead.max(0).cast_unsigned().into());
        let count = beats.sent.saturating_sub(asked).max(beats.received.saturating_sub(answers));
        let count = u32::from(count).max(1);
        let period = gap / count;
        let longest = self.longest.ms();
        // Several beats between two samples: their gaps are unseen, but their number shows the period. Two timers may
        // be out of step.
        let bound = if count > 1 { gap.min(period.saturating_mul(2)) } else { gap };
        let slack = |of: u32| of / 8 + of / (2 * count) + SAME_BEAT_MS / 2;
        let near = |one: u32| one.abs_diff(longest) <= slack(longest);
        let uneven = count > MOST_UNSEEN || count > 1 && longest > 0 && !near(period) && !near(bound);
        let late = longest > 0 && bound > (longest / 4).saturating_mul(5).saturating_add(LATE_MS);
        let same_beat = gap < SAME_BEAT_MS.max(longest / 8);
        let short = !same_beat && count == 1 && gap < longest / 20 * 9;
        // each direction may have its own timer, and may be one beat ahead of the other
        let balance = if beats.sent == beats.received { 0 } else { rhythm.balance + difference(beats) };
        if late || uneven || short && rhythm.short || balance.abs() > 1 {
            self.begin(rhythm.kind, 0, Gap::at_least(bound), movement);
            return;
        }
        let short = if same_beat { rhythm.short } else { short };
        self.rhythm = PackedRhythm::new(Rhythm { balance, short, ..rhythm });
        if !same_beat {
            self.longest = self.longest.max(Gap::at_least(bound));
        }
        if self.watched(movement.now) > LONGEST_WATCH {
            self.since = seconds(movement.now).wrapping_sub(LONGEST_WATCH);
        }
    }

    /// Counts other payload: the time in which it moved is not part of the watch.
    fn interrupt(&mut self, movement: &Movement) {
        let Some(Rhythm { kind, .. }) = self.rhythm.get() else { return };
        let watched = self.watched(movement.before);
        self.alone_since = seconds_after(movement.now);
        self.since = self.alone_since.wrapping_sub(watched);
        self.rhythm = PackedRhythm::new(Rhythm { kind, balance: 0, short: false });
    }

    /// The length of the watch until a moment, seconds.
    fn watched(self, until: Moment) -> u16 {
        passed(self.since, until)
    }
}

/// The seconds from a stored moment to this one.
fn passed(since: u16, until: Moment) -> u16 {
    let passed = seconds(until).wrapping_sub(since);
    // a value above the longest watch and its next gap means a moment in the future
    if passed > u16::MAX / 8 * 7 { 0 } else { passed }
}

/// A moment in whole seconds, rounded up: the time since then is never too long.
fn seconds_after(moment: Moment) -> u16 {
    seconds(moment.plus(ALMOST_A_SECOND))
}

/// The number of heartbeats of this kind. `None` if there was other payload.
fn beats(kind: Kind, moved: Totals, movement: &Movement) -> Option<Beats> {
    let (out, into) = kind.sizes();
    let (sent, received) = (u16::from(movement.segments_sent?), moved.received / into);
    let all = moved.sent == out * sent && moved.received == into * received;
    // A beat comes with an acknowledgement, seldom with a retransmission. More segments may carry more bytes than 16
    // bits count.
    let most = u32::from(sent.max(received)) * 4 + 4;
    let segments = u32::from(received)..=most;
    (all && segments.contains(&movement.segments_received)).then_some(Beats { sent, received })
}

/// The first heartbeats that are seen, and their kind. One direction is enough only if both have the same size.
fn first_beats(moved: Totals, movement: &Movement) -> Option<(Kind, Beats)> {
    let kind = match movement.segments_sent? {
        0 => Kind::even(moved.received),
        1 if moved.received == 0 => Kind::even(moved.sent),
        beats => Kind::of(moved.sent / u16::from(beats), moved.received / u16::from(beats)),
    }?;
    Some((kind, beats(kind, moved, movement)?))
}

fn difference(beats: Beats) -> i8 {
    let difference = i32::from(beats.sent) - i32::from(beats.received);
    i8::try_from(difference.clamp(-2, 2)).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "wrapping is what it is for")]
fn seconds(moment: Moment) -> u16 {
    (moment.as_millis() / 1000) as u16
}
