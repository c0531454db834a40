//! Why a connection has its verdict, in one sentence that a person can act on.

use std::fmt;

use super::units::Human;
use crate::judge::report::{Finding, OverdueBy};
use crate::judge::verdict::{Keepalive, Verdict, in_time};
use crate::socket::Timer;

/// Writes the sentence.
pub struct Why<'a>(pub &'a Finding);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finding = self.0;
        let limit = Human::from(finding.path.idle_timeout);
        let path = &finding.path.name;
        match finding.verdict {
            Verdict::Local if finding.peer.same_namespace => {
                f.write_str("both ends live in this network namespace, with nothing between them that forgets")
            }
            Verdict::Local => f.write_str("both ends are on this node, with nothing between them that forgets"),
            Verdict::Undetermined => write!(
                f,
                "a {} timer hides the keepalive timer, which no earlier look saw; look again when it is over",
                masking(finding.timer)
            ),
            Verdict::Protected => {
                f.write_str("keepalive ")?;
                match finding.probes_after {
                    Some(idle) => write!(f, "probes after {} of silence", Human(idle))?,
                    None => match finding.expires {
                        Some(expires) => write!(f, "is armed, its next probe due in {}", Human(expires))?,
                        None => f.write_str("is armed")?,
                    },
                }
                write!(f, ", before the path ({path}) forgets after {limit}")
            }
            Verdict::PeerProtected => peer_protected(f, finding, limit),
            Verdict::AppProtected => write!(
                f,
                "{}, but the application's own heartbeats keep the path ({path}) fresh, which drops idle connections after {limit}",
                this_end(finding)
            ),
            Verdict::Young => {
                write!(f, "{}, but it is only {} old, not long-lived yet", this_end(finding), Human(finding.age))
            }
            Verdict::Blackholed => write!(
                f,
                "{}; it fell silent for longer than the path ({path}) remembers ({limit}), then sent, and {} retransmissions found no \
                 answer: the path has forgotten it",
                this_end(finding),
                finding.retransmits
            ),
            Verdict::Unanswered => write!(
                f,
                "what the local side sent finds no answer after {} retries: the path ({path}) or the peer is gone",
                finding.retransmits
            ),
            Verdict::Overdue => {
                let idle = Human(finding.wire_idle.unwrap_or(0));
                write!(
                    f,
                    "{}, and nothing was on the wire for {idle}, longer than the path ({path}) remembers ({limit}): the next write \
                     probably meets RST or silence",
                    this_end(finding)
                )?;
                if finding.overdue_by == OverdueBy::Clocks {
                    unseen_peer(f, finding)?;
                }
                waiting(f, finding)
            }
            Verdict::Exposed => {
                write!(f, "{}: ", this_end(finding))?;
                let limit_ms = u64::try_from(finding.path.idle_timeout.as_millis()).unwrap_or(u64::MAX);
                match finding.wire_idle {
                    Some(idle) if idle >= limit_ms => write!(
                        f,
                        "silent for {} by the kernel's clocks, which do not show the other end's probes; it is called overdue when that \
                         silence has been watched for {limit} (so far {})",
                        Human(idle),
                        Human(finding.watched)
                    )?,
                    Some(idle) => write!(
                        f,
                        "a silence of {limit} makes the path ({path}) forget it, and it is {} long now",
                        Human(idle)
                    )?,
                    None => write!(
                        f,
                        "a silence of {limit} makes the path ({path}) forget it, and this kernel does not tell how long it is now"
                    )?,
                }
                if let Some(probes) =
                    finding.peer.probes.filter(|probes| probes.late || probes.period.is_some_and(|ms| ms >= limit_ms))
                {
                    f.write_str("; the other end's probes come too late")?;
                    if let Some(period) = probes.period {
                        write!(f, ", about every {}", Human(period))?;
                    }
                }
                waiting(f, finding)
            }
        }
    }
}

/// Which end protects, and how that is known.
fn peer_protected(f: &mut fmt::Formatter<'_>, finding: &Finding, limit: Human) -> fmt::Result {
    let path = &finding.path.name;
    write!(f, "{}, but ", this_end(finding))?;
    match finding.peer.probes {
        Some(probes) if finding.peer.keepalive != Some(Keepalive::On) => {
            f.write_str("the other end's probes were seen")?;
            if let Some(period) = probes.period {
                write!(f, " about every {}", Human(period))?;
            }
            write!(f, ", the last {} ago, within the {limit} that the path ({path}) remembers", Human(probes.ago))
        }
        _ => write!(
            f,
            "the other end is on this node and its keepalive comes within the {limit} that the path ({path}) remembers"
        ),
    }
}

/// What this end does, as the start of a sentence.
fn this_end(finding: &Finding) -> String {
    let idle_timeout = finding.path.idle_timeout;
    let early = |idle: Option<u64>| idle.is_some_and(|idle| in_time(idle, idle_timeout));
    match (finding.keepalive, finding.probes_after) {
        (Keepalive::Late, after @ Some(_)) if finding.timer.masks_keepalive() && early(after) => {
            format!("keepalive is on, but unsent data holds it back while a {} timer runs", masking(finding.timer))
        }
        (Keepalive::Late, after) if early(after) => {
            let silence = finding.wire_idle.unwrap_or(0).saturating_add(finding.expires.unwrap_or(0));
            format!("keepalive is on, but its next probe comes only after {} of silence", Human(silence))
        }
        (Keepalive::Late, Some(after)) if early(finding.keepidle) => format!(
            "keepalive is on, but a probe may come only after {} of silence: KEEPIDLE or KEEPINTVL is too long",
            Human(after.next_multiple_of(1000))
        ),
        (Keepalive::Late, Some(after)) => {
            let after = after.next_multiple_of(1000);
            match finding.tcp_keepalive_time {
                Some(seconds) if u64::from(seconds) * 1000 == after => {
                    format!(
                        "keepalive is on but probes only after {}, this namespace's tcp_keepalive_time",
                        Human(after)
                    )
                }
                _ => format!("keepalive is on but probes only after {} or more", Human(after)),
            }
        }
        (Keepalive::Late, None) => "keepalive is on but comes too late".to_owned(),
        (Keepalive::On, _) => "keepalive is on".to_owned(),
        (Keepalive::Off, _) => "no keepalive timer at this end".to_owned(),
        (Keepalive::Unknown, _) => "the keepalive timer of this end is hidden".to_owned(),
    }
}

fn masking(timer: Timer) -> &'static str {
    match timer {
        Timer::Retransmit => "retransmission",
        Timer::Persist => "zero-window probe",
        _ => "different",
    }
}

fn unseen_peer(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    if finding.watched > 0 {
        write!(
            f,
            "; the other end sent no probe while this was watched ({}), and may have before",
            Human(finding.watched)
        )
    } else {
        f.write_str("; probes of the other end do not show in one look (--for watches for them)")
    }
}

/// A silence that is a wait needs another remedy than an idle pool.
fn waiting(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    if finding.waiting_for_reply {
        f.write_str(
            "; it waits for a reply, so that a pool's idle limit does not help: keepalive or a request timeout does",
        )
    } else {
        Ok(())
    }
}
