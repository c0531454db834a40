//! Sockets that wait for one side to close: counted by owner, not judged.

use crate::socket::{Endpoint, Socket, State};

/// The event that a half-closed socket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Waits {
    /// The peer has closed, and the program that holds the socket has not.
    CloseWait,
    /// The program has closed its side, still holds the socket, and the peer has not closed.
    FinWait2,
}

impl Waits {
    /// Every value, in the order of the metrics.
    pub const ALL: [Self; 2] = [Self::CloseWait, Self::FinWait2];

    /// The label and JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CloseWait => "close_wait",
            Self::FinWait2 => "fin_wait2",
        }
    }
}

/// A half-closed socket that a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfClosed {
    /// The event that it waits for.
    pub waits: Waits,
    /// The local endpoint.
    pub local: Endpoint,
    /// The peer's endpoint.
    pub remote: Endpoint,
    /// The socket's cgroup v2 id.
    pub cgroup: Option<u64>,
    /// The socket's inode.
    pub inode: u32,
}

impl HalfClosed {
    /// Reads a socket of a dump. `None` for any other state, and for a socket that no process holds, because the kernel
    /// ends such a socket itself.
    #[must_use]
    pub fn of(socket: &Socket) -> Option<Self> {
        let waits = match socket.state {
            State::CloseWait => Waits::CloseWait,
            State::FinWait2 => Waits::FinWait2,
            State::Established | State::Listen => return None,
        };
        let Socket { local, remote, cgroup, inode, .. } = *socket;
        (inode != 0).then_some(Self { waits, local, remote, cgroup, inode })
    }
}
