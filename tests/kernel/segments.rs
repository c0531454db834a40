//! The kernel counts each segment that a connection sends twice: for the connection, and for its namespace. So a
//! connection has sent nothing if the others have sent all that the namespace has counted.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use keepalive_auditor::host::counters;
use keepalive_auditor::host::diag::{Kernel, dump};
use keepalive_auditor::record::Counters;
use keepalive_auditor::wire::inet_diag::{Message, Messages};

use crate::hosts::{Case, Hosts};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::Netns;
use crate::support::socket::Keepalive;

/// How long to wait for an event that must happen.
const TIMEOUT: Duration = Duration::from_mins(1);
/// More than one segment can hold, even if the network card cuts it.
const BULK: usize = 1 << 20;

/// The segments that connections of the namespace count as sent.
fn by_connections() -> u64 {
    let mut sum = 0;
    let ended: std::io::Result<_> = dump(&mut Kernel::default(), &mut Vec::new(), |datagram| {
        for message in Messages::new(datagram) {
            if let Ok(Message::Socket(reply)) = message {
                let socket = reply.socket().expect("a socket");
                sum += socket.map_or(0, |socket| u64::from(socket.tcp.segs_out.unwrap_or_default()));
            }
        }
        Ok(())
    });
    assert!(ended.expect("it dumps").error.is_none());
    sum
}

/// The segments that the namespace counts, and those that its connections count, at one moment.
fn sent(netns: &Netns) -> [u64; 2] {
    netns.enter(|| {
        let read = || {
            let Counters { out_segs, retrans_segs, .. } = counters::now().expect("the counters can be read");
            out_segs.expect("OutSegs") + retrans_segs.expect("RetransSegs")
        };
        let end = Instant::now() + TIMEOUT;
        let mut before = read();
        loop {
            let sum = by_connections();
            let after = read();
            if before == after {
                return [after, sum];
            }
            assert!(Instant::now() < end, "segments without end");
            before = after;
        }
    })
}

/// Sends much data from one end to the other.
fn bulk(case: &mut Case, outward: bool) {
    let Case { near, far, .. } = case;
    let (from, to) = if outward { (near, far) } else { (far, near) };
    std::thread::scope(|scope| {
        scope.spawn(|| from.stream.write_all(&vec![7; BULK]).expect("it writes"));
        to.stream.read_exact(&mut vec![0; BULK]).expect("it reads");
    });
}

kernel_test!(a_namespace_counts_each_segment_that_its_connections_send, || {
    let hosts = Hosts::new();
    let mut cases = hosts.four(Keepalive::Off, Keepalive::Off);
    let kept = hosts.four(Keepalive::Idle(1), Keepalive::Idle(1));
    let mut checks = Checks::default();
    let [counted, by_connections] = sent(&hosts.near);
    let since = |[now, sum]: [u64; 2]| [now - counted, sum - by_connections];
    let mut last = 0;
    for (what, act) in [
        ("sends", Case::send as fn(&mut Case)),
        ("receives", Case::receive),
        ("exchanges", Case::exchange),
        ("sends much", |case| bulk(case, true)),
        ("receives much", |case| bulk(case, false)),
    ] {
        for case in &mut cases {
            act(case);
            let [counted, sum] = since(sent(&hosts.near));
            checks.equal(&format!("{} {what}", case.name), sum, counted);
            checks.that(counted > last, || format!("{} {what}: no segment is counted", case.name));
            last = counted;
        }
    }
    // probes of both sides, and their answers
    let end = Instant::now() + TIMEOUT;
    loop {
        let [counted, sum] = since(sent(&hosts.near));
        checks.equal("probes", sum, counted);
        if counted >= last + 4 * kept.len() as u64 {
            break;
        }
        assert!(Instant::now() < end, "no probes");
        std::thread::sleep(Duration::from_millis(50));
    }
    checks.finish();
});
