//! The remedies' data files: one a target, a front matter that describes it and the template of its text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use include_dir::{Dir, File, include_dir};
use serde::{Deserialize, Serialize};

use super::RemedyError;
use super::fits::Fits;
use crate::words;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/remedy/targets");
const EXTENSION: &str = ".j2";
const FENCE: &str = "---\n";

/// A remedy: what its front matter says, and its template.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What the user writes; the file's name.
    #[serde(skip)]
    pub name: String,
    /// Whose connections it protects.
    pub description: String,
    /// Which side of that program it fixes.
    pub side: Side,
    /// Which connections of the workload it fixes.
    pub direction: Reach,
    /// Which keepalive states it fixes.
    pub helps: Vec<Helps>,
    /// When, and whether something must be restarted.
    pub takes_effect: String,
    /// What to know before using it.
    pub caveat: String,
    /// The connections that it is offered for.
    #[serde(default)]
    pub fits: Fits,
    /// It changes the code of programs in one language. It is offered where the language is not known.
    #[serde(default)]
    pub is_language: bool,
    /// It is offered only where no configuration of the program helps.
    #[serde(default)]
    pub is_last_resort: bool,
    /// It makes programs send HTTP/2 PING frames, which some middleboxes do not count.
    #[serde(default)]
    pub sends_pings: bool,
    /// What stands in for flags that were not given.
    #[serde(default)]
    pub defaults: Defaults,
    /// Sentences for stderr; templates too.
    #[serde(default)]
    pub hints: Vec<String>,
    /// Each field that the text sets, and where it is documented.
    pub sources: BTreeMap<String, String>,
    /// The template.
    #[serde(skip)]
    pub body: String,
}

/// Which side of a proxy or program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// A proxy's connections from its clients.
    Downstream,
    /// A proxy's connections to its backends.
    Upstream,
    /// Both sides of a proxy or pod.
    Both,
    /// A program's own sockets.
    Application,
}

/// Which direction of connections, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Those it accepts.
    Inbound,
    /// Those it opens.
    Outbound,
    /// Both.
    Both,
}

/// A keepalive state that a remedy fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Helps {
    /// No keepalive timer.
    Off,
    /// A keepalive timer that probes too late.
    Late,
    /// A keepalive timer that probes too late because its times are the system's default.
    Default,
}

/// What stands in for flags that were not given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// For `--host`.
    pub host: Option<String>,
    /// For `--port`.
    pub port: Option<u16>,
    /// For `--name`.
    pub name: Option<String>,
    /// For `--namespace`.
    pub namespace: Option<String>,
}

/// As `remedy --list` writes it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Downstream => "downstream",
            Side::Upstream => "upstream",
            Side::Both => "both sides",
            Side::Application => "the program's own sockets",
        };
        let direction = match self.direction {
            Reach::Inbound => "inbound connections",
            Reach::Outbound => "outbound connections",
            Reach::Both => "inbound and outbound connections",
        };
        let helps = match (self.helps.contains(&Helps::Off), self.helps.contains(&Helps::Late)) {
            (true, _) => "off and late",
            (false, true) => "late only, never off",
            (false, false) => "late only, with the system's default times",
        };
        writeln!(f, "{}", self.name)?;
        writeln!(f, "    {}", self.description)?;
        writeln!(f, "    fixes:  {side}, {direction}; keepalive {helps}")?;
        writeln!(f, "    effect: {}", self.takes_effect)?;
        writeln!(f, "    caveat: {}", self.caveat)
    }
}

/// Every target, in alphabetical order.
pub(super) fn all() -> Result<Vec<Target>, RemedyError> {
    // compiling the globs costs more than all the matching, and each request for the page needs them
    static PARSED: LazyLock<Option<Vec<Target>>> = LazyLock::new(|| parse_all().ok());
    PARSED.clone().map_or_else(parse_all, Ok)
}

fn parse_all() -> Result<Vec<Target>, RemedyError> {
    files().into_iter().map(|(name, text)| parse(name, text)).collect()
}

/// The target of that name.
pub(super) fn find(name: &str) -> Result<Target, RemedyError> {
    let files = files();
    let Some(text) = files.get(name) else {
        let suggestion = words::suggest(name, files.keys().copied());
        return Err(RemedyError::UnknownTarget { name: name.into(), suggestion });
    };
    parse(name, text)
}

/// The data files by their targets' names.
fn files() -> BTreeMap<&'static str, &'static str> {
    let named = |file: &'static File<'static>| {
        let name = file.path().to_str()?.strip_suffix(EXTENSION)?;
        Some((name, file.contents_utf8().unwrap_or_default()))
    };
    FILES.files().filter_map(named).collect()
}

fn parse(name: &str, text: &str) -> Result<Target, RemedyError> {
    let broken = |reason: String| RemedyError::Broken { target: name.into(), reason };
    let (front, body) = text
        .strip_prefix(FENCE)
        .and_then(|rest| rest.split_once("\n---\n"))
        .ok_or_else(|| broken("it has no front matter between two lines of ---".into()))?;
    let target: Target = serde_saphyr::from_str(front).map_err(|error| broken(error.to_string()))?;
    let plain = [&target.description, &target.takes_effect, &target.caveat];
    if let Some(text) = plain.into_iter().find(|text| text.contains("{{") || text.contains("{%")) {
        return Err(broken(format!("only hints and the body are templates, not `{text}`")));
    }
    Ok(Target { name: name.into(), body: body.into(), ..target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_refused_by_name_with_the_reason() {
        let leaks = include_str!("targets/nginx.j2").replace("takes_effect: ", "takes_effect: with {{ idle }} ");
        for (text, why) in [
            ("listen 80;", "front matter"),
            ("---\ndescription: x\nbogus: 1\n---\nlisten 80;", "bogus"),
            (&leaks, "with {{ idle }}"),
        ] {
            let error = parse("nginx", text).expect_err("is broken").to_string();
            assert!(error.contains("nginx") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_unknown() {
        for name in ["", "../mod.rs", "nginx.j2", "NGINX"] {
            assert!(matches!(find(name), Err(RemedyError::UnknownTarget { .. })), "{name:?}");
        }
    }
}
