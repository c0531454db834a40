//! `explain WORD`: verdicts, keepalive states, causes, columns, profiles and metrics in plain words.

use std::fmt::Write as _;

use super::metrics::families;
use super::profiles;
use super::table::COLUMNS;
use crate::judge::cause::Cause;
use crate::judge::policy::profiles::PROFILES;
use crate::judge::report::Outcome;
use crate::judge::verdict::{Keepalive, Verdict};
use crate::words;

const LIST: &str = "`keepalive-auditor explain` lists all";

/// A word that is none of the output's.
#[derive(Debug, thiserror::Error)]
#[error("{}", words::with_list(&format!("no word `{word}` to explain"), suggestion, LIST))]
pub struct UnknownWord {
    word: String,
    suggestion: String,
}

/// One explained word.
struct Entry {
    word: String,
    kind: &'static str,
    text: String,
}

/// Explains a word, in any case. A column may have its title's blanks or `_` or `-`, a metric may lack the prefix.
pub fn explain(word: &str) -> Result<String, UnknownWord> {
    let wanted = key(word);
    let entries = entries();
    // `keepalive` is a column, and no state has that name
    let found: Vec<_> = entries.iter().filter(|entry| key(&entry.word) == wanted).collect();
    if found.is_empty() {
        let known = entries.iter().map(|entry| entry.word.as_str());
        let suggestion = words::did_you_mean(word.trim_start_matches(families::PREFIX), known);
        return Err(UnknownWord { word: word.to_owned(), suggestion });
    }
    let texts = found.iter().map(|entry| format!("{} ({})\n\n{}\n", entry.word, entry.kind, entry.text));
    Ok(texts.collect::<Vec<_>>().join("\n"))
}

/// Every word, by kind.
#[must_use]
pub fn list() -> String {
    let mut out = "Explain one with: keepalive-auditor explain WORD\n".to_owned();
    let mut kind = "";
    for entry in entries() {
        if entry.kind != kind {
            kind = entry.kind;
            let _ = writeln!(out, "\n{kind}:");
        }
        let _ = writeln!(out, "  {}", entry.word);
    }
    out
}

fn key(word: &str) -> String {
    word.trim().trim_start_matches(families::PREFIX).to_lowercase().replace(['-', ' '], "_")
}

fn entries() -> Vec<Entry> {
    let verdicts = Verdict::ALL.into_iter().map(|verdict| Entry {
        word: verdict.name().to_owned(),
        kind: if verdict.flagged() { "verdict, flagged" } else { "verdict, not flagged" },
        text: of_verdict(verdict).to_owned(),
    });
    let states = Keepalive::ALL.into_iter().map(|keepalive| Entry {
        word: keepalive.name().to_owned(),
        kind: "keepalive state",
        text: of_keepalive(keepalive).to_owned(),
    });
    let causes = Cause::ALL.into_iter().map(|cause| Entry {
        word: cause.name().to_owned(),
        kind: "cause of a flag",
        text: of_cause(cause).to_owned(),
    });
    let columns = COLUMNS.iter().map(|column| Entry {
        word: column.title.to_owned(),
        kind: "column",
        text: column.help.to_owned(),
    });
    let profiles = PROFILES.iter().map(|profile| Entry {
        word: profile.name.to_owned(),
        kind: "profile",
        text: profiles::explain(profile),
    });
    let metrics = families::ALL.iter().map(|family| Entry {
        word: family.name.to_owned(),
        kind: "metric",
        text: of_metric(family),
    });
    let outcomes = Outcome::ALL.into_iter().map(|outcome| Entry {
        word: outcome.name().to_owned(),
        kind: "outcome of a flagged connection",
        text: outcome.meaning().to_owned(),
    });
    verdicts.chain(states).chain(causes).chain(outcomes).chain(columns).chain(profiles).chain(metrics).collect()
}

fn of_metric(family: &families::Family) -> String {
    let labels = if family.labels.is_empty() { "none".to_owned() } else { family.labels.join(", ") };
    format!(
        "{}\n\nName:    {}\nType:    {}\nLabels:  {labels}\nExample: {}\n  {}",
        family.help,
        family.full_name(),
        family.kind.name(),
        family.question,
        family.query
    )
}

fn of_keepalive(keepalive: Keepalive) -> &'static str {
    match keepalive {
        Keepalive::On => {
            "The kernel has armed a keepalive timer, and the probe comes before the idle timeout of the path.\n\
             The timer may fire an eighth late, so `on` means: KEEPIDLE x 9/8 is below the idle timeout."
        }
        Keepalive::Late => {
            "Keepalive is on, but the probe may come only after the idle timeout of the path. The usual cause is the\n\
             system's default of 7200 s. Set a shorter idle time on the socket, or with the sysctl\n\
             net.ipv4.tcp_keepalive_time of the network namespace (new connections only)."
        }
        Keepalive::Off => {
            "The socket has no keepalive timer, so it sends no probes. A sysctl does not help: the program or its \
             proxy\n\
             must turn SO_KEEPALIVE on. `keepalive-auditor remedy --list` shows how."
        }
        Keepalive::Unknown => {
            "Another timer hides the keepalive timer, and no earlier sweep saw it: the kernel reports one timer only.\n\
             Sweep again (--for 60s), or read the options with --exact."
        }
    }
}

