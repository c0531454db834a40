//! What the node says about idle timeouts: IPVS and the firmware. The limits of conntrack are sysctls of each
//! namespace: see [`counters`](super::counters).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::{fs, io};

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::owner::NsId;
use crate::record::NodeFacts;
use crate::wire::genl;
use crate::words;

/// They are read again after this many sweeps.
const EVERY: u64 = 16;
/// The most virtual services that are read.
const MAX_SERVICES: usize = 16_384;
/// The files of the firmware that name a cloud.
const DMI: [&str; 4] = ["sys_vendor", "product_name", "chassis_asset_tag", "bios_vendor"];
const ANSWER: std::time::Duration = std::time::Duration::from_secs(2);

/// Reads them, sweep after sweep.
#[derive(Debug, Default)]
pub struct Limits {
    sweep: u64,
    known: NodeFacts,
}

impl Limits {
    /// What the node says. The thread is in the host's network namespace.
    pub fn read(&mut self, host: NsId) -> &NodeFacts {
        if self.sweep.is_multiple_of(EVERY) {
            self.known = read(host);
        }
        self.sweep += 1;
        &self.known
    }
}

fn read(host: NsId) -> NodeFacts {
    let mut facts = NodeFacts { host: Some(host), dmi: dmi("/sys/class/dmi/id"), ..NodeFacts::default() };
    // a kernel without IPVS must not be asked for it: that would load the module
    if let Ok(services) = fs::read_to_string("/proc/thread-self/net/ip_vs") {
        facts.ipvs_services = services_in(&services);
        match ipvs_timeout() {
            Ok(timeout) => facts.ipvs_tcp_timeout = timeout,
            Err(error) => facts
                .unread
                .push(format!("cannot read the timeouts of IPVS (CAP_NET_ADMIN): {}", words::reason(&error))),
        }
    }
    facts
}

/// What the firmware says; nothing where there is none.
fn dmi(directory: &str) -> BTreeMap<String, String> {
    let read = |name: &str| Some(fs::read_to_string(format!("{directory}/{name}")).ok()?.trim().to_owned());
    DMI.iter().filter_map(|name| Some(((*name).to_owned(), read(name)?))).collect()
}

fn ipvs_timeout() -> io::Result<Option<u32>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))?;
    let ask = |request: &[u8]| -> io::Result<Vec<u8>> {
        socket.send(request, 0)?;
        let mut answer = Vec::with_capacity(8192);
        socket.recv(&mut answer, 0)?;
        Ok(answer)
    };
    let refused = io::Error::from_raw_os_error;
    let Some(family) = genl::ipvs_family(&ask(&genl::get_ipvs_family())?).map_err(refused)? else { return Ok(None) };
    genl::ipvs_tcp_timeout(&ask(&genl::get_ipvs_timeouts(family))?).map_err(refused)
}

/// The virtual TCP services in `/proc/net/ip_vs`.
fn services_in(text: &str) -> Vec<(IpAddr, u16)> {
    let services = text.lines().filter_map(|line| service(line.strip_prefix("TCP ")?.split_whitespace().next()?));
    services.take(MAX_SERVICES).collect()
}

/// `C0A80001:0050`, or `[2001:0db8:…]:0050`.
fn service(text: &str) -> Option<(IpAddr, u16)> {
    let (addr, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let addr = match addr.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?.parse().ok()?,
        None => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(addr, 16).ok()?)),
    };
    Some((addr, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_services_are_read_in_both_families() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> \
                    RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A600001:01BB rr  \n  -> \
                    0AF40001:1F90      Masq    1      0          0\nUDP  0A60000A:0035 rr\nTCP  \
                    [fd00:0000:0000:0000:0000:0000:0000:0001]:0050 rr\nTCP  nonsense\nFWM  00000001 rr\n";
        let expected = [("10.96.0.1".parse().unwrap(), 443), ("fd00::1".parse().unwrap(), 80)];
        assert_eq!(services_in(text), expected);
    }

    #[test]
    fn a_machine_without_firmware_says_nothing() {
        assert!(dmi("/nonexistent").is_empty());
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("sys_vendor"), "Amazon EC2\n").unwrap();
        let read = dmi(directory.path().to_str().unwrap());
        assert_eq!(read, [("sys_vendor".to_owned(), "Amazon EC2".to_owned())].into());
    }
}
