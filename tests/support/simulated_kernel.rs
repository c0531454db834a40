//! Simulates one end of a connection in the kernel: clocks, segment counters and the keepalive timer. Times are in
//! milliseconds.
//!
//! The timer follows `tcp_keepalive_timer` of `net/ipv4/tcp_timer.c`. Traffic does not re-arm it. When it fires after
//! an idle time shorter than KEEPIDLE, the kernel arms it for the rest of KEEPIDLE. Otherwise the kernel sends a probe
//! and arms the timer for KEEPINTVL. An answer sets the ack clock. While data is unacknowledged, the kernel arms the
//! timer for a full KEEPIDLE. It tries again after 50 ms if the socket is in use, after 500 ms if the queue is full.

use keepalive_auditor::socket::{Cookie, Endpoint, Socket, State, TcpInfo, Timer};

/// The timer wheel rounds up: the timer fires late by up to an eighth of its timeout.
const SLACK_PART: u64 = 8;
/// `HZ / 20` and `TCP_RESOURCE_PROBE_INTERVAL`.
const SOCKET_IN_USE: u64 = 50;
const QUEUE_FULL: u64 = 500;

/// The keepalive options of the socket, and what the simulation does with its timer and its probes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `TCP_KEEPIDLE`, milliseconds.
    pub keepidle: u64,
    /// `TCP_KEEPINTVL`, milliseconds.
    pub keepintvl: u64,
    /// How late the timer fires, in thousandths of the largest possible delay.
    pub slack: u64,
    /// The time from a segment to its acknowledgement.
    pub round_trip: u64,
    /// Whether the local side connected. Otherwise it accepted.
    pub connected: bool,
    /// Every nth probe is lost. 0: none.
    pub lost: u32,
    /// Every nth time, the timer finds the socket in use. 0: never.
    pub in_use: u32,
    /// Every nth probe is not sent, because the queue is full. 0: none.
    pub full: u32,
}

impl Options {
    /// A timer that fires on time, on a network that loses nothing.
    pub const PLAIN: Self = Self {
        keepidle: 7_200_000,
        keepintvl: 75_000,
        slack: 0,
        round_trip: 0,
        connected: false,
        lost: 0,
        in_use: 0,
        full: 0,
    };
}

/// An event. Its first number is the time after the last sample, in milliseconds.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "two test programs share this file, and one uses fewer actions")]
pub enum Action {
    /// We send data, and the peer acknowledges it after a round trip.
    Sends(u64),
    /// The peer sends data, which we acknowledge at once.
    Receives(u64),
    /// The peer sends data that acknowledges nothing new: the kernel's fast path does not set the ack clock.
    Streams(u64),
    /// The peer sends data, and ours acknowledges it.
    Replies(u64),
    /// We send a heartbeat of [`BEAT`] bytes, and the peer answers with as many.
    Beats(u64),
    /// The peer's window changes.
    Window(u64),
    /// The peer probes.
    Probed(u64),
    /// Our data waits for the peer's window for the second number of milliseconds.
    Stalls(u64, u64),
    /// `TCP_KEEPIDLE` is set.
    Keepidle(u64, u64),
    /// `SO_KEEPALIVE` is turned off, or on again.
    Switches(u64),
    /// The peer or the path is gone: nobody answers from now on.
    Vanishes(u64),
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Does(Action),
    Acked,
    BeatAnswered,
    Answered,
    WindowOpens,
    Retransmits,
}

/// The length of a heartbeat, as HTTP/2 has it.
const BEAT: u64 = 17;

/// The first timeout of the retransmission timer. It doubles up to [`LAST_TIMEOUT`].
const FIRST_TIMEOUT: u64 = 200;
const LAST_TIMEOUT: u64 = 120_000;

