//! The time of `GET /metrics` with 250 pods. It must grow with series and not with connections.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use keepalive_auditor::cli::{AgentArgs, Common};
use keepalive_auditor::config::{AgentConfig, ConfigFile};
use keepalive_auditor::digest::Digest;
use keepalive_auditor::judge::report::Report;
use keepalive_auditor::show::metrics::{Limits, SweepDurations, View, text};
use keepalive_auditor::web::{self, Cost, Page, Site};

use crate::generated;
use crate::measure::{cpu_clock, median};
use crate::table::row;

const PODS: u32 = 250;
const REQUESTS: usize = 200;

/// Serves the metrics of one report, rendered for each request as the agent does.
struct Metrics {
    report: Report,
    limits: Limits,
}

impl Site for Metrics {
    fn page(&self, _: &str, _: &[(String, String)]) -> Option<Page> {
        let view = View::new(Some(&self.report), &SweepDurations::default(), self.limits);
        Some(Page::text(200, text(view).expect("metrics are gathered")))
    }

    fn cost(&self, _: &str) -> Cost {
        Cost::Cheap
    }

    fn is_open(&self, _: &str) -> bool {
        true
    }
}

/// Measures with more and more connections in the same number of pods.
pub fn measure() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for each in [4, 40, 400] {
        let config = AgentConfig::new(&Common::default(), &AgentArgs::default(), &ConfigFile::default())
            .expect("defaults are valid");
        let node = generated::Node::new(PODS, each);
        let mut digest = Digest::new(Arc::new(config.config.policy));
        // Ten minutes: connections that are idle by then are overdue.
        for number in 0..40 {
            let sweep = node.sweep(number);
            sweep.records(|record| digest.feed(record));
            digest.feed(&sweep.end());
        }
        let site = Arc::new(Metrics { report: digest.report("bench"), limits: config.limits });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let to = listener.local_addr().expect("an address");
        let server = runtime.spawn(web::serve(listener, site, None, web::Limits::new(8), std::future::pending()));
        let mut stream = BufReader::new(TcpStream::connect(to).expect("the server answers"));
        let mut page = String::new();
        let before = cpu_clock();
        let took = median((0..REQUESTS).map(|_| {
            let start = Instant::now();
            page = get(&mut stream);
            start.elapsed().as_secs_f64()
        }));
        let used = (cpu_clock() - before) * 1e3 / f64::from(u32::try_from(REQUESTS).expect("few"));
        server.abort();
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        let connections = PODS * each;
        println!(
            "{PODS} pods, {connections} connections: {series} series, {} bytes, {used:.1} ms of CPU, the client's \
             included",
            page.len()
        );
        row(&format!("5 GET /metrics, {PODS} pods, {connections} connections"), took * 1e3, 5.0, "ms");
    }
}

/// Sends one request on an open connection and returns the body.
fn get(stream: &mut BufReader<TcpStream>) -> String {
    stream.get_mut().write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n").expect("a request is sent");
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("an answer");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a whole answer");
    String::from_utf8(body).expect("text")
}
