//! Errors of parsing, with the place.

use std::{fmt, ops::Range};

/// An expression that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The expression.
    pub expression: String,
    /// The bytes of it that are wrong.
    pub at: Range<usize>,
    /// The reason, and the remedy.
    pub why: String,
}

impl fmt::Display for ParseError {
    /// Writes the reason, the expression, and a mark below the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns =
            |bytes: Range<usize>| self.expression.get(bytes).map_or(0, |text| text.chars().count());
        let before = columns(0..self.at.start);
        let marks = columns(self.at.clone()).max(1);
        // Controls would move the mark away from the place.
        let line: String = self.expression.chars().map(plain).collect();
        writeln!(f, "expression, column {}: {}", before + 1, self.why)?;
        writeln!(f, "  {line}")?;
        write!(f, "  {}{}", " ".repeat(before), "^".repeat(marks))
    }
}

const fn plain(character: char) -> char {
    if tap53_base::visible::is_invisible(character) { ' ' } else { character }
}

impl std::error::Error for ParseError {}
