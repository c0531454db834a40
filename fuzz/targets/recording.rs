//! A recording from somebody else: the program refuses it, or judges it and renders the report in every format.
#![no_main]

use std::sync::Arc;

use keepalive_auditor::digest::Digest;
use keepalive_auditor::judge::policy::{OverdueBy, Policy};
use keepalive_auditor::record::{Record, RecordError, replay};
use keepalive_auditor::show::json::Document;
use keepalive_auditor::show::metrics::{Detail, Limits, SweepDurations, View, text};
use keepalive_auditor::show::table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let policy = Policy { overdue_by: OverdueBy::Watch, ..Policy::default() };
    let mut digest = Digest::new(Arc::new(policy));
    let read = replay(file, |record: Record<'static>| {
        digest.feed(&record);
        Ok::<(), RecordError>(())
    });
    let Ok(header) = read else { return };
    let report = digest.report(&header.node);
    let document = Document { report: &report, findings: || report.findings.iter() };
    serde_json::to_string(&document).expect("a report is JSON");
    let options = table::Options { wide: true, ..table::Options::default() };
    table::write(&mut Vec::new(), &report, || report.findings.iter(), options).expect("a vector takes it");
    let limits = Limits { detail: Detail::Container, top_endpoints: 2, max_series: 20 };
    text(View::new(Some(&report), &SweepDurations::default(), limits)).expect("a page of metrics");
});
