//! Which findings a selection takes: the same for the report, the page and `audit --watch`.

use super::groups::idle;
use crate::judge::policy::filter::Select;
use crate::judge::policy::filter::facts::{Judged, Subject};
use crate::judge::report::Finding;

/// Whether the selection takes this connection.
#[must_use]
pub fn takes(select: &Select, finding: &Finding) -> bool {
    select.takes_judged(|| (finding.local, finding.remote), || subject(finding)) && select.takes_owner(&finding.owner)
}

/// What a filter may ask of a connection.
fn subject(finding: &Finding) -> Subject<'_> {
    let judged = Judged {
        verdict: finding.verdict,
        keepalive: finding.keepalive,
        direction: finding.direction,
        idle: idle(finding),
        age: finding.age,
    };
    Subject { judged: Some(judged), owner: Some(&finding.owner), holder: finding.holder.as_deref() }
}
