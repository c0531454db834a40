//! The agent's life: signals, a changed configuration, sweeps that fail, logs that nobody reads, and systemd.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Signal, getrlimit};

use super::agent::{Agent, connect, folder, wait_until};
use super::support::binary::{command, finish, run};

const LIMIT: &str = "keepalive_auditor_idle_timeout_seconds{path=\"default\"}";
const CURRENT: &str = "keepalive_auditor_config_last_reload_successful";

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
}

#[test]
fn a_changed_configuration_is_reloaded_and_a_bad_one_refused() {
    let folder = folder();
    let file = folder.path().join("config.yaml");
    fs::write(&file, "idle_timeout: 100s\n").expect("write");
    let flags = ["--config", &*file.display().to_string(), "--interval", "1h"];
    let agent = Agent::start(folder, &flags, Stdio::inherit()).ready();
    assert_eq!((agent.metric(LIMIT), agent.metric(CURRENT)), (Some(100.0), Some(1.0)));

    fs::write(&file, "idle_timeout: 200s\n").expect("write");
    agent.signal(Signal::HUP);
    wait_until("SIGHUP reloads", || agent.metric(LIMIT) == Some(200.0));

    for bad in ["", "idle_timeout: 200\n", "idle_timeot: 200s\n", "{", "ignore: [{pod: \"{{{{{{{{{{\"}]\n"] {
        fs::write(&file, "idle_timeout: 200s\n").expect("write");
        agent.signal(Signal::HUP);
        wait_until("a good one counts", || agent.metric(CURRENT) == Some(1.0));
        fs::write(&file, bad).expect("write");
        agent.signal(Signal::HUP);
        wait_until("a bad one is reported", || agent.metric(CURRENT) == Some(0.0));
        assert_eq!(agent.metric(LIMIT), Some(200.0), "{bad:?}");
    }
    let pipe = agent.folder.path().join("fifo");
    fifo(&pipe);
    fs::rename(pipe, &file).expect("mv");
    agent.signal(Signal::HUP);
    assert_eq!(agent.metric(LIMIT), Some(200.0));

    // a changed file is reloaded without a signal, also after a refused one
    let new = agent.folder.path().join("new");
    fs::write(&new, "idle_timeout: 300s\n").expect("write");
    fs::rename(new, &file).expect("mv");
    wait_until("a changed file is reloaded", || agent.metric(LIMIT) == Some(300.0));
    assert_eq!(agent.metric(CURRENT), Some(1.0));
}

#[test]
fn a_path_that_is_not_a_regular_file_is_an_error_and_does_not_hang() {
    let folder = folder();
    let pipe = folder.path().join("fifo").display().to_string();
    fifo(Path::new(&pipe));
    let large = folder.path().join("large").display().to_string();
    fs::File::create(&large).and_then(|file| file.set_len(1 << 30)).expect("a large file");
    let directory = folder.path().display().to_string();
    for file in [&pipe, &large, &directory, "/dev/zero", "/nowhere"] {
        for flags in [["audit", "--config", file], ["agent", "--config", file], ["agent", "--web.config.file", file]] {
            let outcome = run(&flags);
            assert_eq!(outcome.code(), 2, "{flags:?}: {outcome:?}");
            assert!(outcome.stderr.contains(file), "{flags:?}: {outcome:?}");
        }
    }
}

#[test]
fn unused_signals_are_ignored_and_the_others_end_the_agent() {
    for last in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let folder = folder();
        let log = folder.path().join("log");
        let stderr = fs::File::create(&log).expect("a log");
        let mut agent = Agent::start(folder, &["--interval", "1h", "--log.level", "info"], stderr.into()).ready();
        for signal in [Signal::USR1, Signal::USR2, Signal::ALARM, Signal::PIPE, Signal::HUP, Signal::WINCH] {
            agent.signal(signal);
        }
        let lines = || fs::read_to_string(&log).expect("the log");
        wait_until("signals have lines", || {
            let lines = lines();
            ["SIGUSR1 has no", "SIGUSR2 has no", "SIGALRM has no", "SIGHUP: read"]
                .iter()
                .all(|line| lines.contains(line))
        });
        assert_eq!(agent.status("/healthz", None), 200);
        agent.signal(last);
        assert!(agent.end().success(), "{last:?}");
        assert!(lines().contains(": stopping"), "{}", lines());
    }
}

