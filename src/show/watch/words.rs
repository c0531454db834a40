//! What the screen says above and below the list.

use super::{Clock, Model, Order};
use crate::show::escape;
use crate::show::layout;
use crate::show::units::Human;

/// The keys, most useful first, for the last line.
pub const KEYS: [(&str, &str); 9] = [
    ("q", "quit"),
    ("↑↓", "move"),
    ("enter", "open"),
    ("/", "filter"),
    ("s", "sort"),
    ("p", "pause"),
    ("?", "help"),
    ("a", "all"),
    ("w", "warnings"),
];

/// Every key, for the help.
pub const HELP: [(&str, &str); 14] = [
    ("↑ ↓  j k", "select a group"),
    ("PgUp PgDn  g G", "select one a page away, the first, the last"),
    ("enter  space", "open or close a group: why, what to do, connections"),
    ("s", "sort by: worst, connections, idle, owner"),
    ("r", "reverse the order"),
    ("/", "filter in the language of the command line; esc clears it"),
    ("", "  dport = :5432      dst 10.0.0.0/8      idle > 5m"),
    ("", "  owner = shop/*     verdict = overdue   program = java"),
    ("a", "show all groups, or only those at risk"),
    ("p", "pause: the screen stays, the sweeps go on"),
    ("w", "show all warnings, or the first ones"),
    ("CHANGE", "since the start: +1 is new, ↓1 got worse, ↑1 got better"),
    ("q  ctrl-c", "quit; ctrl-z suspends"),
    ("?  h  esc", "close this help; words: keepalive-auditor explain WORD"),
];

/// How a line is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The headline.
    Headline,
    /// Any other line.
    Plain,
    /// What limits the numbers.
    Warning,
    /// The screen does not show the newest sweep.
    Paused,
}

/// The lines above the list.
pub fn header(model: &Model, width: usize, height: usize, clock: Clock) -> Vec<(Mark, String)> {
    let mut lines = Vec::new();
    let mut put = |mark, text: &str, indent| {
        lines.extend(layout::wrap(text, width, indent).into_iter().map(|line| (mark, line)));
    };
    let Some(overview) = &model.overview else {
        put(Mark::Headline, &format!("The first sweep is under way{}", sweeping(clock)), 0);
        return lines;
    };
    put(Mark::Headline, &overview.headline(), 0);
    put(Mark::Plain, &overview.counts(), 2);
    let (mark, text) = when(model, clock);
    put(mark, &text, 2);
    put(Mark::Plain, &changes(model), 2);
    put(Mark::Plain, &view(model), 2);
    let at = lines.len();
    for warning in warnings(model) {
        let text = layout::wrap(&warning, width.saturating_sub(2), 0);
        let marks = ["! "].into_iter().chain(std::iter::repeat("  "));
        lines.extend(marks.zip(text).map(|(mark, line)| (Mark::Warning, format!("{mark}{line}"))));
    }
    let room = at + (height / 10).max(2);
    if lines.len() > room && !model.all_warnings {
        let hidden = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push((Mark::Warning, format!("! {hidden} more lines of warnings: w shows them")));
    }
    lines
}

/// When the sweep was.
fn when(model: &Model, clock: Clock) -> (Mark, String) {
    let Some(sweep) = &model.shown else { return (Mark::Plain, String::new()) };
    let at = time(sweep.report.started_at);
    let node = escape::line(&sweep.report.node);
    if let Some(pause) = &model.pause {
        let newer = match pause.sweeps {
            0 => "no newer sweep yet".to_owned(),
            1 => "1 newer sweep".to_owned(),
            many => format!("{many} newer sweeps"),
        };
        return (Mark::Paused, format!("PAUSED at the sweep of {at} UTC · {newer} · p goes on · {node}"));
    }
    let ago = clock.since_sweep.as_secs();
    let took = match sweep.report.duration.get() {
        ms @ 0..1000 => format!("{ms}ms"),
        _ => Human(sweep.report.duration).to_string(),
    };
    let every = Human::from(model.settings.interval);
    (Mark::Plain, format!("swept at {at} UTC, {ago}s ago, in {took} · every {every} · {node}{}", sweeping(clock)))
}

/// A sweep that takes long is shown.
fn sweeping(clock: Clock) -> String {
    match clock.sweeping.map(|since| since.as_secs()) {
        None | Some(0) => String::new(),
        Some(seconds) => format!(" · sweeping for {seconds}s"),
    }
}

/// What changed since the watch began.
fn changes(model: &Model) -> String {
    let since = model.baseline.as_ref().map_or_else(String::new, |baseline| time(baseline.started_at));
    let of_all = if model.filter_text.is_empty() { "" } else { ", of all connections" };
    format!("since {since}{of_all}: {}", model.changes)
}

/// The filter and the order, where they are not those of the beginning.
fn view(model: &Model) -> String {
    let mut parts = Vec::new();
    if let (false, Some(sweep)) = (model.filter_text.is_empty(), &model.shown) {
        let filter = escape::line(&model.filter_text);
        parts.push(format!("filter: {filter} (of {} connections)", sweep.findings.len()));
    }
    let reversed = if model.order.is_reversed { ", reversed" } else { "" };
    if model.order != Order::default() {
        parts.push(format!("sorted by {}{reversed}", model.order.by.name()));
    }
    if model.all {
        parts.push("all groups".to_owned());
    }
    parts.join(" · ")
}

/// What could not be read, and what else limits the numbers.
fn warnings(model: &Model) -> Vec<String> {
    let (Some(overview), Some(sweep)) = (&model.overview, &model.shown) else { return Vec::new() };
    let mut warnings = overview.warnings();
    for loss in &sweep.report.losses {
        let loss = escape::line(loss).into_owned();
        if !warnings.contains(&loss) {
            warnings.push(loss);
        }
    }
    warnings
}

/// `12:03:10`, of milliseconds since the Unix epoch.
fn time(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
