//! What commands print: aligned columns, in colour where somebody looks.

use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;

/// ANSI colours, by what they mean here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Color {
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Notable,
    /// Not as it should be.
    Bad,
    /// A heading.
    Heading,
}

/// A cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) color: Color,
}

impl Cell {
    pub(super) fn new(color: Color, text: impl Into<String>) -> Self {
        Self { text: text.into(), color }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Color::Plain, text)
    }
}

/// True if what is written to standard output may have colours (<https://no-color.org>).
pub(super) fn colored() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text` in a colour.
pub(super) fn paint(colored: bool, color: Color, text: &str) -> String {
    let code = match color {
        _ if !colored || text.is_empty() => return text.to_owned(),
        Color::Plain => return text.to_owned(),
        Color::Good => "32",
        Color::Notable => "33",
        Color::Bad => "31",
        Color::Heading => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Columns as wide as their widest cell; the last one is as long as it is. The first row is the
/// heading.
pub(super) fn table<R: AsRef<[Cell]>>(rows: &[R], colored: bool) -> String {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = cell.text.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (width, cell)) in widths.iter().zip(row.as_ref()).enumerate() {
            let color = if number == 0 { Color::Heading } else { cell.color };
            line.push_str(&paint(colored, color, &cell.text));
            if column + 1 < columns {
                let missing = width.saturating_sub(cell.text.chars().count());
                line.push_str(&" ".repeat(missing + 2));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Prints to standard output. A reader that goes away, such as `head`, is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<ExitCode> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_and_without_colours() {
        let rows = [
            ["A", "LONGER", "REST"].map(Cell::from),
            ["wide one".into(), Cell::new(Color::Bad, "é"), Cell::default()],
        ];
        assert_eq!(table(&rows, false), "A         LONGER  REST\nwide one  é\n");
        let painted = table(&rows, true);
        assert!(painted.contains("\x1b[31mé\x1b[0m"), "{painted:?}");
        assert!(painted.starts_with("\x1b[1mA\x1b[0m         \x1b[1mLONGER"), "{painted:?}");
    }
}
