//! Damaged recordings (cut, mixed up, edited, or other files) are refused with a reason or judged, without a panic.

use std::fs;
use std::sync::Arc;

use keepalive_auditor::digest::Digest;
use keepalive_auditor::record::{Header, Record, RecordError, Recorder, replay};
use keepalive_auditor::show::metrics::{Detail, Limits, SweepDurations};
use proptest::prelude::*;

use super::{json, page, shown, sweeps};

/// A recording of one sweep, as text.
fn recording() -> String {
    fs::read_to_string(sweeps().join("keepalive-off/sweep.jsonl")).unwrap()
}

/// The number of records, or why the recording is refused.
fn read(bytes: &[u8]) -> Result<usize, RecordError> {
    let mut digest = Digest::new(Arc::default());
    let mut records = 0;
    replay(bytes, |record: Record<'static>| {
        digest.feed(&record);
        records += 1;
        Ok::<(), RecordError>(())
    })?;
    let _ = digest.report("node-1");
    Ok(records)
}

#[test]
fn a_recording_cut_off_anywhere_is_refused() {
    let whole = recording();
    assert!(read(whole.as_bytes()).is_ok());
    // without its last newline the last record is still whole
    for length in 0..whole.len() - 1 {
        let error = read(&whole.as_bytes()[..length]).expect_err(&format!("cut to {length} bytes"));
        assert!(matches!(error, RecordError::Foreign | RecordError::Truncated(_)), "cut to {length} bytes: {error}");
    }
}

#[test]
fn a_cut_between_two_sweeps_leaves_the_sweeps_before_it() {
    let whole = fs::read_to_string(sweeps().join("probes-that-stop/sweep.jsonl")).unwrap();
    let second = whole.match_indices("{\"sweep\":").nth(1).unwrap().0;
    assert!(read(&whole.as_bytes()[..second]).unwrap() > 2);
}

/// A recording as this program writes it: each sweep is followed by an end record, which the next sweep overwrites.
fn written(sweeps: u64) -> String {
    let mut file = std::io::Cursor::new(Vec::new());
    let mut recorder = Recorder::new(&mut file, &Header::new("6.18".to_owned(), "node".to_owned(), 0)).unwrap();
    for clock in 0..sweeps {
        recorder.write(&Record::Sweep { started_at: clock, clock }).unwrap();
        recorder.write(&Record::SweepEnd { clock }).unwrap();
    }
    String::from_utf8(file.into_inner()).unwrap()
}

#[test]
fn a_recording_ends_with_one_end_record_and_any_cut_of_it_is_known() {
    for sweeps in [1, 2, 5] {
        let whole = written(sweeps);
        assert_eq!(whole.matches("\"end\"").count(), 1, "{whole}");
        assert_eq!(read(whole.as_bytes()).unwrap(), usize::try_from(2 * sweeps).unwrap());
        for (at, _) in whole.match_indices('\n').filter(|(at, _)| at + 1 < whole.len()) {
            let error = read(&whole.as_bytes()[..=at]).unwrap_err().to_string();
            assert!(error.contains("cut off"), "{sweeps} sweeps, cut at {at}: {error}");
        }
    }
    let beyond = format!("{}{{\"sweep_end\":{{\"clock\":9}}}}\n", written(1));
    assert!(matches!(read(beyond.as_bytes()), Err(RecordError::BeyondEnd(5))));
}

#[test]
fn a_file_that_is_not_a_recording_is_refused_with_the_reason() {
    let whole = recording();
    let (header, rest) = whole.split_once('\n').unwrap();
    let cases = [
        ("nothing", String::new(), "not a keepalive-auditor recording"),
        ("text", "hello\n".to_owned(), "not a keepalive-auditor recording"),
        ("bytes", "\u{7f}ELF\u{2}\u{1}\n\0\0".to_owned(), "not a keepalive-auditor recording"),
        ("other JSON", "{\"log\":{\"version\":\"1.2\"}}\n".to_owned(), "not a keepalive-auditor recording"),
        ("no header", rest.to_owned(), "not a keepalive-auditor recording"),
        (
            "another program's header",
            whole.replace("keepalive-auditor recording", "another recording"),
            "not a keepalive-auditor recording",
        ),
        ("a newer version", whole.replace("\"version\":1", "\"version\":2"), "has version 2"),
        ("another byte order", whole.replace("little", "big"), "made on a big-endian machine"),
        ("two headers", format!("{header}\n{whole}"), "header"),
        ("two recordings", format!("{whole}{whole}"), "header"),
        ("an unknown record", whole.replace("{\"read_end\"", "{\"dump_start\""), "line 6: not a record"),
        ("no base64", whole.replace("\"bytes\":\"", "\"bytes\":\"*"), "line 4: not a record"),
    ];
    for (name, text, reason) in cases {
        match read(text.as_bytes()) {
            Ok(records) => panic!("{name}: {records} records are accepted"),
            Err(error) => assert!(error.to_string().contains(reason), "{name}: {error}"),
        }
    }
    let endless = [header.as_bytes(), b"\n", &b" ".repeat(17 << 20)].concat();
    assert!(matches!(read(&endless), Err(RecordError::LineTooLong(2))));
}

