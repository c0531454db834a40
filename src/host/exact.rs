//! The socket options themselves (`--exact`): `pidfd_getfd` borrows a socket from the process that holds it, and
//! `getsockopt` reads it. Nothing changes in that process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::fds::HeldSocket;
use super::privileges;
use crate::socket::KeepaliveOptions;

/// Reads the sockets of one process.
pub(super) struct Borrower {
    pid: u32,
    process: Option<OwnedFd>,
}

impl Borrower {
    /// A reader for the process with this id. It opens nothing yet.
    pub fn new(pid: u32) -> Self {
        Self { pid, process: None }
    }

    /// The options of one of its sockets. `None` if the descriptor is no longer that socket.
    pub fn options(&mut self, socket: HeldSocket) -> io::Result<Option<KeepaliveOptions>> {
        let process = match self.process.take() {
            Some(process) => process,
            None => pidfd_open(
                i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?,
                PidfdFlags::empty(),
            )?,
        };
        let borrowed = pidfd_getfd(self.process.insert(process), socket.fd, PidfdGetfdFlags::empty())?;
        if rustix::fs::fstat(&borrowed)?.st_ino != u64::from(socket.inode) {
            return Ok(None);
        }
        options(&borrowed).map(Some)
    }
}

/// The kernel's options of this socket.
fn options(socket: &OwnedFd) -> io::Result<KeepaliveOptions> {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    Ok(KeepaliveOptions {
        so_keepalive: known(sockopt::socket_keepalive(socket))?,
        tcp_keepidle: known(sockopt::tcp_keepidle(socket))?.map(seconds),
        tcp_keepintvl: known(sockopt::tcp_keepintvl(socket))?.map(seconds),
        tcp_keepcnt: known(sockopt::tcp_keepcnt(socket))?,
        tcp_user_timeout: known(sockopt::tcp_user_timeout(socket))?,
    })
}

/// `None` for an option that this kind of socket does not have.
fn known<T>(read: Result<T, Errno>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The reason why options could not be read, with advice.
pub(super) fn reason(error: &io::Error, procfs: &Path) -> String {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::NOSYS) {
        return "pidfd_getfd needs Linux 5.6 or newer".to_owned();
    }
    if !(is(Errno::PERM) || is(Errno::ACCESS)) {
        return error.to_string();
    }
    let scope = std::fs::read_to_string(procfs.join("sys/kernel/yama/ptrace_scope")).unwrap_or_default();
    if scope.trim() == "3" {
        // it cannot be lowered while the system runs
        "kernel.yama.ptrace_scope is 3, which forbids it even to root; boot with 2 or lower".to_owned()
    } else {
        privileges::advice(privileges::READ_PROCESSES)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn the_options_are_the_ones_that_were_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sockopt::set_socket_keepalive(&stream, true).unwrap();
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(61)).unwrap();
        sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(7)).unwrap();
        sockopt::set_tcp_keepcnt(&stream, 4).unwrap();
        sockopt::set_tcp_user_timeout(&stream, 30_000).unwrap();
        let inode = u32::try_from(rustix::fs::fstat(&stream).unwrap().st_ino).unwrap();
        let mut borrower = Borrower::new(std::process::id());
        let fd = stream.as_raw_fd();
        let read = borrower.options(HeldSocket { fd, inode }).unwrap().unwrap();
        let expected = KeepaliveOptions {
            so_keepalive: Some(true),
            tcp_keepidle: Some(61),
            tcp_keepintvl: Some(7),
            tcp_keepcnt: Some(4),
            tcp_user_timeout: Some(30_000),
        };
        assert_eq!(read, expected);
        assert_eq!(borrower.options(HeldSocket { fd, inode: inode + 1 }).unwrap(), None, "another socket");
    }

    #[test]
    fn an_option_that_a_socket_does_not_have_is_absent_and_any_other_error_is_an_error() {
        assert_eq!(known(Ok(1)).unwrap(), Some(1));
        assert_eq!(known::<u32>(Err(Errno::OPNOTSUPP)).unwrap(), None);
        assert_eq!(known::<u32>(Err(Errno::NOPROTOOPT)).unwrap(), None);
        assert!(known::<u32>(Err(Errno::BADF)).is_err());
    }

    #[test]
    fn a_refusal_says_what_forbids_it() {
        let tree = tempfile::tempdir().unwrap();
        let yama = tree.path().join("sys/kernel/yama");
        std::fs::create_dir_all(&yama).unwrap();
        let say = |errno: Errno| reason(&errno.into(), tree.path());
        assert!(say(Errno::PERM).contains(&privileges::advice(privileges::READ_PROCESSES)));
        std::fs::write(yama.join("ptrace_scope"), "3\n").unwrap();
        assert!(say(Errno::PERM).contains("ptrace_scope is 3"));
        assert!(say(Errno::NOSYS).contains("Linux 5.6"));
        assert!(!say(Errno::MFILE).contains("CAP_SYS_PTRACE"));
    }
}
