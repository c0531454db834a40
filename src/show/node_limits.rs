//! The limits of paths, where each comes from, and what the node says that contradicts them: in sentences.

use std::time::Duration;

use super::escape;
use super::units::Limit;
use crate::judge::report::{LimitSource, NodeLimitFacts, Report};

/// `limits: default 350s (a guess: nothing is configured), conntrack 60s (read from the node)`
#[must_use]
pub fn paths(report: &Report) -> String {
    let mut paths: Vec<String> = Vec::new();
    for path in &report.paths {
        let text = format!("{} {} ({})", escape::line(&path.name), Limit(path.idle_timeout), origin(path.source));
        if !paths.contains(&text) {
            paths.push(text);
        }
    }
    format!("limits: {}", paths.join(", "))
}

fn origin(source: LimitSource) -> &'static str {
    match source {
        LimitSource::Configured => "configured",
        LimitSource::Profile => "of a profile",
        LimitSource::ReadFromNode => "read from the node",
        LimitSource::Default => "a guess: nothing is configured",
    }
}

/// What the node says about limits that is worth a sentence.
#[must_use]
pub fn notes(report: &Report) -> Vec<String> {
    let NodeLimitFacts { is_used, conntrack, shortest_conntrack_elsewhere, ipvs, cloud, unread } = &report.node_limits;
    let mut notes: Vec<String> = unread.iter().map(|detail| escape::line(detail).into_owned()).collect();
    let elsewhere = shortest_conntrack_elsewhere.filter(|limit| conntrack.is_none_or(|host| *limit < host));
    let facts = [
        ("the node's conntrack", "nf_conntrack_tcp_timeout_established", *conntrack),
        ("the conntrack of a network namespace", "nf_conntrack_tcp_timeout_established", elsewhere),
        ("the node's IPVS", "ipvsadm --set", *ipvs),
    ];
    for (who, setting, limit) in facts {
        notes.extend(limit.and_then(|limit| contradiction(report, who, setting, limit, *is_used)));
    }
    let is_guess = report.paths.first().is_some_and(|path| path.source == LimitSource::Default);
    if let Some(cloud) = cloud.filter(|_| is_guess) {
        let profiles = cloud.profiles.join(" or ");
        notes.push(format!(
            "the firmware says that this node runs on {}: --profile {profiles} may fit. The limit stays a guess until \
             it is configured",
            cloud.name
        ));
    }
    notes
}

/// The longest configured limit that exceeds one that was read.
fn contradiction(report: &Report, who: &str, setting: &str, limit: Duration, is_used: bool) -> Option<String> {
    let longer = |source| !matches!(source, LimitSource::ReadFromNode) && (!is_used || source != LimitSource::Default);
    let paths = report.paths.iter().filter(|path| path.idle_timeout > limit && longer(path.source));
    let longest = paths.max_by_key(|path| path.idle_timeout)?;
    Some(format!(
        "{who} drops idle connections after {} ({setting}), but the limit of path {} is {}",
        Limit(limit),
        escape::line(&longest.name),
        Limit(longest.idle_timeout)
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::judge::report::{Cloud, Path};

    fn report(source: LimitSource, facts: NodeLimitFacts) -> Report {
        Report { paths: vec![Arc::new(Path { source, ..Path::default() })], node_limits: facts, ..Report::default() }
    }

    #[test]
    fn a_guess_is_called_a_guess() {
        let report = report(LimitSource::Default, NodeLimitFacts::default());
        assert_eq!(paths(&report), "limits: default 350s (a guess: nothing is configured)");
        assert_eq!(notes(&report), [] as [String; 0]);
    }

    #[test]
    fn a_configured_limit_that_the_node_contradicts_is_reported() {
        let conntrack = Some(Duration::from_mins(1));
        let facts = NodeLimitFacts { is_used: true, conntrack, ..NodeLimitFacts::default() };
        let note = "the node's conntrack drops idle connections after 60s (nf_conntrack_tcp_timeout_established), but \
                    the limit of path default is 350s";
        assert_eq!(notes(&report(LimitSource::Configured, facts.clone())), [note]);
        assert_eq!(notes(&report(LimitSource::Default, facts.clone())), [] as [String; 0], "it shortens the default");
        let ignored = NodeLimitFacts { is_used: false, ..facts.clone() };
        assert_eq!(notes(&report(LimitSource::Default, ignored)), [note]);
        let longer = NodeLimitFacts { conntrack: Some(Duration::from_hours(120)), ..facts };
        assert_eq!(notes(&report(LimitSource::Configured, longer)), [] as [String; 0]);
    }

    #[test]
    fn a_cloud_is_a_proposal_and_what_could_not_be_read_is_reported() {
        let cloud = Cloud::of(&[("sys_vendor".to_owned(), "Amazon EC2".to_owned())].into());
        let unread = vec!["cannot read the timeouts of IPVS (CAP_NET_ADMIN): Operation not permitted".to_owned()];
        let facts = NodeLimitFacts { cloud, unread: unread.clone(), ..NodeLimitFacts::default() };
        let notes = notes(&report(LimitSource::Default, facts.clone()));
        assert_eq!((notes.len(), &notes[0]), (2, &unread[0]));
        assert!(notes[1].contains("AWS: --profile aws-nlb or aws-nat-gateway may fit"), "{notes:?}");
        assert_eq!(super::notes(&report(LimitSource::Profile, facts)), unread);
    }
}
