//! What was measured of the paths' limits, in words: where it contradicts what is configured, and what fits.

use std::fmt;

use super::units::{Human, Limit};
use crate::judge::report::{Contradiction, Direction, LearnedLimit, LimitSource, Path, PeerEndpoint, Report};

/// One sentence for each path whose limit contradicts what was seen.
pub fn contradictions(report: &Report) -> impl Iterator<Item = String> {
    let paths = report.paths.iter().zip(&report.learned);
    paths.filter_map(|(path, learned)| contradiction(path, learned))
}

/// How what was seen contradicts the limit of a path, and what to do; `None` where it does not.
#[must_use]
pub fn contradiction(path: &Path, learned: &LearnedLimit) -> Option<String> {
    let contradiction = learned.contradiction(path)?;
    let (name, limit) = (&path.name, Limit(path.idle_timeout));
    let source = match path.source {
        LimitSource::Configured => "is configured as",
        LimitSource::Profile => "has a profile's limit of",
        LimitSource::ReadFromNode => "has a limit read from this node of",
        LimitSource::Default => "has the default limit of",
    };
    let endpoint = learned.endpoint.as_ref().map(|endpoint| Endpoint(endpoint, learned.endpoints).to_string());
    let endpoint = endpoint.unwrap_or_default();
    let fitting = learned.fitting()?;
    let seen = match learned.broken {
        Some((shortest, longest)) if contradiction == Contradiction::LimitTooHigh => {
            let after = Between(shortest.get().div_ceil(1000), longest.get().div_ceil(1000));
            let breaks = learned.breaks;
            format!(
                "{breaks} connections{endpoint} broke after {after}s of idle time: look for a limit near {fitting}s"
            )
        }
        _ => {
            let survived = Human(learned.survived.unwrap_or_default());
            let times = learned.survived_limit;
            format!(
                "connections{endpoint} were answered after up to {survived} of idle time ({times} times): the limit is \
                 higher"
            )
        }
    };
    let elsewhere = learned.survived_elsewhere.map(|elsewhere| {
        format!(". Other endpoints of this path survived {}: give the one above a path of its own", Human(elsewhere))
    });
    let proposal = proposal(path, learned, fitting);
    Some(format!("path {name} {source} {limit}, but {seen}. {proposal}{}", elsewhere.unwrap_or_default()))
}

/// `Fits: --idle-timeout 240s, or a profile with such a limit: azure-lb`
fn proposal(path: &Path, learned: &LearnedLimit, fitting: u64) -> String {
    let text = match path.name.as_str() {
        _ if path.source == LimitSource::ReadFromNode => format!("Fits: --idle-timeout {fitting}s"),
        "default" => format!("Fits: --idle-timeout {fitting}s"),
        name => format!("Fits: `idle_timeout: {fitting}s` of path {name}"),
    };
    let profiles: Vec<_> = learned.profiles(path).map(|profile| profile.name).collect();
    if profiles.is_empty() { text } else { format!("{text}, or a profile with such a limit: {}", profiles.join(", ")) }
}

/// ` to 10.0.0.5:443`, or where there are several endpoints ` (most of them to 10.0.0.5:443)`.
struct Endpoint<'a>(&'a PeerEndpoint, usize);

impl fmt::Display for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerEndpoint { direction, remote, port, .. } = self.0;
        let remote = remote.to_canonical();
        let peer = match direction {
            Direction::Outbound => format!("to {}", std::net::SocketAddr::new(remote, *port)),
            Direction::Inbound => format!("from {remote} to :{port}"),
        };
        if self.1 > 1 { write!(f, " (most of them {peer})") } else { write!(f, " {peer}") }
    }
}

/// `241–260`, or one number where both are the same.
struct Between(u64, u64);

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}–{}", self.0, self.1) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::report::Millis;

    const SERVER: PeerEndpoint = PeerEndpoint {
        direction: Direction::Outbound,
        remote: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        port: 5432,
        node_limit: None,
    };

    fn learned(survived: u64, broken: Option<(u64, u64)>) -> LearnedLimit {
        let seconds = Millis::from_secs;
        LearnedLimit {
            survived: Some(seconds(survived)),
            survivals: 20,
            survived_limit: 5,
            broken: broken.map(|(shortest, longest)| (seconds(shortest), seconds(longest))),
            breaks: 7,
            endpoint: Some(SERVER),
            endpoints: 1,
            survived_elsewhere: None,
        }
    }

    fn path(limit: u64) -> Path {
        Path { idle_timeout: Duration::from_secs(limit), ..Path::default() }
    }

    #[test]
    fn a_limit_that_is_too_high_is_named_with_what_fits() {
        assert_eq!(
            contradiction(&path(350), &learned(200, Some((241, 260)))).as_deref(),
            Some(
                "path default has the default limit of 350s, but 7 connections to 127.0.0.1:5432 broke after 241–260s \
                 of idle time: look for a limit near 240s. Fits: --idle-timeout 240s, or a profile with such a limit: \
                 azure-lb, azure-nat-gateway, azure-firewall"
            )
        );
    }

    #[test]
    fn a_limit_that_is_too_low_is_named_with_what_was_survived() {
        let configured = Path { source: LimitSource::Configured, name: "db".to_owned(), ..path(60) };
        let sentence = contradiction(&configured, &learned(900, None)).unwrap();
        assert_eq!(
            sentence,
            "path db is configured as 60s, but connections to 127.0.0.1:5432 were answered after up to 15m of idle \
             time (5 times): the limit is higher. Fits: `idle_timeout: 900s` of path db"
        );
    }

    #[test]
    fn what_agrees_with_the_limit_needs_no_sentence() {
        assert_eq!(contradiction(&path(350), &learned(340, Some((351, 900)))), None);
        assert_eq!(contradiction(&path(350), &learned(340, None)), None);
    }
}
