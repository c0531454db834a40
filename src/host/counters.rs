//! The network namespace's own counters and sysctls, read by a thread that has entered it.
//!
//! `/proc/thread-self/net` and `/proc/sys/net` follow the reading thread's namespace, so that no other process's files
//! are needed.
//!
//! `snmp` is read each time. `netstat` costs three times as much, so it is read again when `snmp` changed. The cost of
//! a sysctl grows with the number of namespaces, because the kernel keeps all entries of one name in one chain: it is
//! read in every sixteenth sweep. A single sweep reads no `netstat`.

use std::collections::HashMap;
use std::io;

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::owner::NsId;
use crate::record::Counters;

/// The files here take 1 to 5 KiB.
const ROOM: usize = 8192;
/// Everything is read again after this many sweeps.
const ALL_EVERY: u64 = 16;

/// Reads counters, sweep after sweep.
#[derive(Debug, Default)]
pub struct Reader {
    sweep: u64,
    /// There is no later sweep to compare with: it reads only what one judgement needs.
    is_single: bool,
    /// Each namespace's counters, and the sweep that read them.
    known: HashMap<NsId, (Counters, u64)>,
}

impl Reader {
    /// For a single sweep.
    #[must_use]
    pub fn single() -> Self {
        Self { is_single: true, ..Self::default() }
    }

    /// Begins a sweep. Drops the namespaces that the last one did not read.
    pub fn begin_sweep(&mut self) {
        let last = self.sweep;
        self.known.retain(|_, (_, sweep)| *sweep == last);
        self.sweep += 1;
    }

    /// Drops what is known of a namespace, because its number may belong to another one now.
    pub fn forget(&mut self, id: NsId) {
        self.known.remove(&id);
    }

    /// The counters of the thread's current namespace, and why some could not be read. Each may be missing. Then those
    /// that show changed connections are missing, and the others have their last known values.
    ///
    /// Those of `netstat` are read if they are `wanted`. Otherwise they are missing if any counter has changed.
    pub fn read(&mut self, id: NsId, wanted: bool) -> (Counters, Option<io::Error>) {
        if self.is_single {
            return match snmp() {
                // no connection needs the others
                Ok(counters) if counters.curr_estab == Some(0) => (conntrack(counters, None), None),
                Ok(counters) => (sysctls(counters, None), None),
                Err(error) => (Counters::default(), Some(error)),
            };
        }
        let known = self.known.get(&id).map(|&(known, _)| known);
        let is_due = self.sweep.wrapping_add(id.0).is_multiple_of(ALL_EVERY);
        match read_again(known, wanted, is_due) {
            Ok(counters) => {
                self.known.insert(id, (counters, self.sweep));
                (counters, None)
            }
            Err(error) => {
                if let Some((_, sweep)) = self.known.get_mut(&id) {
                    *sweep = self.sweep;
                }
                let known = known.unwrap_or_default();
                let last = Counters {
                    curr_estab: None,
                    active_opens: None,
                    passive_opens: None,
                    in_segs: None,
                    out_segs: None,
                    retrans_segs: None,
                    ..known
                };
                (last, Some(error))
            }
        }
    }

    /// Adds the counters of `netstat` where [`read`](Self::read) left them out, for a read of all connections.
    #[must_use]
    pub fn complete(&self, counters: Counters) -> Counters {
        if self.is_single || counters.keepalive_probes.is_some() || counters.curr_estab.is_none() {
            return counters;
        }
        netstat(counters).unwrap_or(counters)
    }
}

/// The counters of the namespace that the thread is in, as they are now.
pub fn now() -> io::Result<Counters> {
    netstat(snmp()?)
}

fn read_again(known: Option<Counters>, wanted: bool, is_due: bool) -> io::Result<Counters> {
    let now = snmp()?;
    let known = known.filter(|known| !is_another(&now, known));
    let Some(known) = known.filter(|_| !is_due) else { return Ok(sysctls(netstat(now)?, known)) };
    let Counters { keepalive_probes, abort_on_timeout, abort_on_close, abort_on_data, .. } = Counters::default();
    let unchanged = Counters { keepalive_probes, abort_on_timeout, abort_on_close, abort_on_data, ..known };
    let Counters { tcp_keepalive_time, conntrack_established, conntrack_loose, .. } = known;
    let now = Counters { tcp_keepalive_time, conntrack_established, conntrack_loose, ..now };
    match (now == unchanged, wanted) {
        (true, true) if known.keepalive_probes.is_none() => netstat(known),
        (true, _) => Ok(known),
        (false, true) => netstat(now),
        (false, false) => Ok(now),
    }
}

/// Whether these counters belong to another namespace than those before: they only rise. The kernel gives the number of
/// a namespace that has ended to the next new one.
fn is_another(now: &Counters, before: &Counters) -> bool {
    let fell = |now: Option<u64>, before: Option<u64>| now.zip(before).is_some_and(|(now, before)| now < before);
    fell(now.in_segs, before.in_segs)
        || fell(now.out_segs, before.out_segs)
        || fell(now.active_opens, before.active_opens)
        || fell(now.passive_opens, before.passive_opens)
}

fn snmp() -> io::Result<Counters> {
    let snmp = text("/proc/thread-self/net/snmp")?;
    let names = ["CurrEstab", "ActiveOpens", "PassiveOpens", "InSegs", "OutSegs", "RetransSegs", "EstabResets"];
    let [curr_estab, active_opens, passive_opens, in_segs, out_segs, retrans_segs, estab_resets] =
        fields(&snmp, "Tcp:", names);
    Ok(Counters {
        curr_estab,
        active_opens,
        passive_opens,
        in_segs,
        out_segs,
        retrans_segs,
        estab_resets,
        ..Counters::default()
    })
}

