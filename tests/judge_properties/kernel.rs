//! One end of a connection as the kernel keeps it: clocks, segment counters and the keepalive timer. Time is in milliseconds.
//!
//! The timer follows `tcp_keepalive_timer` of `net/ipv4/tcp_timer.c`: traffic does not re-arm it. When it fires and the silence is shorter than
//! KEEPIDLE, it is armed for what is left; otherwise a probe goes out and it is armed for KEEPINTVL. An answer moves the ack clock.
//! While data is unacknowledged it is armed for a full KEEPIDLE.

use keepalive_auditor::socket::{Cookie, Endpoint, Socket, State, TcpInfo, Timer};

/// The timer wheel's next granule: the timer fires late by up to an eighth of what it was armed for.
const SLACK_PART: u64 = 8;
/// An acknowledgement takes that long.
const ROUND_TRIP: u64 = 20;

/// The keepalive options of the socket, and what the simulation does with its probes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `TCP_KEEPIDLE`, milliseconds.
    pub keepidle: u64,
    /// `TCP_KEEPINTVL`, milliseconds.
    pub keepintvl: u64,
    /// How late the timer fires, in thousandths of the most it may.
    pub slack: u64,
    /// Whether each probe is answered; otherwise every second one is lost.
    pub answered: bool,
}

/// What the ends do, so many milliseconds after the last look; past the next look it does not happen.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// We send data; it is acknowledged after a round trip.
    Sends(u64),
    /// The other end sends data.
    Hears(u64),
    /// The other end sends a keepalive probe.
    Probed(u64),
}

/// The connection, from its handshake at 0.
#[derive(Debug)]
pub struct Connection {
    /// The kernel's clock.
    pub now: u64,
    /// When the last segment of any kind was on the wire.
    pub last_segment: u64,
    options: Option<Options>,
    data_sent: u64,
    data_recv: u64,
    ack_recv: u64,
    /// When the timer should fire, and when it will.
    deadline: u64,
    fires: u64,
    unacked: u32,
    probes_out: u8,
    probes: u32,
    segs: [u32; 4],
}

const START: u64 = 10_000_000;

impl Connection {
    /// Open, with keepalive set before the handshake.
    pub fn open(options: Options) -> Self {
        let mut connection = Self::without_keepalive();
        connection.turn_on(options);
        connection
    }

    /// Open, without keepalive.
    pub fn without_keepalive() -> Self {
        Self {
            now: START,
            last_segment: START,
            options: None,
            data_sent: START,
            data_recv: START,
            ack_recv: START,
            deadline: u64::MAX,
            fires: u64::MAX,
            unacked: 0,
            probes_out: 0,
            probes: 0,
            segs: [1, 1, 0, 0],
        }
    }

    /// Its handshake was at this moment, and not at the start.
    #[allow(dead_code, reason = "of the two test programs that share this file one opens connections later")]
    pub fn born_at(&mut self, now: u64) {
        (self.now, self.last_segment, self.data_sent, self.data_recv, self.ack_recv) = (now, now, now, now, now);
    }

    /// `SO_KEEPALIVE`, with the other options set before: it arms a full KEEPIDLE from now.
    pub fn turn_on(&mut self, options: Options) {
        self.options = Some(options);
        self.arm(options.keepidle);
    }

    fn arm(&mut self, timeout: u64) {
        let slack = self.options.map_or(0, |options| options.slack);
        self.deadline = self.now + timeout;
        self.fires = self.deadline + timeout / SLACK_PART * slack / 1000;
    }

    /// Lets time pass, with what the ends do meanwhile.
    pub fn run(&mut self, pause: u64, actions: &[Action]) {
        let end = self.now + pause;
        let start = self.now;
        let mut events: Vec<(u64, Event)> = Vec::new();
        for action in actions {
            match *action {
                Action::Sends(after) if after + ROUND_TRIP < pause => {
                    events.push((start + after, Event::Sent));
                    events.push((start + after + ROUND_TRIP, Event::Acked));
                }
                Action::Hears(after) if after < pause => events.push((start + after, Event::Heard)),
                Action::Probed(after) if after < pause => events.push((start + after, Event::Probed)),
                _ => {}
            }
        }
        events.sort_by_key(|(at, _)| *at);
        for (at, event) in events {
            self.fire_until(at);
            self.now = at;
            self.happen(event);
        }
        self.fire_until(end);
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        self.last_segment = now;
        let [segs_in, segs_out, data_in, data_out] = &mut self.segs;
        match event {
            Event::Sent => {
                self.data_sent = now;
                self.unacked += 1;
                (*segs_out, *data_out) = (*segs_out + 1, *data_out + 1);
            }
            Event::Acked => {
                self.ack_recv = now;
                self.unacked = self.unacked.saturating_sub(1);
                self.probes_out = 0;
                *segs_in += 1;
            }
            Event::Heard => {
                (self.data_recv, self.ack_recv) = (now, now);
                self.probes_out = 0;
                (*segs_in, *data_in) = (*segs_in + 1, *data_in + 1);
                *segs_out += 1;
            }
            // it is out of the window: answered, but no clock takes notice
            Event::Probed => (*segs_in, *segs_out) = (*segs_in + 1, *segs_out + 1),
        }
    }

    fn fire_until(&mut self, end: u64) {
        while let Some(options) = self.options
            && self.fires <= end
        {
            self.now = self.fires;
            if self.unacked > 0 {
                // it is alive without keepalive
                self.arm(options.keepidle);
                continue;
            }
            let elapsed = self.now - self.data_recv.max(self.ack_recv);
            if elapsed < options.keepidle {
                self.arm(options.keepidle - elapsed);
                continue;
            }
            self.probes += 1;
            self.probes_out = self.probes_out.saturating_add(1);
            self.segs[1] += 1;
            self.last_segment = self.now;
            self.arm(options.keepintvl);
            if options.answered || self.probes.is_multiple_of(2) {
                // at once: the answer is never apart from its probe at a look
                self.happen(Event::Acked);
            }
        }
    }

    /// Segments received and sent, and probes among the sent ones: what it adds to the counters of its namespace.
    #[allow(dead_code, reason = "of the two test programs that share this file one reads counters")]
    pub fn counters(&self) -> [u64; 3] {
        [self.segs[0], self.segs[1], self.probes].map(u64::from)
    }

    /// What `sock_diag` says.
    pub fn socket(&self) -> Socket {
        let since = |at: u64| u32::try_from(self.now - at).ok();
        let [segs_in, segs_out, data_segs_in, data_segs_out] = self.segs.map(Some);
        let armed = self.options.is_some();
        Socket {
            cookie: Cookie(1),
            state: State::Established,
            local: Endpoint::UNSPECIFIED,
            remote: Endpoint::UNSPECIFIED,
            inet6: false,
            timer: if armed { Timer::KeepAlive } else { Timer::None },
            expires: if armed { u32::try_from(self.deadline.saturating_sub(self.now)).unwrap_or(0) } else { 0 },
            retransmits: self.probes_out,
            uid: 0,
            inode: 1,
            cgroup: None,
            tcp: TcpInfo {
                last_data_sent: since(self.data_sent),
                last_data_recv: since(self.data_recv),
                last_ack_recv: since(self.ack_recv),
                unacked: Some(self.unacked),
                segs_in,
                segs_out,
                data_segs_in,
                data_segs_out,
            },
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Sent,
    Acked,
    Heard,
    Probed,
}
