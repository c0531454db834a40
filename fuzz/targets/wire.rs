//! A datagram of a dump: no bytes make the decoder panic, loop, or return more messages than fit.
#![no_main]

use keepalive_auditor::wire::inet_diag::{Message, Messages};
use libfuzzer_sys::fuzz_target;

/// Netlink's message header.
const HEADER: usize = 16;

fuzz_target!(|datagram: &[u8]| {
    let mut messages = Messages::new(datagram);
    let mut count = 0;
    for message in messages.by_ref() {
        count += 1;
        if let Ok(Message::Socket(reply)) = message {
            let _ = reply.socket();
        }
    }
    assert!(count <= datagram.len() / HEADER + 1);
    let _ = messages.interrupted();
});
