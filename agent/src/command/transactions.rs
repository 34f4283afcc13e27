//! Options for the format of transactions, which `run`, `replay` and `tail` share.

use clap::{Args, CommandFactory, ValueEnum, error::ErrorKind};
use tap53::config::{Columns, StdoutFlags, TextFormat};

/// Format of transactions on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// Aligned columns that fit the terminal
    Text,
    /// Aligned columns with addresses, interfaces and copies; nothing is cut
    Wide,
    /// One JSON object a line, with every field of the record
    #[value(alias = "json")]
    Jsonl,
    /// The same without fields that are null or an empty list
    Compact,
    /// Comma-separated values with a line of names; nothing is cut
    Csv,
}

impl From<OutputFormat> for TextFormat {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Text => Self::Text,
            OutputFormat::Wide => Self::Wide,
            OutputFormat::Jsonl => Self::Json,
            OutputFormat::Compact => Self::Compact,
            OutputFormat::Csv => Self::Csv,
        }
    }
}

/// Options for the format of transactions.
#[derive(Args, Debug)]
pub(crate) struct Output {
    /// Print transactions in this format
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<OutputFormat>,
    /// Columns of text, wide and csv, in this order, such as time,client,name,latency
    #[arg(long, value_name = "COLUMNS", value_parser = str::parse::<Columns>)]
    fields: Option<Columns>,
    /// Show times in the time zone of this machine, instead of UTC, in text, wide and csv
    #[arg(long)]
    local: bool,
}

impl Output {
    /// Returns the format and its options; `other` is the format of another flag. `None` if there is no
    /// flag. Ends the process if columns of a format without any are chosen.
    pub(super) fn flags(&self, other: Option<TextFormat>) -> Option<StdoutFlags> {
        let named = self.output.map(TextFormat::from).or(other);
        let is_shaped = self.fields.is_some() || self.local;
        let format = named.or(is_shaped.then_some(TextFormat::Text))?;
        if is_shaped && !format.has_columns() {
            let flag = if self.fields.is_some() { "--fields" } else { "--local" };
            refuse(&format!(
                "{flag} is for text, wide and csv: JSON has every field, and times in UTC"
            ));
        }
        Some(StdoutFlags { format, columns: self.fields, local_time: self.local })
    }
}

/// Reports arguments that do not go together, as the parser does, and ends the process.
pub(super) fn refuse(message: &str) -> ! {
    super::Arguments::command().error(ErrorKind::ArgumentConflict, message).exit()
}
