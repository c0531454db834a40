//! The answers that list connections: the report and the page.

use std::io::{self, BufWriter};

use super::Published;
use crate::agent::answers::key;
use crate::agent::wanted::Wanted;
use crate::show::json::Document;
use crate::show::page::{Health, html};
use crate::web::{Packed, Packer, Page};

/// This much of a report is compressed at a time.
const BUFFER: usize = 64 * 1024;

impl Published {
    pub(super) fn report(&self, path: &str, query: &[(String, String)]) -> Page {
        let wanted = match Wanted::parse(query) {
            Ok(wanted) => wanted,
            Err(error) => return Page::text(400, format!("{error}\n")),
        };
        self.with_findings(&key(path, query), |report, digest| {
            let all = digest.findings();
            let findings = || all.iter().filter(|finding| wanted.includes(finding)).take(wanted.limit);
            // JSON comes in words, and compressing each by itself would keep the next sweep waiting for seconds
            let mut out = BufWriter::with_capacity(BUFFER, Packer::new());
            let written = serde_json::to_writer(&mut out, &Document { report, findings }).map_err(io::Error::from);
            let packer = written.and_then(|()| out.into_inner().map_err(io::IntoInnerError::into_error));
            match packer.and_then(Packer::finish) {
                Ok(text) => Page::packed("application/json", text),
                Err(error) => Page::text(500, format!("cannot write the report: {error}\n")),
            }
        })
    }

    pub(super) fn overview(&self, path: &str, query: &[(String, String)]) -> Page {
        let page = |text: String| match Packed::new(&text) {
            Ok(text) => Page::packed("text/html; charset=utf-8", text),
            Err(error) => Page::text(500, format!("cannot write the page: {error}\n")),
        };
        let (wanted, view) = Wanted::parse_page(query);
        let health = self.page_health();
        if self.state().report.is_none() {
            return page(html(&self.node, &view, &health, None));
        }
        // a page from before sweeps stopped does not say that they have
        let path = format!("{path} {}", health.detail);
        let status = if view.error.is_some() { 400 } else { 200 };
        self.with_findings(&key(&path, query), |report, digest| {
            let mut findings = digest.findings().iter().filter(|finding| wanted.includes_on_page(finding));
            let page = page(html(&self.node, &view, &health, Some((report, &mut findings))));
            Page { status, ..page }
        })
    }

    fn page_health(&self) -> Health {
        let state = self.state();
        let is_healthy = state.last.elapsed() <= state.unhealthy_after();
        let detail = match (is_healthy, state.failed_since) {
            (true, 0) => String::new(),
            (false, 0) => " No sweep has ended for too long.".to_owned(),
            (_, 1) => " One sweep has failed since.".to_owned(),
            (_, many) => format!(" {many} sweeps have failed since."),
        };
        Health { is_healthy, detail }
    }
}
