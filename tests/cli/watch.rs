//! The screen of `audit --watch`, drawn to a buffer: its golden files at several sizes, its keys, and what must never
//! happen at any size. `tests/e2e/watch_test.py` drives the program itself in a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use keepalive_auditor::judge::policy::filter::Filter;
use keepalive_auditor::judge::report::{Finding, Report};
use keepalive_auditor::judge::verdict::Verdict;
use keepalive_auditor::show::sort::Sort;
use keepalive_auditor::show::watch::{Clock, Model, Next, Settings, Sweep};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use crate::overview::{Goldens, LONG, idle, node, report};
use crate::support::checks::Checks;
use crate::support::findings::{finding, on, pod};

const CLOCK: Clock = Clock { since_sweep: Duration::from_secs(2), sweeping: None };

fn parse(words: &[String]) -> Result<Option<Filter>, String> {
    let text = words.join(" ");
    if text.is_empty() { Ok(None) } else { Filter::parse(&text).map(Some) }
}

fn model(color: bool) -> Model {
    Model::new(Settings { interval: Duration::from_secs(5), color, all: false, sort: Sort::default(), parse })
}

/// A sweep of these findings at noon and so many seconds.
fn sweep(report: Report, seconds: u64) -> Sweep {
    let findings = report.findings.clone();
    let report = Report {
        node: "node-7".to_owned(),
        started_at: (12 * 3600 + seconds) * 1000,
        duration: Duration::from_millis(230).into(),
        findings: Vec::new(),
        ..report
    };
    Sweep { report, findings }
}

