//! The load of the benchmarks: connections that other processes hold, namespaces, idle processes. All of it ends with
//! this process.
//!
//! The near end of a connection is in an audited namespace. Its far end, across a veth pair, is in a namespace that no
//! audit finds: it stands for other machines. One process holds near ends and another one far ends, up to their limits
//! of descriptors. Neither process is itself in the namespaces of its sockets.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::isolation::allow_many_files;
use crate::support::netns::{Netns, join};
use crate::support::socket::{Keepalive, Server};

/// The descriptors of a process that are reserved for everything but connections.
const SPARE: usize = 200;

/// The directory in which the program finds namespaces by default.
pub const NETNS: &str = "/run/netns";

/// A node and its peers.
pub struct Node {
    far: Netns,
    pub namespaces: Vec<Netns>,
    /// The number of connections so far.
    pub connections: usize,
    holders: Vec<Child>,
    next_port: u16,
    /// Whether every second new connection sends a byte every 30 s.
    pub sends_bytes: bool,
    linked: BTreeSet<usize>,
}

impl Node {
    /// A node without namespaces. Sockets of other machines are not in its table of connections: Linux 6.1 and later
    /// can give the far side its own table.
    pub fn new() -> Self {
        let (own, setting) = (Netns::current(), "net.ipv4.tcp_child_ehash_entries");
        let separate = Path::new("/proc/sys/net/ipv4/tcp_child_ehash_entries").exists();
        if separate {
            own.sysctl(setting, "262144");
        }
        let far = Netns::unlisted("far");
        if separate {
            own.sysctl(setting, "0");
        }
        Self {
            far,
            namespaces: Vec::new(),
            connections: 0,
            holders: Vec::new(),
            next_port: 8000,
            sends_bytes: false,
            linked: BTreeSet::new(),
        }
    }

    /// Makes `count` more namespaces in this directory, without connections and without a link. Returns their indices.
    pub fn namespaces(&mut self, directory: &str, count: usize) -> Range<usize> {
        let first = self.namespaces.len();
        let made = first..first + count;
        self.namespaces.extend(made.clone().map(|at| Netns::in_directory(directory, &format!("pod{at}"))));
        made
    }

    /// Links a namespace to the far side, unless it has a link.
    fn link(&mut self, at: usize) {
        if self.linked.insert(at) {
            let (near, far) = addresses(at);
            let near = [(IpAddr::V4(near), 30)];
            join(&format!("v{at}"), (&self.namespaces[at], &near), (&self.far, &[(IpAddr::V4(far), 30)]));
            self.namespaces[at].sysctl("net.ipv4.ip_local_port_range", "10000 65000");
        }
    }

    /// Makes `each` more connections to the far side in each namespace of `within`.
    pub fn connect(&mut self, within: Range<usize>, each: usize) {
        within.clone().for_each(|at| self.link(at));
        let most = usize::try_from(allow_many_files()).expect("a number of descriptors") - SPARE;
        let mut left: Vec<_> = within.map(|at| (at, each)).collect();
        while !left.is_empty() {
            let mut room = most;
            let mut batch = Vec::new();
            while let Some((at, count)) = left.pop() {
                let now = count.min(room);
                room -= now;
                batch.push((at, now));
                if count > now {
                    left.push((at, count - now));
                    break;
                }
                if room == 0 {
                    break;
                }
            }
            self.hold(&batch);
        }
    }

    /// Starts two processes that hold this number of connections in each of these namespaces.
    fn hold(&mut self, batch: &[(usize, usize)]) {
        let port = self.next_port;
        self.next_port += 1;
        let count: usize = batch.iter().map(|(_, count)| count).sum();
        let far = self.far.path.display().to_string();
        let mut server = start(&["accept".to_owned(), far, port.to_string(), count.to_string()]);
        wait_for("listening", &mut server);
        let role = if self.sends_bytes { "talk" } else { "connect" };
        let mut arguments = vec![role.to_owned(), port.to_string()];
        for &(at, count) in batch {
            let path = self.namespaces[at].path.display().to_string();
            arguments.extend([path, addresses(at).1.to_string(), count.to_string()]);
        }
        let mut client = start(&arguments);
        wait_for("held", &mut client);
        wait_for("held", &mut server);
        // The clients end first, so that no client sends to a server that is gone.
        self.holders.extend([client, server]);
        self.connections += count;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.holders);
    }
}

