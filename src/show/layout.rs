//! Rows fitted to a width: one line each where everything fits, else two.

use std::borrow::Cow;
use std::io::{self, Write};

use anstyle::Style;

/// One group of the overview, as text.
pub struct Row {
    /// The verdict.
    pub verdict: &'static str,
    /// The verdict's colour.
    pub style: Style,
    /// The number of connections.
    pub connections: String,
    /// The owner.
    pub owner: String,
    /// The program, with its process.
    pub program: String,
    /// Direction and endpoint.
    pub endpoint: String,
    /// Keepalive state or cause.
    pub keepalive: String,
    /// The longest idle time.
    pub idle: String,
    /// The idle timeout.
    pub limit: String,
    /// Names of remedies, best first.
    pub remedies: Vec<String>,
    /// What changed since an earlier sweep. The column is there if a row has a text.
    pub change: String,
}

const COLUMNS: usize = 9;
const TITLES: [&str; COLUMNS] =
    ["VERDICT", "CONNS", "WHO", "ENDPOINT", "KEEPALIVE", "IDLE", "LIMIT", "REMEDY", "CHANGE"];
/// Columns whose cells end at the same place.
const NUMBERS: [bool; COLUMNS] = [false, true, false, false, false, true, true, false, false];
/// The position of the column that may be cut.
const WHO: usize = 2;
/// The positions of columns that may be missing.
const LIMIT: usize = 6;
const CHANGE: usize = 8;
const GAP: usize = 2;
/// A name is cut on one line only while this much of it stays.
const SHORTEST_WHO: usize = 28;
/// Below this width a screen is treated as if it had it.
const NARROWEST: usize = 40;
/// A screen that is not narrow.
const STANDARD: usize = 80;
/// Of an owner's name at least this much stays beside the program.
const SHORTEST_OWNER: usize = 12;

/// Columns that a table may lack.
#[derive(Clone, Copy)]
struct Fit {
    /// Every remedy by its name.
    all_remedies: bool,
    /// The idle timeout, which the line above the table names, too, where all rows have the same.
    limit: bool,
    /// The middle of long names.
    whole_names: bool,
}

/// The forms of a table, the widest first.
const FITS: [Fit; 4] = [
    Fit { all_remedies: true, limit: true, whole_names: true },
    Fit { all_remedies: false, limit: true, whole_names: true },
    Fit { all_remedies: false, limit: false, whole_names: true },
    Fit { all_remedies: false, limit: false, whole_names: false },
];

/// Rows as lines of text.
pub struct Lines {
    /// The titles.
    pub titles: Vec<String>,
    /// The lines of each row. The first one begins with the verdict.
    pub rows: Vec<Vec<String>>,
}

/// Rows as lines of at most this width.
#[must_use]
pub fn lines(rows: &[Row], width: usize) -> Lines {
    let width = width.max(NARROWEST);
    let one_limit = rows.iter().all(|row| Some(&row.limit) == rows.first().map(|first| &first.limit));
    let fits = FITS.into_iter().map(|fit| Fit { limit: fit.limit || !one_limit, ..fit });
    match fits.into_iter().find_map(|fit| Table::fitting(rows, width, fit)) {
        Some(table) => table.lines(rows),
        None => stacked(rows, width),
    }
}

/// Writes the titles and as many rows as fit into the height; returns how many. `rows` are the first of `total`.
///
/// Where not all fit, one line stays free, to say so.
pub fn write(
    out: &mut impl Write,
    rows: &[Row],
    total: usize,
    width: usize,
    height: Option<usize>,
) -> io::Result<usize> {
    let Lines { titles, rows: lines } = lines(rows, width);
    let each = lines.first().map_or(1, Vec::len);
    // the titles of the second form are a line more
    let height = height.map(|height| height.saturating_sub(titles.len() - 1));
    let room = height.map_or(usize::MAX, |height| height / each);
    let shown = if total <= room { total } else { (room * each).saturating_sub(1) / each };
    // a screen that is too small for anything still shows the worst
    let shown = shown.max(1).min(rows.len());
    for title in titles {
        writeln!(out, "{title}")?;
    }
    for (row, lines) in rows.iter().zip(&lines).take(shown) {
        for (number, line) in lines.iter().enumerate() {
            let verdict = if number == 0 { row.verdict } else { "" };
            let rest = line.strip_prefix(verdict).unwrap_or(line);
            let style = if number == 0 { row.style } else { Style::new() };
            writeln!(out, "{style}{verdict}{style:#}{rest}")?;
        }
    }
    Ok(shown)
}

/// One line for each row.
struct Table {
    widths: [usize; COLUMNS],
    fit: Fit,
}

