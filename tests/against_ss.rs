//! Twenty thousand connections in one namespace: what `audit` costs beside `ss`, in one run on one machine.
//!
//! `cargo test --release --features measure --test against_ss -- --nocapture`

mod support;

use support::binary::run;
use support::netns::{Netns, addresses, join, v4};
use support::socket::{Keep, Server};
use support::world::allow_many_files;

/// CPU time of `runs` runs of a command that has ended, in the kernel's ticks of 10 ms.
fn cpu(runs: u32, mut run: impl FnMut()) -> u64 {
    let children = || {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("our own status");
        // After the name in parentheses: cutime and cstime are the 14th and 15th.
        let after = stat.rsplit_once(") ").expect("a name in parentheses").1;
        after.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>()
    };
    let before = children();
    (0..runs).for_each(|_| run());
    children() - before
}

/// As many as the machine lets one process have, if those are fewer.
const MANY: usize = 20_000;

fn twenty_thousand_connections_are_audited() {
    let many = usize::try_from(allow_many_files() / 2).map_or(MANY, |pairs| MANY.min(pairs - 50));
    let (near, far) = (Netns::named("near"), Netns::hidden("far"));
    join("veth0", (&near, &addresses(1, 1)), (&far, &addresses(1, 2)));
    near.sysctl("net.ipv4.ip_local_port_range", "10000 65000");
    let listener = Server::dual(&far, 8080);
    let held: Vec<_> = (0..many).map(|_| listener.connect(&near, v4(1, 2), [Keep::Off; 2])).collect();
    let shown = near.run("ss", &["-Htn", "state", "established"]).lines().count();
    assert_eq!(shown, many);
    let report = run(&["audit", "--format", "json", "--netns", "near"]).report();
    assert_eq!(report.sweep.connections, held.len() as u64);
    let ss = cpu(10, || assert!(!near.run("ss", &["-tnoi"]).is_empty()));
    let ours = cpu(10, || assert_eq!(run(&["audit", "--netns", "near"]).code(), 0));
    println!("{many} connections, ten times: audit {ours}0 ms of CPU, ss -tnoi {ss}0 ms");
    assert!(ours < ss, "audit took {ours}0 ms of CPU, ss -tnoi {ss}0 ms");
}

#[test]
fn twenty_thousand_connections_cost_less_than_ss_takes_for_them() {
    let path = concat!(module_path!(), "::twenty_thousand_connections_cost_less_than_ss_takes_for_them");
    support::world::run(path, &["ss"], twenty_thousand_connections_are_audited);
}
