//! Connections that have the same owner, program, endpoint and cause, as one group. What is said of a group is true of
//! all its members.

mod key;

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::judge::cause::{Cause, SystemDefault, probes_after_seconds};
use crate::judge::report::{Direction, Finding, Millis, Path, ServiceEndpoint};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::Holder;
use key::{Key, Processes};

/// As many different values of one property are groups of their own; more become one group.
const MAX_APART: usize = 4;
/// The most connections that a group has in detail.
pub const MAX_SAMPLES: usize = 5;

/// What makes groups of their own, beside owner, program, direction, path, keepalive state and cause.
#[derive(Clone, Copy, Debug, Default)]
pub struct Split {
    /// Each verdict.
    pub verdicts: bool,
    /// Each endpoint, even if one program has many on one port.
    pub endpoints: bool,
}

/// The endpoints of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoints {
    /// All members have this one.
    One(ServiceEndpoint),
    /// Several remote addresses with this port.
    Port(u16),
}

/// How a connection differs from an earlier sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    New,
    /// Its verdict was worse.
    Better,
    /// Its verdict was better.
    Worse,
}

/// Connections that need the same change.
#[derive(Clone, Debug)]
pub struct Group {
    /// As the table writes the owner, with the workload's name for the pod's.
    pub workload: String,
    /// Who opened the connections.
    pub direction: Direction,
    /// The listening end.
    pub endpoints: Endpoints,
    /// The name of the program, where the sweep read it.
    pub program: Option<String>,
    /// The path.
    pub path: Arc<Path>,
    /// What the local side does.
    pub keepalive: Keepalive,
    /// Why they are flagged; `None` if they are not.
    pub cause: Option<Cause>,
    /// After how many seconds a probe may come, where that is the cause: the shortest and the longest.
    pub seconds: Option<(u64, u64)>,
    /// How many members have each verdict, in the order of [`Verdict::ALL`].
    pub verdicts: [usize; Verdict::COUNT],
    /// The pods.
    pub pods: BTreeSet<String>,
    /// The processes.
    pub processes: BTreeSet<Arc<Holder>>,
    /// The remote addresses, where there are several.
    pub addresses: BTreeSet<ServiceEndpoint>,
    /// The longest idle time that counts on the path.
    pub idle: Option<Millis>,
    /// The longest time since the peer was heard.
    pub last_heard: Option<Millis>,
    /// The timer of every member shows the system's default itself, where that is the cause.
    pub is_default_shown: bool,
    /// The shortest and the longest `TCP_USER_TIMEOUT`; zero where it is off or was not read.
    pub user_timeouts: (Millis, Millis),
    /// How many sent last and wait for a reply.
    pub waiting: usize,
    /// The worst members.
    pub worst: Vec<Finding>,
    /// How many members differ from an earlier sweep, in the order of [`Change`].
    pub changes: [usize; 3],
}

/// The groups, worst first and then the largest first. The findings are worst first.
pub fn groups(findings: impl Iterator<Item: Borrow<Finding>>, split: Split) -> Vec<Group> {
    compared(findings, split, |_| None)
}