/// A change that somebody may make to a line of a recording of several sweeps.
#[derive(Clone, Debug)]
enum Edit {
    Delete(prop::sample::Index),
    Repeat(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    /// Another number in place of one of the line's numbers.
    Number(prop::sample::Index, prop::sample::Index, u64),
    /// Other bytes in the middle of the line.
    Bytes(prop::sample::Index, prop::sample::Index, Vec<u8>),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<prop::sample::Index>;
    let number = prop_oneof![Just(0), 0..100_000_000_u64, any::<u64>(), Just(u64::MAX), Just(u64::from(u32::MAX))];
    prop_oneof![
        at().prop_map(Edit::Delete),
        at().prop_map(Edit::Repeat),
        (at(), at()).prop_map(|(one, other)| Edit::Swap(one, other)),
        (at(), at(), number).prop_map(|(line, which, to)| Edit::Number(line, which, to)),
        (at(), at(), prop::collection::vec(any::<u8>(), 0..6))
            .prop_map(|(line, at, bytes)| Edit::Bytes(line, at, bytes)),
    ]
}

fn edited(whole: &str, edits: &[Edit]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = whole.lines().map(|line| line.as_bytes().to_vec()).collect();
    for edit in edits {
        match edit {
            Edit::Delete(at) if lines.len() > 1 => {
                lines.remove(at.index(lines.len()));
            }
            Edit::Delete(_) => {}
            Edit::Repeat(at) => {
                let at = at.index(lines.len());
                lines.insert(at, lines[at].clone());
            }
            Edit::Swap(one, other) => {
                let (one, other) = (one.index(lines.len()), other.index(lines.len()));
                lines.swap(one, other);
            }
            Edit::Number(line, which, to) => {
                let at = line.index(lines.len());
                let line = &mut lines[at];
                let number = |at: usize| line[at].is_ascii_digit() && at > 0 && line[at - 1] == b':';
                let starts: Vec<usize> = (0..line.len()).filter(|&at| number(at)).collect();
                if !starts.is_empty() {
                    let start = starts[which.index(starts.len())];
                    let length = line[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    line.splice(start..start + length, to.to_string().into_bytes());
                }
            }
            Edit::Bytes(line, at, bytes) => {
                let line_at = line.index(lines.len());
                let line = &mut lines[line_at];
                let start = at.index(line.len() + 1);
                let end = (start + bytes.len()).min(line.len());
                line.splice(start..end, bytes.iter().copied());
            }
        }
    }
    lines.join(&b'\n')
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn an_edited_recording_is_refused_or_judged(
        case in prop::sample::select(vec!["probes-that-stop", "blackholed", "pods", "losses"]),
        edits in prop::collection::vec(edit(), 1..8),
    ) {
        let whole = fs::read_to_string(sweeps().join(case).join("sweep.jsonl")).unwrap();
        let mut digest = Digest::new(Arc::default());
        let mut last = None;
        let _ = replay(&*edited(&whole, &edits), |record: Record<'static>| {
            digest.feed(&record);
            if matches!(record, Record::SweepEnd { .. }) {
                last = Some(digest.report("node-1"));
            }
            Ok::<(), RecordError>(())
        });
        if let Some(report) = last {
            shown(&report);
            json(&report);
            page(&report, &SweepDurations::default(), Limits { detail: Detail::Pod, top_endpoints: 1, max_series: 5 });
        }
    }
}
