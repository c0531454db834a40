//! The screen of `audit --watch`: its state. Keys and reports come in, lines go out; it has no clock and opens nothing.

mod changes;
mod editor;
mod list;
mod screen;
mod words;

use std::borrow::Cow;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::overview::Overview;
use super::select::takes;
use super::sort::Sort;
use crate::judge::policy::filter::{Filter, Select};
use crate::judge::report::{Finding, Report};
use changes::{Baseline, Changes};
use editor::{Edit, Editor};
use list::List;

/// What does not change while the watch lasts.
#[derive(Clone, Copy)]
pub struct Settings {
    /// The pause between sweeps.
    pub interval: Duration,
    /// Verdicts in colour.
    pub color: bool,
    /// Connections that are not flagged are shown, too, until the user says otherwise.
    pub all: bool,
    /// The order, until the user changes it.
    pub sort: Sort,
    /// Parses a filter as the command line does.
    pub parse: fn(&[String]) -> Result<Option<Filter>, String>,
}

/// One sweep: its report without findings, and every connection, worst first.
pub struct Sweep {
    /// The counts.
    pub report: Report,
    /// The connections.
    pub findings: Vec<Finding>,
}

/// How long ago things happened, for the caller has the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// The time since the newest sweep ended.
    pub since_sweep: Duration,
    /// The time since the sweep that is under way began.
    pub sweeping: Option<Duration>,
}

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Continue,
    /// End the watch.
    Quit,
    /// Stop until the shell continues the program.
    Suspend,
}

/// What happened while the screen stays as it is.
#[derive(Default)]
struct Pause {
    newest: Option<Sweep>,
    sweeps: u64,
}

/// The order of the groups.
#[derive(Default, PartialEq, Eq)]
struct Order {
    by: Sort,
    is_reversed: bool,
}

/// The state of the screen.
pub struct Model {
    settings: Settings,
    baseline: Option<Baseline>,
    /// The sweep that is shown.
    shown: Option<Sweep>,
    pause: Option<Pause>,
    /// Of the sweep that is shown.
    changes: Changes,
    /// What is shown of it.
    overview: Option<Overview<'static>>,
    list: List,
    order: Order,
    all: bool,
    filter_text: String,
    filter: Select,
    editor: Option<Editor>,
    shows_help: bool,
    all_warnings: bool,
}

impl Model {
    /// Before the first sweep.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            baseline: None,
            shown: None,
            pause: None,
            changes: Changes::default(),
            overview: None,
            list: List::default(),
            order: Order { by: settings.sort, is_reversed: false },
            all: settings.all,
            filter_text: String::new(),
            filter: Select::default(),
            editor: None,
            shows_help: false,
            all_warnings: false,
        }
    }

    /// Takes a sweep that has ended.
    pub fn update(&mut self, sweep: Sweep) {
        match self.pause.as_mut().filter(|_| self.shown.is_some()) {
            Some(pause) => {
                pause.newest = Some(sweep);
                pause.sweeps += 1;
            }
            None => self.show(sweep),
        }
    }

    fn show(&mut self, sweep: Sweep) {
        let Sweep { report, findings } = &sweep;
        self.changes = self.baseline.get_or_insert_with(|| Baseline::new(report, findings)).changes(findings);
        self.shown = Some(sweep);
        self.regroup();
    }

    /// Groups the connections that the filter takes.
    fn regroup(&mut self) {
        let (Some(Sweep { report, findings }), Some(baseline)) = (&self.shown, &self.baseline) else { return };
        let taken: Vec<&Finding> = findings.iter().filter(|finding| takes(&self.filter, finding)).collect();
        let mut report = report.clone();
        if self.filter.filter.is_some() {
            report.connections = taken.len() as u64;
            report.verdicts = Default::default();
            for finding in &taken {
                report.verdicts[finding.verdict as usize] += 1;
            }
        }
        let change = |finding: &Finding| baseline.change(finding);
        let mut overview = Overview::compared(Cow::Owned(report), taken.into_iter(), self.all, change);
        self.order.by.sort(&mut overview.groups);
        if self.order.is_reversed {
            overview.groups.reverse();
        }
        self.list.update(&overview);
        self.overview = Some(overview);
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Next::Quit,
                KeyCode::Char('z') => return Next::Suspend,
                _ => {}
            }
        }
        match self.editor.as_mut().map(|editor| editor.key(key)) {
            Some(Edit::Typing) => return Next::Continue,
            Some(Edit::Cancelled) => self.editor = None,
            Some(Edit::Done) => self.apply_filter(),
            None => return self.command(key),
        }
        Next::Continue
    }

    fn command(&mut self, key: KeyEvent) -> Next {
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('?' | 'h') => self.shows_help = !self.shows_help,
            KeyCode::Esc if self.shows_help => self.shows_help = false,
            KeyCode::Esc if !self.filter_text.is_empty() => self.set_filter("", None),
            KeyCode::Char('/') => self.editor = Some(Editor::new(&self.filter_text)),
            KeyCode::Char('p') => self.pause(),
            KeyCode::Char('w') => self.all_warnings = !self.all_warnings,
            KeyCode::Char('s') => {
                self.order = Order { by: self.order.by.next(), is_reversed: false };
                self.regroup();
            }
            KeyCode::Char('r') => {
                self.order.is_reversed = !self.order.is_reversed;
                self.regroup();
            }
            KeyCode::Char('a') => {
                self.all = !self.all;
                self.regroup();
            }
            code => self.list.key(code),
        }
        // what was asked for is seen at once
        self.shows_help &= matches!(key.code, KeyCode::Char('?' | 'h'));
        Next::Continue
    }

    fn pause(&mut self) {
        match self.pause.take() {
            None => self.pause = Some(Pause::default()),
            Some(Pause { newest: Some(sweep), .. }) => self.show(sweep),
            Some(Pause { newest: None, .. }) => {}
        }
    }

    fn apply_filter(&mut self) {
        let Some(editor) = &mut self.editor else { return };
        let text = editor.text();
        match (self.settings.parse)(std::slice::from_ref(&text)) {
            Ok(filter) => {
                self.editor = None;
                self.set_filter(text.trim(), filter);
            }
            Err(error) => editor.error = error.lines().map(str::to_owned).collect(),
        }
    }

    fn set_filter(&mut self, text: &str, filter: Option<Filter>) {
        text.clone_into(&mut self.filter_text);
        self.filter.filter = filter;
        self.regroup();
    }
}
