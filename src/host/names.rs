//! Names from the node: files, executables, control groups. Their creators may use any byte.

/// Longer names are cut: no tool makes them, and each would become a label.
const MAX_CHARS: usize = 253;

/// A name that is safe to print. Characters that move the cursor, end the line, or change the direction of text are
/// replaced.
#[must_use]
pub fn printable(name: &str) -> String {
    name.chars().take(MAX_CHARS).map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn is_printable(c: char) -> bool {
    let invisible = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
    );
    !c.is_control() && !invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_moves_the_cursor_or_turns_the_text() {
        assert_eq!(printable("cni-1f3a é 漢"), "cni-1f3a é 漢");
        assert_eq!(printable("a\nb\x1b[2Jc\u{9b}d\u{202e}e"), "a\u{fffd}b\u{fffd}[2Jc\u{fffd}d\u{fffd}e");
        assert_eq!(printable(&"x".repeat(5000)).len(), MAX_CHARS);
    }
}