/// The two ends of the link of one namespace.
fn addresses(at: usize) -> (Ipv4Addr, Ipv4Addr) {
    let base = u32::from(Ipv4Addr::new(10, 99, 0, 0)) + 4 * u32::try_from(at).expect("few namespaces");
    (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2))
}

/// Processes that do nothing.
pub struct Idlers(Vec<Child>);

impl Idlers {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Starts `count` more. Each shell forks a thousand, without loading a program.
    pub fn add(&mut self, count: usize) {
        const SHELL: &str = "i=0; while [ $i -lt $1 ]; do read -r _ <&3 & i=$((i+1)); done 3<&0; echo held; read -r _";
        let mut left = count;
        while left > 0 {
            let now = left.min(1000);
            left -= now;
            let mut shell = Command::new("sh")
                .args(["-c", SHELL, "sh", &(now - 1).to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell starts");
            wait_for("held", &mut shell);
            self.0.push(shell);
        }
    }
}

impl Drop for Idlers {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn end(children: &mut [Child]) {
    for child in children {
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn start(arguments: &[String]) -> Child {
    Command::new(env::current_exe().expect("this program has a path"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts again")
}

fn wait_for(word: &str, child: &mut Child) {
    let mut line = String::new();
    // A reader for one line loses nothing: the child writes its next word later.
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("the holder answers");
    assert_eq!(line.trim_end(), word, "a holder failed, see above");
}

/// Acts as a holder if the arguments ask for one: holds its sockets until its stdin is closed.
pub fn run_as_holder(arguments: &[String]) -> bool {
    let number = |text: &String| text.parse::<u16>().expect("a number");
    match arguments {
        [role, far, port, count] if role == "accept" => {
            allow_many_files();
            let server = Server::ipv4(&Netns::at_path(far.into()), number(port));
            say("listening");
            let held: Vec<_> = (0..number(count)).map(|_| server.accept()).collect();
            say("held");
            wait_for_the_end();
            drop(held);
        }
        [role, port, rest @ ..] if role == "connect" || role == "talk" => {
            allow_many_files();
            let mut held = Vec::new();
            for group in rest.chunks(3) {
                let [near, to, count] = group else { panic!("a namespace, an address and a count") };
                let to = SocketAddr::new(to.parse().expect("an address"), number(port));
                let connect = || {
                    let streams = (0..number(count)).map(|at| {
                        let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("connect to {to}: {error}"));
                        [Keepalive::Off, Keepalive::Default, Keepalive::Idle(300)][usize::from(at % 3)].apply(&stream);
                        stream
                    });
                    streams.collect::<Vec<_>>()
                };
                held.extend(Netns::at_path(near.into()).enter(connect));
            }
            say("held");
            thread::scope(|scope| {
                if role == "talk" {
                    scope.spawn(|| send_bytes(&held));
                }
                wait_for_the_end();
                // The sending threads do not end by themselves.
                std::process::exit(0);
            });
        }
        _ => return false,
    }
    true
}

/// Every second connection sends one byte every 30 s, evenly spread over time and namespaces.
fn send_bytes(held: &[TcpStream]) {
    /// Prime, so that these steps reach every connection.
    const STEP: usize = 7919;
    let mut senders: Vec<_> = held.iter().step_by(2).collect();
    let pause = Duration::from_secs(30) / u32::try_from(senders.len().max(1)).expect("few connections");
    let count = senders.len();
    for at in (0..count).cycle() {
        senders[at * STEP % count].write_all(b"?").expect("a byte is written");
        thread::sleep(pause);
    }
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{word}").and_then(|()| out.flush()).expect("the parent reads");
}

fn wait_for_the_end() {
    let _ = std::io::stdin().read(&mut [0]);
}