/// The connection, from its handshake at [`START`].
#[derive(Debug)]
pub struct Connection {
    /// The kernel's clock.
    pub now: u64,
    /// When the last segment of any kind was on the wire.
    pub last_segment: u64,
    options: Option<Options>,
    /// While `SO_KEEPALIVE` is turned off.
    off: Option<Options>,
    events: Vec<(u64, Event)>,
    data_sent: u64,
    data_recv: u64,
    ack_recv: u64,
    /// When the timer should fire (`deadline`) and when it will (`fires`).
    deadline: u64,
    fires: u64,
    unacked: u32,
    stalled: bool,
    /// Whether the peer or the path is gone.
    pub gone: bool,
    /// Consecutive retransmissions, and all of them.
    retransmits: u8,
    retransmitted: u32,
    probes_out: u8,
    /// The number of probes so far, and how often the timer fired.
    probes: u32,
    fired: u32,
    segs_in: u32,
    segs_out: u32,
    data_in: u32,
    data_out: u32,
    /// Bytes, as far as they are more than one for each segment with data.
    more_in: u64,
    more_out: u64,
    acked: u64,
}

const START: u64 = 10_000_000;

impl Connection {
    /// An open connection whose keepalive options were set before the handshake.
    #[allow(dead_code, reason = "two test programs share this file, and one turns keepalive on later")]
    pub fn open(options: Options) -> Self {
        let mut connection = Self::without_keepalive();
        if options.connected {
            connection.set_connected();
        }
        connection.turn_on(options);
        connection
    }

    /// Makes it the end that connected: its SYN was acknowledged.
    pub fn set_connected(&mut self) {
        (self.segs_in, self.segs_out, self.acked) = (1, 2, 1);
    }

    /// An accepted connection without keepalive.
    pub fn without_keepalive() -> Self {
        Self {
            now: START,
            last_segment: START,
            options: None,
            off: None,
            events: Vec::new(),
            data_sent: START,
            data_recv: START,
            ack_recv: START,
            deadline: u64::MAX,
            fires: u64::MAX,
            unacked: 0,
            stalled: false,
            gone: false,
            retransmits: 0,
            retransmitted: 0,
            probes_out: 0,
            probes: 0,
            fired: 0,
            segs_in: 2,
            segs_out: 0,
            data_in: 0,
            data_out: 0,
            more_in: 0,
            more_out: 0,
            acked: 0,
        }
    }

    /// Sets `TCP_KEEPIDLE`, then `SO_KEEPALIVE`. `SO_KEEPALIVE` arms the timer for a full KEEPIDLE. If it was already
    /// on, it changes nothing, and `TCP_KEEPIDLE` has armed the timer for the rest of the new KEEPIDLE.
    pub fn turn_on(&mut self, options: Options) {
        let elapsed = if self.options.is_some() { self.now - self.data_recv.max(self.ack_recv) } else { 0 };
        self.options = Some(options);
        self.arm(options.keepidle.saturating_sub(elapsed));
    }

    /// Moves the handshake from the start to this moment.
    #[allow(dead_code, reason = "two test programs share this file, and one opens connections later")]
    pub fn set_handshake(&mut self, now: u64) {
        (self.now, self.last_segment, self.data_sent, self.data_recv, self.ack_recv) = (now, now, now, now, now);
    }

    /// What this connection adds to the counters of its namespace: segments received, segments sent (probes included,
    /// retransmissions not), probes, and retransmissions.
    #[allow(dead_code, reason = "two test programs share this file, and one reads counters")]
    pub fn counters(&self) -> [u64; 4] {
        [self.segs_in, self.segs_out - self.retransmitted, self.probes, self.retransmitted].map(u64::from)
    }

    /// The peer has probed so many times, and its probes were answered.
    #[allow(dead_code, reason = "two test programs share this file, and one simulates both ends")]
    pub fn count_peer_probes(&mut self, count: u32) {
        if count > 0 && !self.gone {
            (self.last_segment, self.segs_in, self.segs_out) = (self.now, self.segs_in + count, self.segs_out + count);
        }
    }

    /// When the timer should fire.
    #[allow(dead_code, reason = "two test programs share this file, and one reads the deadline")]
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    fn arm(&mut self, timeout: u64) {
        let slack = self.options.map_or(0, |options| options.slack);
        self.deadline = self.now + timeout;
        self.fires = self.deadline + timeout / SLACK_PART * slack / 1000;
    }

