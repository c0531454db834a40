//! The filter language of `ss`, parsed.
//!
//! Terms: `src`, `dst` with an address, a network or `*`, each with a port; `sport`, `dport` compared with a port;
//! `state established`; and our own words. Comparisons: `= == != < <= > >=` and their words (`eq ne lt le gt ge`).
//! Terms combine by `and`, `or`, `not`, `& | !` and parentheses; terms side by side mean `and`. As in ss, `and` and
//! `or` bind equally and are evaluated from left to right.

use super::host::host;
use super::{End, Filter, Op, canonical};
use crate::words::did_you_mean;

/// Deeper nesting than any person writes; the parser calls itself.
const MAX_DEPTH: usize = 64;
/// Longer than any person writes; the tree of a chain of terms is as deep as the chain is long.
const MAX_WORDS: usize = 1000;
/// Characters before and after the fault that an error shows.
const SHOWN: usize = 40;
/// What a term may begin with.
pub(super) const TERMS: [&str; 17] = [
    "src",
    "dst",
    "sport",
    "dport",
    "state",
    "not",
    "(",
    "verdict",
    "keepalive",
    "direction",
    "owner",
    "namespace",
    "pod",
    "container",
    "program",
    "idle",
    "age",
];
/// Services that are known without a file.
const SERVICES: [(&str, u16); 20] = [
    ("amqp", 5672),
    ("amqps", 5671),
    ("domain", 53),
    ("ftp", 21),
    ("http", 80),
    ("https", 443),
    ("imaps", 993),
    ("kerberos", 88),
    ("ldap", 389),
    ("ldaps", 636),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("nfs", 2049),
    ("pop3s", 995),
    ("postgresql", 5432),
    ("redis", 6379),
    ("smtp", 25),
    ("ssh", 22),
    ("submission", 587),
    ("telnet", 23),
];
/// The TCP states that ss knows and that are not judged.
const OTHER_STATES: [&str; 10] = [
    "syn-sent",
    "syn-recv",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "closed",
    "close-wait",
    "last-ack",
    "listening",
    "closing",
];

pub(super) fn parse(text: &str, service: &dyn Fn(&str) -> Option<u16>) -> Result<Filter, String> {
    let words = split(text);
    if words.len() > MAX_WORDS {
        return Err(format!("filter: it has more than {MAX_WORDS} words"));
    }
    let mut parser = Parser { text, words, at: 0, depth: 0, service };
    let filter = parser.list()?;
    match parser.peek() {
        None => Ok(filter),
        Some(word) => Err(parser.fault(parser.at, &format!("`{word}` closes nothing"))),
    }
}

/// The words with their places in the text. Operators and parentheses need no blanks around them.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut start = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let is_operator = matches!(c, '(' | ')' | '&' | '|' | '=' | '<' | '>' | '!');
        if !is_operator && !c.is_whitespace() {
            start.get_or_insert(at);
            continue;
        }
        words.extend(start.take().map(|start| (start, &text[start..at])));
        if is_operator {
            let doubled = |&(_, next): &(usize, char)| next == '=' || (next == c && matches!(c, '&' | '|'));
            let end = chars.next_if(doubled).map_or(at + 1, |(at, _)| at + 1);
            words.push((at, &text[at..end]));
        }
    }
    words.extend(start.map(|start| (start, &text[start..])));
    words
}

pub(super) struct Parser<'a> {
    text: &'a str,
    words: Vec<(usize, &'a str)>,
    pub at: usize,
    depth: usize,
    service: &'a dyn Fn(&str) -> Option<u16>,
}

