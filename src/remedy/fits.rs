//! Which remedies fit a connection: the conditions in the front matter of the targets, tested against what is known.

use std::fmt;

use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::target::{Helps, Reach, Side, Target};
use crate::judge::report::Direction;
use crate::judge::verdict::Keepalive;
use crate::owner::{Binary, Holder, Language, Linking, Owner, OwnerKind};

/// What decides which remedies fit a connection.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The process that holds the socket.
    pub held_by: HeldBy<'a>,
    /// The owner.
    pub owner: &'a Owner,
    /// Whether the socket is in the host's network namespace. `None` if it is not known which one that is.
    pub host_network: Option<bool>,
    /// Who opened the connection.
    pub direction: Direction,
    /// The port of the listening end.
    pub port: u16,
    /// `off` or `late`.
    pub keepalive: Keepalive,
    /// Whether the times are the system's default.
    pub is_default: bool,
    /// A middlebox of the path reads HTTP/2 itself and does not count PING frames.
    pub reads_http2: bool,
}

/// Who holds a socket.
#[derive(Clone, Copy, Debug)]
pub enum HeldBy<'a> {
    /// This process.
    Process(&'a Holder),
    /// No process that could be read: a kernel module holds it, or it is not accepted yet.
    Nobody,
    /// The processes were not searched.
    Unknown,
}

/// The remedies for a situation.
#[derive(Clone, Debug, Default)]
pub struct Fitting<'t> {
    /// Those that fit, best first.
    pub targets: Vec<&'t Target>,
    /// Those in the program's own code, where its language is not known.
    pub in_code: Vec<&'t Target>,
}

/// What a target is particular to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    /// The program, in a container that is configured by a product.
    Product,
    /// The program, or a library in it.
    Program,
    /// The language of an executable.
    Language,
    /// Any program.
    Any,
}

/// The remedies that fit: configuration first, from the most particular on, then code, then what is left.
///
/// A product decides alone: `envoy` in `istio-proxy` is configured by Istio. Where a program can be configured, nobody
/// needs to build it again.
#[must_use]
pub fn fitting<'t>(targets: &'t [Target], situation: &Situation<'_>) -> Fitting<'t> {
    let mut matches: Vec<_> = targets.iter().filter_map(|t| Some((situation.matches(t)?, t))).collect();
    let is_product = matches.iter().any(|(how, _)| *how == Match::Product);
    let is_configured = matches.iter().any(|(how, target)| *how <= Match::Program && !target.is_language);
    let is_known = matches.iter().any(|(how, _)| *how != Match::Any);
    matches.retain(|(how, target)| {
        let is_of_product = is_product && *how == Match::Program;
        let is_needless = is_configured && (target.is_last_resort || *how == Match::Language);
        !(is_of_product || is_needless)
    });
    matches.sort_by_key(|(how, target)| {
        let is_left = target.is_last_resort && !target.is_language;
        (is_left, target.is_language, *how, target.name.as_str())
    });
    let is_for_code = situation.keepalive == Keepalive::Off && !is_known;
    let in_code = |target: &&Target| {
        is_for_code && target.is_language && !matches.iter().any(|(_, other)| other.name == target.name)
    };
    let in_code = targets.iter().filter(in_code).filter(|target| situation.may_match(target)).collect();
    Fitting { targets: matches.into_iter().map(|(_, target)| target).collect(), in_code }
}

impl Situation<'_> {
    fn matches(&self, target: &Target) -> Option<Match> {
        let helps = target.helps.iter().any(|helps| match helps {
            Helps::Off => self.keepalive == Keepalive::Off,
            Helps::Late => self.keepalive == Keepalive::Late,
            Helps::Default => self.keepalive == Keepalive::Late && self.is_default,
        });
        let reaches = match target.direction {
            Reach::Both => true,
            Reach::Inbound => self.direction == Direction::Inbound,
            Reach::Outbound => self.direction == Direction::Outbound,
        };
        // no program has a socket that nobody holds
        let is_held = target.side != Side::Application || !matches!(self.held_by, HeldBy::Nobody);
        let counts = !(target.sends_pings && self.reads_http2);
        if !(helps && reaches && is_held && counts) {
            return None;
        }
        target.fits.0.iter().filter_map(|conditions| conditions.test(self)).min()
    }

    /// Whether a target would match if what is not known of the program were as it needs.
    fn may_match(&self, target: &Target) -> bool {
        !matches!(self.held_by, HeldBy::Nobody) && target.fits.0.iter().any(|conditions| conditions.may_hold(self))
    }

    fn holder(&self) -> Option<&Holder> {
        match self.held_by {
            HeldBy::Process(holder) => Some(holder),
            HeldBy::Nobody | HeldBy::Unknown => None,
        }
    }
}

/// The alternatives of a target: one that fits is enough. Without any it fits nothing.
#[derive(Clone, Debug, Default)]
pub struct Fits(Vec<Conditions>);

