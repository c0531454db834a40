//! What the overview says below its groups: what limits the numbers, what was not judged, and what to do next.

use super::{Overview, count};
use crate::judge::verdict::Verdict;
use crate::owner::OwnerKind;
use crate::show::groups::Group;
use crate::show::units::Human;
use crate::show::{escape, limits, node_limits, workload};

impl Overview<'_> {
    /// What limits the numbers.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let report = &*self.report;
        let mut notes: Vec<_> = limits::contradictions(report).map(|text| escape::line(&text).into_owned()).collect();
        notes.extend(node_limits::notes(report));
        if report.incomplete {
            let unread = match report.namespaces.failed {
                0 => String::new(),
                failed => format!(", {} could not be read", count(failed, "network namespace")),
            };
            notes.push(format!("incomplete{unread}: see the warnings"));
        }
        if report.stale.namespaces > 0 {
            let age = Human(report.stale.age);
            notes.push(format!("{} are shown as they were {age} ago", count(report.stale.connections, "connection")));
        }
        notes
    }

    /// Why connections are not judged, or not as bad as they may be, and what would change that.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let report = &*self.report;
        let mut notes = Vec::new();
        if report.ignored > 0 {
            notes.push(format!("{} under an `ignore` rule", are(report.ignored)));
        }
        if self.local_between_namespaces > 0 {
            let local = self.local_between_namespaces;
            notes.push(format!("{} local to this node: --local-scope namespace judges them", are(local)));
        }
        if report.count(Verdict::Young) > 0 {
            let young = are(report.count(Verdict::Young));
            notes.push(format!("{young} young and without keepalive: --long-lived 1m judges them sooner"));
        }
        if report.count(Verdict::Undetermined) > 0 {
            let hidden = are(report.count(Verdict::Undetermined));
            notes.push(format!("{hidden} undetermined: --exact reads the options, --for 60s waits for the timer"));
        }
        notes
    }

    /// What to do next.
    pub(super) fn hints(&self) -> Vec<String> {
        if self.report.flagged() == 0 {
            let all = ["each connection: --list --all", "what a word means: keepalive-auditor explain WORD"];
            return if self.report.connections == 0 { Vec::new() } else { all.map(str::to_owned).to_vec() };
        }
        let mut hints = vec!["why and what to configure: --explain".to_owned(), "each connection: --list".to_owned()];
        hints.extend(self.groups.first().and_then(owner_glob).map(|glob| format!("one owner: --owner '{glob}'")));
        hints
    }
}

/// A glob that selects the owners of a group; `None` where a shell could misread the name.
pub fn owner_glob(group: &Group) -> Option<String> {
    let owner = &group.worst.first()?.owner;
    let glob = match (owner.kind, &owner.namespace, &owner.pod) {
        (OwnerKind::Pod, Some(namespace), Some(pod)) => {
            format!("{namespace}/{}*", workload::name(pod, ""))
        }
        _ => owner.container.clone()?,
    };
    let is_plain = glob.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@:*".contains(c));
    is_plain.then_some(glob)
}

/// `1 is`, `2 are`
fn are(number: u64) -> String {
    format!("{number} {}", if number == 1 { "is" } else { "are" })
}
