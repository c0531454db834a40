//! Which sockets' holders an audit searches for, for each recording.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use keepalive_auditor::digest::{Digest, Reads};
use keepalive_auditor::judge::policy::{Listed, Policy};
use keepalive_auditor::judge::report::Finding;
use keepalive_auditor::record::{Consumer as _, HolderSearch, Record, RecordError, replay};

use super::{Judge, cases};

/// What a digest asks for before the last sweep of a recording ends, and its findings afterwards.
struct Searched {
    holders: BTreeSet<u32>,
    inodes: BTreeSet<u32>,
    descriptors: usize,
    findings: Vec<Finding>,
    truncated: u64,
}

fn searched(case: &std::path::Path, policy: Policy, reads: Reads) -> Searched {
    let mut digest = Digest::new(Arc::new(policy));
    digest.set_reads(reads);
    let (mut holders, mut inodes, mut descriptors) = (BTreeSet::new(), BTreeSet::new(), 0);
    replay(BufReader::new(File::open(case.join("sweep.jsonl")).unwrap()), |record: Record<'static>| {
        if matches!(record, Record::SweepEnd { .. }) {
            (holders, inodes) = (digest.sockets_to_read().holders, digest.unknown_inodes(true));
            descriptors = digest.descriptors_to_read(HolderSearch::Owners);
        }
        digest.feed(&record);
        Ok::<(), RecordError>(())
    })
    .unwrap();
    let report = digest.report("node-1");
    Searched { holders, inodes, descriptors, truncated: report.truncated, findings: report.findings }
}

#[test]
fn an_audit_searches_for_the_holders_of_what_it_lists() {
    let holders = Reads { holders: true, ..Reads::default() };
    let (mut flagged, mut others) = (0, 0);
    for case in cases() {
        let name = case.display();
        let policy = Judge::of(&case).policy;
        let all = searched(&case, Policy { max_findings: usize::MAX, ..policy.clone() }, holders);
        let listed =
            searched(&case, Policy { lists: Listed::Flagged, max_findings: usize::MAX, ..policy.clone() }, holders);
        let is_flagged = |finding: &&Finding| finding.verdict.flagged();
        let cookies = |findings: &[Finding]| -> Vec<_> {
            findings.iter().filter(is_flagged).map(|finding| (finding.netns, finding.cookie, finding.verdict)).collect()
        };
        assert_eq!(cookies(&listed.findings), cookies(&all.findings), "{name}: no flagged connection is lost");
        assert_eq!(listed.truncated, 0, "{name}: what is not listed is not cut off");

        let sockets: BTreeSet<u32> =
            all.findings.iter().map(|finding| finding.inode).filter(|inode| *inode != 0).collect();
        let of_flagged: BTreeSet<u32> =
            all.findings.iter().filter(is_flagged).map(|finding| finding.inode).filter(|inode| *inode != 0).collect();
        assert!(of_flagged.is_subset(&listed.holders), "{name}: the process of a flagged connection is searched for");
        if !policy.ignore.is_empty() {
            continue;
        }
        assert!(listed.holders.is_subset(&sockets), "{name}");
        assert!(listed.inodes.is_subset(&listed.holders), "{name}: an owner of something that is not shown");
        assert!(listed.inodes.len() <= all.inodes.len(), "{name}");
        flagged += of_flagged.len();
        others += sockets.len() - listed.holders.len();
        assert!((20_000..1_000_000).contains(&listed.descriptors), "{name}: the search has a limit");
        let everything = Reads { all: true, ..holders };
        let whole = searched(&case, Policy { lists: Listed::Flagged, ..policy }, everything);
        assert_eq!((whole.holders, whole.descriptors), (all.holders, usize::MAX), "{name}: unless all is asked for");
    }
    assert!(flagged > 20 && others > 20, "the recordings have both: {flagged} flagged, {others} others");
}
