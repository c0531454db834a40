//! `--exact`: the true socket options, and what is inferred without it against them.

use crate::support::binary::{audit, command, finish};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::socket::{Keepalive, Server};

kernel_test!(the_options_themselves_are_read_and_inference_stays_below_them, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    let mut held = Vec::new();
    for idle in [32_767, 7200, 312, 311, 300, 60, 15, 2, 1] {
        if idle == 2 {
            // Ages are told in tenths of a second. The last ones need none: a socket that is first seen between its probes, a second
            // later, shows no bound.
            std::thread::sleep(std::time::Duration::from_millis(250));
        }
        for to in [v4(1, 2), v6(1, 2)] {
            let mut connection = listener.connect(&client, to, [Keepalive::Idle(idle), Keepalive::Off]);
            connection.exchange();
            held.push((idle, connection));
        }
    }
    let rules = ["--local-scope", "namespace", "--netns", "client", "--long-lived", "1ms"];
    let (inferred, exact) = (audit(&rules), audit(&[&rules[..], &["--exact"]].concat()));
    let mut checks = Checks::default();
    for (idle, connection) in &held {
        // 311 s × 9/8 = 349.9 s
        let (keepalive, verdict) = if *idle <= 311 { ("on", "protected") } else { ("late", "exposed") };
        let set = f64::from(*idle);
        if let Some(row) = checks.end(&format!("{idle} s read"), &exact, &connection.client, keepalive, verdict) {
            checks.equal("kind", row.keepalive_idle_is.as_deref(), Some("exact"));
            checks.equal("KEEPIDLE", row.keepalive_idle_seconds, Some(set));
        }
        if let Some(row) = checks.end(&format!("{idle} s inferred"), &inferred, &connection.client, keepalive, verdict)
        {
            checks.equal("kind", row.keepalive_idle_is.as_deref(), Some("at_least"));
            let guess = row.keepalive_idle_seconds.unwrap_or(-1.0);
            // A timer's granule, 4 ms at 250 Hz, either way.
            checks.that(guess <= set + 0.01 && guess > set - 1.0, || format!("{idle} s was set, {guess} s inferred"));
        }
    }
    checks.finish();
});

kernel_test!(without_the_capability_exact_says_so_and_the_verdict_stands, || {
    let own = Netns::current();
    let connection =
        Server::dual(&own, 7070).connect(&own, "127.0.0.1".parse().expect("an address"), [Keepalive::Idle(60); 2]);
    let binary = command(&["audit", "--all", "--exact", "--format", "json"]);
    let mut dropped = std::process::Command::new("setpriv");
    dropped.args(["--bounding-set", "-all", "--"]).arg(binary.get_program()).args(binary.get_args());
    let outcome = finish(&mut dropped);
    assert!(outcome.stderr.contains("CAP_SYS_PTRACE"), "{outcome:?}");
    let mut checks = Checks::default();
    checks.end("client", &outcome.report(), &connection.client, "on", "local");
    checks.finish();
});
