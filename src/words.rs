//! What errors say: the nearest valid word, and an I/O error in plain words.

use std::io;

/// At most this many words are suggested.
const MAX_SUGGESTED: usize = 3;

/// The known words that are nearest to `word`: those with the fewest letters that differ, and those that begin with it.
///
/// A third of the letters may differ, and one always. No word is near to an empty one.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    if word.is_empty() {
        return Vec::new();
    }
    let word = word.to_lowercase();
    let most = (word.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &known.to_lowercase()), known))
        .filter(|&(distance, known)| distance <= most || (word.len() > 2 && known.starts_with(&word)))
        .collect();
    near.sort_unstable();
    near.dedup();
    let fewest = near.first().map_or(0, |&(distance, _)| distance);
    near.retain(|&(distance, known)| distance == fewest || known.starts_with(&word));
    near.truncate(MAX_SUGGESTED);
    near.into_iter().map(|(_, known)| known).collect()
}

/// `; did you mean `web-0` or `web-1`?`, or nothing where no known word is near.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near: Vec<_> = nearest(word, known).into_iter().map(|near| format!("`{near}`")).collect();
    match near.split_last() {
        None => String::new(),
        Some((one, [])) => format!("; did you mean {one}?"),
        Some((last, others)) => format!("; did you mean {} or {last}?", others.join(", ")),
    }
}

/// A problem with the nearest words, as [`did_you_mean`] writes them, and the command that lists all words.
#[must_use]
pub fn with_list(problem: &str, near: &str, list: &str) -> String {
    if near.is_empty() { format!("{problem}; {list}") } else { format!("{problem}{near} ({list})") }
}

/// The nearest words, or all known words where none is near.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let near = did_you_mean(word, known.clone());
    if near.is_empty() { format!("; valid are {}", known.into_iter().collect::<Vec<_>>().join(", ")) } else { near }
}

/// How an advice begins. It follows the problem after `; `.
const ADVICE: [&str; 15] = [
    "did you mean",
    "valid are",
    "names seen are",
    "write ",
    "use ",
    "name ",
    "see ",
    "run ",
    "let ",
    "give ",
    "take ",
    "load ",
    "copy ",
    "raise ",
    "`",
];

/// An error's problem, and its advice.
#[must_use]
pub fn split_advice(message: &str) -> (&str, Option<&str>) {
    let mut breaks = message.match_indices("; ");
    let advice = breaks.find(|(at, _)| ADVICE.iter().any(|start| message[at + 2..].starts_with(start)));
    advice.map_or((message, None), |(at, _)| (&message[..at], Some(&message[at + 2..])))
}

/// Why the system refused: in lower case and without the error's number.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
        io::ErrorKind::InvalidData if error.to_string().contains("valid UTF-8") => "it is not text in UTF-8".to_owned(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_the_nearest_first() {
        let known = ["haproxy", "nginx", "pod-sysctl"];
        assert_eq!(nearest("haprox", known), ["haproxy"]);
        assert_eq!(nearest("NGNIX", known), ["nginx"]);
        assert_eq!(nearest("", ["c", "go"]), [""; 0]);
        assert_eq!(nearest("pdo", ["namespace", "pod"]), ["pod"]);
        assert_eq!(nearest("aws-nbl", ["aws-alb", "aws-nlb"]), ["aws-nlb"]);
        assert_eq!(nearest("web", ["web-7d4b9c6f5-x2k8p"]), ["web-7d4b9c6f5-x2k8p"]);
        assert_eq!(did_you_mean("web-3", ["web-0", "web-1", "db-0", "web-0"]), "; did you mean `web-0` or `web-1`?");
        assert_eq!(did_you_mean("", [""; 0]), "");
        assert_eq!(suggest("pod_sysctl", known), "; did you mean `pod-sysctl`?");
        assert_eq!(suggest("xyz", known), "; valid are haproxy, nginx, pod-sysctl");
    }

    #[test]
    fn the_advice_follows_the_problem() {
        let split = |message| split_advice(message);
        assert_eq!(split("no such word; did you mean `a`?"), ("no such word", Some("did you mean `a`?")));
        assert_eq!(split("bad; write x; did you mean `y`?"), ("bad", Some("write x; did you mean `y`?")));
        assert_eq!(split("cannot read a; b: no such file"), ("cannot read a; b: no such file", None));
    }

    #[test]
    fn an_error_of_the_system_has_no_number() {
        assert_eq!(reason(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(reason(&io::Error::from_raw_os_error(28)), "no space left on device");
        assert_eq!(reason(&io::Error::other("Unheard of")), "unheard of");
    }
}
