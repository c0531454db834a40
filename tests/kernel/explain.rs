//! `--explain` on real sockets: each statement about a group is true for all its members.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::binary::run;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::socket::{Keepalive, Server};

const RULES: [&str; 9] = [
    "audit",
    "--explain",
    "--local-scope",
    "namespace",
    "--long-lived",
    "1ms",
    "--idle-timeout",
    "2s",
    "dport = :8080",
];

kernel_test!(sockets_with_different_times_are_different_groups, || {
    let (client, server) = (Netns::named("client"), Netns::unlisted("far"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let keeps = [[Keepalive::Idle(2); 3].as_slice(), &[Keepalive::Default; 4], &[Keepalive::Off; 2]].concat();
    for to in [v4(1, 2), v6(1, 2)] {
        let held: Vec<_> = keeps.iter().map(|keep| listener.connect(&client, to, [*keep, Keepalive::Off])).collect();
        sleep(Duration::from_millis(250));
        for exact in [&[][..], &["--exact"]] {
            let outcome = run(&[&RULES[..], exact].concat());
            let text = &outcome.stdout;
            let of = |count: &str| text.split("\n\n").find(|it| it.contains(&format!(": {count} connections (")));
            let group = |count: &str| of(count).unwrap_or_else(|| unreachable!("no group of {count}: {outcome:?}"));
            assert!(group("3").contains("its first probe comes after 2s: too late"), "{text}");
            assert!(group("4").contains("after 7200s, the system's default"), "{text}");
            assert!(group("2").contains("Keepalive is off"), "{text}");
            let held_by = format!("held by {}[{}]", program(), std::process::id());
            assert!(group("4").contains(&held_by), "{text}");
        }
        drop(held);
    }
});

/// The name of this program.
fn program() -> String {
    let path = std::env::current_exe().expect("this program has a path");
    path.file_name().and_then(|name| name.to_str()).expect("in UTF-8").to_owned()
}

kernel_test!(a_connection_without_a_unit_belongs_to_its_program, || {
    let (current, server) = (Netns::current(), Netns::unlisted("far"));
    join("veth0", (&current, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let unnamed = Netns::with_process();
    join("veth1", (&unnamed, &addresses(2, 1)), (&server, &addresses(2, 2)));
    let listener = Server::dual(&server, 8080);
    let held = [
        (listener.connect(&current, v4(1, 2), [Keepalive::Off; 2]), "host", program()),
        (listener.connect(&unnamed, v4(2, 2), [Keepalive::Off; 2]), "netns", "sleep".to_owned()),
    ];
    let rules = ["audit", "--all", "--format", "json", "--cgroup-root", "/nowhere"];
    let report = run(&rules).report();
    for (connection, kind, name) in &held {
        let row = report.row(connection.client.id).expect("the connection");
        // the unit or container is the name, if this machine's processes have one
        if matches!(&*row.owner.kind, "host" | "netns") {
            assert_eq!((&*row.owner.kind, row.owner.container.as_deref()), (*kind, Some(&**name)), "{row:?}");
        }
        assert!(row.owner.container.is_some(), "nobody owns it: {row:?}");
    }
    // a socket that another program holds as its standard input belongs to that program
    let connection = listener.connect(&current, v4(1, 2), [Keepalive::Off; 2]);
    let (socket, _server) = (connection.client.stream, connection.server);
    let mut other = {
        // the command holds the socket until it is dropped
        let mut sleep = Command::new("sleep");
        sleep.arg0("renamed").arg("3600").stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
        sleep.spawn().expect("sleep starts")
    };
    let report = run(&rules).report();
    let of_sleep = report.rows_of(current.inode).filter(|row| row.owner.container.as_deref() == Some("sleep"));
    let by_cgroup = report.rows_of(current.inode).all(|row| row.owner.kind != "host");
    assert!(by_cgroup || of_sleep.count() == 1, "{report:?}");
    other.kill().expect("our child");
    other.wait().expect("our child");
});
