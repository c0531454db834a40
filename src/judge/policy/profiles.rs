//! Known middleboxes and the idle time after which they drop a connection.

use std::time::Duration;

use super::RefreshedBy;
pub use table::PROFILES;

mod table;

/// A kind of middlebox, with its vendor's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What a user writes: `--profile aws-nlb`.
    pub name: &'static str,
    /// Its default idle timeout.
    pub idle_timeout: Duration,
    /// The range of values that can be configured, or `fixed`.
    pub range: &'static str,
    /// What the two ends see after it has dropped the connection. `not stated` if the source does not say it.
    pub at_expiry: &'static str,
    /// How to change the idle timeout. `not stated` if it is fixed, or the source does not say it.
    pub change: &'static str,
    /// Where the numbers come from.
    pub source: &'static str,
    /// What restarts the idle timeout. If only payload does, TCP keepalive protects nothing.
    pub refreshed_by: RefreshedBy,
    /// It reads HTTP/2 itself, so HTTP/2 PING frames do not restart the idle timeout.
    pub reads_http2: bool,
    /// What HTTP/2 PING frames do there, and who says so.
    pub pings: &'static str,
}

/// The profile of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

const NOT_STATED: &str = "not stated";
const PINGS_NOT_STATED: &str = "are not stated to refresh it, so they do not count";

/// A middlebox that every segment refreshes, keepalive probes included.
const fn l4(name: &'static str, seconds: u64, range: &'static str) -> Profile {
    let idle_timeout = Duration::from_secs(seconds);
    let (at_expiry, change, source) = (NOT_STATED, NOT_STATED, NOT_STATED);
    let (refreshed_by, reads_http2, pings) = (RefreshedBy::Segment, false, "refresh it, like any segment");
    Profile { name, idle_timeout, range, at_expiry, change, source, refreshed_by, reads_http2, pings }
}

/// A proxy that forwards bytes and does not read HTTP/2: it closes a connection without data.
const fn tcp_proxy(name: &'static str, seconds: u64, range: &'static str) -> Profile {
    let pings = "refresh it, like any payload: it does not read HTTP/2";
    Profile { refreshed_by: RefreshedBy::Payload, pings, at_expiry: "close", ..l4(name, seconds, range) }
}

/// A proxy that may read HTTP/2. Unless a source says otherwise, HTTP/2 PING frames are taken to end there.
const fn l7(name: &'static str, seconds: u64, range: &'static str) -> Profile {
    Profile { reads_http2: true, pings: PINGS_NOT_STATED, ..tcp_proxy(name, seconds, range) }
}

impl Profile {
    const fn expiry(self, at_expiry: &'static str) -> Self {
        Self { at_expiry, ..self }
    }

    const fn change(self, change: &'static str) -> Self {
        Self { change, ..self }
    }

    const fn pings(self, pings: &'static str) -> Self {
        Self { pings, ..self }
    }

    const fn source(self, source: &'static str) -> Self {
        Self { source, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for profile in PROFILES {
            assert!(
                std::ptr::eq(find(profile.name).expect("is in the table"), profile),
                "{} exists twice",
                profile.name
            );
        }
        assert_eq!(find("AWS-NLB"), None);
    }

    #[test]
    fn each_profile_has_a_source_and_a_way_to_change_what_can_be_changed() {
        for Profile { name, range, change, source, .. } in PROFILES {
            assert_ne!(*source, NOT_STATED, "{name}");
            let is_fixed = *range == "fixed" || *range == NOT_STATED;
            assert_eq!(*change == NOT_STATED, is_fixed, "{name}: {range}, {change}");
        }
    }

    #[test]
    fn http2_pings_refresh_only_a_proxy_that_is_known_to_forward_bytes() {
        let forwards = ["aws-classic-elb", "envoy-tcp-proxy", "ingress-nginx-tcp", "nginx-stream"];
        for profile in PROFILES.iter().filter(|profile| profile.refreshed_by == RefreshedBy::Payload) {
            assert_eq!(profile.reads_http2, !forwards.contains(&profile.name), "{}", profile.name);
            assert_eq!(profile.pings.starts_with("refresh it"), !profile.reads_http2, "{}", profile.name);
        }
    }

    #[test]
    fn only_payload_refreshes_layer_7_proxies() {
        for (name, refreshed_by) in [
            ("aws-nlb", RefreshedBy::Segment),
            ("linux-conntrack", RefreshedBy::Segment),
            ("aws-alb", RefreshedBy::Payload),
            ("aws-classic-elb", RefreshedBy::Payload),
            ("envoy-http", RefreshedBy::Payload),
            ("nginx-stream", RefreshedBy::Payload),
            ("octavia", RefreshedBy::Payload),
            ("openshift-router", RefreshedBy::Payload),
        ] {
            assert_eq!(find(name).map(|profile| profile.refreshed_by), Some(refreshed_by), "{name}");
        }
        for profile in PROFILES.iter().filter(|profile| profile.refreshed_by == RefreshedBy::Segment) {
            assert!(!profile.reads_http2, "{}", profile.name);
        }
        let order: Vec<_> = PROFILES.iter().map(|profile| profile.refreshed_by == RefreshedBy::Payload).collect();
        assert!(order.is_sorted(), "profiles that only payload refreshes come last");
    }
}