#[test]
fn logs_that_cannot_be_written_do_not_stop_the_agent() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full").into();
    let closed = || Stdio::from(std::io::pipe().expect("a pipe").1);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut filler = writer.try_clone().expect("a descriptor");
    // the pipe blocks when it is full, and fails when its reader is gone
    let filling = std::thread::spawn(move || while filler.write_all(&[b'.'; 4096]).is_ok() {});
    for (case, stderr) in [("full", full()), ("closed", closed()), ("not read", writer.into())] {
        let flags = ["--interval", "5ms", "--log.level", "trace"];
        let mut agent = Agent::start(folder(), &flags, stderr).ready();
        wait_until(case, || agent.metric("keepalive_auditor_log_lines_dropped_total").is_some_and(|lines| lines > 0.0));
        let sweeps = agent.metric("keepalive_auditor_sweeps_total");
        wait_until(case, || agent.metric("keepalive_auditor_sweeps_total") > sweeps);
        agent.signal(Signal::TERM);
        assert!(agent.end().success(), "{case}");
    }
    drop(reader);
    filling.join().expect("it ends with the reader");
    for stderr in [full(), closed()] {
        let flags = ["audit", "--log.level", "trace"];
        let outcome = finish_quietly(command(&flags).stderr(stderr));
        assert_eq!(outcome, Some(0), "audit with logs");
    }
    for stderr in [full(), closed()] {
        assert_eq!(finish_quietly(command(&["audit", "--config", "/nowhere"]).stderr(stderr)), Some(2));
    }
}

fn finish_quietly(command: &mut Command) -> Option<i32> {
    command.stdout(Stdio::null()).status().expect("the binary starts").code()
}

#[test]
fn a_sweep_that_fails_keeps_the_last_results() {
    let folder = folder();
    // as an ordinary user, because the limit of processes does not concern root
    let (path, copy) = (folder.path().to_owned(), folder.path().join("agent"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::copy(env!("CARGO_BIN_EXE_keepalive-auditor"), &copy).expect("a copy");
    let _connection = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| {
        let to = listener.local_addr()?;
        Ok((listener, connect(to)))
    });
    let agent = Agent::start_as(folder, &["--interval", "20ms"], |command| {
        let mut other = Command::new(&copy);
        other.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
        if rustix::process::geteuid().is_root() {
            other.uid(65534).gid(65534);
        }
        *command = other;
    })
    .ready();
    let tracked = || agent.metric("keepalive_auditor_tracked_connections").expect("a series");
    let failures = || agent.metric("keepalive_auditor_sweep_failures_total").expect("a series");
    assert!(tracked() > 0.0);
    // the limit of another user's process is for that user to change
    let limit_threads = |limit: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.arg("--pid").arg(agent.child.id().to_string()).arg(format!("--nproc={limit}:"));
        if rustix::process::geteuid().is_root() {
            prlimit.uid(65534).gid(65534);
        }
        assert!(prlimit.status().expect("util-linux has prlimit").success());
    };
    let before = getrlimit(Resource::Nproc).current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    limit_threads("0");
    wait_until("sweeps fail", || failures() > 2.0);
    assert!(tracked() > 0.0, "the last numbers stay");
    let health = agent.plain("/healthz", None);
    assert!(health.contains("200 OK") && health.contains("ok, but the last good sweep ended"), "{health}");
    limit_threads(&before);
    wait_until("sweeps succeed again", || agent.plain("/healthz", None).ends_with("\r\n\r\nok\n"));
    assert!(tracked() > 0.0);
}

#[test]
fn systemd_is_notified_of_start_watchdog_and_stop() {
    let folder = folder();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_mins(1))).expect("a timeout");
    let received = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut agent = Agent::start_as(folder, &["--interval", "1h"], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    });
    assert_eq!(received(), "READY=1");
    for _ in 0..3 {
        assert_eq!(received(), "WATCHDOG=1");
    }
    agent.signal(Signal::TERM);
    assert!(agent.end().success());
    while received() != "STOPPING=1" {}
    // the agent goes on if the service manager is gone
    let outcome = finish(command(&["audit"]).env("NOTIFY_SOCKET", "/nowhere"));
    assert_eq!(outcome.code(), 0, "{outcome:?}");
}
