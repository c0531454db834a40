//! A node with 250 pods and 20 000 processes: finding the owners must cost little compared with the sweep.
//!
//! `cargo test --release --features measure --test owners_budget -- --nocapture`, as root: it makes cgroups, which it
//! removes.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use keepalive_auditor::digest::Digest;
use keepalive_auditor::host::owners::{Owners, Roots};
use keepalive_auditor::host::{Host, HostPaths, netns, on_own_thread};
use keepalive_auditor::judge::policy::Policy;
use keepalive_auditor::owner::NsId;
use keepalive_auditor::record::{Consumer, Namespace, Record, SocketsToRead, WhatToRead};

use support::netns::Netns;
use support::socket::{Connection, Keepalive, Server};

const PODS: usize = 250;
/// A sandbox's, the application's and the sidecar's.
const PROCESSES_PER_POD: usize = 80;
const ROUNDS: usize = 15;

/// The cgroups of this test. The drop kills everything in them and removes them.
struct Cgroups(PathBuf);

impl Cgroups {
    fn new() -> Self {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = root.into_iter().find(|root| root.join("cgroup.procs").exists()).expect("cgroup v2 is mounted");
        let ours = Self(root.join(format!("keepalive-auditor-budget-{}", std::process::id())));
        fs::create_dir(&ours.0).expect("root makes cgroups: run this as root");
        ours
    }

    /// The cgroups of one pod's sandbox, application and sidecar.
    fn pod(&self, pod: usize) -> [PathBuf; 3] {
        [0, 1, 2].map(|container| {
            let path = self.0.join(format!("kubepods/burstable/pod{}/{}", uid(pod), id(pod, container)));
            fs::create_dir_all(&path).expect("a cgroup is made");
            path
        })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        enter(self.0.parent().expect("below the root"));
        // it is process 1 of its PID namespace, so all others there end with it
        let _ = Command::new("sh").args(["-c", "kill -9 -1"]).status();
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(50));
            if remove(&self.0).is_ok() {
                return;
            }
        }
        eprintln!("{} is left", self.0.display());
    }
}

fn remove(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path())?;
    }
    fs::remove_dir(cgroup)
}

/// Moves this process: its next sockets belong to that cgroup.
fn enter(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), "0").expect("the cgroup accepts this process");
}

fn uid(pod: usize) -> String {
    format!("{pod:08x}-16b7-4a49-bb9e-8ec1f1f4e27f")
}

fn id(pod: usize, container: usize) -> String {
    format!("{pod:08x}{container:056x}")
}

/// The processes and sockets that keep a pod alive.
struct Pod {
    _netns: Netns,
    _first: Child,
    _held: Vec<Connection>,
}

/// A pod's namespace, processes, log folders and connections: two of the application's, one of the sidecar's.
fn run_pod(cgroups: &Cgroups, logs: &Path, pod: usize) -> Pod {
    let [pause, app, sidecar] = cgroups.pod(pod);
    let netns = Netns::named(&format!("cni-{pod}"));
    let script = format!(
        "(echo 0 >{app}/cgroup.procs; i=3; while [ $i -lt {PROCESSES_PER_POD} ]; do sleep 3600 & i=$((i+1)); done; \
         exec sleep 3600) &
         (echo 0 >{sidecar}/cgroup.procs; exec sleep 3600) &
         echo 0 >{pause}/cgroup.procs; exec sleep 3600",
        app = app.display(),
        sidecar = sidecar.display(),
        pause = pause.display(),
    );
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net={}", netns.path.display())).args(["sh", "-c", &script]).stdin(Stdio::null());
    let first = nsenter.spawn().expect("nsenter starts");

    fs::create_dir_all(logs.join(format!("pods/shop_web-{pod}_{}", uid(pod)))).expect("mkdir");
    for (container, name) in [(1, "app"), (2, "istio-proxy")] {
        let link = logs.join(format!("containers/web-{pod}_shop_{name}-{}.log", id(pod, container)));
        std::os::unix::fs::symlink("/dev/null", link).expect("ln");
    }
    let mut held = Vec::new();
    enter(&app);
    let server = Server::ipv4(&netns, 8080);
    let loopback = "127.0.0.1".parse().expect("an address");
    held.extend((0..2).map(|_| server.connect(&netns, loopback, [Keepalive::Off; 2])));
    enter(&sidecar);
    held.push(server.connect(&netns, loopback, [Keepalive::Off; 2]));
    enter(&cgroups.0);
    Pod { _netns: netns, _first: first, _held: held }
}

/// A digest that records which owners it asked for.
struct Asking {
    digest: Digest,
    asked: std::cell::RefCell<BTreeSet<u64>>,
}

impl Consumer for Asking {
    type Error = std::io::Error;

