//! One line of text that is being typed: the filter.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The line, and where the next character goes.
#[derive(Clone, Debug, Default)]
pub struct Editor {
    text: Vec<char>,
    cursor: usize,
    /// Why the text was refused, line by line.
    pub error: Vec<String>,
}

/// What a key made of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// It goes on.
    Typing,
    /// The text is to be used.
    Done,
    /// The text before is to stay.
    Cancelled,
}

impl Editor {
    /// With this text, and the cursor at its end.
    pub fn new(text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        Self { cursor: text.len(), text, error: Vec::new() }
    }

    /// What was typed.
    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// The part before the cursor.
    pub fn before_cursor(&self) -> String {
        self.text[..self.cursor].iter().collect()
    }

    /// Takes one key.
    pub fn key(&mut self, key: KeyEvent) -> Edit {
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Edit::Done,
            KeyCode::Esc => return Edit::Cancelled,
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (self.cursor + 1).min(self.text.len()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            KeyCode::Char('a') if with_control => self.cursor = 0,
            KeyCode::Char('e') if with_control => self.cursor = self.text.len(),
            KeyCode::Char('u') if with_control => drop(self.text.drain(..std::mem::take(&mut self.cursor))),
            KeyCode::Char('w') if with_control => self.delete_word(),
            KeyCode::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            KeyCode::Delete if self.cursor < self.text.len() => drop(self.text.remove(self.cursor)),
            KeyCode::Char(c) if !with_control && !c.is_control() => {
                self.text.insert(self.cursor, c);
                self.cursor += 1;
            }
            _ => return Edit::Typing,
        }
        self.error.clear();
        Edit::Typing
    }

    fn delete_word(&mut self) {
        let before = &self.text[..self.cursor];
        let end = before.iter().rposition(|c| *c != ' ').map_or(0, |at| at + 1);
        let start = before[..end].iter().rposition(|c| *c == ' ').map_or(0, |at| at + 1);
        self.text.drain(start..self.cursor);
        self.cursor = start;
    }
}
