//! Reads one network namespace: its owner, its counters, and the sockets that the consumer needs.

use super::clock::{clock, cpu_time};
use super::ends::Events;
use super::failure::{self, Unread};
use super::netns::{self, Found};
use super::{Host, counters, diag, lookup, privileges};
use crate::owner::NsId;
use crate::record::{Consumer, Loss, Namespace, ReadMode, Record, WhatToRead};
use crate::socket::SocketName;
use crate::words;

/// The highest number of ended connections of one namespace that one sweep looks up.
const MAX_LOOKED_UP: usize = 512;

impl Host {
    /// Enters a namespace and reads it. `at_home` is the current namespace of the thread, until it enters another one.
    pub(super) fn read_namespace<C: Consumer>(
        &mut self,
        id: NsId,
        found: &Found,
        is_host: bool,
        at_home: &mut Option<NsId>,
        unread: &mut Unread,
        to: &mut C,
    ) -> Result<(), C::Error> {
        let name = found.name.clone().unwrap_or_else(|| id.to_string());
        // before the thread enters: a source that blocks must not keep a namespace alive
        let owner = self.owners.of_namespace(id, found.name.as_deref(), &found.pids, is_host);
        // the thread needs no capability for the namespace that it is already in
        if *at_home != Some(id) {
            match netns::enter(id, found, &self.paths.roots.procfs) {
                Ok(true) => *at_home = None,
                Ok(false) => {
                    let detail = format!("network namespace {name} is gone");
                    let reason = crate::record::LossReason::Vanished;
                    return to.consume(&Record::Loss(Loss::new(Some(id), reason, detail)));
                }
                Err(error) => {
                    unread.add(id, failure::reason(&error), "enter", entering(&name, &error));
                    return Ok(());
                }
            }
        }
        if is_host {
            to.consume(&Record::Node(self.limits.read(id).clone()))?;
        }
        if self.ends.is_enabled() {
            // before its connections are read, so that no later end is missed
            self.ends.watch(id, found, &to.flagged(id));
        }
        if found.is_replaced {
            self.counters.forget(id);
        }
        let (mut counters, failed) = self.counters.read(id, to.compares_probes(id));
        if is_host {
            // what is said of other namespaces is compared with the host's default
            counters.tcp_keepalive_time = counters.tcp_keepalive_time.or_else(counters::keepalive_time);
        }
        if let Some(error) = failed {
            to.consume(&Record::Loss(failure::loss("read the counters of network namespace", &name, &error)))?;
        }
        let namespace = Namespace {
            id,
            name: found.name.clone(),
            clock: clock(),
            owner,
            counters: Some(counters),
            read: ReadMode::Dump,
        };
        self.read_sockets(namespace, &name, found.is_replaced, unread, to)?;
        self.read_ends(id, to)
    }

    /// Reports the kernel's state of flagged connections that the read did not show.
    fn read_ends<C: Consumer>(&mut self, id: NsId, to: &mut C) -> Result<(), C::Error> {
        let mut ended = to.ended(id);
        let (events, watched) = self.ends.take(id);
        if !ended.is_empty() {
            ended.truncate(MAX_LOOKED_UP);
            // a failure here proves nothing, and the sockets themselves are gone
            let bytes = lookup::find(&ended).unwrap_or_default().into();
            let counters = counters::now().unwrap_or_default();
            to.consume(&Record::Ends { namespace: id, counters, watched, bytes })?;
        }
        consume_events(id, events, to)
    }

    /// Adds the counters that only a whole read needs. Without them the next sweep reads everything again.
    fn complete(&self, namespace: &mut Namespace) {
        namespace.counters = namespace.counters.map(|counters| self.counters.complete(counters));
    }

    fn read_sockets<C: Consumer>(
        &mut self,
        mut namespace: Namespace,
        name: &str,
        is_replaced: bool,
        unread: &mut Unread,
        to: &mut C,
    ) -> Result<(), C::Error> {
        let begun = cpu_time();
        if namespace.counters.is_some_and(|counters| counters.curr_estab == Some(0)) {
            namespace.read = ReadMode::Empty;
            return to.consume(&Record::Namespace(namespace));
        }
        // what is stored may be of another namespace with this number
        match if is_replaced { WhatToRead::Everything } else { to.what_to_read(&namespace) } {
            WhatToRead::Nothing => {
                namespace.read = ReadMode::Skip;
                return to.consume(&Record::Namespace(namespace));
            }
            WhatToRead::Due(names) => {
                if look_up(&mut namespace, &names, ReadMode::Due, to)? {
                    return to.consume(&Record::ReadEnd { interrupted: false, cost: cpu_time().saturating_sub(begun) });
                }
                self.complete(&mut namespace);
            }
            WhatToRead::Sockets(names) => {
                self.complete(&mut namespace);
                if look_up(&mut namespace, &names, ReadMode::LookUp, to)? {
                    return to.consume(&Record::ReadEnd { interrupted: false, cost: cpu_time().saturating_sub(begun) });
                }
            }
            WhatToRead::Everything => self.complete(&mut namespace),
        }
        let id = namespace.id;
        to.consume(&Record::Namespace(namespace))?;
        let ended = diag::dump(&mut self.kernel, &mut self.buffer, |bytes| {
            to.consume(&Record::Datagram { clock: clock(), bytes: bytes.into() })
        })?;
        if let Some(error) = ended.error {
            unread.add(id, error.reason, "read the connections of", format!("{name}: {error}"));
        }
        let cost = cpu_time().saturating_sub(begun);
        to.consume(&Record::ReadEnd { interrupted: ended.interrupted, cost })
    }
}

/// Looks up known sockets. False if that is not enough, so that a dump must show the sockets or the error.
fn look_up<C: Consumer>(
    namespace: &mut Namespace,
    names: &[SocketName],
    mode: ReadMode,
    to: &mut C,
) -> Result<bool, C::Error> {
    let Ok(Some(answers)) = lookup::look_up(names) else { return Ok(false) };
    namespace.read = mode;
    to.consume(&Record::Namespace(namespace.clone()))?;
    for (clock, bytes) in answers {
        to.consume(&Record::Datagram { clock, bytes: bytes.into() })?;
    }
    Ok(true)
}

/// Reports destroy events.
pub(super) fn consume_events<C: Consumer>(namespace: NsId, events: Events, to: &mut C) -> Result<(), C::Error> {
    events
        .into_iter()
        .try_for_each(|(clock, bytes)| to.consume(&Record::Destroyed { namespace, clock, bytes: bytes.into() }))
}

/// The rest of the sentence "cannot enter network namespace".
fn entering(name: &str, error: &std::io::Error) -> String {
    if failure::reason(error) != crate::record::LossReason::Permission {
        return format!("{name}: {}", words::reason(error));
    }
    format!("{name}: permission denied. {}", privileges::advice(privileges::ENTER))
}
