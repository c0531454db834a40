//! Names and remedies of real programs: scripts, links, static binaries, and sockets that no process holds.

use std::fs;
use std::io::IoSlice;
use std::net::TcpStream;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::support::binary::{Agent, Report, Row, run};
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4};
use crate::support::socket::{Keepalive, Server};

const RULES: [&str; 8] =
    ["audit", "--all", "--long-lived", "1ms", "--idle-timeout", "350s", "--cgroup-root", "/nowhere"];

/// The agent names programs in its second sweep.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// A program that holds a socket as its standard input until this is dropped.
struct Holder(Child);

impl Holder {
    fn start(command: &mut Command, socket: TcpStream) -> Self {
        Self(command.stdin(Stdio::from(OwnedFd::from(socket))).spawn().expect("the program starts"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel's clocks show the age of a connection only after some ticks.
fn sleep_until_long_lived() {
    std::thread::sleep(std::time::Duration::from_millis(250));
}

fn sleep() -> &'static Path {
    let known = ["/bin/sleep", "/usr/bin/sleep"].map(Path::new);
    known.into_iter().find(|path| path.exists()).expect("sleep is installed")
}

/// A static program that waits for the end of its standard input.
fn compile(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("waits.c"), folder.join("waits"));
    fs::write(&source, "#include <unistd.h>\nint main(void) { char c; return read(0, &c, 1) < 0; }\n").expect("a file");
    // not rustc, which may be in a home folder that this user cannot read
    let status = Command::new("cc").args(["-static", "-s", "-o"]).arg(&program).arg(&source).status();
    assert!(status.expect("cc starts").success(), "cc fails");
    program
}

fn process<'r>(row: &'r Row, key: &str) -> &'r str {
    row.process.as_ref().and_then(|process| process[key].as_str()).unwrap_or_default()
}

