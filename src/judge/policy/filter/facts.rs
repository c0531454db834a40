//! Our own words in filters: what was judged of a connection, and whose it is.

use globset::GlobMatcher;

use super::Op;
use crate::judge::memory::Millis;
use crate::judge::report::Direction;
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::{Holder, Owner};

/// What is known of a connection besides its two ends. What is absent is not known yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The judgement.
    pub judged: Option<Judged>,
    /// Its owner.
    pub owner: Option<&'a Owner>,
    /// The process that holds it.
    pub holder: Option<&'a Holder>,
}

/// What was judged.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// The local side's keepalive.
    pub keepalive: Keepalive,
    /// Who opened it.
    pub direction: Direction,
    /// The idle time that counts on its path.
    pub idle: Option<Millis>,
    /// Lower bound of its age.
    pub age: Millis,
}

/// One condition over what is known.
#[derive(Clone, Debug)]
pub enum Fact {
    /// `verdict = overdue`
    Verdict(Verdict),
    /// `keepalive = late`
    Keepalive(Keepalive),
    /// `direction = inbound`
    Direction(Direction),
    /// `owner = shop/*`
    Name(Named, GlobMatcher),
    /// `idle > 5m`
    Span(Span, Op, Millis),
}

/// What a glob is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Any name of the owner.
    Owner,
    /// The pod's namespace.
    Namespace,
    /// The pod's name.
    Pod,
    /// The container's name; outside pods the unit's, or the namespace's.
    Container,
    /// Any name of the program.
    Program,
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The idle time that counts on the connection's path.
    Idle,
    /// Its age.
    Age,
}

impl Fact {
    /// Whether it depends on the owner or the program.
    pub(super) fn is_name(&self) -> bool {
        matches!(self, Self::Name(..))
    }

    /// Whether it depends on the program.
    pub(super) fn is_program(&self) -> bool {
        matches!(self, Self::Name(Named::Program, _))
    }

    /// Whether it holds; `None` where it is not known.
    pub(super) fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        let judged = subject.judged;
        match self {
            Self::Verdict(verdict) => Some(judged?.verdict == *verdict),
            Self::Keepalive(keepalive) => Some(judged?.keepalive == *keepalive),
            Self::Direction(direction) => Some(judged?.direction == *direction),
            Self::Span(Span::Idle, op, than) => Some(op.holds(judged?.idle?.cmp(than))),
            Self::Span(Span::Age, op, than) => Some(op.holds(judged?.age.cmp(than))),
            Self::Name(Named::Program, glob) => Some(subject.holder?.names().any(|name| glob.is_match(name))),
            Self::Name(named, glob) => {
                let owner = subject.owner?;
                let fits = |name: &Option<String>| name.as_ref().is_some_and(|name| glob.is_match(name));
                Some(match named {
                    Named::Namespace => fits(&owner.namespace),
                    Named::Pod => fits(&owner.pod),
                    Named::Container => fits(&owner.container),
                    Named::Owner | Named::Program => owner.names().any(|name| glob.is_match(&*name)),
                })
            }
        }
    }
}
