//! A filter in the language of `ss`: it is refused with a sentence, or answers for any connection.
#![no_main]

use keepalive_auditor::judge::policy::filter::Filter;
use keepalive_auditor::socket::Endpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Filter::parse(text) {
        Ok(filter) => {
            let _ = filter.matches(Endpoint::UNSPECIFIED, Endpoint::UNSPECIFIED);
        }
        Err(sentence) => assert!(!sentence.is_empty()),
    }
});