    fn consume(&mut self, record: &Record<'_>) -> std::io::Result<()> {
        self.digest.consume(record)
    }

    fn what_to_read(&self, namespace: &Namespace) -> WhatToRead {
        self.digest.what_to_read(namespace)
    }

    fn unknown_cgroups(&self) -> BTreeSet<u64> {
        let cgroups = self.digest.unknown_cgroups();
        self.asked.borrow_mut().clone_from(&cgroups);
        cgroups
    }

    fn unknown_inodes(&self, all: bool) -> BTreeSet<u32> {
        self.digest.unknown_inodes(all)
    }

    fn sockets_to_read(&self) -> SocketsToRead {
        self.digest.sockets_to_read()
    }
}

/// Some processes of each namespace, as a sweep finds them.
fn namespaces() -> BTreeMap<NsId, Vec<u32>> {
    let mut found = BTreeMap::<NsId, Vec<u32>>::new();
    for pid in
        fs::read_dir("/proc").expect("procfs").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    {
        if let Ok(id) = netns::id_of(&PathBuf::from(format!("/proc/{pid}/ns/net"))) {
            let pids = found.entry(id).or_default();
            if pids.len() < 4 {
                pids.push(pid);
            }
        }
    }
    found
}

fn milliseconds(of: Duration) -> f64 {
    of.as_secs_f64() * 1000.0
}

fn median(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

fn names_cost_less_than_a_tenth() {
    support::isolation::allow_many_files();
    let logs = tempfile::tempdir().expect("a scratch folder");
    fs::create_dir_all(logs.path().join("pods")).expect("mkdir");
    fs::create_dir_all(logs.path().join("containers")).expect("mkdir");
    let cgroups = Cgroups::new();
    let _pods: Vec<_> = (0..PODS).map(|pod| run_pod(&cgroups, logs.path(), pod)).collect();
    let processes = || {
        fs::read_dir("/proc").expect("procfs").flatten().filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    let wanted = PODS * PROCESSES_PER_POD;
    for _ in 0..600 {
        if processes().count() >= wanted {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let running = processes().count();
    assert!(running >= wanted, "{running} processes of {wanted}");

    let roots = Roots { procfs: "/proc".into(), logs: logs.path().to_owned(), ..Roots::default() };
    let mut host =
        Host::new(HostPaths { roots: roots.clone(), netns_dirs: vec!["/run/netns".into()], ..HostPaths::default() });
    let mut audience = Asking { digest: Digest::new(Arc::new(Policy::default())), asked: BTreeSet::new().into() };
    let mut owners = Owners::new(&roots);
    let (mut sweeps, mut namings) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        on_own_thread(|| host.sweep_into(&mut audience)).expect("a sweep");
        sweeps.push(begun.elapsed());
        let report = audience.digest.report("node");
        assert_eq!(report.connections, 6 * PODS as u64);
        let named = |pod: &str, container: &str| {
            let of = report.findings.iter().map(|finding| &finding.owner);
            of.filter(|owner| owner.pod.as_deref() == Some(pod) && owner.container.as_deref() == Some(container))
                .count()
        };
        assert_eq!(
            (named("web-17", "app"), named("web-17", "istio-proxy")),
            (5, 1),
            "{:?}",
            report.totals.owner_issues
        );

        // the same owner queries again, without a sweep
        let found = namespaces();
        let own = netns::own().expect("our own");
        let begun = Instant::now();
        owners.begin_sweep();
        for (id, found) in &found {
            owners.of_namespace(*id, None, found, *id == own);
        }
        owners.of_cgroups(&audience.asked.borrow());
        namings.push(begun.elapsed());
    }
    let (first_sweep, first_naming) = (sweeps.remove(0), namings.remove(0));
    let (sweep, naming) = (median(sweeps), median(namings));
    let share = |naming: Duration, sweep: Duration| 100.0 * naming.as_secs_f64() / sweep.as_secs_f64();
    println!(
        "{PODS} pods, {running} processes, {} connections: a sweep takes {:.1} ms, naming {:.1} ms of them ({:.1} %); \
         the first {:.1} ms, naming \
         {:.1} ms ({:.1} %)",
        6 * PODS,
        milliseconds(sweep),
        milliseconds(naming),
        share(naming, sweep),
        milliseconds(first_sweep),
        milliseconds(first_naming),
        share(first_naming, first_sweep),
    );
    assert!(naming * 10 < sweep, "naming takes {naming:?} of {sweep:?}");
}

#[test]
fn naming_costs_less_than_a_tenth_of_a_sweep() {
    let path = concat!(module_path!(), "::naming_costs_less_than_a_tenth_of_a_sweep");
    support::isolation::run_for(Duration::from_mins(10), path, &[], names_cost_less_than_a_tenth);
}
