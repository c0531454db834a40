//! Why a connection has its verdict, in one sentence that a person can act on.

use std::fmt;

use super::heartbeats::{Assumed, Insufficient, Seen};
use super::units::{Human, Limit};
use crate::judge::cause::SystemDefault;
use crate::judge::report::{Finding, Millis, OverdueBy, RefreshedBy};
use crate::judge::verdict::{Keepalive, Verdict, in_time};
use crate::socket::Timer;

mod payload;

/// Writes the sentence.
pub struct Why<'a>(pub &'a Finding);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finding = self.0;
        let limit = Limit(finding.path.idle_timeout);
        let path = &finding.path.name;
        if let Some(age) = finding.stale {
            write!(f, "{} ago, when its network namespace was last read: ", Human(age))?;
        }
        match finding.verdict {
            Verdict::Local if finding.peer.same_namespace => {
                f.write_str("both ends are in this network namespace, with no middlebox between them")
            }
            Verdict::Local => f.write_str("both ends are on this node, and nothing translates addresses between them"),
            Verdict::Undetermined => write!(
                f,
                "a {} timer hides the keepalive timer, and no earlier sweep saw it: sweep again when it is over",
                masking(finding.timer)
            ),
            Verdict::Protected => {
                f.write_str("keepalive ")?;
                match finding.probes_after {
                    Some(idle) => write!(f, "probes after {} of idle time", Human(idle))?,
                    None => match finding.expires {
                        Some(expires) => write!(f, "is armed, and its next probe is due in {}", Human(expires))?,
                        None => f.write_str("is armed")?,
                    },
                }
                write!(f, ", before the path ({path}) drops the connection after {limit}")
            }
            Verdict::PeerProtected => peer_protected(f, finding, limit),
            Verdict::AppProtected => {
                match finding.path.refreshed_by {
                    RefreshedBy::Payload => f.write_str("the path counts only payload")?,
                    RefreshedBy::Segment => f.write_str(&local_side(finding))?,
                }
                f.write_str(", but the application's own heartbeats refresh the path")?;
                finding.heartbeats.iter().try_for_each(|seen| write!(f, ": {}", Seen(seen)))?;
                write!(f, "; the path ({path}) drops idle connections after {limit}{}", Assumed(finding))
            }
            Verdict::Young if finding.path.refreshed_by == RefreshedBy::Payload => write!(
                f,
                "the path ({path}) counts only payload, so keepalive does not refresh it, but the connection is only \
                 known to be {} old, not \
                 long-lived yet",
                Human(finding.age)
            ),
            Verdict::Young => {
                let age = Human(finding.age);
                write!(f, "{}, but it is only known to be {age} old, not long-lived yet", local_side(finding))
            }
            Verdict::Blackholed => write!(
                f,
                "it was idle for longer than the path ({path}) keeps it ({limit}), then sent: {}, so the path has \
                 dropped it",
                NoAnswer(finding)
            ),
            Verdict::Unanswered if finding.peer.unanswered && finding.unanswered.count() == 0 => {
                write!(f, "the peer is on this node, and what it sends finds no answer: the path ({path}) is gone")
            }
            Verdict::Unanswered => write!(f, "{}: the path ({path}) or the peer is gone", NoAnswer(finding)),
            Verdict::Overdue => overdue(f, finding, limit),
            Verdict::Exposed => exposed(f, finding, limit),
        }
    }
}

/// Since when nothing was heard, and how many segments found no answer.
struct NoAnswer<'a>(&'a Finding);

impl fmt::Display for NoAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { unanswered, last_heard, .. } = self.0;
        let kinds = [("retransmission", unanswered.retransmits), (probe(self.0.timer), unanswered.probes)];
        let mut and = "";
        for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{and}{count} {kind}{}", if count == 1 { "" } else { "s" })?;
            and = " and ";
        }
        f.write_str(" found no answer")?;
        match last_heard {
            Some(last) => write!(f, ", and nothing was heard from the peer for {}", Human(*last)),
            None => Ok(()),
        }
    }
}

fn probe(timer: Timer) -> &'static str {
    if timer == Timer::KeepAlive { "keepalive probe" } else { "probe" }
}

fn overdue(f: &mut fmt::Formatter<'_>, finding: &Finding, limit: Limit) -> fmt::Result {
    let path = &finding.path.name;
    let next = "the next write probably meets a reset or no answer";
    if finding.path.refreshed_by == RefreshedBy::Payload {
        payload::overdue(f, finding, limit, next)?;
        return waiting(f, finding);
    }
    let idle = Human(finding.wire_idle.unwrap_or_default());
    write!(f, "{}, and ", local_side(finding))?;
    if finding.unanswered.count() > 0 || finding.data_idle < finding.wire_idle {
        write!(
            f,
            "nothing was heard from the peer for {idle}, while the path ({path}) drops the connection after {limit}: \
             what was \
             sent since has no answer yet"
        )?;
        return waiting(f, finding);
    }
    write!(f, "nothing was on the wire for {idle}, longer than the path ({path}) keeps it ({limit}): {next}")?;
    if finding.overdue_by == OverdueBy::Clocks {
        unseen_peer(f, finding)?;
    }
    waiting(f, finding)
}

