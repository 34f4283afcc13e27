//! One line per transaction: aligned columns for people, CSV for programs.

use std::{borrow::Cow, fmt::Write as _};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use tap53_base::visible::visible;
use tap53_transactions::pair::Outcome;

use super::{
    Encode, Error, Record, Row, RowEnd,
    columns::{Column, Columns},
    layout::{Fraction, Layout, cut_end, cut_middle, cut_owner, width_of},
    notes::{endpoint, write_notes},
};

/// Maximum number of answers on a line.
const ANSWERS_SHOWN: usize = 3;

/// Maximum number of characters of an answer: a DNSKEY or a TXT record could fill several lines.
const ANSWER_WIDTH: usize = 48;

/// The port that is not shown with the address of a server.
const DNS_PORT: u16 = 53;

/// Width of a date with a space.
const DATE_WIDTH: usize = 11;

/// Options of text and CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Columns, in their order.
    pub columns: Columns,
    /// Width of the terminal, to which lines are fitted; `None` if nothing is cut.
    pub width: Option<u16>,
    /// With ANSI colours.
    pub color: bool,
    /// Times in the zone of this machine instead of UTC.
    pub local_time: bool,
    /// Every line has its date, as those of a capture file; else those of another day than today. On a
    /// terminal, a date has its own line in either case.
    pub dated: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { columns: Columns::TEXT, width: None, color: false, local_time: false, dated: false }
    }
}

impl TextOptions {
    fn layout(self) -> Layout {
        let mut layout = Layout::new(&self.columns, self.width);
        if self.dated && self.width.is_none() {
            layout.widen(Column::Time, DATE_WIDTH);
        }
        layout
    }

    fn zone(self) -> TimeZone {
        if self.local_time { TimeZone::system() } else { TimeZone::UTC }
    }
}

/// Formats rows as aligned columns. Text from the wire is escaped, so a name cannot move the cursor.
pub struct Text {
    options: TextOptions,
    layout: Layout,
    zone: TimeZone,
    /// The date of the last line on a terminal, where a date has its own line; at first today's.
    shown_date: Option<Date>,
    /// Returns the time now; replaced in tests.
    now: fn() -> Timestamp,
}

impl Text {
    /// Creates the text with these options.
    #[must_use]
    pub fn new(options: TextOptions) -> Self {
        Self::at(options, options.zone(), Timestamp::now)
    }

    fn at(options: TextOptions, zone: TimeZone, now: fn() -> Timestamp) -> Self {
        let layout = options.layout();
        Self { options, layout, zone, shown_date: None, now }
    }

    /// Fits the columns to another width of the terminal.
    pub fn resize(&mut self, width: Option<u16>) {
        if width != self.options.width {
            self.options.width = width;
            self.layout = self.options.layout();
        }
    }

    /// Returns the heading of the columns, with a line feed.
    #[must_use]
    pub fn heading(&self) -> String {
        let mut out = String::new();
        for (at, place) in self.layout.places.iter().enumerate() {
            let title = self.title(place.column);
            let title = match self.options.width {
                Some(_) => cut_end(title, place.width),
                None => title.to_owned(),
            };
            let is_last = at + 1 == self.layout.places.len();
            let width = if is_last { 0 } else { place.width + self.layout.gap };
            match place.column {
                // Right-aligned, as its values are.
                Column::Latency => {
                    let _ = write!(out, "{title:>0$}", place.width);
                    pad(&mut out, 0, if is_last { 0 } else { self.layout.gap });
                }
                _ => {
                    out.push_str(&title);
                    pad(&mut out, width_of(&title), width);
                }
            }
        }
        let mut out = match self.layout.width {
            Some(width) => cut_end(out.trim_end(), width),
            None => out.trim_end().to_owned(),
        };
        out.push('\n');
        out
    }

