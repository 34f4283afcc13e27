//! Prints the lines of a follower.

use std::{
    borrow::Cow,
    io::{self, BufWriter, StdoutLock, Write},
};

use anyhow::Context;
use tap53::{
    config::{StdoutFlags, TextFormat},
    tail::LineFormat,
};
use tap53_base::visible::visible_lines;
use tap53_records::encode::{Csv, Row, Text, TextOptions, push_compact_line};
use tap53_sinks::terminal_width;

use crate::command::table::colored;

const WRITE: &str = "cannot write to standard output";

/// Prints records to standard output.
pub(super) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    shape: Shape,
    /// Set if the width is that of the terminal, which may change.
    fits_terminal: bool,
}

enum Shape {
    Json,
    /// JSON without fields that are null or an empty list.
    Compact,
    Text(Text),
    Csv(Csv),
}

impl Printer {
    pub(super) fn new(flags: StdoutFlags) -> anyhow::Result<Self> {
        let StdoutFlags { format, columns, local_time } = flags;
        let fits_terminal = format == TextFormat::Text;
        let options = TextOptions {
            columns: columns.unwrap_or(format.columns()),
            width: terminal_width().filter(|_| fits_terminal),
            color: colored(),
            local_time,
            dated: false,
        };
        let shape = match format {
            TextFormat::Json => Shape::Json,
            TextFormat::Compact => Shape::Compact,
            TextFormat::Text | TextFormat::Wide => Shape::Text(Text::new(options)),
            TextFormat::Csv => Shape::Csv(Csv::new(options)),
        };
        Ok(Self { out: BufWriter::new(io::stdout().lock()), shape, fits_terminal })
    }

    /// Returns the format of the lines from the agent.
    pub(super) const fn line_format(&self) -> LineFormat {
        match self.shape {
            Shape::Json | Shape::Compact => LineFormat::Json,
            Shape::Text(_) | Shape::Csv(_) => LineFormat::Row,
        }
    }

    /// Prints the heading.
    pub(super) fn begin(&mut self) -> anyhow::Result<()> {
        let heading = match &self.shape {
            Shape::Json | Shape::Compact => String::new(),
            Shape::Text(text) => text.heading(),
            Shape::Csv(csv) => csv.heading()?,
        };
        self.out.write_all(heading.as_bytes()).context(WRITE)?;
        self.flush()
    }

    /// Prints the record of a line from the agent.
    pub(super) fn print(&mut self, line: &[u8]) -> anyhow::Result<()> {
        const READ: &str = "cannot read a record from the agent";
        let mut bytes = Vec::new();
        match &mut self.shape {
            Shape::Json | Shape::Compact => {
                let mut line = Cow::Borrowed(line);
                if matches!(self.shape, Shape::Compact) {
                    let mut compact = Vec::new();
                    push_compact_line(&line, &mut compact).context(READ)?;
                    line = Cow::Owned(compact);
                }
                let text = str::from_utf8(&line).context(READ)?;
                bytes.extend_from_slice(visible_lines(text).as_bytes());
            }
            Shape::Text(text) => {
                if self.fits_terminal {
                    text.resize(terminal_width());
                }
                let mut out = String::new();
                text.push(&Row::from_json(line).context(READ)?, &mut out);
                bytes = out.into_bytes();
            }
            Shape::Csv(csv) => csv.push(&Row::from_json(line).context(READ)?, &mut bytes)?,
        }
        self.out.write_all(&bytes).context(WRITE)
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().context(WRITE)
    }
}
