//! Writes selected records.

mod csv;
mod json;
mod parquet;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, Write};

pub use parquet::Parquet;

use crate::{
    catalogue::{Catalogue, Field, Kind},
    format::Format,
    query::Consumer,
    row::{Fields, Row, Slot},
};

/// The fields that people look at first.
pub const DEFAULT_FIELDS: [&str; 9] = [
    "query_time",
    "client_address",
    "server_address",
    "outcome",
    "rcode",
    "latency_ns",
    "qtype",
    "qname",
    "resolved_addresses",
];

/// A column of the result.
#[derive(Clone, Debug)]
pub struct Column {
    /// The field.
    pub field: Field,
    /// Its place in the row.
    pub slot: Slot,
}

/// A name that is no field.
#[derive(Debug, thiserror::Error)]
#[error("unknown field `{name}`{}", nearest.as_ref().map(|it| format!("; did you mean `{it}`?")).unwrap_or_default())]
pub struct UnknownField {
    /// The name.
    pub name: String,
    /// The nearest known name.
    pub nearest: Option<String>,
}

/// Finds columns by their names; `all` is every field.
///
/// # Errors
/// When a name is no field.
pub fn columns<'n>(
    names: impl IntoIterator<Item = &'n str>,
    catalogue: &Catalogue,
    fields: &mut Fields,
) -> Result<Vec<Column>, UnknownField> {
    let mut columns = Vec::new();
    let mut add = |field: &Field| {
        columns.push(Column { field: field.clone(), slot: fields.slot(&field.name) });
    };
    for name in names {
        match catalogue.find(name) {
            Some(field) => add(field),
            None if name == "all" => catalogue.fields().iter().for_each(&mut add),
            None => {
                let nearest = catalogue.nearest(name).map(str::to_owned);
                return Err(UnknownField { name: name.to_owned(), nearest });
            }
        }
    }
    Ok(columns)
}

/// Writes records as lines.
pub struct Lines<W> {
    format: Format,
    columns: Vec<Column>,
    out: W,
    line: Vec<u8>,
    is_begun: bool,
}

impl<W: Write> Lines<W> {
    /// Creates an output; `out` should be buffered.
    pub const fn new(format: Format, columns: Vec<Column>, out: W) -> Self {
        Self { format, columns, out, line: Vec::new(), is_begun: false }
    }

    /// Writes the heading, once.
    fn begin(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_begun, true) {
            return Ok(());
        }
        match self.format {
            Format::Text => text::push_heading(&self.columns, &mut self.line),
            Format::Csv => csv::push_heading(&self.columns, &mut self.line),
            Format::Json => return Ok(()),
        }
        self.end_line()
    }

    fn end_line(&mut self) -> io::Result<()> {
        self.line.push(b'\n');
        self.out.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Consumer for Lines<W> {
    fn take(&mut self, row: &Row<'_, '_>) -> io::Result<()> {
        self.begin()?;
        match self.format {
            Format::Text => text::push_row(&self.columns, row, &mut self.line),
            Format::Csv => csv::push_row(&self.columns, row, &mut self.line),
            Format::Json => json::push_row(&self.columns, row, &mut self.line),
        }
        self.end_line()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.begin()?;
        self.out.flush()
    }

    fn finish(mut self) -> io::Result<()> {
        self.begin()?;
        self.out.flush()
    }
}

/// Returns true if a column's values are numbers, which are aligned to the right.
const fn is_number(kind: &Kind) -> bool {
    matches!(kind, Kind::Number | Kind::Duration)
}
