//! Tests of flags, environment and file together.

use super::*;
use crate::judge::policy::{LimitSource, RefreshedBy};
use crate::yaml;

#[test]
fn the_first_matching_path_counts_and_of_several_limits_the_shortest() {
    let text = r#"
idle_timeout: 100s
paths:
  - name: nlb
    cidrs: [10.20.0.0/16, "2001:db8::/32"]
    ports: [443, "8000-8999"]
    profile: [aws-nlb, azure-lb]
    idle_timeout: 300s
  - {name: rest, cidrs: [10.0.0.0/8], idle_timeout: 50s}
"#;
    let file = yaml::parse::<ConfigFile>(text).unwrap();
    let policy = Config::new(&Common::default(), &file).unwrap().policy;
    let cases = [
        ("10.20.1.1", 443, "nlb", 240),
        ("10.20.1.1", 8500, "nlb", 240),
        ("10.20.1.1", 80, "rest", 50),
        ("2001:db8::1", 443, "nlb", 240),
        ("192.0.2.1", 443, "default", 100),
    ];
    for (remote, port, name, seconds) in cases {
        let path = policy.path(remote.parse().unwrap(), port);
        assert_eq!((path.name.as_str(), path.idle_timeout.as_secs()), (name, seconds), "{remote}:{port}");
    }
}

#[test]
fn the_strictest_middlebox_decides_what_refreshes_a_path() {
    let refreshed_by = |keys: &str| {
        let file = yaml::parse::<ConfigFile>(&format!("paths:\n  - {{name: a, {keys}}}")).unwrap();
        Config::new(&Common::default(), &file).unwrap().policy.rules[0].path.refreshed_by
    };
    assert_eq!(refreshed_by("profile: aws-nlb"), RefreshedBy::Segment);
    assert_eq!(refreshed_by("profile: aws-alb"), RefreshedBy::Payload);
    assert_eq!(refreshed_by("profile: [aws-nlb, envoy-http]"), RefreshedBy::Payload);
    assert_eq!(refreshed_by("idle_timeout: 5s"), RefreshedBy::Segment);
    assert_eq!(refreshed_by("idle_timeout: 5s, refreshed_by: payload"), RefreshedBy::Payload);
    // an explicit setting wins over the profile
    assert_eq!(refreshed_by("profile: aws-alb, refreshed_by: segment"), RefreshedBy::Segment);
}

#[test]
fn a_path_knows_whether_a_middlebox_on_it_reads_http2() {
    use RefreshedBy::{Payload, Segment};

    let config = |text: &str| Config::new(&Common::default(), &yaml::parse::<ConfigFile>(text).unwrap());
    let path = |keys: &str| {
        let of_rule = config(&format!("paths:\n  - {{name: a, idle_timeout: 5s, {keys}}}")).unwrap().policy;
        let of_rule = (of_rule.rules[0].path.refreshed_by, of_rule.rules[0].path.reads_http2);
        // the keys mean the same for the default path
        let default = config(&format!("{{{keys}}}")).unwrap().policy.default_path;
        assert_eq!((default.refreshed_by, default.reads_http2), of_rule, "{keys}");
        of_rule
    };
    for (keys, expected) in [
        ("profile: aws-nlb", (Segment, false)),
        ("profile: aws-alb", (Payload, true)),
        ("profile: nginx-stream", (Payload, false)),
        ("profile: [aws-nlb, nginx-stream, aws-alb]", (Payload, true)),
        ("refreshed_by: payload", (Payload, false)),
        ("reads_http2: true", (Payload, true)),
        ("reads_http2: false", (Segment, false)),
        // an explicit setting wins over the profile: HAProxy in mode tcp
        ("profile: haproxy, reads_http2: false", (Payload, false)),
        ("profile: nginx-stream, reads_http2: true", (Payload, true)),
        ("profile: aws-alb, refreshed_by: segment", (Segment, false)),
    ] {
        assert_eq!(path(keys), expected, "{keys}");
    }
    for (text, place) in [
        ("{refreshed_by: segment, reads_http2: true}", "refreshed_by: `segment` contradicts `reads_http2: true`"),
        (
            "paths: [{name: a, idle_timeout: 5s, refreshed_by: segment, reads_http2: true}]",
            "paths: the path `a`: refreshed_by: `segment` contradicts `reads_http2: true`",
        ),
    ] {
        let error = config(text).unwrap_err().to_string();
        assert!(error.starts_with(place), "{error}");
    }
    let flags = Common { profile: vec!["aws-alb".to_owned()], ..Common::default() };
    assert!(Config::new(&flags, &ConfigFile::default()).unwrap().policy.default_path.reads_http2);
    // flags replace the file
    let file = yaml::parse::<ConfigFile>("reads_http2: false").unwrap();
    assert!(Config::new(&flags, &file).unwrap().policy.default_path.reads_http2);
}

#[test]
fn a_limit_knows_where_it_comes_from_and_a_time_alone_does_not_say_what_refreshes() {
    use LimitSource::{Configured, Default, Profile};
    use RefreshedBy::{Payload, Segment};

    let default = |profiles: &[&str], idle_timeout: Option<u64>, file: &str| {
        let flags = Common {
            profile: profiles.iter().map(ToString::to_string).collect(),
            idle_timeout: idle_timeout.map(Duration::from_secs),
            ..Common::default()
        };
        let path = Config::new(&flags, &yaml::parse::<ConfigFile>(file).unwrap()).unwrap().policy.default_path;
        (path.idle_timeout.as_secs(), path.source, path.refreshed_by)
    };
    assert_eq!(default(&[], None, "{}"), (350, Default, Segment));
    assert_eq!(default(&["aws-alb"], None, "{}"), (60, Profile, Payload));
    assert_eq!(default(&["aws-alb"], Some(10), "{}"), (10, Configured, Payload));
    assert_eq!(default(&["aws-alb"], Some(100), "{}"), (60, Profile, Payload));
    assert_eq!(default(&[], None, "profile: aws-alb"), (60, Profile, Payload));
    assert_eq!(default(&[], Some(10), "profile: aws-alb"), (10, Configured, Payload));
    assert_eq!(default(&["aws-nlb"], None, "profile: aws-alb"), (350, Profile, Segment));
    assert_eq!(default(&[], None, "refreshed_by: payload"), (350, Default, Payload));
}

#[test]
fn flags_win_over_the_file() {
    let file = yaml::parse::<ConfigFile>("idle_timeout: 100s\nlong_lived: 1m").unwrap();
    let flags = Common { profile: vec!["azure-lb".to_owned()], ..Common::default() };
    let policy = Config::new(&flags, &file).unwrap().policy;
    assert_eq!(policy.default_path.idle_timeout.as_secs(), 240);
    assert_eq!(policy.long_lived.as_secs(), 60);
}

#[test]
fn an_ignore_rule_without_a_key_is_refused() {
    let config = |text: &str| Config::new(&Common::default(), &yaml::parse::<ConfigFile>(text).unwrap());
    let error = config("ignore: [{pod: a}, {}]").map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("key ignore[1]: a rule without a key ignores every connection"), "{error}");
    assert_eq!(config("ignore: [{pod: a}]").unwrap().policy.ignore.len(), 1);
}
