//! Tests of the filter language.

use super::facts::Judged;
use super::*;
use crate::judge::memory::Millis;
use crate::judge::report::Direction;
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::{Holder, OwnerKind};

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
        // from left to right, as in ss
        ("dport = :443 or dport = :22 src 192.0.2.0/24", false),
        ("dport = :443 or ( dport = :22 src 192.0.2.0/24 )", true),
        ("src 192.0.2.0/24 and dport = :1 or dport = :443", true),
        ("not dport = :443 or sport = :40000", true),
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
        ("port 80", "did you mean `dport` or `sport`?"),
        ("dport = :htpps", "did you mean `https`?"),
        ("dport = 0443", "octal"),
        ("dst ::1:443", "write [ADDRESS] or [ADDRESS]:PORT"),
        ("dst inet:2001:db8::/32", "other family"),
        ("dst 10.1/33", "`10.1/33`"),
        ("state close-wait", "not judged"),
        ("state establised", "did you mean `established`?"),
        ("dev eth0", "is not read"),
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

#[test]
fn what_ss_takes_is_taken() {
    let local = Endpoint::new("10.1.2.3".parse().unwrap(), 40_000);
    let remote = Endpoint::new("::ffff:193.233.7.1".parse().unwrap(), 443);
    for text in [
        "dst [::ffff:193.233.7.1]",
        "dst [::ffff:193.233.7.1]:443",
        "dst ::ffff:0:0/96",
        "dst ::ffff:193.233.0.0/112",
        "dst 193.233.7/24",
        "src 10/8",
        "dst 0/0",
        "dst 193.233.7.9/24",
        "dst 193.233.7.1:*",
        "dst *",
        "dst *:443",
        "dst inet:*",
        "dport = :*",
        "dport = 0x1bb",
        "dport = :https",
        "( dport = :ssh or dport = :https )",
        "dport 443",
        "state established",
        "state established dport = :443",
        "dst != 10.0.0.1",
    ] {
        assert!(Filter::parse(text).unwrap().matches(local, remote), "{text}");
    }
    for text in ["dst inet6:*", "dst ::/0", "dport != :*", "dst 193.233.8/24"] {
        let matches = Filter::parse(text).is_ok_and(|filter| filter.matches(local, remote));
        assert!(!matches, "{text}");
    }
    let remote = Endpoint::new("fd00::7".parse().unwrap(), 8080);
    for text in ["dst fd00::/8:8080", "dst [fd00::]/8:8080", "dst fd00::7", "dst [fd00::7]:8080", "dst fd00::7:*"] {
        assert!(Filter::parse(text).unwrap().matches(local, remote), "{text}");
    }
    let service = |name: &str| (name == "shop").then_some(8080);
    assert!(Filter::parse_with("dport = :shop", &service).unwrap().matches(local, remote));
}

#[test]
fn an_error_points_at_the_word() {
    assert_eq!(
        Filter::parse("src 10/8 and dprot = :443").unwrap_err(),
        "filter: `dprot` is not a term; did you mean `dport`?\n  \
         src 10/8 and dprot = :443\n               ^^^^^"
    );
    let error = Filter::parse("dport = :80 and").unwrap_err();
    assert!(error.ends_with("\n  dport = :80 and\n                 ^"), "{error}");
    let long = format!("{} dst \u{1b}[31m", "dport = :1 or ".repeat(50));
    let error = Filter::parse(&long).unwrap_err();
    assert!(error.lines().all(|line| line.len() < 120) && !error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn our_own_words_mix_with_those_of_ss() {
    let text = |text: &str| Some(text.to_owned());
    let (namespace, pod, container) = (text("shop"), text("web-0"), text("app"));
    let owner = Owner { kind: OwnerKind::Pod, namespace, pod, container, ..Owner::default() };
    let judged = Judged {
        verdict: Verdict::Overdue,
        keepalive: Keepalive::Late,
        direction: Direction::Outbound,
        idle: Some(Millis::from_secs(600)),
        age: Millis::from_secs(3600),
    };
    let holder = Holder { exe: "java".into(), script: "cart.jar".into(), ..Holder::default() };
    let subject = Subject { judged: Some(judged), owner: Some(&owner), holder: Some(&holder) };
    let (local, remote) = (Endpoint::UNSPECIFIED, Endpoint::new("10.0.0.1".parse().unwrap(), 443));
    for (text, before, after) in [
        ("verdict = overdue", None, true),
        ("verdict != overdue", None, false),
        ("keepalive = late and direction outbound", None, true),
        ("idle > 5m and owner 'shop/*'", None, true),
        ("idle > 15m", None, false),
        ("age <= 1h", None, true),
        ("pod = web-* namespace shop container app", None, true),
        ("owner = data/*", None, false),
        ("program = java and dport = :443", None, true),
        ("program = cart.*", None, true),
        ("program = node", None, false),
        ("dport = :443 or verdict = local", Some(true), true),
        ("dport = :80 and verdict = overdue", Some(false), false),
        ("not ( dport = :443 or idle > 1s )", Some(false), false),
    ] {
        let filter = Filter::parse(text).unwrap();
        assert_eq!(filter.eval(local, remote, &Subject::default()), before, "{text}: before it is judged");
        assert_eq!(filter.eval(local, remote, &subject), Some(after), "{text}");
    }
    for (text, said) in [
        ("verdict = overdu", "did you mean `overdue`?"),
        ("keepalive = never", "valid are on, late, off, unknown"),
        ("idle > 5", "not a duration"),
        ("verdict > exposed", "compared by = or !="),
        ("owner = {a,b}", "not a glob"),
        ("ownr = a", "did you mean `owner`?"),
    ] {
        let error = Filter::parse(text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}
