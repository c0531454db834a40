//! How a connection ended, as far as the kernel's destroy event of its socket shows it.

use super::Outcome;
use super::counters::{EndCounters, Window};
use crate::judge::memory::{LastSample, Millis, Moment};
use crate::socket::EndedSocket;

/// The kernel's last word on a socket (a destroy event), and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndEvent {
    /// When it was received.
    pub at: Moment,
    /// The socket.
    pub socket: EndedSocket,
}

impl EndEvent {
    /// How the connection ended whose last sample is `last`; `None` where the event leaves it open.
    ///
    /// The kernel does not report the error of the socket. It reports its sequence numbers and counts: a FIN takes one
    /// number, and an RST is a segment that restarts no clock.
    #[must_use]
    pub fn outcome(&self, last: &LastSample, window: Option<&Window>) -> Option<Outcome> {
        let Self { at, socket: EndedSocket { remote_port, unread, queued, tcp, .. } } = *self;
        if remote_port == 0 {
            // aborted by its program without lingering: the kernel has cleared everything
            return Some(Outcome::Closed);
        }
        let beyond = tcp.acknowledged_beyond_payload()?;
        let acknowledged = beyond - i64::from(last.opened_here);
        if acknowledged >= 1 {
            // the peer has acknowledged a FIN
            return Some(Outcome::Closed);
        }
        let in_flight = i64::from(queued) - i64::from(tcp.not_sent?);
        if in_flight + acknowledged == 1 {
            // a FIN is on the wire
            return Some(Outcome::Closed);
        }
        let gave_up = tcp.retransmits? > 0 || tcp.probes? > 0;
        let none = |count: fn(&EndCounters) -> u64| window.is_some_and(|window| count(&window.most) == 0);
        if tcp.segs_in? & 0x00ff_ffff == last.segs_in {
            // nothing arrived since the last sample, so no RST did
            return Some(if gave_up { Outcome::TimedOut } else { Outcome::Closed });
        }
        if gave_up {
            // what arrived since the last sample acknowledged nothing: it was the RST
            let was_reset = Millis::from(tcp.last_ack_recv?) > at.since(last.at) || none(|most| most.timeouts);
            return was_reset.then_some(Outcome::Reset);
        }
        // a program that closes with unread data resets the connection itself
        (unread == 0 || none(|most| most.aborts)).then_some(Outcome::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::tests::window;
    use super::*;
    use crate::socket::{Cookie, TcpInfo};

    const LAST: LastSample =
        LastSample { at: Moment::from_millis(1000), segs_in: 3, opened_here: true, has_unanswered: false };

    /// As Linux 6.18 reports the end of a connection that sent 5 bytes, all acknowledged, 10 s after the sample.
    fn event(queued: u32, change: impl FnOnce(&mut TcpInfo)) -> EndEvent {
        let mut tcp = TcpInfo {
            retransmits: Some(0),
            probes: Some(0),
            segs_in: Some(4),
            bytes_sent: Some(5),
            bytes_acked: Some(6),
            bytes_retrans: Some(0),
            not_sent: Some(0),
            last_ack_recv: Some(11_000),
            ..TcpInfo::default()
        };
        change(&mut tcp);
        let socket = EndedSocket { cookie: Cookie(1), remote_port: 9000, unread: 0, queued, tcp };
        EndEvent { at: Moment::from_millis(11_000), socket }
    }

    #[test]
    fn a_destroy_event_shows_how_the_connection_ended() {
        let lost = |tcp: &mut TcpInfo| {
            (tcp.bytes_sent, tcp.bytes_retrans) = (Some(10), Some(4));
            (tcp.retransmits, tcp.segs_in) = (Some(3), Some(3));
        };
        for (name, event, outcome) in [
            ("its FIN was acknowledged", event(0, |tcp| tcp.bytes_acked = Some(7)), Outcome::Closed),
            ("its FIN met an RST", event(1, |_| ()), Outcome::Closed),
            ("its data met an RST", event(1, |tcp| tcp.bytes_sent = Some(6)), Outcome::Reset),
            ("an RST without cause", event(0, |_| ()), Outcome::Reset),
            ("unanswered data", event(1, lost), Outcome::TimedOut),
            ("unanswered probes", event(0, |tcp| (tcp.probes, tcp.segs_in) = (Some(2), Some(3))), Outcome::TimedOut),
            (
                "an RST to the third retransmission",
                event(1, |tcp| {
                    lost(tcp);
                    tcp.segs_in = Some(4);
                }),
                Outcome::Reset,
            ),
            ("destroyed by an administrator", event(0, |tcp| tcp.segs_in = Some(3)), Outcome::Closed),
        ] {
            assert_eq!(event.outcome(&LAST, None), Some(outcome), "{name}");
        }
        let mut aborted = event(65_538, |tcp| *tcp = TcpInfo::default());
        aborted.socket.remote_port = 0;
        assert_eq!(aborted.outcome(&LAST, None), Some(Outcome::Closed));
        let accepted = LastSample { opened_here: false, ..LAST };
        assert_eq!(event(0, |_| ()).outcome(&accepted, None), Some(Outcome::Closed), "the peer's SYN takes no number");
        assert_eq!(event(0, |tcp| tcp.bytes_acked = Some(5)).outcome(&accepted, None), Some(Outcome::Reset));
    }

    #[test]
    fn where_an_event_leaves_two_ends_open_the_counters_may_decide() {
        let unread = EndEvent { socket: EndedSocket { unread: 6, ..event(0, |_| ()).socket }, ..event(0, |_| ()) };
        assert_eq!(unread.outcome(&LAST, None), None);
        assert_eq!(unread.outcome(&LAST, Some(&window(1, 0, 1))), None);
        assert_eq!(unread.outcome(&LAST, Some(&window(1, 0, 0))), Some(Outcome::Reset));
        let answered = event(1, |tcp| {
            (tcp.bytes_sent, tcp.retransmits, tcp.last_ack_recv) = (Some(6), Some(3), Some(9000));
        });
        assert_eq!(answered.outcome(&LAST, Some(&window(1, 1, 0))), None);
        assert_eq!(answered.outcome(&LAST, Some(&window(1, 0, 0))), Some(Outcome::Reset));
        assert_eq!(event(0, |tcp| tcp.bytes_retrans = None).outcome(&LAST, None), None, "an old kernel");
    }
}
