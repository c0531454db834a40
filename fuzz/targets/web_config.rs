//! A web configuration file: the program refuses it with a sentence, or has rules.
#![no_main]

use keepalive_auditor::web::Access;
use libfuzzer_sys::fuzz_target;

#[path = "support/file.rs"]
mod file;

fuzz_target!(|text: &[u8]| {
    let path = file::with("web.yaml", text);
    if let Err(error) = Access::load(&path) {
        assert!(!error.is_empty());
    }
});
