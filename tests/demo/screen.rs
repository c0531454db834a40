//! What the demonstration writes: titles, and rows of columns with colours that repeat what the words say.

/// The width of a column.
const COLUMN: usize = 18;

#[derive(Clone, Copy)]
pub struct Screen {
    pub color: bool,
}

impl Screen {
    /// A sentence that says what comes next.
    pub fn title(self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    /// One row: a short first cell, and the others in columns. `style` is the SGR code of a cell.
    pub fn row(self, first: &str, cells: &[String], style: impl Fn(&str) -> &'static str) {
        let cells = cells.iter().map(|cell| {
            let blanks = COLUMN.saturating_sub(cell.chars().count());
            format!("{}{:blanks$}", self.paint(style(cell), cell), "")
        });
        println!("  {first:>4}  {}", cells.collect::<String>().trim_end());
    }

    fn paint(self, style: &str, text: &str) -> String {
        if self.color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The colour of a verdict.
pub fn style(verdict: &str) -> &'static str {
    match verdict {
        "overdue" | "blackholed" | "unanswered" | "gone" => "1;31",
        "exposed" => "33",
        "protected" | "peer_protected" => "32",
        _ => "2",
    }
}
