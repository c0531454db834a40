//! This process: its limits, its listener, its resource usage, and its messages to systemd.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The values of the `process_*` metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user and kernel mode.
    pub cpu: Duration,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The limit of open file descriptors.
    pub max_fds: u64,
    /// Virtual memory in bytes.
    pub virtual_memory: u64,
    /// Resident memory in bytes.
    pub resident_memory: u64,
    /// The start of the process, as a span since the Unix epoch.
    pub started: Duration,
    /// Threads.
    pub threads: u64,
}

/// The current usage of this process. A value that cannot be read is zero.
#[must_use]
pub fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // the name in parentheses may hold anything; field 3 follows it
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let page = rustix::param::page_size() as u64;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    // the difference of the two clocks is the time of the boot
    let boot = elapsed(ClockId::Realtime).saturating_sub(elapsed(ClockId::Boottime));
    let begun = Duration::from_millis(field(22).saturating_mul(1000) / ticks);
    Usage {
        cpu: elapsed(ClockId::ProcessCPUTime),
        // without the descriptor that reads the folder
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64).saturating_sub(1),
        max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        virtual_memory: field(23),
        resident_memory: field(24) * page,
        started: boot + begun,
        threads: field(20),
    }
}

fn elapsed(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Raises the limit of open descriptors as far as this process may, and returns it.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The backlog: more connections than arrive in any burst. The kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// The send buffer for a client that does not read. The kernel doubles it.
const SEND_BUFFER: usize = 64 * 1024;
/// A request is small.
const RECEIVE_BUFFER: usize = 16 * 1024;
/// Below every known idle timeout.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
/// Several probes must be lost before the connection is given up.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// A listener whose connections inherit keepalive and small buffers.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// systemd's socket for messages about this service, if systemd started the process.
pub struct ServiceManager {
    socket: UnixDatagram,
    address: UnixAddr,
    /// The interval at which systemd expects a watchdog message.
    pub watchdog: Option<Duration>,
}

impl ServiceManager {
    /// From `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let path = std::env::var_os("NOTIFY_SOCKET")?;
        let address = match path.as_bytes() {
            [b'@', name @ ..] => UnixAddr::from_abstract_name(name).ok()?,
            _ => UnixAddr::from_pathname(&path).ok()?,
        };
        let socket = UnixDatagram::unbound().ok()?;
        // a service manager that does not read must not block us
        socket.set_nonblocking(true).ok()?;
        let for_us = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid == std::process::id().to_string())
            || std::env::var_os("WATCHDOG_PID").is_none();
        let watchdog = std::env::var("WATCHDOG_USEC").ok().filter(|_| for_us).and_then(|text| text.parse().ok());
        Some(Self { socket, address, watchdog: watchdog.map(Duration::from_micros) })
    }

    /// Sends one message, such as `READY=1`.
    pub fn notify(&self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            tracing::debug!(%error, message, "cannot notify systemd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_that_of_this_process() {
        let before = usage();
        let _file = fs::File::open("/proc/self/stat").unwrap();
        while elapsed(ClockId::ProcessCPUTime) < before.cpu + Duration::from_millis(3) {}
        let after = usage();
        assert!(after.cpu > before.cpu && after.cpu < before.cpu + Duration::from_mins(1), "{before:?} {after:?}");
        assert!(after.open_fds > 3 && after.max_fds >= after.open_fds, "{after:?}");
        assert!(after.threads >= 1 && after.resident_memory > 100_000, "{after:?}");
        assert!(after.virtual_memory > after.resident_memory, "{after:?}");
        let now = elapsed(ClockId::Realtime);
        assert!(after.started < now && after.started + Duration::from_hours(1) > now, "{after:?} at {now:?}");
    }

    #[test]
    fn accepted_connections_keep_themselves_alive() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = loop {
            match listener.accept() {
                Ok((accepted, _)) => break accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), KEEPALIVE_IDLE);
        assert!(sockopt::socket_send_buffer_size(&accepted).unwrap() <= 2 * SEND_BUFFER);
        drop(client);
    }
}