fn of_cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Unanswered => "The peer or the path does not answer. No keepalive setting brings the connection back.",
        Cause::PayloadOnly => {
            "The path counts only payload, as HTTP proxies do, and none came in time. TCP keepalive does not help:\n\
             the application must send something, or close idle connections before the path does."
        }
        Cause::PingsNotCounted => {
            "HTTP/2 or gRPC PING frames come, but a middlebox that reads HTTP/2 ends them itself. It counts the time\n\
             since the last request. Close idle connections before it does, or raise its idle timeout."
        }
        Cause::KeepaliveOff => "The program has not turned SO_KEEPALIVE on, so the kernel sends no probe.",
        Cause::SystemDefault => {
            "SO_KEEPALIVE is on, but no times are set: the first probe comes after the namespace's\n\
             net.ipv4.tcp_keepalive_time, which is 7200 s unless somebody changed it."
        }
        Cause::KeepidleTooLong => "TCP_KEEPIDLE is set, but the first probe comes after the limit of the path.",
        Cause::KeepintvlTooLong => {
            "Probes after the first come too late: TCP_KEEPINTVL is longer than the limit of the path. Or one of the\n\
             two times is too long, and the timer does not show which: --exact reads both."
        }
        Cause::ProbeTooLate => {
            "The times are short enough, but the next probe comes too late: the option was set while the connection\n\
             was idle, or data that cannot be sent holds the probe back."
        }
    }
}

fn of_verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Blackholed => {
            "The connection was overdue. Then it sent data or a probe, and nothing answers: the path has dropped it.\n\
             What to do: close it in the application, and turn keepalive on so that it does not happen again\n\
             (keepalive-auditor audit --explain)."
        }
        Verdict::Unanswered => {
            "What the local side sent, or its peer on this node, is not answered: the path or the peer is gone.\n\
             What to do: look at the peer and at the path. If the connection was idle for long before, treat it like\n\
             `blackholed`."
        }
        Verdict::Overdue => {
            "Keepalive is off or late, and no segment was seen for the idle timeout of the path. The path has \
             probably\n\
             dropped the connection: the next write meets a reset, or no answer at all.\n\
             What to do: turn keepalive on; keepalive-auditor audit --explain shows how."
        }
        Verdict::Exposed => {
            "Keepalive is off or late, and the connection is long-lived. Nothing is wrong yet: its idle time is below\n\
             the idle timeout of the path. The first longer pause breaks it.\n\
             What to do: turn keepalive on; keepalive-auditor audit --explain shows how."
        }
        Verdict::Undetermined => {
            "Another timer hides the keepalive timer, so keepalive is `unknown`. The idle time is below the limit.\n\
             What to do: sweep again (--for 60s), or read the options with --exact."
        }
        Verdict::Young => {
            "Keepalive is off or late, but the connection is not long-lived yet (--long-lived, 5m unless set),\n\
             nor idle for the idle timeout of the path.\n\
             Short-lived connections end before a path drops them."
        }
        Verdict::AppProtected => {
            "TCP keepalive does not protect the connection, but the application's own heartbeats keep the path fresh:\n\
             small, regular exchanges such as HTTP/2 PING, AMQP, MQTT or WebSocket heartbeats. HTTP/2 PING does not \
             count\n\
             on a path with a middlebox that reads HTTP/2 itself (`reads_http2`), such as an AWS ALB: it ends there."
        }
        Verdict::PeerProtected => {
            "Keepalive of the local side is off or late, but the peer's keepalive probes keep the path fresh."
        }
        Verdict::Protected => "Keepalive of the local side probes before the idle timeout of the path.",
        Verdict::Local => {
            "Both ends are on this node, and nothing translates addresses between them.\n\
             --local-scope namespace judges connections between namespaces of the node, too: traffic between them may\n\
             cross a firewall, or leave the node."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_explained_however_it_is_written() {
        for word in [
            "overdue",
            "OVERDUE",
            "off",
            "WIRE IDLE",
            "wire_idle",
            "wire-idle",
            "aws-nlb",
            "sweeps_total",
            "pings_not_counted",
            "keepalive_auditor_sweeps_total",
        ] {
            assert!(explain(word).is_ok_and(|text| text.contains('\n')), "{word}");
        }
        for entry in entries() {
            assert!(explain(&entry.word).is_ok(), "{}", entry.word);
            let long = entry.text.lines().find(|line| line.chars().count() > 115 && !line.starts_with("  "));
            assert_eq!(long, None, "{}", entry.word);
        }
    }

    #[test]
    fn a_misspelled_word_gets_the_nearest_one() {
        let error = explain("overdu").expect_err("is misspelled").to_string();
        assert_eq!(
            error,
            "no word `overdu` to explain; did you mean `overdue`? (`keepalive-auditor explain` lists all)"
        );
    }
}