    fn title(&self, column: Column) -> &'static str {
        match (column, self.options.local_time, self.layout.is_narrow()) {
            (Column::Time, false, true) => "UTC",
            (Column::Time, true, true) => "LOCAL",
            (Column::Time, true, false) => "TIME (LOCAL)",
            _ => column.properties().title,
        }
    }

    /// Appends the line of a row.
    pub fn push(&mut self, row: &Row<'_>, out: &mut String) {
        let time = Timestamp::from_microsecond(row.began_us()).unwrap_or_default();
        if self.options.width.is_some() {
            self.push_date(time, out);
        }
        let cells: Vec<String> =
            self.layout.places.iter().map(|place| self.cell(place.column, row, time)).collect();
        let start = out.len();
        let mut used = 0;
        let count = cells.len();
        for (at, (place, cell)) in self.layout.places.iter().zip(&cells).enumerate() {
            let next = self.layout.places.get(at + 1).map(|place| place.column);
            let notes_follow = at + 2 == count && next == Some(Column::Notes);
            let is_last = at + 1 == count || (notes_follow && cells[at + 1].is_empty());
            let text = match self.layout.width {
                None => cell.clone(),
                // The answers take the rest of the line, except for the space of the notes.
                Some(width) if place.column == Column::Answers && notes_follow => {
                    let room = width.saturating_sub(used);
                    let notes = match width_of(&cells[at + 1]) {
                        0 => 0,
                        notes => notes + self.layout.gap,
                    };
                    let least = place.width.min(room);
                    cut_end(cell, room.saturating_sub(notes).max(least))
                }
                Some(width) => {
                    let room = width.saturating_sub(used);
                    let room = if is_last { room } else { place.width.min(room) };
                    cut(place.column, cell, room)
                }
            };
            let filled = width_of(&text);
            if place.column == Column::Latency {
                pad(out, filled, place.width);
                used += place.width.saturating_sub(filled);
            }
            self.push_cell(place.column, row, &text, out);
            used += filled;
            if is_last {
                break;
            }
            // The notes follow the answers at once.
            let width = match place.column {
                Column::Latency => filled,
                Column::Answers if notes_follow => filled,
                _ => place.width.max(filled),
            };
            let gap = match self.layout.width {
                _ if place.column == Column::Answers && filled == 0 => 0,
                Some(limit) => self.layout.gap.min(limit.saturating_sub(used + width - filled)),
                None => self.layout.gap,
            };
            pad(out, filled, width + gap);
            used += width + gap - filled;
        }
        let end = start + out[start..].trim_end().len();
        out.truncate(end);
        out.push('\n');
    }

    /// Appends a line with the date if the previous line had another one; the first one today's.
    fn push_date(&mut self, time: Timestamp, out: &mut String) {
        let date = self.zone.to_datetime(time).date();
        let shown = self.shown_date.unwrap_or_else(|| self.today());
        if shown != date {
            let _ = writeln!(out, "{date}");
        }
        self.shown_date = Some(date);
    }

    fn today(&self) -> Date {
        self.zone.to_datetime((self.now)()).date()
    }

    fn push_cell(&self, column: Column, row: &Row<'_>, text: &str, out: &mut String) {
        match color(row).filter(|_| self.options.color && column == Column::Result) {
            Some(color) => {
                let _ = write!(out, "\x1b[{color}m{text}\x1b[0m");
            }
            None => out.push_str(text),
        }
    }

    /// Returns the whole text of a cell.
    fn cell(&self, column: Column, row: &Row<'_>, time: Timestamp) -> String {
        let text = match column {
            Column::Time => Cow::Owned(self.time(time)),
            Column::Latency if row.latency_ns.is_none() => "-".into(),
            Column::Latency if self.layout.is_narrow() => short_latency(row).into(),
            Column::Latency => {
                let whole = format!("{} ms", milliseconds(row));
                let fits = whole.len() <= column.properties().ideal;
                if fits || self.layout.width.is_none() { whole } else { short_latency(row) }.into()
            }
            Column::Answers => shown_answers(row).into(),
            column => value(column, row),
        };
        visible(&text).into_owned()
    }

    /// Formats a time of day; with its date if that is not today's, and lines are not grouped by it.
    fn time(&self, time: Timestamp) -> String {
        let at = self.zone.to_datetime(time);
        let mut text = String::new();
        let has_date = || self.options.dated || at.date() != self.today();
        if self.options.width.is_none() && has_date() {
            let _ = write!(text, "{} ", at.date());
        }
        let us = at.subsec_nanosecond() / 1_000;
        let _ = write!(text, "{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
        let _ = match self.layout.fraction() {
            Fraction::None => Ok(()),
            Fraction::Milliseconds => write!(text, ".{:03}", us / 1_000),
            Fraction::Microseconds => write!(text, ".{us:06}"),
        };
        text
    }
}

