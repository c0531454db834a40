//! What the query of `/api/v1/report`, or that of the page, asks for.

use crate::cli;
use crate::config::glob;
use crate::judge::policy::filter::Select;
use crate::judge::report::Finding;
use crate::judge::verdict::Verdict;
use crate::show::page::{Sort, View};
use crate::show::select::takes;
use crate::words;

/// The parameters of the report.
const PARAMETERS: [&str; 6] = ["verdict", "namespace", "pod", "owner", "filter", "limit"];

/// The connections that were asked for.
pub(super) struct Wanted {
    verdicts: Vec<Verdict>,
    select: Select,
    /// At most this many.
    pub limit: usize,
}

impl Wanted {
    pub fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let mut wanted = Self { verdicts: Vec::new(), select: Select::default(), limit: usize::MAX };
        let matcher = |name: &str, value: &str| glob(value).map(Some).map_err(|error| format!("{name}: {error}"));
        for (name, value) in query {
            match name.as_str() {
                "verdict" => {
                    for name in value.split(',') {
                        let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.name() == name);
                        wanted.verdicts.push(verdict.ok_or_else(|| not_a_verdict(name))?);
                    }
                }
                "namespace" => wanted.select.namespace = matcher(name, value)?,
                "pod" => wanted.select.pod = matcher(name, value)?,
                "owner" => wanted.select.owner = matcher(name, value)?,
                "filter" => wanted.select.filter = cli::filter(std::slice::from_ref(value))?,
                "limit" => wanted.limit = value.parse().map_err(|_| format!("limit: `{value}` is not a number"))?,
                other => {
                    let suggestion = words::suggest(other, PARAMETERS);
                    return Err(format!("`{other}` is not a parameter{suggestion}"));
                }
            }
        }
        Ok(wanted)
    }

    /// What the page is asked for: like the report, and in which order and how often. Empty fields ask for nothing.
    pub fn parse_page(query: &[(String, String)]) -> (Self, View) {
        let mut view = View::default();
        let mut rest = Vec::new();
        for (name, value) in query.iter().filter(|(_, value)| !value.trim().is_empty()) {
            match name.as_str() {
                "sort" => {
                    let known = Sort::ALL.map(Sort::name);
                    let unknown = || format!("sort: `{value}` is not an order{}", words::suggest(value, known));
                    let sort = Sort::ALL.into_iter().find(|sort| sort.name() == value).ok_or_else(unknown);
                    view.error = sort.map(|sort| view.sort = sort).err().or(view.error);
                }
                "refresh" => match value.parse() {
                    Ok(seconds) => view.refresh = seconds,
                    Err(_) => view.error = Some(format!("refresh: `{value}` is not a number of seconds")),
                },
                _ => rest.push((name.clone(), value.clone())),
            }
            let field = match name.as_str() {
                "filter" => &mut view.filter,
                "owner" => &mut view.owner,
                "verdict" => &mut view.verdict,
                _ => continue,
            };
            field.clone_from(value);
        }
        let wanted = Self::parse(&rest).unwrap_or_else(|error| {
            view.error = Some(error);
            Self { verdicts: Vec::new(), select: Select::default(), limit: 0 }
        });
        (wanted, view)
    }

    /// Whether this connection is one of them.
    pub fn includes(&self, finding: &Finding) -> bool {
        (self.verdicts.is_empty() || self.verdicts.contains(&finding.verdict)) && takes(&self.select, finding)
    }

    /// Whether the page shows it: without a verdict in the query it shows what is flagged.
    pub fn includes_on_page(&self, finding: &Finding) -> bool {
        (finding.verdict.flagged() || !self.verdicts.is_empty()) && self.includes(finding)
    }
}

fn not_a_verdict(name: &str) -> String {
    let known = Verdict::ALL.map(Verdict::name);
    let suggestion = words::did_you_mean(name, known);
    format!("verdict: `{name}` is not a verdict{suggestion} (valid are {})", known.join(", "))
}
