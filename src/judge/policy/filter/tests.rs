//! Tests of the filter language.

use super::*;

#[test]
fn expressions_mean_what_they_mean_in_ss() {
    let local = Endpoint::new("10.1.2.3".parse().unwrap(), 40_000);
    let remote = Endpoint::new("192.0.2.7".parse().unwrap(), 443);
    let cases = [
        ("sport = :40000 or dport = :8080", true),
        ("dst 10.0.0.0/8 and not dport = :443", false),
        ("dst 192.0.2.0/24", true),
        ("dst 192.0.2.7:443", true),
        ("dst 192.0.2.7:80", false),
        ("dst :443 src 10.1.2.3", true),
        ("dport != :443", false),
        ("dport < 1024 and sport >= :1024", true),
        ("( dport = :80 or dport = :443 ) and src 10.0.0.0/8", true),
        ("!(dport=:443)", false),
        ("dport eq :443 && sport gt :1", true),
        ("dport = :80 or dport = :443 and sport = :1", false),
        ("dst 2001:db8::/32", false),
        ("dst [2001:db8::1]:443", false),
    ];
    for (text, expected) in cases {
        assert_eq!(Filter::parse(text).unwrap().matches(local, remote), expected, "{text}");
    }
}

#[test]
fn what_is_no_expression_is_a_sentence_that_names_the_word() {
    let deep = "(".repeat(900);
    let long = "dport = :1 or ".repeat(100_000);
    let cases = [
        ("", "ends where a term"),
        ("port 80", "`port`"),
        ("dport = :http", ":http"),
        ("dst nowhere", "`nowhere`"),
        ("(dport = :80", "`)`"),
        ("dport = :80 )", "`)`"),
        ("dport = :70000", ":70000"),
        (&deep, "too deeply"),
        (&long, "more than 1000 words"),
    ];
    for (text, expected) in cases {
        let error = Filter::parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
