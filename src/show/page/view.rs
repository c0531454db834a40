//! What of a report the page shows: the query of its address, and the form that changes it.

use std::fmt::Write as _;

use crate::show::escape::html as text;
use crate::show::sort::Sort;

/// What the address asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// A filter in the language of ss.
    pub filter: String,
    /// A glob over the owners' names.
    pub owner: String,
    /// One verdict, or several with commas; empty: what is flagged.
    pub verdict: String,
    /// The order.
    pub sort: Sort,
    /// After how many seconds the page loads again; 0: never.
    pub refresh: u32,
    /// What is wrong with the address.
    pub error: Option<String>,
}

/// Whether sweeps go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// As `/healthz` has it.
    pub is_healthy: bool,
    /// A sentence with a blank before it, or nothing.
    pub detail: String,
}

/// The choices of the form, in seconds.
const REFRESH: [u32; 3] = [0, 15, 60];

impl View {
    /// The address of the same page with another verdict.
    pub(super) fn with_verdict(&self, verdict: &str) -> String {
        let query = self.query(verdict, true);
        format!("/{query}")
    }

    /// The query of the report that lists the same connections.
    pub(super) fn report_query(&self) -> String {
        self.query(&self.verdict, false)
    }

    fn query(&self, verdict: &str, is_page: bool) -> String {
        let refresh = self.refresh.to_string();
        let mut pairs = vec![("filter", &*self.filter), ("owner", &*self.owner), ("verdict", verdict)];
        if is_page {
            pairs.push(("sort", if self.sort == Sort::default() { "" } else { self.sort.name() }));
            pairs.push(("refresh", if self.refresh == 0 { "" } else { &refresh }));
        }
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }

    /// The form, with what is asked for.
    pub(super) fn form(&self, out: &mut String) {
        out.push_str("<form method=\"get\" action=\"/\" role=\"search\">");
        let mut field = |name: &str, label: &str, hint: &str, value: &str, class: &str| {
            let _ = write!(
                out,
                "<label class=\"{class}\">{label}<input name=\"{name}\" value=\"{}\" placeholder=\"{hint}\" \
                 spellcheck=\"false\" autocomplete=\"off\"></label>",
                text(value)
            );
        };
        field("filter", "Filter, as in ss", "dport = :5432 and dst 10.0.0.0/8", &self.filter, "wide");
        field("owner", "Owner", "shop/cart*", &self.owner, "");
        if !self.verdict.is_empty() {
            let _ = write!(out, "<input type=\"hidden\" name=\"verdict\" value=\"{}\">", text(&self.verdict));
        }
        out.push_str("<label>Order<select name=\"sort\">");
        for sort in Sort::ALL {
            let selected = if sort == self.sort { " selected" } else { "" };
            let _ = write!(out, "<option{selected}>{}</option>", sort.name());
        }
        out.push_str("</select></label><label>Reload<select name=\"refresh\">");
        for seconds in REFRESH {
            let selected = if seconds == self.refresh { " selected" } else { "" };
            let label = if seconds == 0 { "never".to_owned() } else { format!("every {seconds} s") };
            let _ = write!(out, "<option value=\"{seconds}\"{selected}>{label}</option>");
        }
        out.push_str("</select></label><button>Show</button></form>");
    }
}

/// Text as a value in a query.
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~*,/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_keeps_what_else_was_asked_for() {
        let view = View {
            filter: "dport = :443 & \"x\"".into(),
            owner: "shop/cart*".into(),
            sort: Sort::Idle,
            refresh: 15,
            ..View::default()
        };
        assert_eq!(
            view.with_verdict("overdue"),
            "/?filter=dport%20%3D%20%3A443%20%26%20%22x%22&owner=shop/cart*&verdict=overdue&sort=idle&refresh=15"
        );
        assert_eq!(View::default().with_verdict(""), "/");
        assert_eq!(View { owner: "a".into(), ..View::default() }.report_query(), "?owner=a");
    }
}
