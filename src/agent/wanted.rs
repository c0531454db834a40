//! The query of `/api/v1/report`.

use crate::judge::report::Finding;
use crate::judge::verdict::Verdict;
use crate::words;

/// The requested connections.
pub(super) struct Wanted {
    verdicts: Vec<Verdict>,
    namespace: Option<String>,
    pod: Option<String>,
    /// The highest number of connections.
    pub limit: usize,
}

impl Wanted {
    pub fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let mut wanted = Self { verdicts: Vec::new(), namespace: None, pod: None, limit: usize::MAX };
        for (name, value) in query {
            match name.as_str() {
                "verdict" => {
                    for name in value.split(',') {
                        let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.name() == name);
                        wanted.verdicts.push(verdict.ok_or_else(|| not_a_verdict(name))?);
                    }
                }
                "namespace" => wanted.namespace = Some(value.clone()),
                "pod" => wanted.pod = Some(value.clone()),
                "limit" => wanted.limit = value.parse().map_err(|_| format!("limit: `{value}` is not a number"))?,
                other => {
                    let suggestion = words::suggest(other, ["verdict", "namespace", "pod", "limit"]);
                    return Err(format!("`{other}` is not a parameter{suggestion}"));
                }
            }
        }
        Ok(wanted)
    }

    /// Whether this connection is one of them.
    pub fn includes(&self, finding: &Finding) -> bool {
        let fits = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        (self.verdicts.is_empty() || self.verdicts.contains(&finding.verdict))
            && fits(&self.namespace, &finding.owner.namespace)
            && fits(&self.pod, &finding.owner.pod)
    }
}

fn not_a_verdict(name: &str) -> String {
    let known = Verdict::ALL.map(Verdict::name);
    let suggestion = words::did_you_mean(name, known);
    format!("verdict: `{name}` is not a verdict{suggestion} (valid are {})", known.join(", "))
}