impl<'a> Parser<'a> {
    pub fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(|(_, word)| *word)
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| words.contains(&word));
        self.at += usize::from(found);
        found
    }

    pub fn next(&mut self, wanted: &str) -> Result<&'a str, String> {
        let Some(word) = self.peek() else {
            return Err(self.fault(self.at, &format!("it ends where {wanted} is expected")));
        };
        self.at += 1;
        Ok(word)
    }

    /// A sentence, and below it the expression with marks under the word at fault.
    pub fn fault(&self, word: usize, sentence: &str) -> String {
        let (at, length) = self
            .words
            .get(word)
            .map_or((self.text.trim_end().len(), 1), |(at, word)| (*at, word.chars().count().min(SHOWN)));
        let printable = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        let before: Vec<char> = printable(&self.text[..at]).chars().rev().take(SHOWN).collect();
        let before: String = before.into_iter().rev().collect();
        let after: String = printable(&self.text[at..]).chars().take(SHOWN + length).collect();
        let (blanks, marks) = (" ".repeat(before.chars().count()), "^".repeat(length));
        let sentence = printable(sentence);
        format!("filter: {sentence}\n  {before}{after}\n  {blanks}{marks}")
    }

    /// Terms, evaluated from left to right.
    fn list(&mut self) -> Result<Filter, String> {
        let mut left = self.term()?;
        loop {
            if self.take(&["or", "|", "||"]) {
                left = Filter::Or(Box::new(left), Box::new(self.term()?));
            } else if self.take(&["and", "&", "&&"]) || self.peek().is_some_and(|word| word != ")") {
                left = Filter::And(Box::new(left), Box::new(self.term()?));
            } else {
                return Ok(left);
            }
        }
    }

    fn term(&mut self) -> Result<Filter, String> {
        let at = self.at;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("filter: nested too deeply".to_owned());
        }
        let term = match self.next("a term such as `dport = :443`")? {
            "not" | "!" => Filter::Not(Box::new(self.term()?)),
            "(" => {
                let inner = self.list()?;
                if !self.take(&[")"]) {
                    return Err(self.fault(at, "`(` is not closed by `)`"));
                }
                inner
            }
            "src" => self.host(End::Local)?,
            "dst" => self.host(End::Remote)?,
            "sport" => self.port(End::Local)?,
            "dport" => self.port(End::Remote)?,
            "state" => self.state()?,
            "dev" => return Err(self.fault(at, "the device that a socket is bound to is not read")),
            word => self.fact(at, word)?,
        };
        self.depth -= 1;
        Ok(term)
    }

    /// What is read is established: the word is accepted, as in a line that was written for ss.
    fn state(&mut self) -> Result<Filter, String> {
        let at = self.at;
        match self.next("`established`")? {
            "established" => Ok(Filter::Host { end: End::Local, net: None, port: None }),
            word if OTHER_STATES.contains(&word) => {
                Err(self
                    .fault(at, &format!("connections in state `{word}` are not judged; only `established` ones are")))
            }
            word => {
                let near = did_you_mean(word, OTHER_STATES.iter().copied().chain(["established"]));
                Err(self.fault(at, &format!("`{word}` is not a state{near}")))
            }
        }
    }

    fn host(&mut self, end: End) -> Result<Filter, String> {
        let is_not = self.take(&["!=", "ne", "neq"]);
        if !is_not {
            self.take(&["=", "==", "eq"]);
        }
        let at = self.at;
        let word = self.next("an address such as 10.0.0.0/8 or [2001:db8::1]:443")?;
        let host = host(word).map_err(|reason| self.fault(at, &format!("`{word}` {reason}")))?;
        let port = match host.port {
            None | Some("*" | "") => None,
            Some(port) => Some(self.number(at, port)?),
        };
        let filter = Filter::Host { end, net: host.net.map(canonical), port };
        Ok(if is_not { Filter::Not(Box::new(filter)) } else { filter })
    }

    fn port(&mut self, end: End) -> Result<Filter, String> {
        let op = self.peek().and_then(Op::parse);
        self.at += usize::from(op.is_some());
        let at = self.at;
        let word = self.next("a port such as :443")?;
        let port = word.strip_prefix(':').unwrap_or(word);
        match (port, op.unwrap_or(Op::Eq)) {
            ("*", Op::Eq) => Ok(Filter::Host { end, net: None, port: None }),
            (port, op) => Ok(Filter::Port { end, op, port: self.number(at, port)? }),
        }
    }

    /// A port: decimal, hexadecimal, or the name of a service.
    fn number(&self, at: usize, port: &str) -> Result<u16, String> {
        let is_octal = port.len() > 1 && port.starts_with('0') && port.bytes().all(|digit| digit.is_ascii_digit());
        let hex = port.strip_prefix("0x").or_else(|| port.strip_prefix("0X"));
        let known = || SERVICES.iter().find(|(name, _)| *name == port).map(|(_, number)| *number);
        let number = match hex {
            Some(hex) => u16::from_str_radix(hex, 16).ok(),
            None => port.parse().ok().filter(|_| !is_octal).or_else(known).or_else(|| (self.service)(port)),
        };
        number.ok_or_else(|| {
            let near = did_you_mean(port, SERVICES.iter().map(|(name, _)| *name));
            let why =
                if is_octal { "ss reads a leading zero as octal; leave it out" } else { "write it as :443 or :https" };
            self.fault(at, &format!("`{port}` is not a port; {why}{near}"))
        })
    }
}
