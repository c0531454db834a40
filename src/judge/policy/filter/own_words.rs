//! Our own words in the filter language, parsed: `verdict = overdue`, `idle > 5m`, `owner = shop/*`.

use globset::Glob;

use super::facts::{Fact, Named, Span};
use super::parse::{Parser, TERMS};
use super::{Filter, Op};
use crate::judge::memory::Millis;
use crate::judge::report::Direction;
use crate::judge::verdict::{Keepalive, Verdict};
use crate::words::suggest;

/// The longest glob.
const MAX_GLOB: usize = 256;

impl Parser<'_> {
    /// The term that begins with `word`, which is at `at`.
    pub fn fact(&mut self, at: usize, word: &str) -> Result<Filter, String> {
        let name = |named| (Some(named), None);
        let (named, span) = match word {
            "verdict" | "keepalive" | "direction" => (None, None),
            "owner" => name(Named::Owner),
            "namespace" => name(Named::Namespace),
            "pod" => name(Named::Pod),
            "container" => name(Named::Container),
            "program" => name(Named::Program),
            "idle" => (None, Some(Span::Idle)),
            "age" => (None, Some(Span::Age)),
            _ => return Err(self.fault(at, &format!("`{word}` is not a term{}", suggest(word, TERMS)))),
        };
        let op = self.peek().and_then(Op::parse);
        self.at += usize::from(op.is_some());
        if let Some(span) = span {
            let value_at = self.at;
            let value = self.next("a duration such as 5m")?;
            let than = humantime::parse_duration(value).map_err(|_| {
                self.fault(value_at, &format!("`{value}` is not a duration; write a number and a unit, like 90s or 5m"))
            })?;
            return Ok(Filter::Fact(Fact::Span(span, op.unwrap_or(Op::Ge), Millis::from(than))));
        }
        if let Some(Op::Lt | Op::Le | Op::Gt | Op::Ge) = op {
            return Err(self.fault(at + 1, &format!("`{word}` is compared by = or !=")));
        }
        let value_at = self.at;
        let value = self.next("a value")?.trim_matches(['\'', '"']);
        let known = |word: &str, names: &[&'static str]| {
            self.fault(value_at, &format!("`{value}` is not a {word}{}", suggest(value, names.iter().copied())))
        };
        let fact = match (named, word) {
            (Some(named), _) => {
                let glob = Glob::new(value).ok().filter(|_| value.len() <= MAX_GLOB && !value.contains('{'));
                let glob =
                    glob.ok_or_else(|| self.fault(value_at, &format!("`{value}` is not a glob such as shop/*")))?;
                Fact::Name(named, glob.compile_matcher())
            }
            (None, "verdict") => Verdict::ALL
                .into_iter()
                .find(|verdict| verdict.name() == value)
                .map(Fact::Verdict)
                .ok_or_else(|| known(word, &Verdict::ALL.map(Verdict::name)))?,
            (None, "keepalive") => Keepalive::ALL
                .into_iter()
                .find(|keepalive| keepalive.name() == value)
                .map(Fact::Keepalive)
                .ok_or_else(|| known("keepalive state", &Keepalive::ALL.map(Keepalive::name)))?,
            _ => [Direction::Inbound, Direction::Outbound]
                .into_iter()
                .find(|direction| direction.name() == value)
                .map(Fact::Direction)
                .ok_or_else(|| known(word, &["inbound", "outbound"]))?,
        };
        let fact = Filter::Fact(fact);
        Ok(if op == Some(Op::Ne) { Filter::Not(Box::new(fact)) } else { fact })
    }
}