/// Adds `netstat`, which is read after `snmp`: a probe between the two reads counts only here, and the next sweep sees
/// it as a change.
fn netstat(counters: Counters) -> io::Result<Counters> {
    let netstat = text("/proc/thread-self/net/netstat")?;
    let names = ["TCPKeepAlive", "TCPAbortOnTimeout", "TCPAbortOnClose", "TCPAbortOnData"];
    let [keepalive_probes, abort_on_timeout, abort_on_close, abort_on_data] = fields(&netstat, "TcpExt:", names);
    Ok(Counters { keepalive_probes, abort_on_timeout, abort_on_close, abort_on_data, ..counters })
}

/// Adds the sysctls. A sandbox may hide them, and no judgement needs them.
fn sysctls(counters: Counters, known: Option<Counters>) -> Counters {
    Counters { tcp_keepalive_time: keepalive_time(), ..conntrack(counters, known) }
}

/// The namespace's `tcp_keepalive_time`, seconds.
#[must_use]
pub fn keepalive_time() -> Option<u32> {
    sysctl("ipv4/tcp_keepalive_time")
}

fn sysctl(name: &str) -> Option<u32> {
    text(&format!("/proc/sys/net/{name}")).ok()?.trim().parse().ok()
}

/// Adds the sysctls of conntrack.
///
/// Conntrack has its sysctls in every namespace, once its module is loaded. It follows connections only where a rule
/// asks for it: then it counts some. Once it has, it is taken to go on.
fn conntrack(counters: Counters, known: Option<Counters>) -> Counters {
    let followed = known.is_some_and(|known| known.conntrack_established.is_some());
    let follows = followed || sysctl("netfilter/nf_conntrack_count").is_some_and(|count| count > 0);
    let established = follows.then(|| sysctl("netfilter/nf_conntrack_tcp_timeout_established")).flatten();
    let loose = established.and_then(|_| sysctl("netfilter/nf_conntrack_tcp_loose")).map(|loose| loose != 0);
    Counters { conntrack_established: established, conntrack_loose: loose, ..counters }
}

/// The text of a file of procfs. Empty if this kernel has no such file.
///
/// procfs gives a file in one read if there is room for all of it. So this needs three system calls, where the standard
/// library makes eight.
fn text(path: &str) -> io::Result<String> {
    let file = match openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(String::new()),
        opened => opened?,
    };
    let mut bytes = Vec::with_capacity(ROOM);
    loop {
        let room = bytes.capacity() - bytes.len();
        if rustix::io::read(&file, spare_capacity(&mut bytes))? < room {
            break;
        }
        bytes.reserve(ROOM);
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The values with these names. The files hold pairs of lines: `Group: name name …` and `Group: value value …`.
pub(super) fn fields<const N: usize>(text: &str, group: &str, wanted: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    if let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        for (name, value) in names.split(' ').zip(values.split(' ')) {
            if let Some(at) = wanted.iter().position(|wanted| *wanted == name) {
                found[at] = value.parse().ok();
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name_in_its_group() {
        let text = "Ip: CurrEstab Forwarding\nIp: 1 2\nTcp: RtoAlgorithm MaxConn CurrEstab\nTcp: 1 -1 42\n";
        let names = ["CurrEstab", "MaxConn", "EstabResets"];
        assert_eq!(fields(text, "Tcp:", names), [Some(42), None, None], "-1 is not a count");
        assert_eq!(fields(text, "Ip:", ["CurrEstab"]), [Some(1)]);
        assert_eq!(fields("Tcp: CurrEstab\n", "Tcp:", ["CurrEstab"]), [None], "cut off");
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 1, ROOM - 1, ROOM, ROOM + 1, 3 * ROOM] {
            let path = directory.path().join(length.to_string());
            std::fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(text(path.to_str().unwrap()).unwrap().len(), length);
        }
        assert_eq!(text(directory.path().join("none").to_str().unwrap()).unwrap(), "");
    }

    #[test]
    fn this_machine_has_all_of_them() {
        let mut reader = Reader::default();
        let id = NsId(1);
        for _ in 0..=ALL_EVERY {
            reader.begin_sweep();
            let (counters, failed) = reader.read(id, true);
            assert!(failed.is_none(), "{failed:?}");
            let read = [counters.curr_estab, counters.keepalive_probes, counters.tcp_keepalive_time.map(u64::from)];
            assert!(read.iter().all(Option::is_some), "{counters:?}");
        }
        reader.begin_sweep();
        reader.begin_sweep();
        assert!(reader.known.is_empty(), "a namespace that was not read is dropped");
    }

    #[test]
    fn counters_that_fall_are_those_of_another_namespace() {
        let before = Counters { in_segs: Some(7), passive_opens: Some(2), ..Counters::default() };
        let later = Counters { in_segs: Some(9), passive_opens: Some(2), ..Counters::default() };
        assert!(!is_another(&before, &before) && !is_another(&later, &before));
        assert!(is_another(&before, &later), "fewer segments");
        assert!(is_another(&Counters { passive_opens: Some(1), ..later }, &before), "fewer connections");
        assert!(!is_another(&Counters::default(), &before), "what is not known proves nothing");
    }

    #[test]
    fn a_single_sweep_reads_what_its_judgement_needs() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (read, failed) = Reader::single().read(NsId(1), true);
        assert!(failed.is_none(), "{failed:?}");
        assert!(read.curr_estab.is_some() && read.tcp_keepalive_time.is_some(), "{read:?}");
        assert_eq!((read.keepalive_probes, read.abort_on_timeout), (None, None), "these are compared with later ones");
    }
}
