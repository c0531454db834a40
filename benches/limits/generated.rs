//! Generates sweeps of a node with many pods from a real kernel's reply. The bytes are the same in each run.

use keepalive_auditor::owner::{NsId, Owner, OwnerKind};
use keepalive_auditor::record::{Counters, Namespace, Record};

/// A real reply, `tests/wire/established-ipv4.hex`.
const REPLY: &str = include_str!("../../tests/wire/established-ipv4.hex");
/// The monotonic clock at the first sweep, in milliseconds.
pub const FIRST: u64 = 1_000_000;
/// The time between two sweeps, in milliseconds.
pub const INTERVAL: u64 = 15_000;
/// Replies in one datagram of the kernel: as many as fit into 32 KiB.
const REPLIES: usize = 80;

/// The offsets of fields in a reply, header included.
mod at {
    pub const TIMER: usize = 16 + 2;
    pub const SPORT: usize = 16 + 4;
    pub const DPORT: usize = 16 + 6;
    pub const SRC: usize = 16 + 8;
    pub const DST: usize = 16 + 24;
    pub const COOKIE: usize = 16 + 44;
    pub const EXPIRES: usize = 16 + 52;
    pub const INODE: usize = 16 + 68;
    /// `struct tcp_info`, after the attributes before it.
    pub const TCP_INFO: usize = 128;
    pub const LAST: [usize; 3] = [TCP_INFO + 44, TCP_INFO + 52, TCP_INFO + 56];
}

/// A node whose pods all have the same number of connections. A third has no keepalive, a third probes every two hours,
/// and a third probes in time. All of them are idle.
pub struct Node {
    pods: u32,
    each: u32,
    reply: Vec<u8>,
}

/// One pod's part of a sweep.
struct Dump {
    namespace: Namespace,
    datagrams: Vec<Vec<u8>>,
}

/// One sweep, ready to be digested.
pub struct Sweep {
    clock: u64,
    dumps: Vec<Dump>,
}

impl Node {
    pub fn new(pods: u32, each: u32) -> Self {
        let hex = REPLY.lines().filter_map(|line| line.split('#').next()).flat_map(str::split_whitespace);
        let reply = hex.map(|byte| u8::from_str_radix(byte, 16).expect("a byte in hexadecimal")).collect();
        Self { pods, each, reply }
    }

    /// The sweep of this number, counted from 0.
    pub fn sweep(&self, number: u64) -> Sweep {
        let clock = FIRST + number * INTERVAL;
        Sweep { clock, dumps: (0..self.pods).map(|pod| self.dump(pod, clock)).collect() }
    }

    fn dump(&self, pod: u32, clock: u64) -> Dump {
        let some = |text: String| Some(text);
        let owner = Owner {
            kind: OwnerKind::Pod,
            namespace: some(format!("team-{}", pod % 25)),
            pod: some(format!("service-7d9c5b8f4c-{pod:05}")),
            pod_uid: some(format!("00000000-0000-0000-0000-{pod:012}")),
            container: some("app".to_owned()),
            container_id: some(format!("{pod:064}")),
        };
        let counters = Counters {
            curr_estab: Some(self.each.into()),
            estab_resets: Some(0),
            keepalive_probes: Some(0),
            abort_on_timeout: Some(0),
            tcp_keepalive_time: Some(7200),
            ..Counters::default()
        };
        let namespace = Namespace {
            id: NsId(4_026_531_840 + u64::from(pod)),
            clock,
            owner,
            counters: Some(counters),
            ..Namespace::default()
        };
        let replies: Vec<_> = (0..self.each).map(|number| self.reply(pod, number, clock)).collect();
        Dump { namespace, datagrams: replies.chunks(REPLIES).map(<[_]>::concat).collect() }
    }

    fn reply(&self, pod: u32, number: u32, clock: u64) -> Vec<u8> {
        let socket = pod * self.each + number + 1;
        // Idle since a moment in the three minutes before the first sweep.
        let idle = u32::try_from(clock - FIRST).expect("few sweeps") + socket.wrapping_mul(7919) % 180_000;
        let (timer, expires) = match number % 3 {
            0 => (0, 0),
            1 => (2, 7_200_000 - idle.min(7_200_000)),
            _ => (2, 300_000 - idle % 300_000),
        };
        let ports = u16::try_from(number % 30_000).expect("a port");
        let mut reply = self.reply.clone();
        let mut set = |at: usize, bytes: &[u8]| reply[at..at + bytes.len()].copy_from_slice(bytes);
        set(at::TIMER, &[timer]);
        set(at::SPORT, &(30_000 + ports).to_be_bytes());
        set(at::DPORT, &(5432 + u16::try_from(number / 30_000).expect("a port")).to_be_bytes());
        set(at::SRC, &(0x0a63_0000 + pod).to_be_bytes());
        set(at::DST, &(0x0a64_0000 + number % 4).to_be_bytes());
        set(at::COOKIE, &socket.to_ne_bytes());
        set(at::EXPIRES, &u32::to_ne_bytes(expires));
        set(at::INODE, &socket.to_ne_bytes());
        for last in at::LAST {
            set(last, &idle.to_ne_bytes());
        }
        reply
    }
}

impl Sweep {
    /// Passes on all records up to the end of the last dump.
    pub fn records(&self, mut each: impl FnMut(&Record<'_>)) {
        each(&Record::Sweep { started_at: self.clock, clock: self.clock });
        for dump in &self.dumps {
            each(&Record::Namespace(dump.namespace.clone()));
            for datagram in &dump.datagrams {
                each(&Record::Datagram { clock: self.clock, bytes: datagram.into() });
            }
            each(&Record::ReadEnd { interrupted: false, cost: 0 });
        }
    }

    /// The end of the sweep, after which the digest judges.
    pub fn end(&self) -> Record<'static> {
        Record::SweepEnd { clock: self.clock }
    }

    /// Only the datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.dumps.iter().flat_map(|dump| &dump.datagrams).map(Vec::as_slice)
    }
}
