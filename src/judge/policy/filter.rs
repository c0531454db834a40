//! Selects the connections to show: a filter in the language of `ss`, and globs over owners.
//!
//! `sport = :8080 or dport = :8080`, `dst 10.0.0.0/8 and not dport = :443`. `parse` has the grammar.

pub mod facts;
mod host;
mod own_words;
mod parse;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use facts::{Fact, Subject};
use globset::GlobMatcher;
use ipnet::IpNet;

use crate::owner::{NsId, Owner};
use crate::socket::Endpoint;

/// Everything that limits what an audit shows. It never changes a verdict. The default selects every connection.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// The expression over tuples.
    pub filter: Option<Filter>,
    /// The pod's namespace.
    pub namespace: Option<GlobMatcher>,
    /// The pod's name.
    pub pod: Option<GlobMatcher>,
    /// Any name of the owner: the pod's, unit's, container's or namespace's.
    pub owner: Option<GlobMatcher>,
    /// The network namespaces; absent: every one.
    pub netns: Option<BTreeSet<NsId>>,
}

impl Select {
    /// Whether the connections of this network namespace are shown.
    #[must_use]
    pub fn takes_namespace(&self, id: NsId) -> bool {
        self.netns.as_ref().is_none_or(|ids| ids.contains(&id))
    }

    /// Whether the selection depends on owners.
    #[must_use]
    pub fn by_owner(&self) -> bool {
        self.namespace.is_some() || self.pod.is_some() || self.owner.is_some()
    }

    /// Whether the selection depends on owners or programs, by a flag or in the filter.
    #[must_use]
    pub fn by_name(&self) -> bool {
        self.by_owner() || self.filter.as_ref().is_some_and(|filter| filter.has(Fact::is_name))
    }

    /// Whether the selection depends on programs.
    #[must_use]
    pub fn by_program(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.has(Fact::is_program))
    }

    /// Whether this owner's connections are shown.
    #[must_use]
    pub fn takes_owner(&self, owner: &Owner) -> bool {
        let fits = |glob: &Option<GlobMatcher>, value: &Option<String>| {
            glob.as_ref().is_none_or(|glob| value.as_ref().is_some_and(|value| glob.is_match(value)))
        };
        let named = || owner.names().any(|name| self.owner.as_ref().is_some_and(|glob| glob.is_match(&*name)));
        fits(&self.namespace, &owner.namespace) && fits(&self.pod, &owner.pod) && (self.owner.is_none() || named())
    }

    /// Whether a connection with these ends may be shown, before anything else is known of it.
    #[must_use]
    pub fn takes(&self, local: impl FnOnce() -> Endpoint, remote: impl FnOnce() -> Endpoint) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.eval(local(), remote(), &Subject::default()) != Some(false))
    }

    /// Whether a connection with these facts is shown. A fact that is not known does not fit.
    #[must_use]
    pub fn takes_judged<'a>(
        &self,
        ends: impl FnOnce() -> (Endpoint, Endpoint),
        known: impl FnOnce() -> Subject<'a>,
    ) -> bool {
        self.filter.as_ref().is_none_or(|filter| {
            let (local, remote) = ends();
            filter.eval(local, remote, &known()) == Some(true)
        })
    }
}

/// A parsed filter expression.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Both.
    And(Box<Filter>, Box<Filter>),
    /// Either.
    Or(Box<Filter>, Box<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// One end's address (and port).
    Host {
        /// Which end.
        end: End,
        /// The addresses; absent: any.
        net: Option<IpNet>,
        /// The port; absent: any.
        port: Option<u16>,
    },
    /// One end's port, compared.
    Port {
        /// Which end.
        end: End,
        /// The comparison.
        op: Op,
        /// The port.
        port: u16,
    },
    /// What is known besides.
    Fact(Fact),
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `src`, `sport`.
    Local,
    /// `dst`, `dport`.
    Remote,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Op {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "=" | "==" | "eq" => Self::Eq,
            "!=" | "ne" | "neq" => Self::Ne,
            "<" | "lt" => Self::Lt,
            "<=" | "le" | "leq" => Self::Le,
            ">" | "gt" => Self::Gt,
            ">=" | "ge" | "geq" => Self::Ge,
            _ => return None,
        })
    }
}

impl Filter {
    /// Whether a connection fits if only its two ends are known.
    #[must_use]
    pub fn matches(&self, local: Endpoint, remote: Endpoint) -> bool {
        self.eval(local, remote, &Subject::default()) == Some(true)
    }

    /// Whether a connection fits; `None` where too little is known.
    #[must_use]
    pub fn eval(&self, local: Endpoint, remote: Endpoint, subject: &Subject<'_>) -> Option<bool> {
        let pick = |end: &End| if *end == End::Local { local } else { remote };
        let both = |left: &Self, right: &Self, decides: bool| match left.eval(local, remote, subject) {
            Some(left) if left == decides => Some(decides),
            left => match right.eval(local, remote, subject) {
                Some(right) if right == decides => Some(decides),
                right => left.and(right),
            },
        };
        match self {
            Self::And(left, right) => both(left, right, false),
            Self::Or(left, right) => both(left, right, true),
            Self::Not(inner) => inner.eval(local, remote, subject).map(|fits| !fits),
            Self::Host { end, net, port } => {
                let at = pick(end);
                Some(net.is_none_or(|net| net.contains(&at.addr)) && port.is_none_or(|port| port == at.port))
            }
            Self::Port { end, op, port } => Some(op.holds(pick(end).port.cmp(port))),
            Self::Fact(fact) => fact.holds(subject),
        }
    }

    /// Whether a condition of the expression is of this kind.
    fn has(&self, kind: fn(&Fact) -> bool) -> bool {
        match self {
            Self::And(left, right) | Self::Or(left, right) => left.has(kind) || right.has(kind),
            Self::Not(inner) => inner.has(kind),
            Self::Host { .. } | Self::Port { .. } => false,
            Self::Fact(fact) => kind(fact),
        }
    }

    /// Parses an expression with the names of common services. The error says what is wrong and points at it.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text, &|_| None)
    }

    /// Parses an expression; `service` gives the ports of services by name, beyond the common ones.
    pub fn parse_with(text: &str, service: &dyn Fn(&str) -> Option<u16>) -> Result<Self, String> {
        parse::parse(text, service)
    }
}

/// A network of IPv4-mapped addresses as the IPv4 network that it means: addresses are compared as IPv4.
#[must_use]
pub fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let Some(mapped) = v6.addr().to_ipv4_mapped() else { return net };
    let bits = v6.prefix_len().checked_sub(96).and_then(|bits| IpNet::new(mapped.into(), bits).ok());
    bits.unwrap_or(net)
}

#[cfg(test)]
mod tests;
