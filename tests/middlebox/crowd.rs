//! Two hundred connections with all kinds of keepalive, and what becomes of each.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::router::{From, Router};
use crate::support::socket::{Connection, Keepalive};

use Keepalive::{Default, Idle, IdleThenEvery, Off};

/// How many connections of each kind each host opens.
const OF_EACH: usize = 5;
/// How long a segment and its answer may take on a loaded machine.
const ANSWER: Duration = Duration::from_secs(6);

/// What an application does while nobody watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Nothing.
    None,
    /// A request and an answer of this many bytes every second.
    EachSecond(usize),
    /// A request some seconds before each limit, and another just before the end.
    Recent,
}

/// One kind of connection: its name, the options of client and server, and its traffic.
pub type Kind = (&'static str, [Keepalive; 2], Traffic);

/// The kinds, for a limit of ten seconds.
pub const KINDS: [Kind; 20] = [
    ("no keepalive", [Off, Off], Traffic::None),
    ("client: in time", [Idle(3), Off], Traffic::None),
    ("client: much too late", [Idle(60), Off], Traffic::None),
    ("client: the system's default", [Default, Off], Traffic::None),
    ("client: KEEPIDLE in time, KEEPINTVL too long", [IdleThenEvery(2, 60), Off], Traffic::None),
    ("client: KEEPIDLE just above the limit", [Idle(12), Off], Traffic::None),
    ("server: in time", [Off, Idle(3)], Traffic::None),
    ("server: much too late", [Off, Idle(60)], Traffic::None),
    ("server: the system's default", [Off, Default], Traffic::None),
    ("server: KEEPIDLE in time, KEEPINTVL too long", [Off, IdleThenEvery(2, 60)], Traffic::None),
    ("server: KEEPIDLE just above the limit", [Off, Idle(12)], Traffic::None),
    ("both: in time", [Idle(3), Idle(4)], Traffic::None),
    ("both: the system's default", [Default, Default], Traffic::None),
    ("both: just above the limit", [Idle(12), Idle(13)], Traffic::None),
    ("client late, server in time", [Idle(60), Idle(3)], Traffic::None),
    ("client in time, server late", [Idle(3), Default], Traffic::None),
    ("no keepalive, chatter", [Off, Off], Traffic::EachSecond(700)),
    ("default, chatter", [Default, Off], Traffic::EachSecond(700)),
    ("no keepalive, HTTP/2 PINGs", [Off, Off], Traffic::EachSecond(17)),
    ("no keepalive, used a moment ago", [Off, Off], Traffic::Recent),
];

/// One connection of the crowd.
pub struct Member {
    pub kind: &'static str,
    pub connection: Connection,
    traffic: Traffic,
    /// The client uses it next.
    client_first: bool,
}

/// The connections, in the order of their kinds.
pub struct Crowd(pub Vec<Member>);

impl Crowd {
    /// Connections of all kinds in both directions. Each has just been used.
    pub fn of_all_kinds(router: &Router) -> Self {
        Self::new(router, KINDS)
    }

    /// As many connections, all with the same keepalive at one end.
    pub fn of_one_kind(router: &Router, keepalive: Keepalive) -> Self {
        let client = ("client: as the remedy says", [keepalive, Off], Traffic::None);
        let server = ("server: as the remedy says", [Off, keepalive], Traffic::None);
        Self::new(router, [client, server].repeat(KINDS.len() / 2))
    }

    fn new(router: &Router, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let mut all = Vec::new();
        for (kind, keep, traffic) in kinds {
            for number in 0..OF_EACH * 2 {
                let from = if number % 2 == 0 { From::Inside } else { From::Outside };
                let client_first = number / 2 % 2 == 0;
                all.push(Member { kind, connection: router.connect(from, keep), traffic, client_first });
            }
        }
        for member in &mut all {
            member.connection.exchange();
        }
        Self(all)
    }

    /// Lets the applications go on until `end`. Those of [`Traffic::Recent`] speak at these moments.
    pub fn live(&mut self, recent: [Instant; 3], end: Instant) {
        let done = AtomicBool::new(false);
        let (mut busy, mut once): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for member in &mut self.0 {
            match member.traffic {
                Traffic::None => {}
                Traffic::EachSecond(bytes) => busy.push((bytes, &mut member.connection)),
                Traffic::Recent => once.push(&mut member.connection),
            }
        }
        thread::scope(|scope| {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for (bytes, connection) in &mut busy {
                        say(connection, *bytes);
                    }
                    thread::sleep(Duration::from_secs(1));
                }
            });
            for moment in recent {
                sleep_until(moment);
                for connection in &mut once {
                    connection.exchange();
                }
            }
            sleep_until(end);
            done.store(true, Ordering::Relaxed);
        });
    }

    /// Every connection is used once, by one of its two ends. Returns for each whether it was answered.
    pub fn use_all(&mut self) -> Vec<bool> {
        let mut answered: Vec<Option<bool>> = Vec::new();
        for member in &mut self.0 {
            let Connection { client, server } = &mut member.connection;
            for end in [&client.stream, &server.stream] {
                end.set_nonblocking(true).expect("O_NONBLOCK is set");
            }
            let first = if member.client_first { client } else { server };
            // An end that was reset meanwhile says so here.
            answered.push(first.stream.write_all(b"?").is_err().then_some(false));
        }
        let end = Instant::now() + ANSWER;
        while answered.contains(&None) && Instant::now() < end {
            for (member, answered) in self.0.iter_mut().zip(&mut answered).filter(|(_, answered)| answered.is_none()) {
                let Connection { client, server } = &mut member.connection;
                let (first, second) = if member.client_first { (client, server) } else { (server, client) };
                if read(&mut second.stream) == Some(true) {
                    // It may have been reset since.
                    let _ = second.stream.write_all(b"!");
                }
                *answered = read(&mut first.stream);
            }
            thread::sleep(Duration::from_millis(5));
        }
        answered.into_iter().map(|answered| answered == Some(true)).collect()
    }
}

/// Whether something arrived; `None`: nothing yet. False: the connection is over.
fn read(stream: &mut TcpStream) -> Option<bool> {
    match stream.read(&mut [0; 64]) {
        Ok(bytes) => Some(bytes > 0),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(false),
    }
}

fn say(connection: &mut Connection, bytes: usize) {
    let (words, mut heard) = (vec![b'.'; bytes], vec![0; bytes]);
    let Connection { client, server } = connection;
    client.stream.write_all(&words).expect("the client writes");
    server.stream.read_exact(&mut heard).expect("the server reads");
    server.stream.write_all(&words).expect("the server writes");
    client.stream.read_exact(&mut heard).expect("the client reads");
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
