//! The network namespace's own counters and sysctls, read by a thread that has entered it.
//!
//! `/proc/thread-self/net` and `/proc/sys/net` follow the reading thread's namespace, so that no other process's files are needed.

use std::fs;
use std::path::Path;

use crate::record::Counters;

/// Reads what can be read; each value on its own may be missing.
#[must_use]
pub fn read() -> Counters {
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_default();
    let netstat = fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
    let sysctl = |name: &str| {
        fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(name)).ok().and_then(|text| text.trim().parse().ok())
    };
    Counters {
        curr_estab: field(&snmp, "Tcp:", "CurrEstab"),
        active_opens: field(&snmp, "Tcp:", "ActiveOpens"),
        passive_opens: field(&snmp, "Tcp:", "PassiveOpens"),
        in_segs: field(&snmp, "Tcp:", "InSegs"),
        out_segs: field(&snmp, "Tcp:", "OutSegs"),
        retrans_segs: field(&snmp, "Tcp:", "RetransSegs"),
        estab_resets: field(&snmp, "Tcp:", "EstabResets"),
        keepalive_probes: field(&netstat, "TcpExt:", "TCPKeepAlive"),
        abort_on_timeout: field(&netstat, "TcpExt:", "TCPAbortOnTimeout"),
        tcp_keepalive_time: sysctl("tcp_keepalive_time"),
        tcp_keepalive_intvl: sysctl("tcp_keepalive_intvl"),
        tcp_keepalive_probes: sysctl("tcp_keepalive_probes"),
    }
}

/// These files hold pairs of lines: `Group: name name …` and `Group: value value …`.
fn field(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let names = lines.next()?.split_whitespace();
    let values = lines.next()?.split_whitespace();
    names.zip(values).find(|&(found, _)| found == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name_in_its_group() {
        let text = "Ip: CurrEstab Forwarding\nIp: 1 2\nTcp: RtoAlgorithm MaxConn CurrEstab\nTcp: 1 -1 42\n";
        assert_eq!(field(text, "Tcp:", "CurrEstab"), Some(42));
        assert_eq!(field(text, "Ip:", "CurrEstab"), Some(1));
        assert_eq!(field(text, "Tcp:", "MaxConn"), None, "-1 is no count");
        assert_eq!(field(text, "Tcp:", "EstabResets"), None);
        assert_eq!(field("Tcp: CurrEstab\n", "Tcp:", "CurrEstab"), None, "cut off");
    }

    #[test]
    fn this_machine_tells_its_own() {
        assert!(read().curr_estab.is_some());
    }
}
