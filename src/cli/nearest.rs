//! The words that are nearest to one that does not exist.

/// At most this many words are suggested.
const MAX_SUGGESTED: usize = 3;

/// `; did you mean web-0 or web-1?`, or nothing where no word is near.
#[must_use]
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    // a third of the letters may differ, and one always
    let most = (word.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = words
        .into_iter()
        .map(|other| (distance(word, other), other))
        .filter(|&(distance, other)| distance <= most || (word.len() > 2 && other.starts_with(word)))
        .collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(MAX_SUGGESTED);
    let mut near: Vec<&str> = near.into_iter().map(|(_, word)| word).collect();
    match near.pop() {
        None => String::new(),
        Some(last) if near.is_empty() => format!("; did you mean {last}?"),
        Some(last) => format!("; did you mean {} or {last}?", near.join(", ")),
    }
}

/// The number of letters to insert, remove, replace or swap with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_the_nearest_first() {
        let words = ["aws-nlb", "aws-nat-gateway", "azure-lb", "haproxy"];
        assert_eq!(nearest("aws-nbl", words), "; did you mean aws-nlb?");
        assert_eq!(nearest("haprox", words), "; did you mean haproxy?");
        assert_eq!(nearest("zzz", words), "");
        assert_eq!(nearest("web-3", ["web-0", "web-1", "db-0", "web-0"]), "; did you mean web-0 or web-1?");
        assert_eq!(nearest("web", ["web-7d4b9c6f5-x2k8p"]), "; did you mean web-7d4b9c6f5-x2k8p?");
        assert_eq!(nearest("", [""; 0]), "");
    }
}
