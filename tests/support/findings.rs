//! Findings made by hand, for tests of what is shown of them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use keepalive_auditor::judge::policy::{OverdueBy, Path};
use keepalive_auditor::judge::report::{Direction, Finding, Millis, PeerFacts, Unanswered};
use keepalive_auditor::judge::verdict::{Keepalive, Verdict};
use keepalive_auditor::owner::{NsId, Owner, OwnerKind};
use keepalive_auditor::socket::{Cookie, Endpoint, Timer};

pub fn pod(name: &str, container: &str) -> Owner {
    Owner {
        kind: OwnerKind::Pod,
        namespace: Some("shop".into()),
        pod: Some(name.into()),
        container: Some(container.into()),
        ..Owner::default()
    }
}

/// An exposed outbound connection of `owner` to 10.20.0.5, keepalive off, known by its number.
pub fn finding(owner: Owner, number: u16, port: u16) -> Finding {
    Finding {
        netns: NsId(1),
        netns_name: None,
        owner: Arc::new(owner),
        local: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000 + number),
        remote: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 20, 0, 5)), port),
        direction: Direction::Outbound,
        timer: Timer::None,
        expires: None,
        unanswered: Unanswered::default(),
        last_heard: None,
        keepalive: Keepalive::Off,
        keepidle: None,
        probes_after: None,
        exact: None,
        holder: None,
        is_holder_sought: false,
        host_network: Some(false),
        request_idle: None,
        data_idle: Some(Millis::from_secs(60)),
        wire_idle: Some(Millis::from_secs(60)),
        watched: Millis::ZERO,
        age: Millis::from_secs(600),
        waiting_for_reply: false,
        path: Arc::new(Path { name: "nlb".into(), ..Path::default() }),
        peer: PeerFacts::default(),
        heartbeats: None,
        verdict: Verdict::Exposed,
        overdue_by: OverdueBy::Clocks,
        tcp_keepalive_time: Some(7200),
        uid: 0,
        inode: u32::from(number),
        stale: None,
        cookie: Cookie(u64::from(number)),
    }
}

pub fn inbound(owner: Owner, number: u16, port: u16) -> Finding {
    let f = finding(owner, number, 0);
    let (local, remote) = (Endpoint::new(f.local.addr, port), Endpoint::new(f.remote.addr, 40_000 + number));
    Finding { direction: Direction::Inbound, local, remote, ..f }
}

pub fn late(f: Finding) -> Finding {
    Finding {
        keepalive: Keepalive::Late,
        keepidle: Some(Millis::from_secs(7200)),
        probes_after: Some(Millis::from_secs(7200)),
        timer: Timer::KeepAlive,
        ..f
    }
}

pub fn on(f: Finding) -> Finding {
    Finding {
        keepalive: Keepalive::On,
        keepidle: Some(Millis::from_secs(300)),
        probes_after: Some(Millis::from_secs(300)),
        verdict: Verdict::Protected,
        ..f
    }
}
