//! Which connections are shown: a filter in the language of `ss`, and globs over owners.
//!
//! `sport = :8080 or dport = :8080`, `dst 10.0.0.0/8 and not dport = :443`. Operators: `= == != < <= > >=` and their
//! words (`eq ne lt le gt ge`), `and or not`, `& | !`, parentheses; terms side by side mean `and`.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;

use globset::GlobMatcher;
use ipnet::IpNet;

use crate::owner::{NsId, Owner};
use crate::socket::Endpoint;

/// Everything that narrows what an audit shows; it never changes what is judged. The default takes every connection.
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

    /// Whether owners decide what is shown.
    #[must_use]
    pub fn by_owner(&self) -> bool {
        self.namespace.is_some() || self.pod.is_some() || self.owner.is_some()
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

    /// Whether a connection with these ends is shown.
    #[must_use]
    pub fn takes(&self, local: impl FnOnce() -> Endpoint, remote: impl FnOnce() -> Endpoint) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(local(), remote()))
    }
}

/// A parsed filter expression.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    fn parse(word: &str) -> Option<Self> {
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
    /// Whether a connection with these ends fits.
    #[must_use]
    pub fn matches(&self, local: Endpoint, remote: Endpoint) -> bool {
        let pick = |end: &End| if *end == End::Local { local } else { remote };
        match self {
            Self::And(left, right) => left.matches(local, remote) && right.matches(local, remote),
            Self::Or(left, right) => left.matches(local, remote) || right.matches(local, remote),
            Self::Not(inner) => !inner.matches(local, remote),
            Self::Host { end, net, port } => {
                let at = pick(end);
                net.is_none_or(|net| net.contains(&at.addr)) && port.is_none_or(|port| port == at.port)
            }
            Self::Port { end, op, port } => op.holds(pick(end).port.cmp(port)),
        }
    }

    /// Parses an expression; the error is a sentence that names the word that does not fit.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spaced = space_out(text);
        if spaced.split_whitespace().nth(MAX_WORDS).is_some() {
            return Err(format!("filter: it has more than {MAX_WORDS} words"));
        }
        let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, depth: 0 };
        let filter = parser.either()?;
        match parser.peek() {
            None => Ok(filter),
            Some(word) => Err(format!("filter: `{word}` is left over; combine terms with `and` or `or`")),
        }
    }
}

/// Operators and parentheses need no blanks around them.
fn space_out(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '(' | ')' | '&' | '|' | '=' | '<' | '>' | '!' => {
                spaced.push(' ');
                spaced.push(c);
                if let Some(next) = chars.next_if(|&next| next == '=' || (next == c && (c == '&' || c == '|'))) {
                    spaced.push(next);
                }
                spaced.push(' ');
            }
            _ => spaced.push(c),
        }
    }
    spaced
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    depth: usize,
}

/// Deeper nesting than any person writes; the parser calls itself.
const MAX_DEPTH: usize = 64;
/// Longer than any person writes; the tree of a chain of terms is as deep as the chain is long.
const MAX_WORDS: usize = 1000;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| words.contains(&word));
        self.at += usize::from(found);
        found
    }

    fn next(&mut self, wanted: &str) -> Result<&'a str, String> {
        let word = self.peek().ok_or_else(|| format!("filter: it ends where {wanted} is expected"))?;
        self.at += 1;
        Ok(word)
    }

    fn either(&mut self) -> Result<Filter, String> {
        let mut left = self.both()?;
        while self.take(&["or", "|", "||"]) {
            left = Filter::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Filter, String> {
        let mut left = self.term()?;
        while self.take(&["and", "&", "&&"]) || self.peek().is_some_and(|word| !["or", "|", "||", ")"].contains(&word))
        {
            left = Filter::And(Box::new(left), Box::new(self.term()?));
        }
        Ok(left)
    }

    fn term(&mut self) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("filter: nested too deeply".to_owned());
        }
        let term = match self.next("a term such as `dport = :443`")? {
            "not" | "!" => Filter::Not(Box::new(self.term()?)),
            "(" => {
                let inner = self.either()?;
                match self.next("`)`")? {
                    ")" => inner,
                    word => return Err(format!("filter: `{word}` where `)` is expected")),
                }
            }
            "src" => self.host(End::Local)?,
            "dst" => self.host(End::Remote)?,
            "sport" => self.port(End::Local)?,
            "dport" => self.port(End::Remote)?,
            word => return Err(format!("filter: `{word}` is none of src, dst, sport, dport, not, `(`")),
        };
        self.depth -= 1;
        Ok(term)
    }

    fn host(&mut self, end: End) -> Result<Filter, String> {
        self.take(&["=", "==", "eq"]);
        let word = self.next("an address such as 10.0.0.0/8 or [2001:db8::1]:443")?;
        let wrong = || format!("filter: `{word}` is not an address, a CIDR, or an address with a port");
        let (host, port) = split_port(word).ok_or_else(wrong)?;
        let port = port.map(str::parse).transpose().map_err(|_| wrong())?;
        let net = match host {
            "" | "*" => None,
            host => Some(host.parse().or_else(|_| host.parse::<IpAddr>().map(IpNet::from)).map_err(|_| wrong())?),
        };
        Ok(Filter::Host { end, net, port })
    }

    fn port(&mut self, end: End) -> Result<Filter, String> {
        let op = self.peek().and_then(Op::parse).unwrap_or(Op::Eq);
        self.at += usize::from(self.peek().and_then(Op::parse).is_some());
        let word = self.next("a port such as :443")?;
        let port = word.strip_prefix(':').unwrap_or(word);
        let port = port.parse().map_err(|_| format!("filter: `{word}` is not a port; write it as :443"))?;
        Ok(Filter::Port { end, op, port })
    }
}

/// `10.0.0.1`, `10.0.0.0/8`, `10.0.0.1:443`, `:443`, `2001:db8::1`, `[2001:db8::1]:443`.
fn split_port(word: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = word.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return if rest.is_empty() { Some((host, None)) } else { Some((host, Some(rest.strip_prefix(':')?))) };
    }
    match word.matches(':').count() {
        1 => word.split_once(':').map(|(host, port)| (host, Some(port))),
        _ => Some((word, None)),
    }
}

#[cfg(test)]
mod tests;
