//! Counts the flagged connections of each owner that have ended, by outcome.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::judge::ends::Outcome;
use crate::judge::memory::{Millis, Moment, Tracker};
use crate::judge::report::{Direction, EndedTotals, OwnerEnds};
use crate::owner::{NsId, Owner, OwnerKind};

/// The time for which the counts of an owner without connections are kept.
const KEEP_OWNER: Millis = Millis::from_secs(60 * 60);
/// The highest number of owners with their own counts.
const MAX_OWNERS: usize = 4096;

/// Counts one end.
pub fn count(
    totals: &mut EndedTotals,
    id: NsId,
    (mut owner, direction): (Arc<Owner>, Direction),
    outcome: Outcome,
    now: Moment,
) {
    totals.node[outcome as usize] += 1;
    if owner.kind == OwnerKind::Pod && owner.container_id.is_some() {
        owner = Arc::new(Owner { container_id: None, ..(*owner).clone() });
    }
    let new = OwnerEnds { outcomes: [0; Outcome::COUNT], namespace: id, at: now, is_gone: false };
    let of = totals.owners.entry((owner, direction)).or_insert(new);
    of.outcomes[outcome as usize] += 1;
    (of.namespace, of.at, of.is_gone) = (id, now, false);
}

/// Marks the owners that are gone, and drops the oldest ones when there are too many.
pub fn expire<'a>(
    totals: &mut EndedTotals,
    tracker: &Tracker,
    now: Moment,
    with_connections: impl Iterator<Item = &'a (Arc<Owner>, Direction)>,
) {
    if totals.owners.is_empty() {
        return;
    }
    let with_connections: BTreeSet<_> =
        with_connections.map(|(owner, direction)| (identity(owner), *direction)).collect();
    for ((owner, direction), of) in &mut totals.owners {
        if with_connections.contains(&(identity(owner), *direction)) {
            of.at = now;
        }
        of.is_gone = tracker.namespace(of.namespace).is_none() || now.since(of.at) > KEEP_OWNER;
    }
    while totals.owners.len() > MAX_OWNERS {
        let oldest = totals.owners.iter().min_by_key(|(_, of)| (!of.is_gone, of.at));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
        totals.owners.remove(&key);
    }
}

/// The key of an owner: a restarted container is the same owner.
fn identity(owner: &Owner) -> [Option<&str>; 5] {
    let container_id = owner.container_id.as_ref().filter(|_| owner.kind != OwnerKind::Pod);
    [
        owner.namespace.as_deref(),
        owner.pod.as_deref(),
        owner.pod_uid.as_deref(),
        owner.container.as_deref(),
        container_id.map(String::as_str),
    ]
}