impl<'de> Deserialize<'de> for Fits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Fits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("conditions, or a list of them")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fits, A::Error> {
                Ok(Fits(vec![Conditions::deserialize(MapAccessDeserializer::new(map))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Fits, A::Error> {
                Ok(Fits(Vec::deserialize(SeqAccessDeserializer::new(seq))?))
            }
        }
        from.deserialize_any(OneOrMany)
    }
}

/// Conditions that must all hold. An absent one always does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Conditions {
    /// Globs of the program's names.
    programs: Vec<NameGlob>,
    /// Globs of programs that it is not for.
    not_programs: Vec<NameGlob>,
    /// Globs of the container's name.
    containers: Vec<NameGlob>,
    /// Globs of containers that it is not for.
    not_containers: Vec<NameGlob>,
    /// Globs of the pod's name.
    pods: Vec<NameGlob>,
    /// Globs of pods that it is not for.
    not_pods: Vec<NameGlob>,
    /// Globs of the pod's namespace.
    namespaces: Vec<NameGlob>,
    /// What the ELF headers say: one of these.
    binary: Vec<Mark>,
    /// What they must not say.
    not_binary: Vec<Mark>,
    /// Globs of the shared libraries in the program: one of these.
    libraries: Vec<NameGlob>,
    /// Globs of shared libraries that must not be in it.
    not_libraries: Vec<NameGlob>,
    /// Ports of the listening end.
    ports: Vec<u16>,
    /// Ports of the listening end that it is not for.
    not_ports: Vec<u16>,
    /// Kinds of owner.
    owners: Vec<OwnerKind>,
    /// Whether the socket is in the host's network namespace.
    host_network: Option<bool>,
}

/// A mark of an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Dynamic,
    Static,
    Go,
    Rust,
}

impl Mark {
    fn is_of(self, binary: Binary) -> bool {
        match self {
            Self::Dynamic => binary.linking == Linking::Dynamic,
            Self::Static => binary.linking == Linking::Static,
            Self::Go => binary.language == Some(Language::Go),
            Self::Rust => binary.language == Some(Language::Rust),
        }
    }

    fn is_language(self) -> bool {
        matches!(self, Self::Go | Self::Rust)
    }
}

impl Conditions {
    fn test(&self, situation: &Situation<'_>) -> Option<Match> {
        (self.holds_around(situation) && self.holds_in_program(situation, false)).then(|| self.level())
    }

    fn may_hold(&self, situation: &Situation<'_>) -> bool {
        self.holds_around(situation) && self.holds_in_program(situation, true)
    }

    /// The conditions on the owner and the connection.
    fn holds_around(&self, situation: &Situation<'_>) -> bool {
        let Situation { owner, port, .. } = *situation;
        let of = |globs: &[NameGlob], name: &Option<String>| any(globs, name.as_deref().into_iter());
        let allows = |globs: &[NameGlob], name| globs.is_empty() || of(globs, name);
        allows(&self.containers, &owner.container)
            && allows(&self.pods, &owner.pod)
            && allows(&self.namespaces, &owner.namespace)
            && !of(&self.not_containers, &owner.container)
            && !of(&self.not_pods, &owner.pod)
            && (self.ports.is_empty() || self.ports.contains(&port))
            && !self.not_ports.contains(&port)
            && (self.owners.is_empty() || self.owners.contains(&owner.kind))
            && self.host_network.is_none_or(|of_host| situation.host_network == Some(of_host))
    }

    /// The conditions on the program. `unknown` stands for the answer where it is not known. But if nobody searched
    /// for the process, the container's name is enough for a target that has one.
    fn holds_in_program(&self, situation: &Situation<'_>, unknown: bool) -> bool {
        let Some(holder) = situation.holder() else {
            let needs_none = self.programs.is_empty() && self.binary.is_empty() && self.libraries.is_empty();
            let by_container = matches!(situation.held_by, HeldBy::Unknown) && !self.containers.is_empty();
            return needs_none || by_container || unknown;
        };
        let libraries = || holder.libraries.iter().map(String::as_str);
        let has_one = |marks: &[Mark], binary| marks.iter().any(|mark| mark.is_of(binary));
        (self.programs.is_empty() || any(&self.programs, holder.names()))
            && !any(&self.not_programs, holder.names())
            && (self.binary.is_empty() || holder.binary.map_or(unknown, |binary| has_one(&self.binary, binary)))
            && !holder.binary.is_some_and(|binary| has_one(&self.not_binary, binary))
            && (self.libraries.is_empty() || any(&self.libraries, libraries()))
            && !any(&self.not_libraries, libraries())
    }

    fn level(&self) -> Match {
        if !self.containers.is_empty() {
            Match::Product
        } else if !(self.programs.is_empty() && self.libraries.is_empty()) {
            Match::Program
        } else if self.binary.iter().any(|mark| mark.is_language()) {
            Match::Language
        } else {
            Match::Any
        }
    }
}

fn any<'n>(globs: &[NameGlob], mut names: impl Iterator<Item = &'n str>) -> bool {
    !globs.is_empty() && names.any(|name| globs.iter().any(|glob| glob.0.is_match(name)))
}

/// A glob of names.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
struct NameGlob(GlobMatcher);

impl fmt::Debug for NameGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.glob().glob().fmt(f)
    }
}

impl TryFrom<String> for NameGlob {
    type Error = globset::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Glob::new(&text).map(|glob| Self(glob.compile_matcher()))
    }
}

#[cfg(test)]
#[path = "fits_tests.rs"]
mod tests;
