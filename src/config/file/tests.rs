//! Tests of the configuration file.

use proptest::prelude::*;

use super::*;
use crate::config::glob;

proptest! {
    #[test]
    fn no_glob_is_a_panic(text in "[a{}\\[\\]!,*?/\\\\-]{0,200}") {
        let _ = glob(&text);
    }
}

#[test]
fn globs_are_bounded_in_length_and_nesting() {
    assert!(glob("web-{a,b{c,d}}-*").unwrap().is_match("web-bd-1"));
    for text in ["{".repeat(100_000), format!("{}a{}", "{".repeat(500), "}".repeat(500)), "a".repeat(1025)] {
        glob(&text).unwrap_err();
    }
    // the largest that is allowed compiles
    glob(&"{a,[b-z]}*".repeat(102)).unwrap();
    glob(&"**/".repeat(341)).unwrap();
    glob(&format!("{}{}", "{a,".repeat(8), "}".repeat(8))).unwrap();
}

#[test]
fn what_is_wrong_is_named_by_line_and_key() {
    let cases = [
        ("idle_timeout: 350", "line 1, key idle_timeout: invalid value `350`: a duration needs a unit; write 350s"),
        ("\nidle_timeot: 350s", "line 2, key idle_timeot: unknown key; did you mean `idle_timeout`?"),
        (
            "paths:\n  - name: nlb\n    cidrs: [10.0.0.0/33]\n    idle_timeout: 5s",
            "line 3, key paths[0].cidrs[0]: `10.0.0.0/33` is not a CIDR",
        ),
        (
            "paths:\n  - name: nlb\n    profile: aws-nbl",
            "line 3, key paths[0].profile: invalid value `aws-nbl`: no such profile; did you mean `aws-nlb`?",
        ),
        ("paths:\n  - name: nlb\n    ports: [\"9-8\"]", "line 3, key paths[0].ports[0]: `9-8` is neither"),
        ("paths:\n  - idle_timeout: 5s", "key paths[0]: the key `name` is missing"),
        ("idle_timeout: 1s\nidle_timeout: 2s", "line 2, key idle_timeout: given twice"),
        ("local_scope: nodes", "line 1, key local_scope: unknown value `nodes`; did you mean `node`?"),
        (
            "paths:\n  - {name: alb, idle_timeout: 5s, refreshed_by: packets}",
            "line 2, key paths[0].refreshed_by: unknown value `packets`; valid are segment, payload",
        ),
        ("web: {listen-address: x}", "line 1, key web.listen-address"),
        ("ignore:\n  - {pod: \"[\"}", "line 2, key ignore[0].pod: `[` is not a glob"),
    ];
    for (text, expected) in cases {
        let error = yaml::parse::<ConfigFile>(text).unwrap_err();
        assert!(error.contains(expected), "{text:?}\n got: {error}\nwant: {expected}");
    }
}
