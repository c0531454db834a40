//! Links, addresses and routes of the calling thread's network namespace, through rtnetlink: the tests need no `ip`.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 0x1 | 0x4;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x400 | 0x200;
const IFF_UP: u32 = 1;
/// Without this flag, duplicate address detection delays an IPv6 address for a second.
const IFA_F_NODAD: u8 = 2;

/// An address with its prefix length.
pub type Net = (IpAddr, u8);

/// Brings a link up.
pub fn set_link_up(name: &str) -> io::Result<()> {
    set_flags(name, IFF_UP)
}

/// Takes a link down: its peer loses the carrier. What the peer sends is lost, and the sender gets no error.
pub fn set_link_down(name: &str) -> io::Result<()> {
    set_flags(name, 0)
}

/// Makes a veth pair: one end in this namespace, the other, with the same name, in the namespace of `peer`.
pub fn add_veth_pair(name: &str, peer: &File) -> io::Result<()> {
    let fd = u32::try_from(peer.as_raw_fd()).expect("an open file's number is not negative");
    // IFLA_IFNAME 3, IFLA_NET_NS_FD 28
    let far = [ifinfo(0, 0, 0), attr(3, &text(name)), attr(28, &fd.to_ne_bytes())].concat();
    // IFLA_INFO_KIND 1, IFLA_INFO_DATA 2, VETH_INFO_PEER 1, IFLA_LINKINFO 18
    let info = [attr(1, b"veth"), attr(2, &attr(1, &far))].concat();
    request(RTM_NEWLINK, CREATE, &[ifinfo(0, 0, 0), attr(3, &text(name)), attr(18, &info)].concat())
}

/// Gives a link an address.
pub fn add_address(name: &str, (addr, prefix): Net) -> io::Result<()> {
    let index = index(name)?.to_ne_bytes();
    let header = [family(addr), prefix, IFA_F_NODAD, 0, index[0], index[1], index[2], index[3]];
    // IFA_LOCAL 2, IFA_ADDRESS 1
    request(RTM_NEWADDR, CREATE, &[header.to_vec(), attr(2, &octets(addr)), attr(1, &octets(addr))].concat())
}

/// Routes traffic for `to` through `gateway`.
pub fn add_route((to, prefix): Net, gateway: IpAddr) -> io::Result<()> {
    // family, dst_len, src_len, tos, table main, protocol boot, scope universe, type unicast, flags
    let header = vec![family(to), prefix, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    // RTA_DST 1, RTA_GATEWAY 5
    request(RTM_NEWROUTE, CREATE, &[header, attr(1, &octets(to)), attr(5, &octets(gateway))].concat())
}

/// Names the link by its index alone: before Linux 6.2 a request that also has `IFLA_IFNAME` fails with EBUSY if the
/// link is up.
fn set_flags(name: &str, flags: u32) -> io::Result<()> {
    request(RTM_NEWLINK, 0, &ifinfo(index(name)?, flags, IFF_UP))
}

fn index(name: &str) -> io::Result<u32> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

/// `struct ifinfomsg`: family and type, index, flags, change mask.
fn ifinfo(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// One attribute: length, type, payload, padded to four bytes.
fn attr(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 4).expect("attributes here are short");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes()[..], payload].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(addr: IpAddr) -> u8 {
    let family = if addr.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    u8::try_from(family.as_raw()).expect("AF_INET and AF_INET6 are small")
}

/// Sends one request and waits for the kernel's answer to it.
fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 16).expect("requests here are short");
    // struct nlmsghdr: length, type, flags, sequence, port
    let header = [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes()[..],
        &(REQUEST | flags).to_ne_bytes()[..],
        &1_u32.to_ne_bytes()[..],
        &0_u32.to_ne_bytes()[..],
    ];
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send_to(&[&header.concat(), body].concat(), &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // struct nlmsgerr begins with minus errno, 0 is the acknowledgement.
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("rtnetlink's answer is too short")),
    }
}
