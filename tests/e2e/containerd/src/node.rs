//! A node made of namespaces. Its processes end with its first process, and its mounts and networks end with its
//! namespaces. The supervisor stays outside and removes folders and cgroups.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// The names of scratch folders and cgroups consist of this and the supervisor's pid.
const PREFIX: &str = "keepalive-auditor-e2e-";
const SCRATCH: &str = "/var/tmp";

/// The cgroup setup of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// The setup of this machine.
    Machine,
    /// Only version 2, at `/sys/fs/cgroup`, without the controllers that this machine uses with version 1.
    Unified,
}

/// The node as the test on it sees it.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    /// A folder for everything that is written.
    pub scratch: &'a Path,
    /// The name of the cgroup that all pods are below.
    pub cgroup: &'a str,
    pub cgroups: Cgroups,
}

/// Runs the test on a new node, and removes the node even if the test fails. On a machine with cgroup versions 1 and 2
/// it runs the test again on a node that has only version 2.
pub fn supervise(auditor: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "this test makes namespaces and cgroups: run it as root");
    let auditor = auditor.canonicalize().with_context(|| format!("the program under test, {}", auditor.display()))?;
    remove_leftovers()?;
    let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    println!("== a node with {}", if hybrid { "hybrid cgroups" } else { "this machine's cgroups" });
    run_on_a_node(&auditor, Cgroups::Machine)?;
    if hybrid {
        println!("== a node with only cgroup version 2");
        run_on_a_node(&auditor, Cgroups::Unified)?;
    }
    Ok(())
}

fn run_on_a_node(auditor: &Path, cgroups: Cgroups) -> Result<()> {
    let name = format!("{PREFIX}{}", std::process::id());
    let scratch = Path::new(SCRATCH).join(&name);
    fs::create_dir(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
    let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // each process ends with the one before: this process, unshare, the first process of the node, all others
        let mut node = tokio::process::Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork"])
            .args(["--kill-child=KILL", "--mount-proc"])
            .arg(std::env::current_exe()?)
            .args(["inside".as_ref(), scratch.as_path(), name.as_ref(), auditor])
            .arg(if cgroups == Cgroups::Unified { "unified" } else { "machine" })
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("setpriv and unshare (util-linux) make the node")?;
        let ended = tokio::select! {
            ended = node.wait() => ended.map(|status| format!("the test ended with \
                {status}")).map_err(anyhow::Error::from),
            _ = terminate.recv() => Ok("the test was terminated".to_owned()),
            _ = interrupt.recv() => Ok("the test was interrupted".to_owned()),
        };
        node.kill().await.ok();
        ended
    });
    let log = fs::read_to_string(scratch.join("containerd.log")).unwrap_or_default();
    remove(&name)?;
    nothing_is_left(&name)?;
    let outcome = outcome?;
    if outcome != "the test ended with exit status: 0" {
        let tail: Vec<_> = log.lines().rev().filter(|line| !line.contains("level=info")).take(20).collect();
        bail!(
            "{outcome}; the last lines of containerd's log:\n{}",
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    println!("the node is gone: no process, mount, cgroup or folder of it is left");
    Ok(())
}

/// Removes what is left of a supervisor that was killed.
fn remove_leftovers() -> Result<()> {
    for entry in fs::read_dir(SCRATCH)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix(PREFIX)
            && !Path::new("/proc").join(pid).exists()
        {
            remove(&name)?;
        }
    }
    Ok(())
}

/// Removes the cgroups and the folder of a node.
fn remove(name: &str) -> Result<()> {
    remove_cgroups(name)?;
    let scratch = Path::new(SCRATCH).join(name);
    fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))
}

/// The hierarchies of this machine: the folders below `/sys/fs/cgroup`, or that one itself.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).chain([root.to_owned()]).collect()
}

fn remove_cgroups(name: &str) -> Result<()> {
    for folder in hierarchies().iter().map(|root| root.join(name)) {
        let mut last = Ok(());
        // the kernel releases a killed process a moment after it is gone
        for _ in 0..100 {
            last = remove_tree(&folder);
            if last.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        last.with_context(|| format!("removing the cgroups below {}", folder.display()))?;
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> std::io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

fn nothing_is_left(name: &str) -> Result<()> {
    ensure!(!Path::new(SCRATCH).join(name).exists(), "{SCRATCH}/{name} is left");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(name), "a mount is left:\n{mounts}");
    for root in hierarchies() {
        ensure!(!root.join(name).exists(), "{} is left", root.join(name).display());
    }
    for process in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        ensure!(!String::from_utf8_lossy(&line).contains(name), "process {} is left", process.file_name().display());
    }
    Ok(())
}

/// Mounts the file systems of the node from inside, without the machine's own.
pub fn mount_file_systems(node: &Node<'_>) -> Result<()> {
    let scratch = node.scratch;
    for folder in ["log/pods", "log/containers", "root", "cni", "empty"] {
        fs::create_dir_all(scratch.join(folder))?;
    }
    if node.cgroups == Cgroups::Unified {
        command("umount", &["--recursive", "/sys/fs/cgroup"])?;
        command("mount", &["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"])?;
    }
    command("mount", &["--make-rshared", "/"])?;
    command("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])?;
    command("mount", &["--bind", &scratch.join("log").display().to_string(), "/var/log"])?;
    fs::create_dir_all("/run/netns")?;
    command("ip", &["link", "set", "lo", "up"])
}

/// Starts containerd with its state on the node's own `/run`.
pub fn start_containerd(node: &Node<'_>) -> Result<Child> {
    let scratch = node.scratch;
    let at = scratch.display();
    let mut runc = "runc".to_owned();
    if node.cgroups == Cgroups::Unified {
        let script = scratch.join("runc");
        fs::write(&script, format!("#!/bin/sh\nexec {} runc \"$@\"\n", std::env::current_exe()?.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        runc = script.display().to_string();
    }
    let config = format!(
        r#"
version = 2
root = "{at}/root"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{load}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{at}/cni"
"#,
        socket = crate::cri::SOCKET,
        load = crate::image::LOAD,
    );
    fs::write(scratch.join("config.toml"), config)?;
    let network = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {"type": "host-local", "dataDir": "/run/cni",
         "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "tuning"}]}"#;
    fs::write(scratch.join("cni/10-pods.conflist"), network)?;
    let log = fs::File::create(scratch.join("containerd.log"))?;
    Command::new("containerd")
        .args(["--config".as_ref(), scratch.join("config.toml").as_os_str()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting containerd (Debian package containerd)")
}

/// Runs a program to its end.
pub fn command(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).map(drop)
}

/// Runs a program to its end and gives what it printed.
pub fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let ran = Command::new(program).args(arguments).output().with_context(|| format!("starting {program}"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "{program} {} ended with {}: {said}", arguments.join(" "), ran.status);
    Ok(String::from_utf8(ran.stdout)?)
}
