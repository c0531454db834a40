//! Tests of dumps.

use super::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

/// The local ports of the sockets that a dump shows, and the dialect that it ended in.
fn ports(dialect: Dialect) -> (BTreeSet<u16>, Dialect) {
    let mut ports = BTreeSet::new();
    let mut kernel = Kernel { dialect, ..Kernel::default() };
    let ended: io::Result<_> = dump(&mut kernel, &mut Vec::new(), |datagram| {
        for message in Messages::new(datagram).flatten() {
            if let Message::Socket(reply) = message
                && let Ok(Some(socket)) = reply.socket()
            {
                ports.insert(socket.local.port);
            }
        }
        Ok(())
    });
    assert!(ended.unwrap().error.is_none());
    (ports, kernel.dialect)
}

#[test]
fn one_walk_and_one_request_per_family_show_the_same_sockets() {
    let addresses: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    // a machine may have no IPv6 on its loopback
    let listeners: Vec<_> = addresses.iter().filter_map(|&addr| TcpListener::bind((addr, 0)).ok()).collect();
    let streams: Vec<_> =
        listeners.iter().map(|listener| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    let listening = listeners.iter().map(|listener| listener.local_addr().unwrap().port());
    let ours: BTreeSet<u16> =
        listening.chain(streams.iter().map(|stream| stream.local_addr().unwrap().port())).collect();
    assert!(ours.len() >= 2);
    for wanted in [Dialect::OneWalk, Dialect::PerFamily] {
        let (found, dialect) = ports(wanted);
        assert!(found.is_superset(&ours), "{wanted:?}: {found:?} lacks some of {ours:?}");
        assert_eq!(dialect, wanted, "this kernel knows both");
    }
}

#[test]
fn a_kernel_that_refuses_one_request_is_asked_per_family_and_one_that_fails_is_not() {
    let error = |errno: Errno| DiagError::new("dump", errno.into());
    for refusal in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOENT] {
        assert!(error(refusal).is_refusal(), "{refusal}");
    }
    for failure in [Errno::NOMEM, Errno::PERM, Errno::INTR] {
        assert!(!error(failure).is_refusal(), "{failure}");
    }
}

#[test]
fn only_a_missing_module_is_called_one() {
    for (errno, reason) in [
        (Errno::NOENT, LossReason::NoTcpDiag),
        (Errno::PROTONOSUPPORT, LossReason::NoTcpDiag),
        (Errno::MFILE, LossReason::TooManyFiles),
        (Errno::NFILE, LossReason::TooManyFiles),
        (Errno::NOMEM, LossReason::NoMemory),
        (Errno::NOBUFS, LossReason::NoMemory),
        (Errno::ACCESS, LossReason::Permission),
        (Errno::AGAIN, LossReason::Timeout),
        (Errno::INVAL, LossReason::Dump),
    ] {
        let error = DiagError::new("open a sock_diag socket", errno.into());
        assert_eq!(error.reason, reason, "{errno}");
        assert_eq!(error.to_string().contains("modprobe"), reason == LossReason::NoTcpDiag, "{error}");
    }
}

#[test]
fn a_missing_module_is_asked_for_once_a_sweep() {
    let mut kernel = Kernel { has_no_tcp_diag: true, dialect: Dialect::PerFamily };
    let ended: io::Result<_> = dump(&mut kernel, &mut Vec::new(), |_| Ok(()));
    assert_eq!(ended.unwrap().error.map(|error| error.reason), Some(LossReason::NoTcpDiag));
    kernel.begin_sweep();
    let ended: io::Result<_> = dump(&mut kernel, &mut Vec::new(), |_| Ok(()));
    assert!(ended.unwrap().error.is_none(), "it was loaded meanwhile");
    assert_eq!(kernel, Kernel::default(), "and answers both families in one walk");
}
