//! The true socket options, for people who ask (`--exact`): `pidfd_getfd` borrows a socket from the process that holds it, `getsockopt` reads
//! it. Nothing is changed in the process, and no verdict needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::socket::KeepaliveOptions;

/// What could be read, and a sentence where something could not.
#[derive(Clone, Debug, Default)]
pub struct Exact {
    /// Options by socket inode.
    pub options: BTreeMap<u32, KeepaliveOptions>,
    /// Why some are missing, and what to do.
    pub missing: Option<String>,
}

/// Reads the options of the sockets with these inodes, in one pass over the file descriptors of all processes.
#[must_use]
pub fn read(procfs: &Path, wanted: &BTreeSet<u32>) -> Exact {
    let mut exact = Exact::default();
    let mut refused: Option<io::Error> = None;
    for pid in super::netns::pids(procfs) {
        if exact.options.len() == wanted.len() {
            break;
        }
        let directory = procfs.join(pid.to_string()).join("fd");
        let fds = match fs::read_dir(&directory) {
            Ok(fds) => fds,
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    refused.get_or_insert(error);
                }
                continue;
            }
        };
        let mut process = None;
        for fd in fds.flatten() {
            let Some(inode) = fs::read_link(fd.path()).ok().and_then(|link| socket_inode(&link)) else { continue };
            let Some(number) = fd.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if !wanted.contains(&inode) || exact.options.contains_key(&inode) {
                continue;
            }
            match borrow(&mut process, pid, number).and_then(|socket| options(&socket, inode)) {
                Ok(Some(options)) => {
                    exact.options.insert(inode, options);
                }
                // closed, and its number used again meanwhile
                Ok(None) => {}
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
    }
    let left = wanted.len() - exact.options.len();
    if left > 0 {
        exact.missing = Some(missing(left, wanted.len(), refused));
    }
    exact
}

fn borrow(process: &mut Option<OwnedFd>, pid: u32, fd: i32) -> io::Result<OwnedFd> {
    let process = if let Some(process) = process {
        process
    } else {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        process.insert(pidfd_open(pid, PidfdFlags::empty())?)
    };
    Ok(pidfd_getfd(&*process, fd, PidfdGetfdFlags::empty())?)
}

/// `None` where the descriptor is another socket by now.
fn options(socket: &OwnedFd, inode: u32) -> io::Result<Option<KeepaliveOptions>> {
    if rustix::fs::fstat(socket)?.st_ino != u64::from(inode) {
        return Ok(None);
    }
    let seconds = |duration: std::time::Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    Ok(Some(KeepaliveOptions {
        so_keepalive: sockopt::socket_keepalive(socket)?,
        tcp_keepidle: seconds(sockopt::tcp_keepidle(socket)?),
        tcp_keepintvl: seconds(sockopt::tcp_keepintvl(socket)?),
        tcp_keepcnt: sockopt::tcp_keepcnt(socket)?,
        tcp_user_timeout: sockopt::tcp_user_timeout(socket)?,
    }))
}

/// `socket:[1234]`
fn socket_inode(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn missing(left: usize, wanted: usize, refused: Option<io::Error>) -> String {
    let what = format!("--exact: the options of {left} of {wanted} sockets could not be read");
    let Some(error) = refused else {
        return format!(
            "{what}: no process that is visible here holds them (host PID namespace?), or they have closed"
        );
    };
    if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) {
        return format!("{what}: pidfd_getfd needs Linux 5.6 or newer");
    }
    let denied = [Errno::PERM, Errno::ACCESS].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    if denied { format!("{what}: CAP_SYS_PTRACE is missing; run as root") } else { format!("{what}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_options_of_a_socket_of_our_own_are_the_ones_that_were_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sockopt::set_socket_keepalive(&stream, true).unwrap();
        sockopt::set_tcp_keepidle(&stream, std::time::Duration::from_secs(61)).unwrap();
        sockopt::set_tcp_keepcnt(&stream, 4).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&stream);
        let inode = u32::try_from(fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino()).unwrap();
        let process = Path::new("/proc").canonicalize().unwrap();
        let exact = read(&process, &BTreeSet::from([inode]));
        let options = exact.options[&inode];
        assert_eq!((options.so_keepalive, options.tcp_keepidle, options.tcp_keepcnt), (true, 61, 4));
        assert_eq!(exact.missing, None);
    }

    #[test]
    fn a_socket_that_nobody_holds_is_said_to_be_missing() {
        let exact = read(Path::new("/nowhere"), &BTreeSet::from([1]));
        assert!(exact.missing.unwrap().contains("1 of 1 sockets"));
    }
}
