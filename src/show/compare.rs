//! `audit --compare`: what a change did to each workload's connections, from a report before it and one after it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::escape;
use super::workload;
use crate::judge::report::{Direction, Finding, Report, ServiceEndpoint};
use crate::judge::verdict::Verdict;
use crate::owner::NsId;
use crate::socket::{Cookie, Endpoint};

/// What became of one workload's connections with one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Opened since the recording, and protected.
    pub new_protected: usize,
    /// Opened since the recording, and not protected.
    pub new_unprotected: usize,
    /// Unprotected in the recording, protected now.
    pub fixed_in_place: usize,
    /// Open in the recording, and still unprotected.
    pub old_unprotected: usize,
    /// Open in the recording and protected now; `fixed_in_place` ones included.
    pub old_protected: usize,
    /// Unprotected in the recording, closed since.
    pub gone_unprotected: usize,
    /// Envoy holds them, under one of its names.
    pub envoy: bool,
}

/// What the comparison shows of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Everything opened since is protected.
    Took,
    /// Some of what was opened since is.
    Partly,
    /// Nothing of what was opened since is.
    Failed,
    /// Nothing was opened since, but open connections changed.
    InPlace,
    /// Nothing was opened since.
    Unseen,
}

type Key = (String, Direction, ServiceEndpoint);
/// Cookies are unique while a machine is up; with the addresses, a recording from before a restart matches nothing.
type Identity = (NsId, Cookie, Endpoint, Endpoint);

/// Every workload and endpoint with a connection that is or was unprotected, and what became of it.
#[must_use]
pub fn changes(before: &Report, after: &Report) -> BTreeMap<Key, Change> {
    let mut old: HashMap<Identity, &Finding> =
        before.findings.iter().map(|finding| (identity(finding), finding)).collect();
    let mut changes: BTreeMap<Key, Change> = BTreeMap::new();
    for finding in &after.findings {
        let was = old.remove(&identity(finding));
        let change = changes.entry(key(finding)).or_default();
        let program = finding.holder.as_ref().map(|holder| holder.program());
        let names = [finding.owner.container.as_deref(), program];
        change.envoy |= names.into_iter().flatten().any(is_envoy);
        match (was, protected(finding), unprotected(finding)) {
            (None, true, _) => change.new_protected += 1,
            (None, _, true) => change.new_unprotected += 1,
            (Some(was), true, _) => {
                change.old_protected += 1;
                change.fixed_in_place += usize::from(unprotected(was));
            }
            (Some(_), _, true) => change.old_unprotected += 1,
            _ => {}
        }
    }
    for finding in old.into_values().filter(|finding| unprotected(finding)) {
        changes.entry(key(finding)).or_default().gone_unprotected += 1;
    }
    changes.retain(|_, c| c.new_unprotected + c.fixed_in_place + c.old_unprotected + c.gone_unprotected > 0);
    changes
}

/// The comparison, for stdout.
#[must_use]
pub fn compare(before: &Report, after: &Report) -> String {
    let changes = changes(before, after);
    if changes.is_empty() {
        return "No connection was unprotected, neither before nor now.\n".into();
    }
    let paragraphs = changes.iter().map(|((workload, direction, endpoint), change)| {
        let preposition = if *direction == Direction::Outbound { "to" } else { "on" };
        format!(
            "{}, {} {preposition} {endpoint}\n{}\n",
            escape::line(workload),
            direction.name(),
            EffectText { change, direction: *direction }
        )
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}

/// Whether every change took effect. `None` if no new connection shows it.
#[must_use]
pub fn took_effect(before: &Report, after: &Report) -> Option<bool> {
    let changes = changes(before, after);
    let effects = || changes.values().map(Change::effect);
    if effects().any(|effect| matches!(effect, Effect::Failed | Effect::Partly)) {
        return Some(false);
    }
    let is_shown = !changes.is_empty() && effects().all(|effect| effect != Effect::Unseen);
    is_shown.then_some(true)
}

impl Effect {
    /// The JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Took => "took_effect",
            Self::Partly => "in_part",
            Self::Failed => "failed",
            Self::InPlace => "in_place",
            Self::Unseen => "unseen",
        }
    }
}