impl Table {
    /// `None` where too much would have to be cut.
    fn fitting(rows: &[Row], width: usize, fit: Fit) -> Option<Self> {
        let mut widths = TITLES.map(str::len);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row.cells(fit.all_remedies)) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !fit.limit {
            widths[LIMIT] = 0;
        }
        if rows.iter().all(|row| row.change.is_empty()) {
            widths[CHANGE] = 0;
        }
        let columns = widths.iter().filter(|width| **width > 0).count();
        let total: usize = widths.iter().sum::<usize>() + GAP * (columns - 1);
        let missing = total.saturating_sub(width);
        if missing > 0 {
            let left = widths[WHO].saturating_sub(missing);
            if fit.whole_names || left < SHORTEST_WHO || left * 4 < widths[WHO] * 3 {
                return None;
            }
            widths[WHO] = left;
        }
        Some(Self { widths, fit })
    }

    fn lines(&self, rows: &[Row]) -> Lines {
        let row = |row: &Row| {
            let mut cells = row.cells(self.fit.all_remedies);
            cells[WHO] = row.who(self.widths[WHO]);
            vec![self.line(&cells)]
        };
        Lines { titles: vec![self.line(&TITLES.map(Cow::Borrowed))], rows: rows.iter().map(row).collect() }
    }

    fn line(&self, cells: &[Cow<'_, str>; COLUMNS]) -> String {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(self.widths).enumerate().filter(|(_, (_, width))| *width > 0) {
            let blanks = width.saturating_sub(cell.chars().count());
            let (before, after) = if NUMBERS[at] { (blanks, 0) } else { (0, blanks) };
            line.extend(std::iter::repeat_n(' ', before));
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', after + GAP));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

impl Row {
    fn cells(&self, all_remedies: bool) -> [Cow<'_, str>; COLUMNS] {
        [
            self.verdict.into(),
            (&*self.connections).into(),
            self.who(usize::MAX),
            (&*self.endpoint).into(),
            (&*self.keepalive).into(),
            (&*self.idle).into(),
            (&*self.limit).into(),
            self.remedy(all_remedies),
            (&*self.change).into(),
        ]
    }

    /// `shop/cart (app) java[27161]`; where that is too long, without the middle of the owner's name.
    fn who(&self, width: usize) -> Cow<'_, str> {
        let Self { owner, program, .. } = self;
        if program.is_empty() || owner.is_empty() {
            return cut(if owner.is_empty() { program } else { owner }, width);
        }
        match width.saturating_sub(program.chars().count() + 1) {
            left if left >= SHORTEST_OWNER => format!("{} {program}", cut(owner, left)).into(),
            _ => cut(&format!("{owner} {program}"), width).into_owned().into(),
        }
    }

    /// `java, preload` or `java +1`
    fn remedy(&self, all: bool) -> Cow<'_, str> {
        match &self.remedies[..] {
            [] => "-".into(),
            [one] => one.into(),
            several if all => several.join(", ").into(),
            [first, others @ ..] => format!("{first} +{}", others.len()).into(),
        }
    }
}

/// Two lines for each row: whose it is, and below what is wrong with it.
fn stacked(rows: &[Row], width: usize) -> Lines {
    let verdicts = rows.iter().map(|row| row.verdict.len()).chain([TITLES[0].len()]).max().unwrap_or_default();
    let numbers = rows.iter().map(|row| row.connections.len()).chain([TITLES[1].len()]).max().unwrap_or_default();
    let left = width.saturating_sub(verdicts + GAP + numbers + GAP);
    let indent = if width < STANDARD { GAP } else { 2 * GAP };
    let titles = vec![
        format!("{:verdicts$}  {:>numbers$}  WHO", TITLES[0], TITLES[1]),
        format!("{:indent$}ENDPOINT  KEEPALIVE  IDLE/LIMIT  REMEDY", ""),
    ];
    let two_lines = |row: &Row| {
        let Row { verdict, connections, endpoint, keepalive, idle, limit, change, .. } = row;
        let line = |all| {
            let remedy = if row.remedies.is_empty() { Cow::Borrowed("") } else { row.remedy(all) };
            format!("{:indent$}{endpoint}  {keepalive}  {idle}/{limit}  {remedy}  {change}", "").trim_end().to_owned()
        };
        let fitting = [true, false].into_iter().map(line).find(|line| line.chars().count() <= width);
        let facts = fitting.unwrap_or_else(|| line(false));
        let who = format!("{verdict:verdicts$}  {connections:>numbers$}  {}", row.who(left));
        vec![who, cut(&facts, width).into_owned()]
    };
    Lines { titles, rows: rows.iter().map(two_lines).collect() }
}

/// Takes out the middle of a text that is too long: names mostly differ at their ends.
pub fn cut(text: &str, width: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= width {
        return text.into();
    }
    let kept = width.saturating_sub(1);
    let before = kept.div_ceil(2);
    let start = text.chars().take(before);
    let end = text.chars().skip(length - (kept - before));
    start.chain(['…']).chain(end).collect::<String>().into()
}

/// Lines of at most this width, broken at blanks.
pub fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let width = width.max(NARROWEST);
    let start = || " ".repeat(indent);
    let mut lines = vec![start()];
    for word in text.split_inclusive(' ') {
        let Some(line) = lines.last_mut() else { break };
        let length = line.chars().count() + word.trim_end().chars().count();
        if length > width && line.len() > indent {
            lines.push(start() + word.trim_start());
        } else {
            line.push_str(word);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// Texts with some blanks between them, as many on a line as fit.
pub fn side_by_side(texts: &[String], width: usize) -> Vec<String> {
    const APART: &str = "     ";
    let mut lines: Vec<String> = Vec::new();
    for text in texts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + APART.len() + text.chars().count() <= width => {
                *line += APART;
                *line += text;
            }
            _ => lines.push(text.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_name_keeps_both_ends() {
        assert_eq!(cut("shop/cart (app) java[27161]", 40), "shop/cart (app) java[27161]");
        assert_eq!(cut("shop/cart (app) java[27161]", 16), "shop/car…[27161]");
        assert_eq!(cut("abc", 0), "…");
    }

    #[test]
    fn lines_break_at_blanks() {
        let text = "2 of 9 connections are at risk · path default drops idle connections after 350s";
        assert_eq!(wrap(text, 100, 0), [text]);
        let [first, second] = &wrap(text, 60, 2)[..] else { unreachable!("two lines") };
        assert_eq!(*first, "  2 of 9 connections are at risk · path default drops idle");
        assert_eq!(*second, "  connections after 350s");
        let hints = ["--explain".to_owned(), "--list".to_owned(), "--owner 'shop/cart*'".to_owned()];
        assert_eq!(side_by_side(&hints, 40), ["--explain     --list", "--owner 'shop/cart*'"]);
        assert!(wrap("", 80, 2).is_empty());
    }
}
