//! Tables of a report, and how they are written.

use tap53_base::visible::visible;

use crate::{
    avro::{push_display, push_json_key, push_json_text, push_json_time},
    format::{Format, humane_duration, push_csv_text},
};

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    Empty,
    /// A text, which may be of a stranger.
    Text(String),
    /// A number.
    Number(u64),
    /// Percent.
    Percent(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Microseconds since 1970 UTC.
    Time(i64),
}

/// A table: the names of its columns, and its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Names of the columns, as in CSV and JSON. Those of durations end with `_ns`.
    pub columns: Vec<&'static str>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<Cell>>,
}

impl Cell {
    /// Returns the duration, or an empty cell.
    #[must_use]
    pub fn duration(nanoseconds: Option<i64>) -> Self {
        nanoseconds.map_or(Self::Empty, Self::Duration)
    }

    /// Returns `part` of `whole` in percent.
    #[must_use]
    pub fn share(part: u64, whole: u64) -> Self {
        // Rounded to a hundredth, so that both formats show one number.
        #[allow(clippy::cast_precision_loss)]
        Self::Percent((part as f64 * 10_000.0 / whole.max(1) as f64).round() / 100.0)
    }

    /// Returns the text for people.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Empty => "-".to_owned(),
            Self::Text(text) => visible(text).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::Percent(percent) => format!("{percent:.2} %"),
            Self::Duration(nanoseconds) => humane_duration(*nanoseconds),
            Self::Time(micros) => jiff::Timestamp::from_microsecond(*micros)
                .map_or_else(|_| micros.to_string(), |time| format!("{time:.3}")),
        }
    }

    fn push_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => out.extend_from_slice(b"null"),
            Self::Text(text) => push_json_text(out, text),
            Self::Number(number) => push_display(out, number),
            Self::Percent(percent) => push_display(out, percent),
            Self::Duration(nanoseconds) => push_display(out, nanoseconds),
            Self::Time(micros) => push_json_time(out, *micros),
        }
    }

    fn push_csv(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Text(text) => push_csv_text(text.as_bytes(), out),
            Self::Time(_) => {
                let mut json = Vec::new();
                self.push_json(&mut json);
                out.extend(json.into_iter().filter(|byte| *byte != b'"'));
            }
            cell => cell.push_json(out),
        }
    }
}

impl Table {
    /// Returns the table in a format.
    #[must_use]
    pub fn write(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Text => self.text().into_bytes(),
            Format::Csv => self.csv(),
            Format::Json => self.json(),
        }
    }

    fn text(&self) -> String {
        let shorten = |name: &&str| name.strip_suffix("_ns").unwrap_or(name).to_ascii_uppercase();
        let mut lines = vec![self.columns.iter().map(shorten).collect::<Vec<_>>()];
        lines.extend(self.rows.iter().map(|row| row.iter().map(Cell::shown).collect()));
        let width = |column: usize| {
            let widths = lines.iter().filter_map(|line| line.get(column));
            widths.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let is_text = |column: usize| {
            self.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Text(_))))
        };
        let left: Vec<bool> = (0..self.columns.len()).map(is_text).collect();
        let mut out = String::new();
        for line in &lines {
            let cells = line.iter().zip(&widths).zip(&left).map(|((cell, width), left)| {
                if *left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    fn csv(&self) -> Vec<u8> {
        let mut out = self.columns.join(",").into_bytes();
        out.push(b'\n');
        for row in &self.rows {
            for (number, cell) in row.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                cell.push_csv(&mut out);
            }
            out.push(b'\n');
        }
        out
    }

    fn json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for row in &self.rows {
            out.push(b'{');
            for (number, (name, cell)) in self.columns.iter().zip(row).enumerate() {
                push_json_key(&mut out, number == 0, name);
                cell.push_json(&mut out);
            }
            out.extend_from_slice(b"}\n");
        }
        out
    }
}
