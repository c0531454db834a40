//! What is measured on: connections that other processes hold, namespaces, idle processes. All of it ends with this
//! process.
//!
//! A connection has its near end in a namespace that is audited, and its far end, across a veth pair, in one that
//! nobody finds: it stands for other machines. One process holds near ends, another the far ends, and no process more
//! than its limit of descriptors allows; neither process is itself in the namespaces of its sockets.

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

/// What is left of a process's descriptors for everything else.
const SPARE: usize = 200;

/// Where the program looks for namespaces by itself.
pub const NETNS: &str = "/run/netns";

/// A node and what it is connected to.
pub struct Node {
    far: Netns,
    pub namespaces: Vec<Netns>,
    /// Connections made so far.
    pub connections: usize,
    holders: Vec<Child>,
    next_port: u16,
    /// Every other connection that is made from now on says a byte every half minute.
    pub talks: bool,
    linked: BTreeSet<usize>,
}

impl Node {
    /// A node without namespaces. Other machines' sockets are not in its table of connections: the far side gets a
    /// table of its own, where the kernel (6.1 and later) can give it one.
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
            talks: false,
            linked: BTreeSet::new(),
        }
    }

    /// Makes `count` more namespaces, found in this directory, without connections and without a link; gives their
    /// places.
    pub fn namespaces(&mut self, directory: &str, count: usize) -> Range<usize> {
        let first = self.namespaces.len();
        let made = first..first + count;
        self.namespaces.extend(made.clone().map(|at| Netns::in_directory(directory, &format!("pod{at}"))));
        made
    }

    /// Links a namespace to the far side, if it is not.
    fn link(&mut self, at: usize) {
        if self.linked.insert(at) {
            let (near, far) = addresses(at);
            let near = [(IpAddr::V4(near), 30)];
            join(&format!("v{at}"), (&self.namespaces[at], &near), (&self.far, &[(IpAddr::V4(far), 30)]));
            self.namespaces[at].sysctl("net.ipv4.ip_local_port_range", "10000 65000");
        }
    }

    /// Makes `each` more connections in each namespace of `within`, which end in the far side.
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

    /// Two processes that hold these many connections of these namespaces.
    fn hold(&mut self, batch: &[(usize, usize)]) {
        let port = self.next_port;
        self.next_port += 1;
        let count: usize = batch.iter().map(|(_, count)| count).sum();
        let far = self.far.path.display().to_string();
        let mut server = start(&["accept".to_owned(), far, port.to_string(), count.to_string()]);
        wait_for("listening", &mut server);
        let role = if self.talks { "talk" } else { "connect" };
        let mut arguments = vec![role.to_owned(), port.to_string()];
        for &(at, count) in batch {
            let path = self.namespaces[at].path.display().to_string();
            arguments.extend([path, addresses(at).1.to_string(), count.to_string()]);
        }
        let mut client = start(&arguments);
        wait_for("held", &mut client);
        wait_for("held", &mut server);
        // Ended in this order: nobody talks to a server that is gone.
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

    /// Starts `count` more: shells of a thousand, which fork without loading a program.
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
    // Unbuffered beyond the line: the child says its next word only later.
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("the holder speaks");
    assert_eq!(line.trim_end(), word, "a holder failed, see above");
}

/// The part of a holder, if this process is one: it holds its sockets until nobody holds its stdin.
pub fn play(arguments: &[String]) -> bool {
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
                    scope.spawn(|| talk(&held));
                }
                wait_for_the_end();
                // Talkers do not end by themselves.
                std::process::exit(0);
            });
        }
        _ => return false,
    }
    true
}

/// Every other connection says one byte every half minute, evenly spread over time and namespaces.
fn talk(held: &[TcpStream]) {
    /// Prime, so that these steps reach every connection.
    const STEP: usize = 7919;
    let mut talkers: Vec<_> = held.iter().step_by(2).collect();
    let pause = Duration::from_secs(30) / u32::try_from(talkers.len().max(1)).expect("few connections");
    let count = talkers.len();
    for at in (0..count).cycle() {
        talkers[at * STEP % count].write_all(b"?").expect("a byte is written");
        thread::sleep(pause);
    }
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{word}").and_then(|()| out.flush()).expect("who started this reads");
}

fn wait_for_the_end() {
    let _ = std::io::stdin().read(&mut [0]);
}