kernel_test!(a_filter_on_the_program_searches_for_programs_in_every_format, || {
    let (client, server) = (Netns::named("client"), Netns::unlisted("far"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let [held, other] = [0; 2].map(|_| listener.connect(&client, v4(1, 2), [Keepalive::Off; 2]));
    let [port, port_of_other] = [&held, &other]
        .map(|connection| format!(":{}", connection.client.stream.local_addr().expect("it is connected").port()));
    let _holder = Holder::start(Command::new(sleep()).arg("1000"), held.client.stream);
    sleep_until_long_lived();
    for (format, shown) in [("table", &*port), ("wide", &port), ("groups", "sleep["), ("json", &port), ("jsonl", &port)]
    {
        let audit = run(&["audit", "--long-lived", "1ms", "--format", format, "program = sleep"]);
        assert!(audit.stdout.contains(shown), "{format}: {}", audit.stdout);
        assert!(!audit.stdout.contains(&port_of_other), "{format}: {}", audit.stdout);
    }
});

kernel_test!(programs_are_named_and_fixed_by_what_they_are, || {
    let (client, server) = (Netns::named("client"), Netns::unlisted("far"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("entry.sh");
    fs::write(&script, "read line\n").expect("a file");
    let link = folder.path().join("collector");
    symlink(sleep(), &link).expect("a link");
    let waits = compile(folder.path());
    let mut held = Vec::new();
    for (command, name, binary, remedies) in [
        (Command::new("sh").arg(&script), "entry.sh", "dynamic", vec!["preload"]),
        (Command::new(&link).arg("3600"), "collector", "dynamic", vec!["c", "preload"]),
        (&mut Command::new(&waits), "waits", "static", vec!["c"]),
    ] {
        let connection = listener.connect(&client, v4(1, 2), [Keepalive::Off; 2]);
        let holder = Holder::start(command, connection.client.stream);
        held.push((connection.client.id, connection.server, holder, name, binary, remedies));
    }
    sleep_until_long_lived();
    let recording = folder.path().join("sweep.jsonl");
    let path = recording.to_str().expect("UTF-8");
    let live = run(&[&RULES[..], &["--format", "json", "--record", path]].concat()).report();
    let replayed = run(&[&RULES[..], &["--format", "json", "--replay", path]].concat()).report();
    for report in [&live, &replayed] {
        for (id, _, holder, name, binary, remedies) in &held {
            let row = report.row(*id).expect("the connection");
            assert_eq!(process(row, "program"), *name, "{row:?}");
            let process = row.process.as_ref().expect("a process");
            assert_eq!((&process["pid"], &process["binary"]["linking"]), (&holder.0.id().into(), &(*binary).into()));
            assert_eq!(row.remedies, *remedies, "{row:?}");
        }
    }
    // every face says the same
    let groups = run(&[&RULES[..], &["--format", "groups"]].concat()).stdout;
    assert!(groups.contains(&format!("entry.sh[{}]", held[0].2.0.id())), "{groups}");
    let explained = run(&[&RULES[..], &["--explain"]].concat()).stdout;
    let of_static = explained.split("\n\n").find(|group| group.contains("waits[")).expect("its group");
    assert!(of_static.contains("- c: ") && !of_static.contains("preload"), "{of_static}");
    let agent = Agent::start(&["--interval", "200ms", "--long-lived", "1ms", "--cgroup-root", "/nowhere"]);
    let is_named =
        |report: &Report| held.iter().all(|(id, ..)| report.row(*id).is_some_and(|row| row.process.is_some()));
    let report = agent.wait(TIMEOUT, is_named).expect("the agent names the programs");
    for (id, _, _, name, _, remedies) in &held {
        let row = report.row(*id).expect("the connection");
        assert_eq!(process(row, "program"), *name, "{row:?}");
        assert_eq!(row.remedies, *remedies, "{row:?}");
    }
    let page = agent.page("/");
    assert!(page.contains("entry.sh[") && page.contains("<strong>c</strong>"), "{page}");
    let filtered = run(&[&RULES[..], &["--format", "json", "program = sleep"]].concat()).report();
    assert_eq!(filtered.connections.len(), 1, "another name of the program: {filtered:?}");
}, needs "cc");

kernel_test!(a_socket_that_no_process_holds_is_offered_no_code, || {
    let (client, server) = (Netns::named("client"), Netns::unlisted("far"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let connection = listener.connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    // a descriptor on its way from one process to another is in no table
    let (near, far) = UnixStream::pair().expect("a pair");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let socket = connection.client.stream;
    let descriptors = [socket.as_fd()];
    assert!(message.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is space");
    sendmsg(&near, &[IoSlice::new(b"x")], &mut message, SendFlags::empty()).expect("it is sent");
    drop(socket);
    // a search that finds another program sees the processes that may hold the first socket
    let other = listener.connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    let _holder = Holder::start(Command::new(sleep()).arg("3600"), other.client.stream);
    // a connection that nobody has accepted
    let waiting = Server::dual(&client, 9090);
    let to = std::net::SocketAddr::new(v4(1, 1), waiting.port);
    let unaccepted = server.enter(|| TcpStream::connect(to).expect("the kernel accepts"));

    sleep_until_long_lived();
    let report = run(&[&RULES[..], &["--format", "json"]].concat()).report();
    let in_flight = report.row(connection.client.id).expect("the connection");
    let queued = report.rows_of(client.inode).find(|row| row.inode == 0).expect("the other connection");
    for row in [in_flight, queued] {
        assert_eq!((row.verdict.as_str(), &row.process, row.remedies.len()), ("exposed", &None, 0), "{row:?}");
    }
    let explained = run(&[&RULES[..], &["--explain"]].concat()).stdout;
    assert!(explained.contains("No process that could be read holds them."), "{explained}");
    assert!(explained.contains("No process has accepted them yet"), "{explained}");
    for group in explained.split("\n\n").filter(|group| group.contains("No process")) {
        assert!(!group.contains("preload") && !group.contains("own code"), "{explained}");
    }
    drop((near, far, unaccepted, connection.server, other.server));
});

kernel_test!(default_times_are_fixed_by_the_sysctls_of_the_right_namespace, || {
    let (current, server) = (Netns::current(), Netns::unlisted("far"));
    join("veth0", (&current, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let named = Netns::named("named");
    join("veth1", (&named, &addresses(2, 1)), (&server, &addresses(2, 2)));
    let listener = Server::dual(&server, 8080);
    let of_host = listener.connect(&current, v4(1, 2), [Keepalive::Default, Keepalive::Off]);
    let of_named = listener.connect(&named, v4(2, 2), [Keepalive::Default, Keepalive::Off]);
    let own = listener.connect(&named, v4(2, 2), [Keepalive::Idle(1000), Keepalive::Off]);
    sleep_until_long_lived();
    let report = run(&[&RULES[..], &["--format", "json"]].concat()).report();
    let remedies = |id| &report.row(id).expect("the connection").remedies;
    for id in [of_host.client.id, of_named.client.id] {
        assert_eq!(remedies(id).first().map(String::as_str), Some("sysctl"), "{:?}", report.row(id));
        assert!(!remedies(id).contains(&"pod-sysctl".to_owned()), "{:?}", report.row(id));
    }
    assert!(!remedies(own.client.id).contains(&"sysctl".to_owned()), "its times are its own: {report:?}");
});