    fn round_trip(&self) -> u64 {
        self.options.or(self.off).map_or(20, |options| options.round_trip)
    }

    /// Runs the simulated clock for `pause` milliseconds, with these actions of both ends.
    pub fn run(&mut self, pause: u64, actions: &[Action]) {
        for &action in actions {
            let (Action::Sends(after)
            | Action::Receives(after)
            | Action::Streams(after)
            | Action::Replies(after)
            | Action::Beats(after)
            | Action::Window(after)
            | Action::Probed(after)
            | Action::Stalls(after, _)
            | Action::Keepidle(after, _)
            | Action::Switches(after)
            | Action::Vanishes(after)) = action;
            self.events.push((self.now + after.min(pause), Event::Does(action)));
        }
        let end = self.now + pause;
        loop {
            self.events.sort_by_key(|(at, _)| *at);
            let event = self.events.first().map_or(u64::MAX, |(at, _)| *at);
            if event.min(self.fires) > end {
                break;
            }
            self.now = event.min(self.fires);
            if event <= self.fires {
                let (_, event) = self.events.remove(0);
                self.happen(event);
            } else {
                self.fire();
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        let sent_by_peer = matches!(
            event,
            Event::Acked
                | Event::BeatAnswered
                | Event::Answered
                | Event::WindowOpens
                | Event::Does(
                    Action::Receives(_)
                        | Action::Streams(_)
                        | Action::Replies(_)
                        | Action::Window(_)
                        | Action::Probed(_)
                )
        );
        if self.gone && sent_by_peer {
            return;
        }
        match event {
            Event::Does(Action::Vanishes(_)) => {
                if !self.gone && self.unacked > 0 {
                    self.events.push((self.now + FIRST_TIMEOUT, Event::Retransmits));
                }
                self.gone = true;
            }
            Event::Retransmits => {
                (self.last_segment, self.data_sent) = (self.now, self.now);
                self.segs_out += 1;
                self.data_out += 1;
                self.retransmitted += 1;
                self.retransmits = self.retransmits.saturating_add(1);
                let timeout = FIRST_TIMEOUT << self.retransmits.min(16);
                self.events.push((self.now + timeout.min(LAST_TIMEOUT), Event::Retransmits));
            }
            Event::Acked => {
                self.unacked -= 1;
                self.acked += 1;
                self.receive(false);
            }
            Event::Does(Action::Beats(_)) => {
                if !self.stalled {
                    self.more_out += BEAT - 1;
                    self.events.push((self.now + self.round_trip(), Event::BeatAnswered));
                }
                self.send();
            }
            Event::BeatAnswered => {
                (self.more_in, self.acked) = (self.more_in + BEAT - 1, self.acked + BEAT - 1);
                self.receive(true);
                self.segs_out += 1;
            }
            Event::Answered | Event::Does(Action::Window(_)) => self.receive(false),
            Event::WindowOpens => {
                self.stalled = false;
                self.receive(false);
                self.send();
            }
            Event::Does(Action::Sends(_)) => self.send(),
            Event::Does(Action::Receives(_)) => {
                self.receive(true);
                self.segs_out += 1;
            }
            Event::Does(Action::Streams(_)) => {
                let (ack_recv, probes_out) = (self.ack_recv, self.probes_out);
                self.receive(true);
                (self.ack_recv, self.probes_out) = (ack_recv, probes_out);
                self.segs_out += 1;
            }
            Event::Does(Action::Replies(_)) => {
                self.receive(true);
                // the kernel acknowledges the first data at once
                self.segs_out += u32::from(self.data_in == 1);
                self.send();
            }
            Event::Does(Action::Probed(_)) => {
                self.last_segment = self.now;
                self.segs_in += 1;
                self.segs_out += 1;
            }
            Event::Does(Action::Stalls(_, span)) => {
                if !self.stalled {
                    self.stalled = true;
                    self.events.push((self.now + span, Event::WindowOpens));
                }
            }
            Event::Does(Action::Switches(_)) => self.switch(),
            Event::Does(Action::Keepidle(_, keepidle)) => {
                if let Some(options) = self.options {
                    self.turn_on(Options { keepidle, ..options });
                }
            }
        }
    }

    fn switch(&mut self) {
        if let Some(options) = self.options.take() {
            self.off = Some(options);
            (self.deadline, self.fires) = (u64::MAX, u64::MAX);
        } else if let Some(options) = self.off.take() {
            self.turn_on(options);
        }
    }

    fn receive(&mut self, data: bool) {
        self.last_segment = self.now;
        self.ack_recv = self.now;
        self.probes_out = 0;
        self.segs_in += 1;
        if data {
            self.data_recv = self.now;
            self.data_in += 1;
        }
    }

    fn send(&mut self) {
        if self.stalled {
            return;
        }
        (self.last_segment, self.data_sent) = (self.now, self.now);
        self.unacked += 1;
        self.segs_out += 1;
        self.data_out += 1;
        if !self.gone {
            self.events.push((self.now + self.round_trip(), Event::Acked));
        } else if self.unacked == 1 {
            self.events.push((self.now + FIRST_TIMEOUT, Event::Retransmits));
        }
    }

    fn fire(&mut self) {
        let Some(options) = self.options else { return };
        let every = |count: u32, nth: u32| nth > 0 && count.is_multiple_of(nth);
        self.fired += 1;
        if every(self.fired, options.in_use) {
            return self.arm(SOCKET_IN_USE);
        }
        if self.unacked > 0 || self.stalled {
            // retransmissions already check that the peer is alive
            return self.arm(options.keepidle);
        }
        let elapsed = self.now - self.data_recv.max(self.ack_recv);
        if elapsed < options.keepidle {
            return self.arm(options.keepidle - elapsed);
        }
        self.probes += 1;
        self.segs_out += 1;
        if every(self.probes, options.full) {
            return self.arm(QUEUE_FULL);
        }
        self.last_segment = self.now;
        self.probes_out = self.probes_out.saturating_add(1);
        if !every(self.probes, options.lost) {
            self.events.push((self.now + options.round_trip, Event::Answered));
        }
        self.arm(options.keepintvl);
    }

    /// The socket as `sock_diag` reports it.
    pub fn socket(&self) -> Socket {
        let since = |at: u64| u32::try_from(self.now - at).ok();
        let (timer, expires) = match self.options {
            _ if self.stalled => (Timer::Persist, 1_000),
            _ if self.unacked > 0 => (Timer::Retransmit, 200),
            Some(_) => (Timer::KeepAlive, u32::try_from(self.deadline.saturating_sub(self.now)).unwrap_or(0)),
            None => (Timer::None, 0),
        };
        Socket {
            cookie: Cookie(1),
            state: State::Established,
            local: Endpoint::UNSPECIFIED,
            remote: Endpoint::UNSPECIFIED,
            inet6: false,
            timer,
            expires,
            retransmits: match timer {
                Timer::KeepAlive => self.probes_out,
                Timer::Retransmit => self.retransmits,
                _ => 0,
            },
            uid: 0,
            inode: 1,
            cgroup: None,
            device: 0,
            is_transparent: false,
            tcp: TcpInfo {
                last_data_sent: since(self.data_sent),
                last_data_recv: since(self.data_recv),
                last_ack_recv: since(self.ack_recv),
                retransmits: Some(self.retransmits),
                probes: Some(self.probes_out),
                segs_in: Some(self.segs_in),
                segs_out: Some(self.segs_out),
                data_segs_in: Some(self.data_in),
                data_segs_out: Some(self.data_out),
                bytes_acked: Some(self.acked),
                bytes_received: Some(u64::from(self.data_in) + self.more_in),
                bytes_sent: Some(u64::from(self.data_out) + self.more_out),
                bytes_retrans: Some(0),
                not_sent: Some(0),
            },
        }
    }
}