impl Encode for Text {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut line = String::with_capacity(160);
        self.push(&Row::of(record), &mut line);
        out.extend_from_slice(line.as_bytes());
        Ok(())
    }
}

/// Formats rows as CSV (RFC 4180). Nothing is cut.
pub struct Csv {
    columns: Columns,
    zone: TimeZone,
    is_local: bool,
}

impl Csv {
    /// Creates CSV with these options.
    #[must_use]
    pub fn new(options: TextOptions) -> Self {
        let zone = options.zone();
        Self { columns: options.columns, zone, is_local: options.local_time }
    }

    /// Returns the line with the names of the columns.
    ///
    /// # Errors
    /// None in practice: memory can be written to.
    pub fn heading(&self) -> Result<String, Error> {
        let names = self.columns.as_slice().iter().map(|column| match column {
            Column::Latency => "latency_ms",
            column => column.name(),
        });
        let mut out = Vec::new();
        write_csv(names.map(Cow::Borrowed), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Appends the line of a row.
    ///
    /// # Errors
    /// None in practice: memory can be written to.
    pub fn push(&self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let cell = |column: &Column| -> Cow<'_, str> {
            let text = match column {
                Column::Time => Cow::Owned(self.time(row)),
                Column::Latency if row.latency_ns.is_none() => "".into(),
                Column::Latency => milliseconds(row).into(),
                Column::Answers => all_answers(row).into(),
                column => value(*column, row),
            };
            visible(&text).into_owned().into()
        };
        write_csv(self.columns.as_slice().iter().map(cell), out)
    }

    fn time(&self, row: &Row<'_>) -> String {
        let time = Timestamp::from_microsecond(row.began_us()).unwrap_or_default();
        if self.is_local {
            return time
                .to_zoned(self.zone.clone())
                .strftime("%Y-%m-%dT%H:%M:%S.%6f%:z")
                .to_string();
        }
        format!("{time:.6}")
    }
}

impl Encode for Csv {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        let pushed = self.push(&Row::of(record), out);
        if pushed.is_err() {
            out.truncate(start);
        }
        pushed
    }
}

fn write_csv<'a>(
    cells: impl Iterator<Item = Cow<'a, str>>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut line = csv::WriterBuilder::new().buffer_capacity(1 << 10).from_writer(out);
    for cell in cells {
        line.write_field(cell.as_bytes())?;
    }
    line.write_record(None::<&[u8]>)?;
    line.flush().map_err(csv::Error::from)?;
    Ok(())
}

/// Returns the text of a column that is the same in every format.
fn value<'a>(column: Column, row: &'a Row<'_>) -> Cow<'a, str> {
    match column {
        Column::Client => owner(&row.client(), None),
        Column::Server => {
            owner(&row.server(), Some(row.server_port).filter(|port| *port != DNS_PORT))
        }
        Column::ClientAddress => endpoint(&row.client_address, Some(row.client_port)).into(),
        Column::ServerAddress => endpoint(&row.server_address, Some(row.server_port)).into(),
        Column::ClientPod => joined(row.client().pod).unwrap_or_default(),
        Column::ServerPod => joined(row.server().pod).unwrap_or_default(),
        Column::Proto => Cow::Borrowed(&row.transport),
        Column::Type => row.qtype.as_deref().unwrap_or("-").into(),
        Column::Name => row.qname.as_deref().unwrap_or("-").into(),
        Column::Result => row.rcode.as_deref().unwrap_or(&row.outcome).into(),
        Column::Interface => interfaces(row),
        Column::Node => Cow::Borrowed(&row.node),
        Column::Copies => row.copy_count.to_string().into(),
        Column::Notes => {
            let mut notes = String::new();
            // Writing to a String does not fail.
            let _ = write_notes(row, &mut notes);
            notes.into()
        }
        Column::Time | Column::Latency | Column::Answers => "".into(),
    }
}

