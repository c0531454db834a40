//! Filters select what the real `ss` selects, on real sockets: random expressions, and the differences that
//! ARCHITECTURE.md names.

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use keepalive_auditor::judge::policy::filter::Filter;
use keepalive_auditor::socket::Endpoint;
use support::kernel_test;

/// Both ends of a socket.
type Tuple = (SocketAddr, SocketAddr);

const HOSTS: [&str; 6] = ["127.0.0.1", "127.0.0.2", "127.0.1.1", "127.1.0.1", "127.0.0.77", "::1"];
const EXPRESSIONS: usize = 2000;

/// Connections on loopback, each between two of the hosts.
struct Sockets {
    _held: Vec<(TcpListener, TcpStream, TcpStream)>,
    tuples: BTreeSet<Tuple>,
}

impl Sockets {
    fn new() -> Self {
        let (mut held, mut tuples) = (Vec::new(), BTreeSet::new());
        for host in HOSTS.iter().cycle().take(40) {
            let listener = TcpListener::bind((*host, 0)).expect("a port of loopback");
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
            let (server, _) = listener.accept().expect("it has connected");
            for end in [&client, &server] {
                tuples.insert((end.local_addr().expect("bound"), end.peer_addr().expect("connected")));
            }
            held.push((listener, client, server));
        }
        Self { _held: held, tuples }
    }

    /// What ss selects of these sockets.
    fn by_ss(&self, expression: &str) -> Option<BTreeSet<Tuple>> {
        let output = Command::new("ss").args(["-Htn", "state", "established", expression]).output().expect("ss runs");
        let text = String::from_utf8(output.stdout).expect("ASCII");
        let rows = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(2);
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        });
        output.status.success().then(|| rows.filter(|tuple| self.tuples.contains(tuple)).collect())
    }

    /// What the filter selects of them.
    fn by_filter(&self, expression: &str) -> BTreeSet<Tuple> {
        let parsed = Filter::parse(expression);
        assert!(parsed.is_ok(), "ss takes `{expression}`: {parsed:?}");
        let filter = parsed.expect("just checked");
        let end = |at: SocketAddr| Endpoint::new(at.ip(), at.port());
        self.tuples.iter().copied().filter(|(local, remote)| filter.matches(end(*local), end(*remote))).collect()
    }
}

/// Random numbers that each run repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    fn port(&mut self, sockets: &Sockets) -> String {
        let (local, remote) = sockets.tuples.iter().nth(self.below(sockets.tuples.len())).expect("there are some");
        let port = [local, remote][self.below(2)].port();
        match self.below(5) {
            0 => format!("0x{port:x}"),
            1 => self.of(&["ssh", "https", "postgresql", "0", "65535"]).to_owned(),
            _ => port.to_string(),
        }
    }

    fn term(&mut self, sockets: &Sockets) -> String {
        let hosts = [
            "127.1",
            "127.0.1",
            "any",
            "all",
            "default",
            "",
            "127.0.0.1",
            "127.0.0.2",
            "127.0.0.77",
            "127/8",
            "127.0/16",
            "127.0.1/24",
            "127.0.0.0/25",
            "127.0.0.99/24",
            "10.0.0.0/8",
            "[::1]",
            "::1/128",
            "fd00::/8",
            "*",
        ];
        if self.below(2) == 0 {
            let (end, host) = (self.of(&["src", "dst"]), self.of(&hosts));
            let port = match self.below(3) {
                0 if host.is_empty() || host.ends_with(|c: char| c.is_ascii_digit() || c == ']') => {
                    format!(":{}", self.port(sockets))
                }
                1 if !host.contains('/') => ":*".to_owned(),
                _ => String::new(),
            };
            return format!("{end} {}{host}{port}", self.of(&["", "", "= ", "== ", "eq "]));
        }
        let operator = self.of(&["=", "==", "!=", "<", "<=", ">", ">=", "eq", "neq", "lt", "leq", "gt", "geq", ""]);
        let (end, colon) = (self.of(&["sport", "dport"]), self.of(&["", ":"]));
        format!("{end} {operator} {colon}{}", self.port(sockets))
    }

    fn expression(&mut self, sockets: &Sockets, depth: usize) -> String {
        let mut text = String::new();
        for number in 0..=self.below(3) {
            if number > 0 {
                text += self.of(&[" and ", " or ", " & ", " | ", " && ", " || ", " "]);
            }
            text += self.of(&["", "", "", "not ", "! "]);
            if depth < 2 && self.below(4) == 0 {
                text.extend(["( ", &self.expression(sockets, depth + 1), " )"]);
            } else {
                text += &self.term(sockets);
            }
        }
        text
    }
}

kernel_test!(
    random_expressions_select_what_ss_selects,
    || {
        let sockets = Sockets::new();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut compared, mut some) = (0, 0);
        for _ in 0..EXPRESSIONS {
            let expression = random.expression(&sockets, 0);
            if let Some(expected) = sockets.by_ss(&expression) {
                assert_eq!(sockets.by_filter(&expression), expected, "{expression}");
                compared += 1;
                some += usize::from(!expected.is_empty() && expected.len() < sockets.tuples.len());
            }
        }
        assert!(compared > EXPRESSIONS * 9 / 10, "ss took {compared} of {EXPRESSIONS}");
        assert!(some > EXPRESSIONS / 4, "{some} select a part of the sockets");
    },
    needs "ss"
);

kernel_test!(
    a_mapped_address_selects_both_kinds_of_socket,
    || {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let (server, _) = listener.accept().expect("it has connected");
        let (local, remote) = (server.local_addr().expect("bound"), server.peer_addr().expect("connected"));
        assert!(local.ip().to_string().starts_with("::ffff:"), "{local} is mapped");
        let end = |at: SocketAddr| Endpoint::new(at.ip(), at.port());
        let plain = Endpoint::new(IpAddr::from([127, 0, 0, 1]), port);
        for expression in ["src [::ffff:127.0.0.1]", "src ::ffff:0:0/96", "src 127.0.0.1", "src 127/8"] {
            let filter = Filter::parse(expression).expect("ss takes it");
            assert!(filter.matches(end(local), end(remote)) && filter.matches(plain, plain), "{expression}");
            let ss = ["-Htn", "state", "established", expression];
            let output = Command::new("ss").args(ss).output().expect("ss runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains(&format!("[::ffff:127.0.0.1]:{port}")), "{expression}: ss shows\n{text}");
        }
    },
    needs "ss"
);
