//! Draws the state: pinned lines above, the list, and the keys below.

use std::iter::repeat_n;

use anstyle::{AnsiColor, Color as AnsiStyleColor, Effects};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::words::{HELP, KEYS, Mark, header};
use super::{Clock, Model};
use crate::judge::report::Finding;
use crate::judge::verdict::Verdict;
use crate::show::escape;
use crate::show::groups::{Group, idle};
use crate::show::layout;
use crate::show::overview::Overview;
use crate::show::table;
use crate::show::units::{Human, PlainTimer};

/// Marks the selected row, beside its style.
const SELECTED: &str = "> ";
const INDENT: usize = SELECTED.len();
/// What is in an open group.
const INNER: usize = 2 * INDENT;
/// The list keeps this many lines.
const LEAST_LIST: usize = 5;
const PROMPT: &str = "filter: ";

impl Model {
    /// Draws the whole screen.
    pub fn draw(&mut self, frame: &mut Frame<'_>, clock: Clock) {
        let area = frame.area();
        let (width, height) = (usize::from(area.width), usize::from(area.height));
        let mut footer = self.footer(width);
        // the line that is typed is the last one
        footer.drain(..footer.len().saturating_sub(height));
        let rest = height.saturating_sub(footer.len());
        let mut lines = self.header(width, height, clock);
        lines.truncate(rest.saturating_sub(LEAST_LIST));
        let room = rest.saturating_sub(lines.len());
        lines.extend(if self.shows_help { help(width) } else { self.body(width, room) });
        let blank = Line::default();
        lines.truncate(rest);
        let blanks = rest - lines.len();
        lines.extend(repeat_n(blank, blanks));
        lines.extend(footer);
        put(frame.buffer_mut(), area, &lines);
        if let Some(editor) = &self.editor {
            let at = Line::raw(format!("{PROMPT}{}", editor.before_cursor())).width().min(width.saturating_sub(1));
            let column = area.x + u16::try_from(at).unwrap_or(0);
            frame.set_cursor_position(Position::new(column, area.y + area.height.saturating_sub(1)));
        }
    }

    fn header(&self, width: usize, height: usize, clock: Clock) -> Vec<Line<'static>> {
        let style = |mark| match mark {
            Mark::Headline => Style::new().add_modifier(Modifier::BOLD),
            Mark::Plain => Style::new(),
            Mark::Warning => self.colored(Color::Yellow),
            Mark::Paused => Style::new().add_modifier(Modifier::REVERSED),
        };
        header(self, width, height, clock).into_iter().map(|(mark, text)| Line::styled(text, style(mark))).collect()
    }

    fn colored(&self, color: Color) -> Style {
        if self.settings.color { Style::new().fg(color) } else { Style::new() }
    }

    /// The titles and the groups, scrolled.
    fn body(&mut self, width: usize, room: usize) -> Vec<Line<'static>> {
        let Some(overview) = self.overview.take() else { return Vec::new() };
        let layout::Lines { titles, rows } = layout::lines(&self.list.rows, width.saturating_sub(INDENT));
        let mut lines = Vec::new();
        // a small screen shows groups instead
        if room > 2 * LEAST_LIST {
            lines.push(Line::default());
        }
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if !rows.is_empty() && room > LEAST_LIST {
            lines.extend(titles.into_iter().map(|title| Line::styled(format!("{:INDENT$}{title}", ""), bold)));
        }
        let blocks: Vec<Vec<Line<'static>>> =
            rows.into_iter().enumerate().map(|(at, row)| self.block(&overview, at, row, width)).collect();
        let below = self.below(&overview, width);
        let height = room.saturating_sub(lines.len());
        self.list.fit(height, blocks.iter().map(Vec::len).collect(), below.len());
        let all = blocks.into_iter().flatten().chain(below);
        let total = self.list.total();
        lines.extend(all.skip(self.list.offset).take(height));
        if let (Some(last), true) = (lines.last_mut(), self.list.offset + height < total && height > 2) {
            let hidden = total - self.list.offset - height + 1;
            *last = Line::styled(format!("… {hidden} more lines"), Style::new().add_modifier(Modifier::DIM));
        }
        self.overview = Some(overview);
        lines
    }

    /// One group, with what is in it if it is open.
    fn block(&self, overview: &Overview<'_>, at: usize, row: Vec<String>, width: usize) -> Vec<Line<'static>> {
        let is_selected = at == self.list.selected;
        let Some(group) = overview.groups.get(at) else { return Vec::new() };
        let (verdict, style) = (group.verdict().name(), self.style(group.verdict()));
        let selected = if is_selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        let mut lines: Vec<Line<'static>> = Vec::new();
        for (number, line) in row.into_iter().enumerate() {
            let blanks = " ".repeat(width.saturating_sub(INDENT + line.chars().count()));
            let line = match line.strip_prefix(verdict) {
                Some(rest) if number == 0 => {
                    let marker = if is_selected { SELECTED } else { "  " };
                    vec![Span::raw(marker), Span::styled(verdict, style), Span::raw(format!("{rest}{blanks}"))]
                }
                _ => vec![Span::raw(format!("{:INDENT$}{line}{blanks}", ""))],
            };
            lines.push(Line::from(line).style(selected));
        }
        if self.list.is_open(at) {
            lines.extend(inside(overview, group, width).into_iter().map(Line::raw));
        }
        lines
    }

    /// What is said below the groups.
    fn below(&self, overview: &Overview<'_>, width: usize) -> Vec<Line<'static>> {
        let mut texts = Vec::new();
        if overview.groups.is_empty() {
            let is_filtered = !self.filter_text.is_empty();
            texts.extend(match overview.report().connections {
                0 if is_filtered => Some("No connection matches the filter: / changes it, esc clears it.".to_owned()),
                0 => None,
                _ => Some("No group is at risk: a shows all of them.".to_owned()),
            });
        }
        let remarks = overview.remarks();
        if !remarks.is_empty() {
            texts.push(String::new());
            texts.extend(remarks);
        }
        let dim = Style::new().add_modifier(Modifier::DIM);
        let wrapped = texts.iter().flat_map(|text| match text.as_str() {
            "" => vec![String::new()],
            text => layout::wrap(text, width, INDENT),
        });
        wrapped.map(|line| Line::styled(line, dim)).collect()
    }

    /// The colour repeats what the word says.
    fn style(&self, verdict: Verdict) -> Style {
        if !self.settings.color {
            return Style::new();
        }
        let style = table::style(verdict);
        let mut shown = Style::new();
        if let Some(AnsiStyleColor::Ansi(color)) = style.get_fg_color() {
            shown = shown.fg(match color {
                AnsiColor::Red => Color::Red,
                AnsiColor::Yellow => Color::Yellow,
                AnsiColor::Green => Color::Green,
                _ => Color::Reset,
            });
        }
        for (effect, modifier) in [(Effects::BOLD, Modifier::BOLD), (Effects::DIMMED, Modifier::DIM)] {
            if style.get_effects().contains(effect) {
                shown = shown.add_modifier(modifier);
            }
        }
        shown
    }

    /// The keys, or the filter that is being typed.
    fn footer(&self, width: usize) -> Vec<Line<'static>> {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if let Some(editor) = &self.editor {
            let red = self.colored(Color::Red);
            let errors = editor.error.iter().map(|line| Line::styled(escape::line(line).into_owned(), red));
            let text = escape::line(&editor.text()).into_owned();
            let prompt = Line::from(vec![Span::styled(PROMPT, bold), Span::raw(text)]);
            return errors.chain([prompt]).collect();
        }
        let mut spans: Vec<Span<'static>> = Vec::new();
        let mut used = 0;
        for (key, what) in KEYS {
            let gap = if spans.is_empty() { 0 } else { 3 };
            let length = gap + key.chars().count() + 1 + what.len();
            if used + length > width {
                break;
            }
            used += length;
            spans.extend([Span::raw(" ".repeat(gap)), Span::styled(key, bold), Span::raw(format!(" {what}"))]);
        }
        vec![Line::from(spans)]
    }
}

