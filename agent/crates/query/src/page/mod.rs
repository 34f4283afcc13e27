//! One HTML page about the selected records: tables of the reports, a timeline and a map of latencies.
//!
//! The page needs nothing else: styles and pictures (SVG) are in it, and it has no scripts; its Content
//! Security Policy forbids both scripts and loading. It is well-formed XML too. All texts from records are
//! escaped: names on the wire are chosen by anybody.

mod charts;
mod escape;
mod losses;
#[cfg(test)]
mod tests;
mod timeline;

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use crate::{
    query::Consumer,
    report::{Cell, Columns, Kind, Table, Tables},
    row::{Fields, Row},
};
use escape::escaped;
use losses::Losses;
use timeline::Timeline;

/// The tables of a page, with their headings and what they show if they are empty; without such a text, an
/// empty table has no section.
const SECTIONS: [(Kind, &str, &str); 8] = [
    (Kind::Signals, "Signals", ""),
    (Kind::Rcodes, "Response codes", "No records."),
    (Kind::TopNames, "Top names", "No records."),
    (Kind::Clients, "Top clients", "No records."),
    (Kind::Latency, "Latency by server", "No records."),
    (Kind::Unanswered, "Unanswered queries", "Every query was answered."),
    (Kind::Chains, "Chains behind answers", "No record has a chain: see docs/chains.md."),
    (Kind::Conflicts, "Anomalies", "No record has an anomaly."),
];

/// The content of a page that does not come from records.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Names of the files, or of the agent.
    pub sources: Vec<String>,
    /// The expression, if one selects the records.
    pub expression: Option<String>,
    /// Number of records that were read.
    pub read: u64,
    /// Ledgers of replays, as text.
    pub ledgers: Vec<String>,
    /// Errors of files or of the agent.
    pub errors: Vec<String>,
    /// Remarks about the records.
    pub notes: Vec<String>,
}

/// Makes a page of records.
pub struct Page {
    columns: Columns,
    tables: Vec<Tables>,
    timeline: Timeline,
    losses: Losses,
    records: u64,
}

impl Page {
    /// Creates an empty page; the fields that it needs are added to `fields`.
    pub fn new(fields: &mut Fields) -> Self {
        Self {
            columns: Columns::new(fields),
            tables: SECTIONS.map(|(kind, _, _)| Tables::new(kind, fields)).into(),
            timeline: Timeline::default(),
            losses: Losses::new(fields),
            records: 0,
        }
    }

    /// Writes the page, with at most `rows` rows in each table.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, context: &Context, rows: usize, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.html(context, rows).as_bytes())?;
        out.flush()
    }

    fn html(&self, context: &Context, rows: usize) -> String {
        let mut html = HEAD.replace("@STYLE@", include_str!("style.css"));
        html.push_str(&self.summary(context));
        section(&mut html, "Transactions over time", &charts::bars(&self.timeline));
        section(&mut html, "Latency over time", &charts::heat_map(&self.timeline));
        for (tables, (_, heading, empty)) in self.tables.iter().zip(SECTIONS) {
            let tables = tables.table(rows);
            if !tables.rows.is_empty() || !empty.is_empty() {
                section(&mut html, heading, &table(&tables, empty));
            }
        }
        let mut losses = table(&self.losses.table(), "");
        for ledger in &context.ledgers {
            let _ = write!(losses, "<pre>{}</pre>", escaped(ledger));
        }
        section(&mut html, "Losses", &losses);
        html.push_str("</main></body></html>\n");
        html
    }

    fn summary(&self, context: &Context) -> String {
        let mut html = String::from("<h1>DNS report</h1><dl>");
        let mut entry = |name: &str, text: &str| {
            let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(text));
        };
        entry("Source", &context.sources.join(", "));
        if let Some(expression) = &context.expression {
            entry("Selected by", expression);
        }
        entry("Records", &format!("{} of {} read", self.records, context.read));
        if let Some((first, last)) = self.timeline.bounds() {
            let time = |micros| Cell::Time(micros).shown();
            entry("Time", &format!("{} to {}", time(first), time(last)));
        }
        for error in &context.errors {
            entry("Error", error);
        }
        for note in &context.notes {
            entry("Note", note);
        }
        html.push_str("</dl>");
        html
    }
}

impl Consumer for Page {
    fn take(&mut self, row: &Row<'_, '_>) -> io::Result<()> {
        self.records += 1;
        self.timeline.add(&self.columns, row);
        self.losses.add(row);
        self.tables.iter_mut().for_each(|tables| tables.add(row));
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        Ok(())
    }
}

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>
<meta name=\"viewport\" content=\"width=device-width\"/><title>DNS report</title>
<style>@STYLE@</style></head><body><main>";

fn section(html: &mut String, heading: &str, content: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(html, "<section><h2>{heading}</h2>{content}</section>");
}

/// Writes a table; shares have a bar.
fn table(table: &Table, empty: &str) -> String {
    if table.rows.is_empty() {
        return format!("<p>{empty}</p>");
    }
    let mut html = String::from("<div class=\"wide\"><table><thead><tr>");
    for (number, column) in table.columns.iter().enumerate() {
        let name = column.strip_suffix("_ns").unwrap_or(column).replace('_', " ");
        let is_text = |row: &Vec<Cell>| matches!(row.get(number), Some(Cell::Text(_)));
        let class = if table.rows.iter().any(is_text) { "" } else { " class=\"number\"" };
        let _ = write!(html, "<th{class}>{name}</th>");
    }
    html.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        html.push_str("<tr>");
        for cell in row {
            let shown = cell.shown();
            let _ = match cell {
                Cell::Text(_) => write!(html, "<td><span>{}</span></td>", escaped(&shown)),
                Cell::Percent(percent) => write!(
                    html,
                    "<td class=\"number share\" style=\"--share:{percent:.1}%\">{shown}</td>"
                ),
                _ => write!(html, "<td class=\"number\">{shown}</td>"),
            };
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}
