//! Isolates each test: the test binary runs itself again in new user, network, mount and PID namespaces.
//!
//! This needs no root. Inside, the test is uid 0 and process 1, `/proc` shows only the test's processes, and `/run` is
//! empty. Every process ends with the test. Where the machine forbids user namespaces, the test says on stderr that it
//! was skipped; with `REQUIRE_KERNEL_TESTS=1` it fails.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::rtnetlink;

/// Environment variable of the process inside: the name of the test.
const INSIDE: &str = "KERNEL_TEST_INSIDE";
/// Environment variable that CI sets to 1: a test that cannot run fails.
const REQUIRE: &str = "REQUIRE_KERNEL_TESTS";
/// A test that runs longer is stuck. The soak sets its own limit.
const LIMIT: Duration = Duration::from_mins(5);

/// Arguments of util-linux `unshare`. `--kill-child`: no process outlives the test.
const UNSHARE: [&str; 9] =
    ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--"];

/// Runs `body` in new namespaces. `path` is the test's full path, its crate's name included.
pub fn run(path: &str, tools: &[&str], body: impl FnOnce()) {
    run_for(LIMIT, path, tools, body);
}

/// As [`run`], for a test that may take up to `limit`.
pub fn run_for(limit: Duration, path: &str, tools: &[&str], body: impl FnOnce()) {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    if env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        exit_when_stuck(limit);
        prepare();
        body();
        return;
    }
    if let Some(reason) = why_not_isolated().or_else(|| missing(tools)) {
        assert!(env::var(REQUIRE).as_deref() != Ok("1"), "{REQUIRE}=1, and {name} cannot run: {reason}");
        // Not `eprintln!`, which the test harness swallows.
        writeln!(std::io::stderr(), "\n!!! SKIPPED, NOT PASSED: {name}: {reason}\n").expect("stderr takes a line");
        return;
    }
    let mut passed = false;
    let status =
        run_isolated(name, &["--exact", name, "--nocapture", "--include-ignored", "--test-threads=1"], |line| {
            println!("{line}");
            passed |= line.contains("1 passed");
        });
    assert!(status.success(), "{name} failed inside its namespaces ({status}), see above");
    // A name that matches no test would "pass" too.
    assert!(passed, "{name} did not run inside its namespaces");
}

/// As [`run_for`] for a program without the test harness: `body` runs inside, once for these `arguments`.
pub fn run_program(limit: Duration, arguments: &[&str], body: impl FnOnce()) {
    let name = arguments.join(" ");
    if env::var_os(INSIDE).is_some_and(|inside| inside == *name) {
        exit_when_stuck(limit);
        prepare();
        body();
        return;
    }
    if let Some(reason) = why_not_isolated() {
        panic!("`{name}` cannot run: {reason}");
    }
    let status = run_isolated(&name, arguments, |line| println!("{line}"));
    assert!(status.success(), "`{name}` failed inside its namespaces ({status}), see above");
}

/// Runs this program again in new namespaces, and passes each line of its stdout to `line`.
fn run_isolated(name: &str, arguments: &[&str], mut line: impl FnMut(&str)) -> ExitStatus {
    let mut child = Command::new("unshare")
        .args(UNSHARE)
        .arg(env::current_exe().expect("the test binary has a path"))
        .args(arguments)
        .env(INSIDE, name)
        .env("PATH", search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("util-linux unshare starts");
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let errors =
        thread::spawn(|| BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
    BufReader::new(stdout).lines().map_while(Result::ok).for_each(|text| line(&text));
    let status = child.wait().expect("our child ends");
    drop(stdin);
    errors.join().expect("stderr is passed on");
    status
}

/// Raises the limit of open files to the hard limit and returns it. Each connection needs two.
pub fn allow_many_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("RLIMIT_NOFILE is raised");
    limit.maximum.unwrap_or(u64::MAX)
}

/// Why this machine cannot isolate a test, if so. Checked once.
fn why_not_isolated() -> Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    REASON
        .get_or_init(|| {
            match Command::new("unshare").args(UNSHARE).args(["mount", "-t", "tmpfs", "tmpfs", "/run"]).output() {
                Ok(output) if output.status.success() => None,
                Ok(output) => Some(format!(
                    "this machine does not allow new user namespaces: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                )),
                Err(error) => Some(format!("util-linux `unshare` does not start: {error}")),
            }
        })
        .clone()
}

/// The first of the tools that is not installed.
fn missing(tools: &[&str]) -> Option<String> {
    tools.iter().find(|tool| !is_installed(tool)).map(|tool| format!("`{tool}` is not installed"))
}

/// Whether a tool is in [`search_path`].
pub fn is_installed(tool: &str) -> bool {
    env::split_paths(&search_path()).any(|folder| folder.join(tool).is_file())
}

/// `PATH` with the folders of administrators' tools: Debian leaves them out for ordinary users.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Makes what new namespaces lack: a loopback that is up, and an empty `/run` for named namespaces.
fn prepare() {
    let status = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status().expect("mount starts");
    assert!(status.success(), "a tmpfs on /run: {status}");
    fs::create_dir("/run/netns").expect("/run/netns is made");
    rtnetlink::set_link_up("lo").expect("loopback comes up");
}

/// Exits when the test is stuck or its parent is gone. This is process 1: the kernel kills all others with it.
fn exit_when_stuck(limit: Duration) {
    thread::spawn(|| {
        // Nobody writes to stdin. It ends when the parent ends.
        let _ = std::io::stdin().read(&mut [0]);
        process::exit(101);
    });
    thread::spawn(move || {
        thread::sleep(limit);
        eprintln!("stuck for {limit:?}, giving up");
        process::exit(101);
    });
}
