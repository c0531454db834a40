//! The list of groups: which one is selected, which are open, and the part that the screen shows.

use std::collections::BTreeSet;

use ratatui::crossterm::event::KeyCode;

use crate::judge::verdict::Verdict;
use crate::show::groups::Group;
use crate::show::layout::Row;
use crate::show::overview::Overview;

/// Recognises a group in the next sweep.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    /// All that stays when time passes.
    what: String,
    verdict: Verdict,
}

impl Identity {
    fn of(group: &Group) -> Self {
        let Group { workload, direction, endpoints, program, path, keepalive, seconds, processes, .. } = group;
        let process = processes.first().filter(|_| processes.len() == 1).map(|holder| holder.pid);
        let who = (workload, program, process);
        let what = format!("{who:?} {direction:?} {endpoints:?} {:?} {:?}", path.name, (keepalive, seconds));
        Self { what, verdict: group.verdict() }
    }
}

/// The groups as rows.
#[derive(Default)]
pub struct List {
    identities: Vec<Identity>,
    /// Their texts.
    pub rows: Vec<Row>,
    /// The position of the selected one.
    pub selected: usize,
    open: BTreeSet<String>,
    /// Lines above the part that is shown.
    pub offset: usize,
    /// Lines that are shown.
    height: usize,
    /// The lines of each row, as they were last shown.
    lengths: Vec<usize>,
    /// Lines below the last row.
    rest: usize,
}

impl List {
    /// Takes the groups of another sweep, filter or order. The selected one stays selected.
    pub fn update(&mut self, overview: &Overview<'_>) {
        let selected = self.identities.get(self.selected).cloned();
        self.identities = overview.groups.iter().map(Identity::of).collect();
        self.rows = overview.groups.iter().map(|group| overview.row(group, false)).collect();
        let found = selected.and_then(|selected| {
            let same = |is_same: &dyn Fn(&Identity) -> bool| self.identities.iter().position(is_same);
            same(&|other| *other == selected).or_else(|| same(&|other| other.what == selected.what))
        });
        self.selected = found.unwrap_or(self.selected).min(self.rows.len().saturating_sub(1));
    }

    /// Whether a row is open.
    pub fn is_open(&self, row: usize) -> bool {
        self.identities.get(row).is_some_and(|identity| self.open.contains(&identity.what))
    }

    /// Takes what the screen shows: its height, the lines of each row, and those below the last one.
    pub fn fit(&mut self, height: usize, lengths: Vec<usize>, rest: usize) {
        let is_same = self.height == height && self.lengths == lengths;
        (self.height, self.lengths, self.rest) = (height, lengths, rest);
        if !is_same {
            self.show_selected();
        }
        self.offset = self.offset.min(self.total().saturating_sub(height));
    }

    /// Takes a key.
    pub fn key(&mut self, code: KeyCode) {
        let page = self.height.saturating_sub(1).max(1);
        match code {
            KeyCode::Down | KeyCode::Char('j') => self.down(1),
            KeyCode::Up | KeyCode::Char('k') => self.up(1),
            KeyCode::PageDown => self.down(page),
            KeyCode::PageUp => self.up(page),
            KeyCode::Home | KeyCode::Char('g') => (self.selected, self.offset) = (0, 0),
            KeyCode::End | KeyCode::Char('G') => {
                self.selected = self.rows.len().saturating_sub(1);
                self.offset = self.total().saturating_sub(self.height);
            }
            KeyCode::Enter | KeyCode::Char(' ') => self.set_open(!self.is_open(self.selected)),
            KeyCode::Right | KeyCode::Char('l') => self.set_open(true),
            KeyCode::Left => self.set_open(false),
            _ => {}
        }
    }

    fn set_open(&mut self, open: bool) {
        let Some(Identity { what, .. }) = self.identities.get(self.selected) else { return };
        if open {
            self.open.insert(what.clone());
        } else {
            self.open.remove(what);
        }
    }

    /// Down by lines: an open group that does not fit is read to its end before the next one is selected.
    fn down(&mut self, lines: usize) {
        for _ in 0..lines {
            let (_, end) = self.span(self.selected);
            let is_last = self.selected + 1 >= self.rows.len();
            if end > self.offset + self.height || (is_last && self.offset + self.height < self.total()) {
                self.offset += 1;
            } else if !is_last {
                self.selected += 1;
                self.show_first();
            }
        }
    }

    fn up(&mut self, lines: usize) {
        for _ in 0..lines {
            let (start, _) = self.span(self.selected);
            if start < self.offset {
                self.offset -= 1;
            } else if self.selected > 0 {
                self.selected -= 1;
                let (start, end) = self.span(self.selected);
                if start < self.offset {
                    self.offset = start.max(end.saturating_sub(self.height));
                }
            }
        }
    }

    /// Moves as little as shows the first lines of the selected row.
    fn show_first(&mut self) {
        let (start, end) = self.span(self.selected);
        let first = end.min(start + 2);
        self.offset = self.offset.max(first.saturating_sub(self.height)).min(start);
    }

    /// Moves as little as shows the whole selected row, or its beginning where it is too long.
    fn show_selected(&mut self) {
        let (start, end) = self.span(self.selected);
        self.offset = self.offset.max(end.saturating_sub(self.height)).min(start);
    }

    /// The first line of a row, and the one after its last.
    fn span(&self, row: usize) -> (usize, usize) {
        let start = self.lengths.iter().take(row).sum();
        (start, start + self.lengths.get(row).copied().unwrap_or_default())
    }

    /// All lines.
    pub fn total(&self) -> usize {
        self.lengths.iter().sum::<usize>() + self.rest
    }
}
