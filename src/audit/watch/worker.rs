//! The thread that sweeps, so that the screen answers keys while a sweep takes seconds.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use anyhow::Result;

use super::super::{AuditResult, Sweeper, ends};
use super::screen::Message;
use crate::digest::Digest;
use crate::show::watch::Sweep;

/// What the worker says.
pub enum News {
    /// A sweep has begun.
    Begun,
    /// It has ended.
    Swept(Box<Sweep>),
    /// There will be no more of them: `--fail-on` found something, or a sweep failed.
    Ended(Result<Box<AuditResult>>),
}

/// Sweeps until nobody listens, or a sweep ends the watch.
pub fn sweep(mut sweeper: Sweeper, mut digest: Digest, pause: Duration, to: &Sender<Message>, stop: &Receiver<()>) {
    let send = |news| to.send(Message::News(news)).is_ok();
    while send(News::Begun) {
        let mut result = match sweeper.sweep(digest) {
            Ok(result) => result,
            Err(error) => {
                send(News::Ended(Err(error)));
                return;
            }
        };
        if ends(&sweeper.args, &result.report) {
            send(News::Ended(Ok(Box::new(result))));
            return;
        }
        let findings = result.found().1.iter().collect();
        if !send(News::Swept(Box::new(Sweep { report: result.report, findings }))) {
            return;
        }
        digest = result.digest;
        if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