impl Change {
    /// What the connections opened since say of the change.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match (self.new_protected, self.new_unprotected) {
            (0, 0) if self.fixed_in_place > 0 => Effect::InPlace,
            (0, 0) => Effect::Unseen,
            (_, 0) => Effect::Took,
            (0, _) => Effect::Failed,
            _ => Effect::Partly,
        }
    }

    fn survivors(&self) -> usize {
        self.old_protected + self.old_unprotected
    }
}

struct EffectText<'a> {
    change: &'a Change,
    direction: Direction,
}

impl fmt::Display for EffectText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { new_protected, new_unprotected, fixed_in_place, old_unprotected, gone_unprotected, envoy, .. } =
            *self.change;
        writeln!(
            f,
            "  newly protected {new_protected}, new but unprotected {new_unprotected}, \
             fixed while open {fixed_in_place}, old and unprotected {old_unprotected}, \
             unprotected and closed since {gone_unprotected}"
        )?;
        let effect = self.change.effect();
        let opened = if self.direction == Direction::Outbound { "opens" } else { "accepts" };
        f.write_str(match effect {
            Effect::Took => "  It took effect: every connection opened since the recording is protected.",
            Effect::Partly => {
                "  It took effect in part: some connections opened since the recording are protected, others are not."
            }
            Effect::Failed => "  It did not take effect: connections opened since the recording are still unprotected.",
            Effect::InPlace => "  It took effect on open connections; none was opened since the recording.",
            Effect::Unseen => "  Nothing can be said yet: no connection was opened since the recording.",
        })?;
        if envoy {
            match (effect, self.change.survivors()) {
                (Effect::Took | Effect::InPlace, 0) => {
                    f.write_str(" Envoy needs no restart: no connection from before is left.")?;
                }
                (Effect::Took | Effect::InPlace, survivors) => write!(
                    f,
                    " Envoy needs no restart: the Envoy that still holds {survivors} from before {opened} \
                     protected ones."
                )?,
                (Effect::Failed | Effect::Partly, _) if self.direction == Direction::Inbound => f.write_str(
                    " Restart Envoy if the setting has reached it (config_dump): this listener still has its old \
                     sockets.",
                )?,
                (Effect::Failed | Effect::Partly, _) => f.write_str(
                    " A cluster takes the setting without a restart of Envoy: check whether it has reached this proxy \
                     (config_dump).",
                )?,
                (Effect::Unseen, _) => f.write_str(" Open a connection through Envoy and compare again.")?,
            }
        }
        if old_unprotected > 0 {
            let what = match (envoy, self.direction) {
                (true, Direction::Inbound) => {
                    "a restart or drain of the proxy, its clients' reconnects, or max_connection_duration"
                }
                (true, Direction::Outbound) => {
                    "a restart or drain of the proxy, the end of the downstream connections, or maxConnectionDuration"
                }
                (false, _) => {
                    "the program's own reconnects, the maximum lifetime of its pool, or a restart of either end"
                }
            };
            let since = match effect {
                Effect::Took | Effect::Partly | Effect::InPlace => "opened before the change stay as they are",
                Effect::Failed | Effect::Unseen => "from before the recording are still open",
            };
            write!(
                f,
                "\n  {old_unprotected} {since}: a socket takes its keepalive when it is opened. They end with \
                 {what}."
            )?;
        }
        Ok(())
    }
}

fn key(finding: &Finding) -> Key {
    (workload::of(&finding.owner), finding.direction, finding.endpoint())
}

fn identity(finding: &Finding) -> Identity {
    (finding.netns, finding.cookie, finding.local, finding.remote)
}

fn protected(finding: &Finding) -> bool {
    matches!(finding.verdict, Verdict::Protected | Verdict::AppProtected)
}

/// A young connection without keepalive will be flagged once it is old enough.
fn unprotected(finding: &Finding) -> bool {
    finding.verdict.flagged() || finding.verdict == Verdict::Young
}

/// Container and executable names under which Envoy runs.
fn is_envoy(name: &str) -> bool {
    matches!(name, "istio-proxy" | "gateway-proxy" | "kgateway-proxy") || name.starts_with("envoy")
}