/// Returns the workload, the pod or the service of one end with its namespace, or else its address with
/// `port`.
fn owner<'a>(end: &RowEnd<'a>, port: Option<u16>) -> Cow<'a, str> {
    let [namespace, pod] = end.pod;
    joined([namespace, end.workload])
        .or_else(|| joined([namespace, pod]))
        .or_else(|| joined(end.service))
        .unwrap_or_else(|| endpoint(end.address, port).into())
}

/// Joins a namespace and a name; `None` without a name.
fn joined<'a>([namespace, name]: [Option<&'a str>; 2]) -> Option<Cow<'a, str>> {
    match (namespace, name?) {
        (Some(namespace), name) => Some(format!("{namespace}/{name}").into()),
        (None, name) => Some(name.into()),
    }
}

fn interfaces<'a>(row: &'a Row<'_>) -> Cow<'a, str> {
    match row.response_interface.as_deref() {
        Some(response) if response != row.interface => {
            format!("{},{response}", row.interface).into()
        }
        _ => Cow::Borrowed(&row.interface),
    }
}

/// Returns the answers that a line has room for, and the number of the others.
fn shown_answers(row: &Row<'_>) -> String {
    let mut text = String::new();
    for answer in row.answers.iter().take(ANSWERS_SHOWN) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&cut_end(&answer.rdata, ANSWER_WIDTH));
    }
    let more = (row.answers.len() + row.answers_omitted as usize).saturating_sub(ANSWERS_SHOWN);
    if more > 0 {
        let _ = write!(text, ", +{more}");
    }
    text
}

fn all_answers(row: &Row<'_>) -> String {
    let answers: Vec<&str> = row.answers.iter().map(|answer| &*answer.rdata).collect();
    answers.join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "shown with three decimals")]
fn milliseconds(row: &Row<'_>) -> String {
    format!("{:.3}", row.latency_ns.unwrap_or_default() as f64 / 1e6)
}

/// Returns the latency with three digits, in the unit that fits: `250µs`, `4.39ms`, `2.50s`.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn short_latency(row: &Row<'_>) -> String {
    let us = row.latency_ns.unwrap_or_default() as f64 / 1e3;
    match us {
        ..999.5 => format!("{us:.0}µs"),
        ..9_995.0 => format!("{:.2}ms", us / 1e3),
        ..99_950.0 => format!("{:.1}ms", us / 1e3),
        ..999_500.0 => format!("{:.0}ms", us / 1e3),
        _ => format!("{:.2}s", us / 1e6),
    }
}

/// Returns the ANSI colour of the outcome.
fn color(row: &Row<'_>) -> Option<u8> {
    const RED: u8 = 31;
    const GREEN: u8 = 32;
    const YELLOW: u8 = 33;
    Some(match row.rcode.as_deref() {
        Some("NOERROR") if row.outcome == Outcome::Matched.symbol() => GREEN,
        Some("NOERROR" | "NXDOMAIN") => YELLOW,
        _ => RED,
    })
}

fn cut(column: Column, text: &str, width: usize) -> String {
    match column {
        Column::Name => cut_middle(text, width),
        Column::Client | Column::Server | Column::ClientPod | Column::ServerPod => {
            cut_owner(text, width)
        }
        _ => cut_end(text, width),
    }
}

/// Appends spaces to a text of `filled` characters up to `width`.
fn pad(out: &mut String, filled: usize, width: usize) {
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(filled)));
}

#[cfg(test)]
mod tests;