fn exposed(f: &mut fmt::Formatter<'_>, finding: &Finding, limit: Limit) -> fmt::Result {
    let path = &finding.path.name;
    if finding.path.refreshed_by == RefreshedBy::Payload {
        payload::exposed(f, finding, limit)?;
        return waiting(f, finding);
    }
    write!(f, "{}: ", local_side(finding))?;
    let limit_span = Millis::from(finding.path.idle_timeout);
    match finding.wire_idle {
        Some(idle) if idle >= limit_span => write!(
            f,
            "idle for {} by the kernel's clocks, which do not show the peer's probes; it becomes overdue when nothing \
             moved \
             while we watched for {limit} (so far {})",
            Human(idle),
            Human(finding.watched)
        )?,
        Some(idle) => {
            write!(f, "the path ({path}) drops it after {limit} of idle time, and it is idle for {} now", Human(idle))?;
        }
        None => write!(
            f,
            "the path ({path}) drops it after {limit} of idle time, and this kernel does not say how long it is idle \
             now"
        )?,
    }
    let late = |period: Option<Millis>| period.is_some_and(|period| period >= limit_span);
    if let Some(probes) = finding.peer.probes.filter(|probes| probes.late || late(probes.period)) {
        f.write_str("; the peer's probes come too late")?;
        if let Some(period) = probes.period {
            write!(f, ", about every {}", Human(period))?;
        }
    } else if let Some(probes) = finding.peer.probes {
        match probes.period.or(probes.waited) {
            Some(period) if period >= limit_span => {
                f.write_str("; one probe of the peer was seen, and a second one shows whether they come in time")?;
            }
            Some(period) if finding.wire_idle > Some(period) => {
                write!(f, "; the peer probed after at most {}, and has stopped", Human(period))?;
            }
            _ => {}
        }
    }
    write!(f, "{}", Insufficient(finding))?;
    waiting(f, finding)
}

/// Which end protects, and how that is known.
fn peer_protected(f: &mut fmt::Formatter<'_>, finding: &Finding, limit: Limit) -> fmt::Result {
    let path = &finding.path.name;
    write!(f, "{}, but ", local_side(finding))?;
    match finding.peer.probes {
        Some(probes) if finding.peer.keepalive != Some(Keepalive::On) => {
            f.write_str("we saw the peer's probes")?;
            if let Some(period) = probes.period {
                write!(f, " about every {}", Human(period))?;
            }
            write!(
                f,
                ", the last {} ago, and the path ({path}) drops the connection only after {limit}",
                Human(probes.ago)
            )
        }
        _ => {
            write!(
                f,
                "the peer is on this node, and it probes before the path ({path}) drops the connection after {limit}"
            )
        }
    }
}

/// What the local side does, as the start of a sentence.
fn local_side(finding: &Finding) -> String {
    let idle_timeout = finding.path.idle_timeout;
    let early = |idle: Option<Millis>| idle.is_some_and(|idle| in_time(idle, idle_timeout));
    match (finding.keepalive, finding.probes_after) {
        (Keepalive::Late, after @ Some(_)) if finding.timer.masks_keepalive() && early(after) => {
            format!("keepalive is on, but unsent data holds it back while a {} timer runs", masking(finding.timer))
        }
        (Keepalive::Late, after) if early(after) => {
            let idle = finding.wire_idle.unwrap_or_default().saturating_add(finding.expires.unwrap_or_default());
            format!("keepalive is on, but its next probe comes only after {} of idle time", Human(idle))
        }
        (Keepalive::Late, Some(after)) => {
            // the field names these options in seconds
            let seconds = after.get().div_ceil(1000);
            if early(finding.keepidle) {
                format!(
                    "keepalive is on, but a probe may come only after {seconds}s of idle time: KEEPIDLE or KEEPINTVL \
                     is too long"
                )
            } else {
                match SystemDefault::of(finding) {
                    Some(SystemDefault::Shown(default)) => {
                        format!("keepalive is on but probes only after {default}s, the system's default")
                    }
                    Some(SystemDefault::Probable(default)) => format!(
                        "keepalive is on but probes only after {seconds}s or more, probably {default}s, the system's \
                         default"
                    ),
                    None => format!("keepalive is on but probes only after {seconds}s or more"),
                }
            }
        }
        (Keepalive::Late, None) => "keepalive is on but comes too late".to_owned(),
        (Keepalive::On, _) => "keepalive is on".to_owned(),
        (Keepalive::Off, _) => "keepalive is off".to_owned(),
        (Keepalive::Unknown, _) => "another timer hides the keepalive timer".to_owned(),
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
    if finding.watched > Millis::ZERO {
        write!(f, "; the peer sent no probe while we watched ({}), and may have before", Human(finding.watched))
    } else {
        f.write_str("; one sweep does not show probes of the peer (--for watches for them)")
    }
}

/// An idle time that is a wait needs another remedy than an idle pool.
fn waiting(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    if finding.waiting_for_reply {
        f.write_str("; it waits for a reply, so a pool's idle limit does not help: keepalive or a request timeout does")
    } else {
        Ok(())
    }
}
