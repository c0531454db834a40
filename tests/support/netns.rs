//! Makes, enters, joins and deletes network namespaces.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::rtnetlink::{self, Net};

/// A network namespace of this test. Its bind mount or its process keeps it alive; this value holds no handle to it.
pub struct Netns {
    /// The file through which it is entered.
    pub path: PathBuf,
    /// Its inode number, as in reports.
    pub inode: u64,
    holder: Option<Child>,
}

impl Netns {
    /// A namespace with a name and no process, as `ip netns add` makes it.
    pub fn named(name: &str) -> Self {
        Self::bound(PathBuf::from("/run/netns").join(name))
    }

    /// A namespace in a directory that the program does not list. It plays the part of another machine.
    pub fn unlisted(name: &str) -> Self {
        Self::in_directory("/run/elsewhere", name)
    }

    /// A named namespace in this directory instead of `/run/netns`.
    pub fn in_directory(directory: &str, name: &str) -> Self {
        fs::create_dir_all(directory).expect("the directory is made");
        Self::bound(PathBuf::from(directory).join(name))
    }

    fn bound(path: PathBuf) -> Self {
        File::create(&path).expect("the mount point is made");
        let mut at = std::ffi::OsString::from("--net=");
        at.push(&path);
        let status = Command::new("unshare").arg(at).arg("true").status().expect("unshare starts");
        assert!(status.success(), "a namespace at {}: {status}", path.display());
        Self::with_loopback(path, None)
    }

    /// A namespace without a name that a process keeps alive.
    pub fn with_process() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "--", "sleep", "3600"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare starts");
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        let ours = inode(&PathBuf::from("/proc/self/ns/net"));
        while inode(&path) == ours {
            thread::sleep(Duration::from_millis(2));
        }
        Self::with_loopback(path, Some(holder))
    }

    /// The namespace that the test started in.
    pub fn current() -> Self {
        Self::at_path(PathBuf::from("/proc/self/ns/net"))
    }

    /// A namespace that another process of this test made.
    pub fn at_path(path: PathBuf) -> Self {
        Self { inode: inode(&path), path, holder: None }
    }

    fn with_loopback(path: PathBuf, holder: Option<Child>) -> Self {
        let netns = Self { inode: inode(&path), path, holder };
        netns.enter(|| rtnetlink::set_link_up("lo")).expect("loopback comes up");
        netns
    }

    /// Its name in reports.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("a named namespace")
    }

    /// The process that keeps it alive.
    pub fn pid(&self) -> u32 {
        self.holder.as_ref().expect("a namespace of a process").id()
    }

    /// Runs `what` inside, on a thread of its own. Sockets made there stay in the namespace.
    pub fn enter<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        let inside = || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("the namespace can be entered");
            what()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Sets one of the namespace's sysctls, `net.ipv4.…`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Runs a tool inside and returns its stdout. The tool must succeed.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path.display()))
            .arg(tool)
            .args(arguments)
            .output()
            .expect("nsenter starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {arguments:?}: {}: {stderr}", output.status);
        String::from_utf8(output.stdout).expect("the tool writes UTF-8")
    }

    /// Deletes a named namespace, as `ip netns del` does.
    pub fn delete(self) {
        let status = Command::new("umount").arg(&self.path).status().expect("umount starts");
        assert!(status.success(), "umount {}: {status}", self.path.display());
        fs::remove_file(&self.path).expect("the mount point is removed");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            // It may have ended already.
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// Joins two namespaces by a veth pair. Each end is named `link` and gets the given addresses.
pub fn join(link: &str, near: (&Netns, &[Net]), far: (&Netns, &[Net])) {
    let peer = File::open(&far.0.path).expect("the far namespace is there");
    near.0.enter(|| rtnetlink::add_veth_pair(link, &peer)).expect("a veth pair is made");
    for (netns, addresses) in [near, far] {
        netns.enter(|| {
            let v6: Vec<_> = addresses.iter().filter(|(addr, _)| addr.is_ipv6()).map(|(addr, _)| *addr).collect();
            rtnetlink::set_link_up(link).expect("the link comes up");
            for net in addresses {
                rtnetlink::add_address(link, *net).expect("the link takes its address");
            }
            v6.into_iter().for_each(wait_for_address);
        });
    }
}

/// Waits until the kernel routes an IPv6 address locally. It does so in the background; connecting earlier fails.
fn wait_for_address(addr: IpAddr) {
    let IpAddr::V6(v6) = addr else { return };
    let hex = format!("{:032x}", v6.to_bits());
    let own = format!("{hex} 80 ");
    let there = || fs::read_to_string("/proc/thread-self/net/ipv6_route").is_ok_and(|routes| routes.contains(&own));
    for _ in 0..500 {
        if there() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{addr} does not come up");
}

/// `10.99.NET.HOST/24` and `fd99:NET::HOST/64`.
pub fn addresses(net: u8, host: u8) -> [Net; 2] {
    [(v4(net, host), 24), (v6(net, host), 64)]
}

/// `10.99.NET.HOST`.
pub fn v4(net: u8, host: u8) -> IpAddr {
    IpAddr::from([10, 99, net, host])
}

/// `fd99:NET::HOST`.
pub fn v6(net: u8, host: u8) -> IpAddr {
    IpAddr::from([0xfd99, net.into(), 0, 0, 0, 0, 0, host.into()])
}

fn inode(path: &PathBuf) -> u64 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
}
