//! A view of the kernel's `struct tcp_info`, in which any field may be missing.
//!
//! The structure grows at its end with every kernel (192, 232, 248, 280 bytes …), so that a field is present exactly
//! when the bytes reach past it. Offsets are those of `include/uapi/linux/tcp.h`, which never change.

use crate::socket::TcpInfo;

/// Byte offsets of the fields that we read: 32 bits, byte counts 64, the first two 8.
mod offset {
    pub const RETRANSMITS: usize = 2;
    pub const PROBES: usize = 3;
    pub const LAST_DATA_SENT: usize = 44;
    pub const LAST_DATA_RECV: usize = 52;
    pub const LAST_ACK_RECV: usize = 56;
    pub const BYTES_ACKED: usize = 120;
    pub const BYTES_RECEIVED: usize = 128;
    pub const SEGS_OUT: usize = 136;
    pub const SEGS_IN: usize = 140;
    pub const DATA_SEGS_IN: usize = 152;
    pub const DATA_SEGS_OUT: usize = 156;
    pub const NOT_SENT: usize = 144;
    pub const BYTES_SENT: usize = 200;
    pub const BYTES_RETRANS: usize = 208;
}

/// Reads the present fields of a `tcp_info` of any length, in the machine's byte order.
#[must_use]
pub fn read(bytes: &[u8]) -> TcpInfo {
    let field = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let wide = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let narrow = |at: usize| bytes.get(at).copied();
    TcpInfo {
        retransmits: narrow(offset::RETRANSMITS),
        probes: narrow(offset::PROBES),
        last_data_sent: field(offset::LAST_DATA_SENT),
        last_data_recv: field(offset::LAST_DATA_RECV),
        last_ack_recv: field(offset::LAST_ACK_RECV),
        segs_in: field(offset::SEGS_IN),
        segs_out: field(offset::SEGS_OUT),
        data_segs_in: field(offset::DATA_SEGS_IN),
        data_segs_out: field(offset::DATA_SEGS_OUT),
        bytes_acked: wide(offset::BYTES_ACKED),
        bytes_received: wide(offset::BYTES_RECEIVED),
        bytes_sent: wide(offset::BYTES_SENT),
        bytes_retrans: wide(offset::BYTES_RETRANS),
        not_sent: field(offset::NOT_SENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `tcp_info` whose every 32-bit word holds its own offset.
    fn numbered(length: usize) -> Vec<u8> {
        (0..length.div_ceil(4)).flat_map(|word| (u32::try_from(word).unwrap() * 4).to_ne_bytes()).take(length).collect()
    }

    /// The 64 bits at an offset of [`numbered`].
    fn two_words(at: u32) -> u64 {
        u64::from_ne_bytes([at.to_ne_bytes(), (at + 4).to_ne_bytes()].concat().try_into().unwrap())
    }

    #[test]
    fn every_field_is_read_from_its_offset() {
        let mut bytes = numbered(280);
        (bytes[2], bytes[3]) = (17, 19);
        let info = read(&bytes);
        let expected = TcpInfo {
            retransmits: Some(17),
            probes: Some(19),
            last_data_sent: Some(44),
            last_data_recv: Some(52),
            last_ack_recv: Some(56),
            segs_out: Some(136),
            segs_in: Some(140),
            data_segs_in: Some(152),
            data_segs_out: Some(156),
            bytes_acked: Some(two_words(120)),
            bytes_received: Some(two_words(128)),
            bytes_sent: Some(two_words(200)),
            bytes_retrans: Some(two_words(208)),
            not_sent: Some(144),
        };
        assert_eq!(info, expected);
    }

    #[test]
    fn a_field_is_present_exactly_when_the_bytes_reach_past_it() {
        for length in 0..=300 {
            let info = read(&numbered(length));
            assert_eq!(
                (info.retransmits.is_some(), info.probes.is_some()),
                (length >= 3, length >= 4),
                "length {length}"
            );
            assert_eq!(
                [info.bytes_acked, info.bytes_received, info.bytes_sent, info.bytes_retrans].map(|it| it.is_some()),
                [length >= 128, length >= 136, length >= 208, length >= 216],
                "length {length}"
            );
            let present = [
                (info.last_data_sent, 48),
                (info.last_data_recv, 56),
                (info.last_ack_recv, 60),
                (info.segs_out, 140),
                (info.segs_in, 144),
                (info.not_sent, 148),
                (info.data_segs_in, 156),
                (info.data_segs_out, 160),
            ];
            for (field, end) in present {
                assert_eq!(field.is_some(), length >= end, "length {length}, field that ends at {end}");
            }
        }
    }
}
