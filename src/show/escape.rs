//! Text from the node, made safe for every face: names of pods, units and programs are chosen by others.

use std::borrow::Cow;

/// One line without control characters: a name cannot add a line, move the cursor or reverse the text after it.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if is_plain(text) || !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_control(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// Whether it is printable ASCII: most text is, and that costs less to check.
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The same as text of an HTML page.
#[must_use]
pub fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in line(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// What a terminal or browser acts on instead of showing it: controls, line separators and changes of direction.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_line_and_cannot_steer_a_terminal() {
        assert_eq!(line("shop/web-0 (istio-proxy)"), "shop/web-0 (istio-proxy)");
        assert_eq!(line("a\n0 of 9 flagged\r\t"), "a\\n0 of 9 flagged\\r\\t");
        assert_eq!(line("a\u{1b}[2Jb\u{9b}31m"), "a\\u{1b}[2Jb\\u{9b}31m");
        assert_eq!(line("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(line("Grüße"), "Grüße");
    }

    #[test]
    fn a_name_is_no_markup() {
        assert_eq!(html("<b a='1' c=\"2\">&\n"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\\n");
    }
}
