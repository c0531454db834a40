//! How a flagged connection ended, from what the kernel says of its socket and of its namespace. What cannot be proven
//! is `unknown`.

mod counters;
mod event;

pub use counters::{EndCounters, Window};
pub use event::EndEvent;

/// How a flagged connection ended. A closed set: it becomes a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An RST of the peer or of the path ended it.
    Reset,
    /// The kernel gave up, because nothing answered.
    TimedOut,
    /// A program closed or aborted it: on this node, or the peer with a FIN.
    Closed,
    /// Nothing proves one of the others.
    Unknown,
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// Every outcome, the worst first.
    pub const ALL: [Self; Self::COUNT] = [Self::Reset, Self::TimedOut, Self::Closed, Self::Unknown];

    /// The label and JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }

    /// What it means, for `explain`.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Reset => {
                "An RST of the peer or of a middlebox ended the flagged connection. Its program got an error.\n\
                 What to do: turn keepalive on, so that the path keeps its state (keepalive-auditor audit --explain)."
            }
            Self::TimedOut => {
                "The kernel gave up the flagged connection after unanswered segments or probes. Its program got an\n\
                 error, often after many minutes. What to do: turn keepalive on (keepalive-auditor audit --explain),\n\
                 and set TCP_USER_TIMEOUT where a program must notice sooner."
            }
            Self::Closed => {
                "A program closed the flagged connection or aborted it: one on this node, or the peer's with a FIN."
            }
            Self::Unknown => {
                "The flagged connection is gone, and nothing proves how it ended. With --watch-ends the agent asks\n\
                 the kernel, and then knows."
            }
        }
    }
}

/// Counts of outcomes, in the order of [`Outcome::ALL`].
pub type Outcomes = [u64; Outcome::COUNT];
