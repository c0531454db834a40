//! Decides from the counters of a new connection that it has not sent a keepalive probe.
//!
//! A probe is a segment without data. Data that follows it hides it from the clocks, but not from the counters. The
//! counters account for every segment while each end has sent at most one segment of data, in one exchange: the kernel
//! acknowledges the first data of a connection at once.

use super::keepidle::PROBE_ANSWER_MS;
use crate::socket::TcpInfo;

/// Whether the local side cannot have sent a probe: its segments without data were those of the handshake (SYN and
/// acknowledgement, if it connected) and the acknowledgement of the peer's data.
#[must_use]
pub fn never_probed(tcp: &TcpInfo) -> bool {
    let (Some(sent), Some(recv), Some(ack)) = (tcp.last_data_sent, tcp.last_data_recv, tcp.last_ack_recv) else {
        return false;
    };
    let (Some(data_in), Some(data_out), Some(bare_out)) = (tcp.data_segs_in, tcp.data_segs_out, tcp.bare_segs_out())
    else {
        return false;
    };
    let (Some(acked), Some(bytes_sent)) = (tcp.bytes_acked, tcp.bytes_sent) else { return false };
    let answered = ack.saturating_add(PROBE_ANSWER_MS) < sent.min(recv);
    let one_exchange =
        data_in <= 1 && data_out <= 1 && (data_in + data_out < 2 || sent.abs_diff(recv) < PROBE_ANSWER_MS);
    // the SYN of the end that connected counts as a byte
    let handshake = if acked == bytes_sent.wrapping_add(1) { 2 } else { 0 };
    !answered && one_exchange && bare_out <= handshake + data_in
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `tcp_info` of a client that sent one byte and received one, 300 ms ago.
    const TALKED: TcpInfo = TcpInfo {
        last_data_sent: Some(300),
        last_data_recv: Some(300),
        last_ack_recv: Some(300),
        retransmits: Some(0),
        probes: Some(0),
        segs_in: Some(3),
        segs_out: Some(4),
        data_segs_in: Some(1),
        data_segs_out: Some(1),
        bytes_acked: Some(2),
        bytes_received: Some(1),
        bytes_sent: Some(1),
        bytes_retrans: Some(0),
        not_sent: Some(0),
    };

    #[test]
    fn one_exchange_without_another_segment_leaves_no_room_for_a_probe() {
        assert!(never_probed(&TALKED));
        // the end that accepted sends no segment without data but the first acknowledgement
        let server = TcpInfo { bytes_acked: Some(1), segs_out: Some(2), ..TALKED };
        assert!(never_probed(&server));
        let connected = TcpInfo {
            data_segs_in: Some(0),
            data_segs_out: Some(0),
            segs_out: Some(2),
            bytes_acked: Some(1),
            bytes_sent: Some(0),
            ..TALKED
        };
        assert!(never_probed(&connected));
        for probed in [
            TcpInfo { segs_out: Some(5), ..TALKED },
            TcpInfo { segs_out: Some(3), ..server },
            // the acknowledgement of an answer
            TcpInfo { last_data_sent: Some(5_000), last_data_recv: Some(5_000), ..TALKED },
            // two exchanges, or one that a probe fits into
            TcpInfo { segs_out: Some(5), data_segs_out: Some(2), ..TALKED },
            TcpInfo { last_data_sent: Some(3_000), ..TALKED },
            // a kernel that does not count
            TcpInfo { data_segs_out: None, ..TALKED },
            TcpInfo { bytes_sent: None, ..TALKED },
        ] {
            assert!(!never_probed(&probed), "{probed:?}");
        }
    }
}