/// Why a group is flagged, what helps, and its first connections.
fn inside(overview: &Overview<'_>, group: &Group, width: usize) -> Vec<String> {
    let mut lines: Vec<String> =
        overview.details(group).iter().flat_map(|line| layout::wrap(line, width, INNER)).collect();
    let is_shared = group.pods.len() > 1 || group.processes.len() > 1;
    let connections: Vec<[String; 4]> = group.worst.iter().map(|finding| connection(finding, is_shared)).collect();
    let longest = |column: usize| connections.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let [ends, idle, timer] = [0, 1, 2].map(longest);
    for [of_ends, of_idle, of_timer, who] in &connections {
        let facts = format!("{:INNER$}{of_ends:ends$}  {of_idle:>idle$}  {of_timer:timer$}  ", "");
        let room = width.saturating_sub(facts.chars().count());
        lines.push(format!("{facts}{}", layout::cut(who, room)).trim_end().to_owned());
    }
    let more = group.connections().saturating_sub(connections.len());
    if more > 0 {
        lines.push(format!("{:INNER$}… and {more} more", ""));
    }
    lines
}

/// Its two ends, how long it is idle, its timer; and who holds it, where the group has several of them.
fn connection(finding: &Finding, is_shared: bool) -> [String; 4] {
    let idle = idle(finding).map_or_else(|| "?".to_owned(), |idle| Human(idle).to_string());
    let timer = match PlainTimer(finding).to_string().as_str() {
        "-" => "no timer".to_owned(),
        timer => timer.to_owned(),
    };
    let holder = finding.holder.as_deref();
    let pod = finding.owner.pod.as_deref().unwrap_or_default();
    let holder = holder.map_or_else(String::new, |holder| format!("{}[{}]", holder.program(), holder.pid));
    let who = if is_shared { escape::line(format!("{pod} {holder}").trim()).into_owned() } else { String::new() };
    [format!("{} → {}", finding.local, finding.remote), format!("idle {idle}"), timer, who]
}

fn help(width: usize) -> Vec<Line<'static>> {
    let keys = HELP.iter().map(|(key, _)| key.chars().count()).max().unwrap_or_default();
    let mut lines = vec![Line::default()];
    for (key, what) in HELP {
        let mut wrapped = if what.starts_with(' ') {
            vec![what.to_owned()]
        } else {
            layout::wrap(what, width.saturating_sub(keys + 4), 0)
        }
        .into_iter();
        let first = wrapped.next().unwrap_or_default();
        let bold = Style::new().add_modifier(Modifier::BOLD);
        lines.push(Line::from(vec![Span::styled(format!("  {key:keys$}  "), bold), Span::raw(first)]));
        lines.extend(wrapped.map(|line| Line::raw(format!("{:1$}{line}", "", keys + 4))));
    }
    lines
}

/// Writes the lines from the top.
fn put(buffer: &mut Buffer, area: Rect, lines: &[Line<'_>]) {
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        buffer.set_line(area.x, y, line, area.width);
    }
}
