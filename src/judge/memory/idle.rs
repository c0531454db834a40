//! How idle times end: with an answer, without one, or with the connection. Each says something of the path's limit.

use std::collections::HashSet;

use super::clock::{Millis, Moment};
use super::connection::TrackedConnection;
use super::heartbeat::kinds::Protocol;
use crate::socket::Cookie;

/// Idle times below this say nothing of a path: an answer may take that long.
pub const SHORTEST_IDLE: Millis = Millis::from_secs(2);
/// The most connections of a namespace whose answer is awaited.
const MAX_AWAITED: usize = 1024;

/// How an idle time ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndedBy {
    /// A segment from the peer: the path still had its state.
    Answer,
    /// A segment of the local side that has no answer yet.
    Send,
    /// What the local side sent has no answer, and an ordinary loss does not explain it.
    Hang,
    /// The connection is gone.
    #[default]
    Close,
    /// Its whole namespace is gone.
    Loss,
}

/// An idle time that ended between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleEnd {
    /// How it ended.
    pub by: EndedBy,
    /// What counts as an ended idle time: see [`Tracker::end_read`](super::Tracker::end_read). None where none ended.
    pub idle_time: Millis,
    /// Since the last segment of any kind.
    pub on_wire: IdleTime,
    /// Since the last payload; none where no payload ended it.
    pub of_payload: IdleTime,
    /// Since the last payload that was not an HTTP/2 PING frame, when payload ended it or such a frame was answered.
    /// None where the frames hide how long it was at most, and nothing was answered.
    pub of_request: IdleTime,
}

/// A length of time between two bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleTime {
    /// It was at least this long.
    pub at_least: Millis,
    /// It was at most this long.
    pub at_most: Millis,
}

impl IdleEnd {
    fn is_long(&self) -> bool {
        let longest = self.on_wire.at_most.max(self.of_payload.at_most).max(self.of_request.at_least);
        self.idle_time.max(longest) >= SHORTEST_IDLE
    }
}

/// The connections of a namespace that ended an idle time and have no answer yet.
#[derive(Debug, Default)]
pub(super) struct AwaitedAnswers(HashSet<Cookie>);

impl AwaitedAnswers {
    /// What a sample of a connection says of idle times, if it matters to anybody. `end` is the one that it ended.
    pub fn follow(&mut self, sampled: &TrackedConnection, end: Option<IdleEnd>, now: Moment) -> Option<IdleEnd> {
        let cookie = sampled.cookie();
        let was_awaited = !self.0.is_empty() && self.0.contains(&cookie);
        match end {
            Some(end) if end.by == EndedBy::Answer => {
                self.0.remove(&cookie);
                (was_awaited || end.is_long()).then_some(end)
            }
            end if was_awaited && sampled.hangs(now) => {
                let end = end.unwrap_or(IdleEnd { by: EndedBy::Hang, ..IdleEnd::default() });
                Some(IdleEnd { by: EndedBy::Hang, ..end })
            }
            Some(end) if end.is_long() => {
                if self.0.len() < MAX_AWAITED {
                    self.0.insert(cookie);
                }
                Some(end)
            }
            _ => None,
        }
    }

    /// A connection is gone.
    pub fn drop(&mut self, entry: &TrackedConnection) {
        self.0.remove(&entry.cookie());
    }
}

impl TrackedConnection {
    /// The idle time that ended between this sample and `after`, which is a later one of the same socket.
    pub(super) fn idle_end(&self, after: &Self, by: EndedBy, idle_time: Option<Millis>, now: Moment) -> IdleEnd {
        let before = self.sampled_at(now);
        let elapsed = now.since(before);
        // Only its payload shows when the local side sent, or last sent it again.
        let sent_ago = after.data_idle(now).filter(|idle| *idle < elapsed);
        let until_sent = |idle: Millis| match (by, sent_ago) {
            (EndedBy::Send, Some(ago)) => idle.saturating_sub(ago),
            _ => idle,
        };
        let bounds =
            |at_least: Millis, at_most: Millis| IdleTime { at_least, at_most: until_sent(at_most).max(at_least) };
        let payload = sent_ago.or(after.data_idle(now).filter(|_| by == EndedBy::Close));
        let of_payload = payload.and_then(|_| Some(bounds(self.data_idle(before)?, self.data_idle(now)?)));
        let of_payload = of_payload.unwrap_or_default();
        let of_request = if self.has_pings() || after.has_pings() {
            // An answered PING shows that the middlebox still has the connection. Such frames may have come before we
            // watched, so of the idle time only a lower bound is known.
            let at_least = self.request_idle(before).filter(|_| by == EndedBy::Answer);
            at_least.map(|at_least| IdleTime { at_least, at_most: Millis::MAX }).unwrap_or_default()
        } else {
            of_payload
        };
        IdleEnd {
            by,
            idle_time: idle_time.unwrap_or_default(),
            on_wire: bounds(self.watched_idle(before, elapsed), self.wire_idle(now).unwrap_or_default()),
            of_payload,
            of_request,
        }
    }

    /// A lower bound of the time since the last payload that was not an HTTP/2 PING frame. `None` if the kernel does
    /// not report it.
    #[must_use]
    pub fn request_idle(&self, now: Moment) -> Option<Millis> {
        let idle = self.data_idle(now)?;
        let pings = self.heartbeats(now).filter(|seen| seen.protocol == Protocol::Http2);
        Some(pings.map_or(idle, |pings| idle.max(pings.other_ago)))
    }

    /// Whether HTTP/2 PING frames were seen.
    fn has_pings(&self) -> bool {
        self.heartbeats.protocol() == Some(Protocol::Http2)
    }

    /// The idle time that ends because the connection is gone at `now`.
    pub(super) fn idle_at_close(&self, now: Moment) -> IdleEnd {
        self.idle_end(self, EndedBy::Close, Some(self.last_idle_time(now)), now)
    }

    /// The idle time that ends because its namespace is gone at `now`.
    pub(super) fn idle_when_lost(&self, now: Moment) -> IdleEnd {
        IdleEnd { by: EndedBy::Loss, idle_time: self.last_idle_time(now), ..IdleEnd::default() }
    }

    /// For how long nothing was on the wire, so far as we know of the peer's probes: no clock shows those before the
    /// first sample. Between two samples there is time for one.
    fn watched_idle(&self, at: Moment, between_samples: Millis) -> Millis {
        let watched = self.watched(at).saturating_add(between_samples);
        self.wire_idle(at).unwrap_or_default().min(watched)
    }

    /// Whether what the local side sent has no answer, and an ordinary loss does not explain it.
    pub(super) fn hangs(&self, now: Moment) -> bool {
        let unanswered = self.unanswered();
        let one_probe_for_long = unanswered.probes == 1 && self.watched(now) >= Millis::from_secs(1);
        unanswered.retransmits >= 3 || unanswered.probes >= 2 || one_probe_for_long
    }
}
