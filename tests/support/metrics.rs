//! A `/metrics` page, read as Prometheus reads it.

use std::collections::BTreeMap;

/// One line of the page.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The samples of a page, and the type of each family.
#[derive(Debug)]
pub struct Page {
    pub samples: Vec<Sample>,
    pub types: BTreeMap<String, String>,
}

impl Page {
    /// Reads a page; a line that is not of the format fails the test.
    pub fn read(text: &str) -> Self {
        let mut page = Self { samples: Vec::new(), types: BTreeMap::new() };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                let before = page.types.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "a family twice: {line}");
            } else if !line.starts_with('#') && !line.is_empty() {
                page.samples.push(sample(line).unwrap_or_else(|| panic!("no sample: {line}")));
            }
        }
        page
    }

    /// The samples of one name.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// The sum of the samples of one name by the values of some labels; zeros are left out.
    pub fn sum(&self, name: &str, by: &[&str]) -> BTreeMap<Vec<String>, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.of(name).filter(|sample| sample.value != 0.0) {
            let key = by.iter().map(|label| sample.labels.get(*label).cloned().unwrap_or_default()).collect();
            *sums.entry(key).or_insert(0.0) += sample.value;
        }
        sums
    }
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (at, '"') => break at,
                (_, other) => value.push(other),
            }
        };
        labels.insert(label.to_owned(), value);
        rest = after[end + 1..].trim_start_matches(',');
    }
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}