/// The same, with each finding compared with an earlier sweep.
pub fn compared(
    findings: impl Iterator<Item: Borrow<Finding>>,
    split: Split,
    change: impl Fn(&Finding) -> Option<Change>,
) -> Vec<Group> {
    let mut processes = Processes::default();
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    for finding in findings {
        let finding = finding.borrow();
        let key = Key::of(finding, split, &mut processes);
        let group = groups.entry(key).or_insert_with_key(|key| Group::new(key.workload.clone(), finding));
        group.add(finding);
        if let Some(change) = change(finding) {
            group.changes[change as usize] += 1;
        }
    }
    groups = key::fold(groups, |key| Key { seconds: None, ..key.clone() });
    groups = key::fold(groups, |key| Key { process: 0, ..key.clone() });
    if !split.endpoints {
        groups = key::fold(groups, |key| match key.endpoints {
            Endpoints::One(ServiceEndpoint::Remote(remote)) => {
                Key { endpoints: Endpoints::Port(remote.port), ..key.clone() }
            }
            _ => key.clone(),
        });
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    // the order of processes must not change from sweep to sweep
    let pid = |group: &Group| group.processes.first().map(|holder| holder.pid);
    groups.sort_by(|one, other| {
        let worst = |group: &Group| (group.verdict(), Reverse(group.connections()), group.direction, group.endpoints);
        worst(one)
            .cmp(&worst(other))
            .then_with(|| (&one.workload, &one.program, pid(one)).cmp(&(&other.workload, &other.program, pid(other))))
    });
    groups
}

/// After how many seconds a probe may come, where that is the cause.
fn seconds(finding: &Finding, cause: Option<Cause>) -> Option<u64> {
    let timed = matches!(cause, Some(Cause::SystemDefault | Cause::KeepidleTooLong | Cause::KeepintvlTooLong));
    let default = SystemDefault::of(finding).map(SystemDefault::seconds);
    default.or(probes_after_seconds(finding)).filter(|_| timed)
}

fn user_timeout(finding: &Finding) -> Millis {
    Millis::from(finding.exact.and_then(|exact| exact.tcp_user_timeout).unwrap_or(0))
}

/// The idle time that counts on the path of a connection.
#[must_use]
pub fn idle(finding: &Finding) -> Option<Millis> {
    finding.idle()
}

impl Group {
    fn new(workload: String, finding: &Finding) -> Self {
        let cause = Cause::of(finding);
        Self {
            workload,
            direction: finding.direction,
            endpoints: Endpoints::One(finding.endpoint()),
            program: finding.holder.as_deref().map(|holder| holder.program().to_owned()),
            path: Arc::clone(&finding.path),
            keepalive: finding.keepalive,
            cause,
            seconds: None,
            verdicts: [0; Verdict::COUNT],
            pods: BTreeSet::new(),
            processes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            idle: None,
            last_heard: None,
            is_default_shown: true,
            user_timeouts: (user_timeout(finding), Millis::ZERO),
            waiting: 0,
            worst: Vec::with_capacity(1),
            changes: [0; 3],
        }
    }

    fn add(&mut self, finding: &Finding) {
        self.verdicts[finding.verdict as usize] += 1;
        if let Some(pod) = &finding.owner.pod
            && !self.pods.contains(pod)
        {
            self.pods.insert(pod.clone());
        }
        self.processes.extend(finding.holder.clone());
        self.addresses.insert(finding.endpoint());
        self.idle = self.idle.max(idle(finding));
        self.last_heard = self.last_heard.max(finding.last_heard);
        self.is_default_shown &= !matches!(SystemDefault::of(finding), Some(SystemDefault::Probable(_)));
        self.user_timeouts.0 = self.user_timeouts.0.min(user_timeout(finding));
        self.user_timeouts.1 = self.user_timeouts.1.max(user_timeout(finding));
        self.waiting += usize::from(finding.waiting_for_reply);
        if let Some(after) = seconds(finding, self.cause) {
            self.seconds = Some(join_range(self.seconds, (after, after)));
        }
        if self.worst.len() < MAX_SAMPLES {
            self.worst.push(finding.clone());
        }
    }

    fn join(&mut self, other: Self) {
        let counts = self.verdicts.iter_mut().chain(&mut self.changes);
        for (sum, more) in counts.zip(other.verdicts.into_iter().chain(other.changes)) {
            *sum += more;
        }
        if self.endpoints != other.endpoints
            && let (Endpoints::One(ServiceEndpoint::Remote(remote)), _) = (self.endpoints, other.endpoints)
        {
            self.endpoints = Endpoints::Port(remote.port);
        }
        self.pods.extend(other.pods);
        self.processes.extend(other.processes);
        self.addresses.extend(other.addresses);
        self.idle = self.idle.max(other.idle);
        self.last_heard = self.last_heard.max(other.last_heard);
        self.is_default_shown &= other.is_default_shown;
        self.user_timeouts.0 = self.user_timeouts.0.min(other.user_timeouts.0);
        self.user_timeouts.1 = self.user_timeouts.1.max(other.user_timeouts.1);
        self.waiting += other.waiting;
        self.seconds = other.seconds.map(|range| join_range(self.seconds, range)).or(self.seconds);
        self.worst.extend(other.worst);
        self.worst.sort_by_key(|finding| (finding.verdict, Reverse(idle(finding))));
        self.worst.truncate(MAX_SAMPLES);
    }

    /// How many connections it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.verdicts.iter().sum()
    }

    /// How many have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.verdicts[verdict as usize]
    }

    /// How many differ from an earlier sweep in this way.
    #[must_use]
    pub fn changed(&self, change: Change) -> usize {
        self.changes[change as usize]
    }

    /// The worst verdict of its members.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::ALL.into_iter().find(|verdict| self.count(*verdict) > 0).unwrap_or(Verdict::Local)
    }

    /// Whether the owner is just the program.
    #[must_use]
    pub fn is_program(&self) -> bool {
        Some(&self.workload) == self.program.as_ref()
    }

    /// The program and its process, and how many pods there are: `java[27161]`, `postgres, 100 processes`, `envoy, 3
    /// pods`.
    #[must_use]
    pub fn held_by(&self) -> String {
        let (processes, pods) = (self.processes.len(), self.pods.len());
        let mut text = self.program.clone().unwrap_or_default();
        match self.processes.first() {
            Some(holder) if processes == 1 => {
                let _ = write!(text, "[{}]", holder.pid);
            }
            _ if processes > 1 && processes != pods => {
                let _ = write!(text, ", {processes} processes");
            }
            _ => {}
        }
        if pods > 1 {
            let _ = write!(text, ", {pods} pods");
        }
        text.trim_start_matches(", ").to_owned()
    }

    /// Owner and program: `shop/cart (app) java[27161]`.
    #[must_use]
    pub fn who(&self) -> String {
        let held_by = self.held_by();
        match (self.is_program(), held_by.is_empty()) {
            (true, _) => held_by,
            (_, true) => self.workload.clone(),
            _ => format!("{} {held_by}", self.workload),
        }
    }

    /// The endpoint, or how many remote addresses there are: `10.77.0.30:9000`, `24 addresses:443`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        match self.endpoints {
            Endpoints::One(endpoint) => endpoint.to_string(),
            Endpoints::Port(port) => format!("{} addresses:{port}", self.addresses.len()),
        }
    }

    /// What the local side does, or what is wrong: `off`, `7200s`, `no answer`.
    #[must_use]
    pub fn keepalive(&self) -> String {
        match (self.cause, self.seconds) {
            (Some(Cause::Unanswered), _) => "no answer".to_owned(),
            (Some(Cause::PayloadOnly), _) => "no data".to_owned(),
            (Some(Cause::PingsNotCounted), _) => "PING only".to_owned(),
            (Some(Cause::ProbeTooLate), _) => "too late".to_owned(),
            (_, Some((shortest, longest))) if shortest == longest => format!("{shortest}s"),
            (_, Some((shortest, longest))) => format!("{shortest}-{longest}s"),
            _ => self.keepalive.name().to_owned(),
        }
    }
}

fn join_range(range: Option<(u64, u64)>, other: (u64, u64)) -> (u64, u64) {
    range.map_or(other, |range| (range.0.min(other.0), range.1.max(other.1)))
}
