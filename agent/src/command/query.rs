//! `tap53 query`.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tap53::{config::Config, query::Outcome, telemetry::Log};
use tap53_query::{
    format::Format,
    output::{self, Column, DEFAULT_FIELDS, Lines, Parquet},
    query::{Consumer, Counts, Query},
    report::{Kind, Report},
    row::Fields,
};

use super::{
    result_file::ResultFile,
    source::{Selected, Source, finish, refuse},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  tap53 query capture.pcapng 'rcode = NXDOMAIN and qname ~ example.com'
  tap53 query records/*.avro 'client in 10.0.0.0/8 and latency > 50ms' -o csv
  tap53 query capture.pcap --report top-names
  tap53 query records/*.avro 'not rcode = NOERROR' --report clients -o json
  tap53 query capture.pcap --fields query_time,qname,answers -o json
  tap53 query records/*.avro -o parquet --output records.parquet
  sudo tap53 query --agent --since 5m 'rcode = SERVFAIL' --report clients
  sudo tap53 query --agent --for 30s --report latency

Files are captures (pcap, pcapng, plain or compressed), and Avro files of any version and profile of
the records. A running agent has its recent records in memory, and new ones for the time of --for.
The expression compares fields by =, !=, <, <=, >, >=, ~ (pattern, or suffix of a name) and in
(values, networks), and combines comparisons by and, or, not and parentheses. docs/query.md
describes it.

Exit status: 0 all records were read; 1 a file cannot be read to its end, no agent answers, or some of
its records were missed; 2 invalid arguments or expression.";

/// Arguments of `tap53 query`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    result: ResultArguments,
}

/// Arguments of the result.
#[derive(Args, Debug)]
#[command(next_help_heading = "Result")]
struct ResultArguments {
    /// Print a report instead of the records
    #[arg(long, value_enum, value_name = "REPORT")]
    report: Option<Kind>,
    /// Format of the result
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
    /// Write the result to this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Fields of the result, or all [default: some for text and csv, else all]
    #[arg(long, value_name = "FIELD", value_delimiter = ',', conflicts_with = "report")]
    fields: Vec<String>,
    /// End after this number of selected records
    #[arg(long, value_name = "NUMBER", conflicts_with = "report")]
    limit: Option<u64>,
    /// Maximum number of rows of a report
    #[arg(long, value_name = "NUMBER", default_value_t = 20, requires = "report")]
    rows: usize,
}

/// A format of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// Columns for people
    Text,
    /// Comma-separated values with a header
    Csv,
    /// A JSON object in each line
    Json,
    /// Columns for DuckDB, Spark and others; needs --output
    Parquet,
}

impl OutputFormat {
    /// Returns the format of lines; `None` for Parquet.
    const fn lines(self) -> Option<Format> {
        match self {
            Self::Text => Some(Format::Text),
            Self::Csv => Some(Format::Csv),
            Self::Json => Some(Format::Json),
            Self::Parquet => None,
        }
    }
}

/// The form of the result.
#[derive(Clone, Copy)]
enum Answer {
    Report(Kind, Format),
    Lines(Format),
    Parquet,
}

impl ResultArguments {
    /// Returns what becomes of the records, or why the arguments contradict each other.
    fn answer(&self) -> Result<Answer, &'static str> {
        match (self.report, self.format.lines()) {
            (Some(report), Some(format)) => Ok(Answer::Report(report, format)),
            (Some(_), None) => Err("a report has no columns of Parquet: use -o csv or -o json"),
            (None, Some(format)) => Ok(Answer::Lines(format)),
            (None, None) if self.output.is_some() => Ok(Answer::Parquet),
            (None, None) => Err("-o parquet needs a file: --output FILE"),
        }
    }

    /// Returns the names of the columns.
    fn names(&self, answer: Answer) -> Vec<&str> {
        match (&self.fields[..], answer) {
            (_, Answer::Report(..)) => Vec::new(),
            ([], Answer::Lines(Format::Text | Format::Csv)) => DEFAULT_FIELDS.to_vec(),
            ([], Answer::Lines(Format::Json) | Answer::Parquet) => vec!["all"],
            (fields, _) => fields.iter().map(String::as_str).collect(),
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { source, result } = arguments;
    let answer = match result.answer() {
        Ok(answer) => answer,
        Err(why) => return Ok(refuse(why)),
    };
    let selected = match source.select()? {
        Ok(selected) => selected,
        Err(code) => return Ok(code),
    };
    let mut fields = Fields::default();
    match output::columns(result.names(answer), &selected.catalogue, &mut fields) {
        Ok(columns) => write(&selected, &result, answer, fields, columns),
        Err(error) => Ok(refuse(&error.to_string())),
    }
}

/// Reads the records, and writes the answer.
fn write(
    selected: &Selected,
    result: &ResultArguments,
    answer: Answer,
    mut fields: Fields,
    columns: Vec<Column>,
) -> anyhow::Result<ExitCode> {
    let config = selected.config(result.report == Some(Kind::Chains))?;
    let _log = Log::start(&config.log, &config.node)?;
    let file = ResultFile::create(result.output.as_deref())?;
    let out = file.writer()?;
    let (expression, limit) = (selected.expression.as_ref(), result.limit);
    let (outcome, counts) = match answer {
        Answer::Report(report, format) => {
            let consumer = Report::new(report, format, result.rows, &mut fields, out);
            read(selected, &config, Query::new(fields, expression, consumer, limit))?
        }
        Answer::Lines(format) => {
            let consumer = Lines::new(format, columns, out);
            read(selected, &config, Query::new(fields, expression, consumer, limit))?
        }
        Answer::Parquet => {
            let consumer = Parquet::begin(columns, out).context("cannot write the result")?;
            read(selected, &config, Query::new(fields, expression, consumer, limit))?
        }
    };
    file.keep()?;
    Ok(finish(&outcome, counts))
}

/// Reads the records, and writes the result. A closed pipe, as of `head`, is not an error.
fn read<C: Consumer + Send>(
    selected: &Selected,
    config: &Config,
    mut query: Query<C>,
) -> anyhow::Result<(Outcome, Counts)> {
    let outcome = selected.read(config, &mut query)?;
    let counts = query.counts();
    match query.finish() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the result")
        }
        _ => Ok((outcome, counts)),
    }
}