fn drawn(model: &mut Model, width: u16, height: u16, clock: Clock) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
    terminal.draw(|frame| model.draw(frame, clock)).expect("a buffer takes everything");
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(buffer.area.width)) {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn screen(model: &mut Model, width: u16, height: u16) -> String {
    text(&drawn(model, width, height, CLOCK))
}

/// What is left out of a screen by its user.
fn keys(model: &mut Model, codes: &[KeyCode]) {
    for code in codes {
        assert_eq!(model.key(KeyEvent::from(*code)), Next::Continue, "{code:?}");
    }
}

fn letters(model: &mut Model, text: &str) {
    for c in text.chars() {
        keys(model, &[KeyCode::Char(c)]);
    }
}

/// The node of the overview, ten minutes into a watch.
fn watched(cart: &str, color: bool) -> Model {
    let mut model = model(color);
    model.update(sweep(node(cart), 0));
    let mut later = node(cart).findings;
    // three are gone, the exposed ones got worse, one is new
    later.drain(1..4);
    for finding in &mut later {
        if finding.verdict == Verdict::Exposed {
            finding.verdict = Verdict::Overdue;
        }
    }
    later.push(idle(finding(pod("web-0", "app"), 60, 443), Verdict::Exposed, 10));
    let mut report = report(later);
    report.incomplete = true;
    report.losses = vec!["cannot read the network namespace of 3 processes in /proc: run as root".to_owned()];
    model.update(sweep(report, 600));
    model
}

#[test]
fn each_screen_is_its_golden_file() {
    let mut goldens = Goldens::default();
    for (width, height) in [(60, 20), (80, 24), (100, 30), (160, 40), (200, 40)] {
        for (name, cart) in [("short", "cart-7d4b9c6f5-x2k8p"), ("long", LONG)] {
            let mut model = watched(cart, false);
            // the open group stays the selected one
            screen(&mut model, width, height);
            keys(&mut model, &[KeyCode::Down, KeyCode::Enter]);
            goldens.compare(&format!("watch-{name}-{width}"), &screen(&mut model, width, height));
        }
    }
    let mut model = watched("cart-0", false);
    letters(&mut model, "?");
    goldens.compare("watch-help-80", &screen(&mut model, 80, 24));
    let mut empty = self::model(false);
    goldens.compare("watch-before-80", &screen(&mut empty, 80, 10));
    let well = || report((0..8).map(|number| on(finding(pod("web-0", "app"), number, 443))).collect());
    empty.update(sweep(well(), 0));
    goldens.compare("watch-well-80", &screen(&mut empty, 80, 14));
    goldens.finish();
}

#[test]
fn no_state_of_any_size_panics_or_loses_its_last_line() {
    let states: [(&str, &[KeyCode]); 9] = [
        ("", &[]),
        ("", &[KeyCode::Enter, KeyCode::End, KeyCode::Enter, KeyCode::Up, KeyCode::PageDown]),
        ("", &[KeyCode::PageUp, KeyCode::Home, KeyCode::Left, KeyCode::Right]),
        ("?", &[]),
        ("a", &[KeyCode::End, KeyCode::Enter]),
        ("wsr", &[]),
        ("p", &[]),
        ("/nonsense = 1", &[KeyCode::Enter]),
        ("/dport = :1", &[KeyCode::Enter, KeyCode::Down, KeyCode::Enter, KeyCode::Up, KeyCode::End]),
    ];
    for width in [1, 2, 7, 20, 39, 40, 60, 79, 131, 300] {
        for height in [1, 2, 3, 5, 8, 13, 24, 60] {
            for (text, codes) in states {
                let mut model = watched(LONG, true);
                screen(&mut model, width, height);
                letters(&mut model, text);
                keys(&mut model, codes);
                let shown = screen(&mut model, width, height);
                let last = shown.lines().next_back().unwrap_or_default();
                let first = if text.starts_with("/n") { "f" } else { "q" };
                // a line of keys that does not fit is empty, not cut
                let is_there = last.starts_with(first) || (width < 6 && last.is_empty());
                assert!(is_there, "{width}x{height} {text}: {last:?}\n{shown}");
                model.update(sweep(report(Vec::new()), 900));
                screen(&mut model, width, height);
            }
        }
    }
}

#[test]
fn the_keys_do_what_the_help_says() {
    let mut model = watched("cart-0", false);
    let mut checks = Checks::default();
    let first_row = |model: &mut Model| {
        let shown = screen(model, 120, 40);
        shown.lines().skip_while(|line| !line.contains("VERDICT")).nth(1).unwrap_or_default().to_owned()
    };
    checks.that(first_row(&mut model).starts_with("> unanswered"), || first_row(&mut model));
    letters(&mut model, "s");
    checks.that(screen(&mut model, 120, 40).contains("sorted by connections"), || screen(&mut model, 120, 40));
    checks.that(first_row(&mut model).contains("overdue") && first_row(&mut model).contains(" 11 "), || {
        first_row(&mut model)
    });
    letters(&mut model, "r");
    checks.that(first_row(&mut model).contains("   1 "), || first_row(&mut model));
    letters(&mut model, "sss");
    checks.that(!screen(&mut model, 120, 40).contains("sorted by"), || screen(&mut model, 120, 40));

    letters(&mut model, "a");
    checks.that(screen(&mut model, 120, 40).contains("  protected  "), || screen(&mut model, 120, 40));
    letters(&mut model, "a");
    checks.that(!screen(&mut model, 120, 40).contains("  protected  "), || screen(&mut model, 120, 40));

    // a filter that is wrong stays where it is, with the error above it
    letters(&mut model, "/dprt = :443");
    keys(&mut model, &[KeyCode::Enter]);
    let shown = screen(&mut model, 120, 40);
    checks.that(shown.contains("did you mean `dport`?") && shown.ends_with("filter: dprt = :443\n"), || shown);
    keys(&mut model, &[KeyCode::Home, KeyCode::Right, KeyCode::Char('p'), KeyCode::Right, KeyCode::Backspace]);
    let shown = screen(&mut model, 120, 40);
    checks.that(shown.ends_with("filter: dprt = :443\n") && !shown.contains("did you mean"), || shown);
    keys(&mut model, &[KeyCode::Char('o'), KeyCode::Char('r'), KeyCode::Delete, KeyCode::Enter]);
    let shown = screen(&mut model, 120, 40);
    checks.that(shown.contains("filter: dport = :443 (of 30 connections)"), || shown.clone());
    checks.that(shown.contains("7 of 10 connections are at risk"), || shown);
    // what the filter does not take has no row
    checks.that(!screen(&mut model, 120, 40).contains("java"), || screen(&mut model, 120, 40));
    letters(&mut model, "/");
    model.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
    letters(&mut model, "owner = nobody");
    model.key(KeyEvent::new(KeyCode::Char('w'), KeyModifiers::CONTROL));
    letters(&mut model, "none");
    keys(&mut model, &[KeyCode::Enter]);
    let shown = screen(&mut model, 120, 40);
    checks.that(shown.contains("filter: owner = none") && shown.contains("No connection matches"), || shown);
    keys(&mut model, &[KeyCode::Esc]);
    checks.that(screen(&mut model, 120, 40).contains("java"), || screen(&mut model, 120, 40));
    letters(&mut model, "/dport = :1");
    keys(&mut model, &[KeyCode::Esc]);
    checks.that(!screen(&mut model, 120, 40).contains("filter:"), || screen(&mut model, 120, 40));

    keys(&mut model, &[KeyCode::Home, KeyCode::Down, KeyCode::Enter]);
    let shown = screen(&mut model, 120, 40);
    checks.that(shown.contains("Keepalive is off") && shown.contains("keepalive-auditor remedy"), || shown.clone());
    checks.that(shown.contains("10.0.0.1:40003 → 10.20.0.5:9000"), || shown);
    keys(&mut model, &[KeyCode::Enter]);
    checks.that(!screen(&mut model, 120, 40).contains("keepalive-auditor remedy"), || screen(&mut model, 120, 40));
    checks.equal("q", model.key(KeyEvent::from(KeyCode::Char('q'))), Next::Quit);
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    checks.equal("ctrl-z", model.key(control('z')), Next::Suspend);
    letters(&mut model, "/");
    checks.equal("ctrl-c while typing", model.key(control('c')), Next::Quit);
    checks.finish();
}

#[test]
fn a_pause_keeps_the_screen_and_counts_the_sweeps() {
    let mut model = watched("cart-0", false);
    let before = screen(&mut model, 100, 30);
    letters(&mut model, "p");
    model.update(sweep(report(Vec::new()), 700));
    model.update(sweep(report(vec![finding(pod("late-0", "app"), 1, 443)]), 800));
    let paused = screen(&mut model, 100, 30);
    assert!(paused.contains("PAUSED at the sweep of 12:10:00 UTC · 2 newer sweeps"), "{paused}");
    let rows =
        |text: &str| text.lines().skip_while(|line| !line.contains("VERDICT")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rows(&before), rows(&paused));
    letters(&mut model, "p");
    let after = screen(&mut model, 100, 30);
    assert!(after.contains("swept at 12:13:20 UTC") && after.contains("shop/late"), "{after}");
}

#[test]
fn the_selected_group_stays_selected_and_open_when_others_come_and_it_gets_worse() {
    let of = |verdict| idle(finding(pod("web-0", "app"), 1, 443), verdict, 100);
    let mut model = model(false);
    model.update(sweep(
        report(vec![of(Verdict::Exposed), idle(finding(pod("b-0", "app"), 2, 444), Verdict::Exposed, 90)]),
        0,
    ));
    screen(&mut model, 100, 30);
    letters(&mut model, "sss");
    let shown = screen(&mut model, 100, 30);
    let to_web = shown
        .lines()
        .skip_while(|line| !line.contains("VERDICT"))
        .position(|line| line.contains("shop/web"))
        .unwrap_or_else(|| panic!("{shown}"));
    for _ in 1..to_web {
        keys(&mut model, &[KeyCode::Down]);
    }
    keys(&mut model, &[KeyCode::Enter]);
    let others =
        (10..20).map(|number| idle(finding(pod(&format!("a{number}-0"), "app"), number, 443), Verdict::Overdue, 500));
    model.update(sweep(report(others.chain([of(Verdict::Overdue)]).collect()), 10));
    let shown = screen(&mut model, 100, 30);
    let selected = shown.lines().position(|line| line.starts_with("> ")).expect("a selected row");
    let lines: Vec<&str> = shown.lines().skip(selected).take(2).collect();
    assert!(lines[0].contains("shop/web") && lines[1].contains("Keepalive is off"), "{shown}");
    assert!(shown.contains("since 12:00:00: 10 new (+), 1 gone, 1 worse (↓)"), "{shown}");
    assert!(lines[0].ends_with("↓1"), "{shown}");
}

#[test]
fn changes_are_counted_since_the_first_sweep() {
    let one = |number, verdict| idle(finding(pod("web-0", "app"), number, 443), verdict, 100);
    let mut model = model(false);
    let first = [Verdict::Exposed, Verdict::Overdue, Verdict::Young, Verdict::Protected, Verdict::Exposed];
    model.update(sweep(report((0..).zip(first).map(|(number, verdict)| one(number, verdict)).collect()), 0));
    assert!(screen(&mut model, 100, 20).contains("since 12:00:00: no change"));
    // number 4 is gone; unflagged verdicts are all as good
    let then = [Verdict::Protected, Verdict::Blackholed, Verdict::Exposed, Verdict::Local];
    let mut now: Vec<Finding> = (0..).zip(then).map(|(number, verdict)| one(number, verdict)).collect();
    now.push(one(9, Verdict::Young));
    model.update(sweep(report(now), 5));
    let shown = screen(&mut model, 100, 20);
    assert!(shown.contains("since 12:00:00: 1 new (+), 1 gone, 2 worse (↓), 1 better (↑)"), "{shown}");
}

#[test]
fn warnings_stay_visible() {
    let mut model = watched("cart-0", false);
    for codes in [&[][..], &[KeyCode::End], &[KeyCode::Enter], &[KeyCode::Char('?')], &[KeyCode::Char('/')]] {
        keys(&mut model, codes);
        let shown = screen(&mut model, 80, 24);
        assert!(shown.contains("! incomplete"), "{shown}");
    }
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let bad = "a\u{1b}[2J\u{9b}31m\nb\r\t\u{202e}";
    let mut hostile = finding(pod(bad, bad), 1, 443);
    hostile.path =
        std::sync::Arc::new(keepalive_auditor::judge::policy::Path { name: bad.into(), ..Default::default() });
    let mut report = report(vec![hostile]);
    report.losses = vec![bad.to_owned()];
    let mut model = model(true);
    model.update(Sweep {
        report: Report { node: bad.to_owned(), ..sweep(report.clone(), 0).report },
        findings: report.findings.clone(),
    });
    screen(&mut model, 120, 40);
    letters(&mut model, "w");
    keys(&mut model, &[KeyCode::Enter]);
    let buffer = drawn(&mut model, 120, 40, CLOCK);
    let wrong: Vec<_> = buffer
        .content()
        .iter()
        .map(ratatui::buffer::Cell::symbol)
        .filter(|symbol| symbol.chars().any(|c| c.is_control() || c == '\u{202e}'))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(text(&buffer).contains("\\u{1b}"));
}

#[test]
fn colour_is_there_only_on_request_and_repeats_what_words_say() {
    let colors = |model: &mut Model| {
        let buffer = drawn(model, 100, 30, CLOCK);
        buffer.content().iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    let (mut plain, mut coloured) = (watched("cart-0", false), watched("cart-0", true));
    assert_eq!(screen(&mut plain, 100, 30), screen(&mut coloured, 100, 30));
    assert_eq!(colors(&mut plain), 0);
    assert!(colors(&mut coloured) > 20);
    // the selected row is marked by a character, too
    let buffer = drawn(&mut plain, 100, 30, CLOCK);
    let marked = buffer.content().chunks(100).filter(|row| row[0].symbol() == ">").collect::<Vec<_>>();
    assert!(marked.len() == 1 && marked[0].iter().all(|cell| cell.modifier.contains(Modifier::REVERSED)));
}

#[test]
fn a_sweep_that_takes_long_is_said() {
    let mut model = watched("cart-0", false);
    let clock = Clock { since_sweep: Duration::from_secs(9), sweeping: Some(Duration::from_secs(4)) };
    let shown = text(&drawn(&mut model, 100, 30, clock));
    assert!(shown.contains("9s ago") && shown.contains("sweeping for 4s"), "{shown}");
}
