//! Checks the bytes of `sock_diag` requests and replies against real replies and against another decoder.
//!
//! `tests/wire/*.hex` are replies of real kernels, one field a line. Their multi-byte numbers are little-endian.
#![cfg(target_endian = "little")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use keepalive_auditor::socket::{Cookie, Endpoint, Socket, State, TcpInfo, Timer};
use keepalive_auditor::wire::inet_diag::{Message, Messages, Reply, Request, WireError};
use keepalive_auditor::wire::tcp_info;
use netlink_packet_core::{DefaultNla, Emitable, Parseable};
use netlink_packet_sock_diag::inet::{self, InetResponse, nlas::Nla};
use proptest::collection::vec;
use proptest::prelude::*;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_msg`.
const INET_DIAG_MSG: usize = 72;

/// The bytes of a commented listing.
fn bytes(listing: &str) -> Vec<u8> {
    let fields = listing.lines().flat_map(|line| line.split('#').next().unwrap().split_whitespace());
    fields.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn established_ipv4() -> Vec<u8> {
    bytes(include_str!("established-ipv4.hex"))
}

/// A netlink message around a payload.
fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + payload.len()).unwrap();
    let header = [&length.to_le_bytes()[..], &kind.to_le_bytes(), &flags.to_le_bytes(), &[0; 8]].concat();
    [header, payload.to_vec()].concat()
}

fn messages(datagram: &[u8]) -> Vec<Result<Message<'_>, WireError>> {
    Messages::new(datagram).collect()
}

fn reply(datagram: &[u8]) -> Reply<'_> {
    match messages(datagram)[..] {
        [Ok(Message::Socket(reply))] => reply,
        ref other => unreachable!("one socket was sent, {other:?} was read"),
    }
}

fn endpoint(text: &str) -> Endpoint {
    let address: std::net::SocketAddr = text.parse().unwrap();
    Endpoint::new(address.ip(), address.port())
}

#[test]
fn a_real_established_socket() {
    let socket = reply(&established_ipv4()).socket().unwrap().unwrap();
    let expected = Socket {
        cookie: Cookie(0x2_e4f2),
        state: State::Established,
        local: endpoint("10.99.1.1:44078"),
        remote: endpoint("10.99.1.2:8080"),
        inet6: false,
        timer: Timer::KeepAlive,
        expires: 57_796,
        retransmits: 0,
        uid: 0,
        inode: 1_084_832,
        cgroup: Some(1),
        device: 0,
        is_transparent: false,
        tcp: TcpInfo {
            last_data_sent: Some(2_204),
            last_data_recv: Some(2_204),
            last_ack_recv: Some(2_204),
            retransmits: Some(0),
            probes: Some(0),
            segs_in: Some(3),
            segs_out: Some(4),
            data_segs_in: Some(1),
            data_segs_out: Some(1),
            bytes_acked: Some(6),
            bytes_received: Some(2),
            bytes_sent: Some(5),
            bytes_retrans: Some(0),
            not_sent: Some(0),
        },
    };
    assert_eq!(socket, expected);
}

#[test]
fn real_ipv6_sockets() {
    let datagram =
        [bytes(include_str!("listener-ipv6.hex")), bytes(include_str!("established-ipv6.hex")), message(3, 2, &[0; 4])]
            .concat();
    let read = messages(&datagram);
    let [Ok(Message::Socket(listener)), Ok(Message::Socket(accepted)), Ok(Message::Done(0))] = read[..] else {
        unreachable!("{read:?}")
    };
    let listener = listener.socket().unwrap().unwrap();
    assert_eq!(
        (listener.state, listener.local, listener.remote),
        (State::Listen, endpoint("[::]:9090"), endpoint("[::]:0"))
    );
    assert_eq!(listener.cookie, Cookie(0x2_d1c6));
    let accepted = accepted.socket().unwrap().unwrap();
    assert_eq!((accepted.state, accepted.inet6, accepted.timer), (State::Established, true, Timer::KeepAlive));
    assert_eq!((accepted.local, accepted.remote), (endpoint("[fd99:1::1]:9090"), endpoint("[fd99:1::2]:52774")));
}

#[test]
fn a_mapped_address_is_the_ipv4_address_on_the_wire() {
    let mut datagram = bytes(include_str!("established-ipv6.hex"));
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 99, 1, 2];
    datagram[HEADER + 24..][..16].copy_from_slice(&mapped); // idiag_dst
    let socket = reply(&datagram).socket().unwrap().unwrap();
    assert_eq!((socket.inet6, socket.remote), (true, endpoint("10.99.1.2:52774")));
}

#[test]
fn the_request_for_both_families_is_a_struct_inet_diag_req() {
    let expected = [
        &76_u32.to_le_bytes()[..], // nlmsg_len: 16 + 60
        &18_u16.to_le_bytes(),     // nlmsg_type: TCPDIAG_GETSOCK
        &0x301_u16.to_le_bytes(),  // nlmsg_flags: NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
        &0_u32.to_le_bytes(),      // nlmsg_seq
        &0_u32.to_le_bytes(),      // nlmsg_pid: the kernel fills in ours
        &[0],                      // idiag_family: AF_UNSPEC, which is both
        &[0, 0],                   // idiag_src_len, idiag_dst_len
        &[0b10],                   // idiag_ext: 1 << (INET_DIAG_INFO - 1)
        &[0; 2],                   // id.idiag_sport
        &[0; 2],                   // id.idiag_dport
        &[0; 16],                  // id.idiag_src
        &[0; 16],                  // id.idiag_dst
        &[0; 4],                   // id.idiag_if
        &[0; 8],                   // id.idiag_cookie
        &0x522_u32.to_le_bytes(),  // idiag_states: bits of ESTABLISHED, FIN_WAIT2, CLOSE_WAIT and LISTEN
        &0_u32.to_le_bytes(),      // idiag_dbs
    ]
    .concat();
    assert_eq!(Request::BothFamilies.to_bytes(), expected);
}

#[test]
fn the_request_for_one_family_is_a_struct_inet_diag_req_v2() {
    for (request, family) in [(Request::Inet, 2), (Request::Inet6, 10)] {
        let expected = [
            &72_u32.to_le_bytes()[..], // nlmsg_len: 16 + 56
            &20_u16.to_le_bytes(),     // nlmsg_type: SOCK_DIAG_BY_FAMILY
            &0x301_u16.to_le_bytes(),  // nlmsg_flags: NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
            &0_u32.to_le_bytes(),      // nlmsg_seq
            &0_u32.to_le_bytes(),      // nlmsg_pid
            &[family],                 // sdiag_family
            &[6],                      // sdiag_protocol: IPPROTO_TCP
            &[0b10],                   // idiag_ext: 1 << (INET_DIAG_INFO - 1)
            &[0],                      // pad
            &0x522_u32.to_le_bytes(),  // idiag_states: bits of ESTABLISHED, FIN_WAIT2, CLOSE_WAIT and LISTEN
            &[0; 2],                   // id.idiag_sport
            &[0; 2],                   // id.idiag_dport
            &[0; 16],                  // id.idiag_src
            &[0; 16],                  // id.idiag_dst
            &[0; 4],                   // id.idiag_if
            &[0; 8],                   // id.idiag_cookie
        ]
        .concat();
        assert_eq!(request.to_bytes(), expected);
    }
}

#[test]
fn a_dump_ends_in_one_of_three_ways() {
    let (socket, eperm) = (established_ipv4(), (-1_i32).to_le_bytes());
    let request = Request::BothFamilies.to_bytes();
    let ends = [
        (message(3, 2, &[0; 4]), Message::Done(0)),
        (message(3, 2, &eperm), Message::Done(-1)),
        // NLMSG_ERROR: the errno, then the header of the request that it answers
        (message(2, 0, &[&eperm[..], &request[..HEADER]].concat()), Message::Error(-1)),
    ];
    for (end, expected) in ends {
        let datagram = [socket.clone(), end].concat();
        let read = messages(&datagram);
        assert!(matches!(read[..], [Ok(Message::Socket(_)), Ok(found)] if found == expected), "{read:?}");
    }
}

#[test]
fn an_interrupted_dump_is_noticed_on_any_message() {
    for (flags, interrupted) in [([2, 2], false), ([0x12, 2], true), ([2, 0x12], true)] {
        let mut first = established_ipv4();
        first[6] = flags[0]; // nlmsg_flags: NLM_F_MULTI 2, NLM_F_DUMP_INTR 0x10
        let datagram = [first, message(3, u16::from(flags[1]), &[0; 4])].concat();
        let mut messages = Messages::new(&datagram);
        assert!(!messages.interrupted());
        assert_eq!(messages.by_ref().flatten().count(), 2);
        assert_eq!(messages.interrupted(), interrupted, "{flags:?}");
    }
}

#[test]
fn a_datagram_cut_at_any_length_gives_its_whole_messages_and_one_error() {
    let first = established_ipv4();
    let datagram = [first.clone(), bytes(include_str!("listener-ipv6.hex"))].concat();
    for length in 0..datagram.len() {
        let read = messages(&datagram[..length]);
        let whole = usize::from(length >= first.len());
        let cut = usize::from(length != 0 && length != first.len());
        assert_eq!(read.iter().filter(|message| message.is_ok()).count(), whole, "cut to {length}");
        assert_eq!(read.len() - whole, cut, "cut to {length}");
    }
}

#[test]
fn a_shorter_reply_only_lacks_fields() {
    let whole = established_ipv4();
    let all = reply(&whole).socket().unwrap().unwrap();
    let payload = &whole[HEADER..];
    for length in 0..payload.len() {
        let datagram = message(18, 2, &payload[..length]);
        let read = reply(&datagram).socket();
        if length < INET_DIAG_MSG {
            assert_eq!(read, Err(WireError::InetDiagMsg), "{length} bytes");
            continue;
        }
        let read = read.unwrap().unwrap();
        assert!(read.cgroup.is_none_or(|id| Some(id) == all.cgroup), "{length} bytes: {read:?}");
        assert_eq!(read.tcp, TcpInfo::default(), "{length} bytes: a tcp_info that is cut off is absent");
        assert_eq!(read, Socket { cgroup: read.cgroup, tcp: read.tcp, ..all }, "{length} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn no_datagram_makes_it_panic(datagram in vec(any::<u8>(), 0..600)) {
        prop_assert!(walk(&datagram) <= datagram.len() / HEADER + 1);
    }

    #[test]
    fn no_change_to_a_real_reply_makes_it_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        end in any::<prop::sample::Index>(),
    ) {
        let listener = bytes(include_str!("listener-ipv6.hex"));
        let mut datagram = [established_ipv4(), listener, message(3, 2, &[0; 4])].concat();
        for (at, value) in changes {
            let at = at.index(datagram.len());
            datagram[at] = value;
        }
        datagram.truncate(end.index(datagram.len() + 1));
        prop_assert!(walk(&datagram) <= datagram.len() / HEADER + 1);
    }

    #[test]
    fn our_view_and_the_packet_crates_decoder_agree(msg in inet_diag_msg(), attributes in vec(attribute(), 0..6)) {
        let mut payload = msg.to_vec();
        payload.resize(INET_DIAG_MSG + attributes.as_slice().buffer_len(), 0);
        attributes.as_slice().emit(&mut payload[INET_DIAG_MSG..]);
        let oracle = InetResponse::parse(&payload).unwrap();
        let datagram = message(20, 2, &payload);
        let ours = reply(&datagram).socket().unwrap();
        match oracle.header.state {
            1 | 5 | 8 | 10 => agree(&ours.unwrap(), &oracle, &msg)?,
            _ => prop_assert_eq!(ours, None),
        }
    }
}

/// Reads every message of a datagram, and returns their number.
fn walk(datagram: &[u8]) -> usize {
    Messages::new(datagram)
        .inspect(|message| {
            if let Ok(Message::Socket(reply)) = message {
                let _ = reply.socket();
            }
        })
        .count()
}

/// Any `inet_diag_msg` of a known family, mostly in a state that we request.
fn inet_diag_msg() -> impl Strategy<Value = [u8; INET_DIAG_MSG]> {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let parts =
        (vec(any::<u8>(), INET_DIAG_MSG), prop::sample::select(vec![2_u8, 10]), 0..14_u8, any::<bool>(), 0..8_u8);
    parts.prop_map(move |(bytes, family, state, is_mapped, timer)| {
        let mut msg: [u8; INET_DIAG_MSG] = bytes.try_into().unwrap();
        msg[0] = family;
        msg[1] = if state < 12 && state % 2 == 0 { 1 } else { state };
        msg[2] = timer;
        if is_mapped {
            msg[24..36].copy_from_slice(&mapped); // idiag_dst
        }
        msg
    })
}

fn attribute() -> impl Strategy<Value = Nla> {
    prop_oneof![
        vec(any::<u8>(), 0..300).prop_map(Nla::TcpInfo),
        any::<u64>().prop_map(|id| Nla::Other(DefaultNla::new(21, id.to_ne_bytes().to_vec()))),
        any::<u8>().prop_map(Nla::Tos),
        any::<u8>().prop_map(Nla::Shutdown),
        any::<u32>().prop_map(Nla::Mark),
        "[a-z]{1,15}".prop_map(Nla::Congestion),
        (30..60_u16, vec(any::<u8>(), 0..20)).prop_map(|(kind, value)| Nla::Other(DefaultNla::new(kind, value))),
    ]
}

/// Every field that both decoders give.
fn agree(ours: &Socket, oracle: &InetResponse, msg: &[u8; INET_DIAG_MSG]) -> Result<(), TestCaseError> {
    let InetResponse { header, nlas } = oracle;
    let id = &header.socket_id;
    let state = match header.state {
        1 => State::Established,
        5 => State::FinWait2,
        8 => State::CloseWait,
        _ => State::Listen,
    };
    prop_assert_eq!(ours.state, state);
    prop_assert_eq!(ours.inet6, header.family == 10);
    prop_assert_eq!(ours.local, Endpoint::new(id.source_address, id.source_port));
    prop_assert_eq!(ours.remote, Endpoint::new(id.destination_address, id.destination_port));
    prop_assert_eq!(ours.cookie, Cookie(u64::from_ne_bytes(id.cookie)));
    prop_assert_eq!((ours.uid, ours.inode), (header.uid, header.inode));
    let expires = u64::from(ours.expires);
    match &header.timer {
        Some(inet::Timer::Retransmit(left, retransmits)) => {
            prop_assert_eq!((ours.timer, u128::from(expires)), (Timer::Retransmit, left.as_millis()));
            prop_assert_eq!(ours.retransmits, *retransmits);
        }
        Some(inet::Timer::KeepAlive(left)) => {
            prop_assert_eq!((ours.timer, u128::from(expires)), (Timer::KeepAlive, left.as_millis()));
            // the crate drops the count of unanswered probes
            prop_assert_eq!(ours.retransmits, msg[3]);
        }
        Some(inet::Timer::TimeWait) => prop_assert_eq!(ours.timer, Timer::TimeWait),
        Some(inet::Timer::Probe(left)) => {
            prop_assert_eq!((ours.timer, u128::from(expires)), (Timer::Persist, left.as_millis()));
        }
        // the crate knows neither the delayed acknowledgement nor newer timers
        None => prop_assert_eq!(ours.timer, Timer::from_idiag(msg[2])),
    }
    let info = nlas.iter().rev().find_map(|nla| if let Nla::TcpInfo(bytes) = nla { Some(bytes) } else { None });
    prop_assert_eq!(ours.tcp, info.map(|bytes| tcp_info::read(bytes)).unwrap_or_default());
    let cgroup = nlas.iter().rev().find_map(|nla| match nla {
        Nla::Other(other) => {
            let mut value = [0; 8];
            (netlink_packet_core::Nla::kind(other) == 21).then(|| {
                netlink_packet_core::Nla::emit_value(other, &mut value);
                u64::from_ne_bytes(value)
            })
        }
        _ => None,
    });
    prop_assert_eq!(ours.cgroup, cgroup);
    prop_assert_eq!(ours.device, id.interface_id);
    Ok(())
}
