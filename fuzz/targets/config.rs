//! A configuration file: the program refuses it with a sentence that names the file, or has a policy.
#![no_main]

use keepalive_auditor::cli::Common;
use keepalive_auditor::config::{Config, ConfigFile};
use libfuzzer_sys::fuzz_target;

#[path = "support/file.rs"]
mod file;

fuzz_target!(|text: &[u8]| {
    let path = file::with("config.yaml", text);
    match ConfigFile::load(Some(&path)) {
        Ok(config) => {
            let _ = Config::new(&Common::default(), &config);
        }
        Err(error) => assert!(error.to_string().contains("config.yaml"), "{error}"),
    }
});
