//! The network namespace's own counters and sysctls, read by a thread that has entered it.
//!
//! `/proc/thread-self/net` and `/proc/sys/net` follow the reading thread's namespace, so that no other process's files are needed.
//!
//! `snmp` is read each time; `netstat` costs three times as much, and a sysctl more the more namespaces there are (the kernel keeps all
//! namespaces' entries of one name in one chain). So `netstat` is read again when `snmp` moved, and everything now and then.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::owner::NsId;
use crate::record::Counters;

/// In how many sweeps everything is read once more.
const ALL_EVERY: u64 = 16;

/// Reads counters, sweep after sweep.
#[derive(Debug, Default)]
pub struct Reader {
    sweep: u64,
    /// What each namespace said, and in which sweep.
    known: HashMap<NsId, (Counters, u64)>,
}

impl Reader {
    /// Called once at the start of each sweep. A namespace that the last one did not meet is forgotten.
    pub fn begin_sweep(&mut self) {
        let last = self.sweep;
        self.known.retain(|_, (_, sweep)| *sweep == last);
        self.sweep += 1;
    }

    /// What the namespace says that the thread is in; each value on its own may be missing.
    pub fn read(&mut self, id: NsId) -> Counters {
        let moving = snmp();
        let its_turn = self.sweep.wrapping_add(id.0).is_multiple_of(ALL_EVERY);
        let counters = match self.known.get(&id).filter(|_| !its_turn) {
            Some(&(known, _)) => {
                let still = Counters { keepalive_probes: None, abort_on_timeout: None, ..known };
                let merged = Counters { tcp_keepalive_time: known.tcp_keepalive_time, ..moving };
                if merged == still { known } else { netstat(merged) }
            }
            None => sysctls(netstat(moving)),
        };
        self.known.insert(id, (counters, self.sweep));
        counters
    }
}

fn snmp() -> Counters {
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_default();
    let tcp = |name| field(&snmp, "Tcp:", name);
    Counters {
        curr_estab: tcp("CurrEstab"),
        active_opens: tcp("ActiveOpens"),
        passive_opens: tcp("PassiveOpens"),
        in_segs: tcp("InSegs"),
        out_segs: tcp("OutSegs"),
        retrans_segs: tcp("RetransSegs"),
        estab_resets: tcp("EstabResets"),
        ..Counters::default()
    }
}

/// Adds what `netstat` says, read after `snmp`: a probe sent between the two is then a probe too many here, and movement at the next sweep.
fn netstat(counters: Counters) -> Counters {
    let netstat = fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
    Counters {
        keepalive_probes: field(&netstat, "TcpExt:", "TCPKeepAlive"),
        abort_on_timeout: field(&netstat, "TcpExt:", "TCPAbortOnTimeout"),
        ..counters
    }
}

fn sysctls(counters: Counters) -> Counters {
    let sysctl = |name: &str| {
        fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(name)).ok().and_then(|text| text.trim().parse().ok())
    };
    Counters { tcp_keepalive_time: sysctl("tcp_keepalive_time"), ..counters }
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
        let mut reader = Reader::default();
        let id = NsId(1);
        for _ in 0..=ALL_EVERY {
            reader.begin_sweep();
            let counters = reader.read(id);
            let told = [counters.curr_estab, counters.keepalive_probes, counters.tcp_keepalive_time.map(u64::from)];
            assert!(told.iter().all(Option::is_some), "{counters:?}");
        }
        reader.begin_sweep();
        reader.begin_sweep();
        assert!(reader.known.is_empty(), "a namespace that was not met is forgotten");
    }
}
