//! `tap53 query`.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tap53::{
    config::{Config, Error, LogLevel, Overrides, port_of_flag},
    query::{self, Outcome},
    telemetry::{Log, print_error},
};
use tap53_query::{
    catalogue::Catalogue,
    expression::{self, Expression},
    format::Format,
    output::{self, Column, DEFAULT_FIELDS, Lines, Parquet},
    query::{Consumer, Counts, Query},
    report::{Kind, Report},
    row::Fields,
};
use tap53_records::encode::Profile;

use super::{replay::refuse_filters_by_pod, result_file::ResultFile};
use crate::exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  tap53 query capture.pcapng 'rcode = NXDOMAIN and qname ~ example.com'
  tap53 query records/*.avro 'client in 10.0.0.0/8 and latency > 50ms' -o csv
  tap53 query capture.pcap --report top-names
  tap53 query records/*.avro 'not rcode = NOERROR' --report clients -o json
  tap53 query capture.pcap --fields query_time,qname,answers -o json
  tap53 query records/*.avro -o parquet --output records.parquet

Files are captures (pcap, pcapng, plain or compressed), and Avro files of any version and profile of
the records. The expression compares fields by =, !=, <, <=, >, >=, ~ (pattern, or suffix of a name)
and in (values, networks), and combines comparisons by and, or, not and parentheses. docs/query.md
describes it.

Exit status: 0 all files were read; 1 a file cannot be read to its end; 2 invalid arguments or
expression.";

/// Arguments of `tap53 query`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Captures and Avro files; - is a capture on standard input. The last argument may be an expression
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Select the records that meet this expression
    #[arg(short, long = "where", value_name = "EXPRESSION")]
    filter: Option<String>,
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
    #[command(flatten)]
    capture: CaptureArguments,
}

/// Arguments for reading captures.
#[derive(Args, Debug)]
pub(super) struct CaptureArguments {
    /// Configuration file (YAML), of which ports, timeouts, filters and privacy are used for captures
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// DNS port of captures: a number, mdns or llmnr; may be repeated [default: 53]
    #[arg(short, long = "port", value_name = "PORT", value_parser = dns_port)]
    ports: Vec<u16>,
}

fn dns_port(text: &str) -> Result<u16, String> {
    port_of_flag(text)
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

impl CaptureArguments {
    /// Loads the configuration for captures. `chains` enables the search for the chains behind answers.
    pub(super) fn load(&self, chains: bool) -> Result<Config, Error> {
        let overrides = Overrides {
            // The interfaces are those of the files.
            interfaces: vec!["*".to_owned()],
            log_level: Some(LogLevel::Warn),
            ..Overrides::default()
        };
        let mut config = Config::load(self.config.as_deref(), &overrides)?;
        refuse_filters_by_pod(self.config.as_deref(), &config)?;
        if !self.ports.is_empty() {
            config.capture.ports.clone_from(&self.ports);
            config.capture.ports.sort_unstable();
            config.capture.ports.dedup();
        }
        config.chains.enabled |= chains && config.pair.merge_interfaces;
        Ok(config)
    }
}

/// Takes an expression from the end of the files: an argument that is no file, but has an operator or is a
/// field.
pub(super) fn take_expression(files: &mut Vec<PathBuf>, catalogue: &Catalogue) -> Option<String> {
    let last = files.last().filter(|_| files.len() > 1)?;
    let text = last.to_str().filter(|_| !last.exists())?;
    let is_expression = text.contains([' ', '=', '<', '>', '~', '(']);
    if !is_expression && catalogue.find(text).is_none() {
        return None;
    }
    let text = text.to_owned();
    files.pop();
    Some(text)
}

/// The form of the result.
#[derive(Clone, Copy)]
enum Answer {
    Report(Kind, Format),
    Lines(Format),
    Parquet,
}

impl Arguments {
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

pub(crate) fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    let last = take_expression(&mut arguments.files, &Catalogue::new(Profile::Full)?);
    if arguments.filter.is_some() && last.is_some() {
        return Ok(refuse(TWO_EXPRESSIONS));
    }
    let text = arguments.filter.take().or(last);
    let catalogue = catalogue_of(&arguments.files)?;
    let expression = match parse(text.as_deref(), &catalogue) {
        Ok(expression) => expression,
        Err(code) => return Ok(code),
    };
    let answer = match arguments.answer() {
        Ok(answer) => answer,
        Err(why) => return Ok(refuse(why)),
    };
    let mut fields = Fields::default();
    match output::columns(arguments.names(answer), &catalogue, &mut fields) {
        Ok(columns) => write(&arguments, answer, expression.as_ref(), fields, columns),
        Err(error) => Ok(refuse(&error.to_string())),
    }
}

/// Reads the files, and writes the answer.
fn write(
    arguments: &Arguments,
    answer: Answer,
    expression: Option<&Expression>,
    mut fields: Fields,
    columns: Vec<Column>,
) -> anyhow::Result<ExitCode> {
    let files = &arguments.files;
    let config = arguments.capture.load(arguments.report == Some(Kind::Chains))?;
    let _log = Log::start(&config.log, &config.node)?;
    let file = ResultFile::create(arguments.output.as_deref())?;
    let out = file.writer()?;
    let limit = arguments.limit;
    let (outcome, counts) = match answer {
        Answer::Report(report, format) => {
            let consumer = Report::new(report, format, arguments.rows, &mut fields, out);
            read(files, &config, Query::new(fields, expression, consumer, limit))?
        }
        Answer::Lines(format) => {
            let consumer = Lines::new(format, columns, out);
            read(files, &config, Query::new(fields, expression, consumer, limit))?
        }
        Answer::Parquet => {
            let consumer = Parquet::begin(columns, out).context("cannot write the result")?;
            read(files, &config, Query::new(fields, expression, consumer, limit))?
        }
    };
    file.keep()?;
    Ok(finish(&outcome, counts))
}

/// Returns the fields of the files' profile: the flat one if all files have records in it.
pub(super) fn catalogue_of(files: &[PathBuf]) -> anyhow::Result<Catalogue> {
    let mut profile = None;
    for path in files {
        let of_file = match query::kind_of(path)? {
            query::Kind::Records(profile) => profile,
            query::Kind::Capture => Profile::Full,
            query::Kind::Summaries => continue,
        };
        profile = Some(profile.map_or(of_file, |profile: Profile| profile.min(of_file)));
    }
    Ok(Catalogue::new(profile.unwrap_or_default())?)
}

/// The reason to refuse an expression in two places.
pub(super) const TWO_EXPRESSIONS: &str =
    "there are two expressions: one in --where, one after the files";

/// Prints why arguments are refused; returns the exit code.
pub(super) fn refuse(why: &str) -> ExitCode {
    print_error(why);
    ExitCode::from(exit::REFUSED)
}

/// Parses an expression; prints its error with a mark at the place.
pub(super) fn parse(
    text: Option<&str>,
    catalogue: &Catalogue,
) -> Result<Option<Expression>, ExitCode> {
    let parsed = text.map(|text| expression::parse(text, catalogue)).transpose();
    parsed.map_err(|error| refuse(&error.to_string()))
}

/// Reads the files, and writes the result. A closed pipe, as of `head`, is not an error.
fn read<C: Consumer + Send>(
    files: &[PathBuf],
    config: &Config,
    mut query: Query<C>,
) -> anyhow::Result<(Outcome, Counts)> {
    let outcome = query::read_files(files, config, &mut query)?;
    let counts = query.counts();
    match query.finish() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the result")
        }
        _ => Ok((outcome, counts)),
    }
}

/// Prints the numbers of records and what is wrong with the files; returns the exit code.
pub(super) fn finish(outcome: &Outcome, counts: Counts) -> ExitCode {
    let Counts { read, selected } = counts;
    for path in &outcome.summaries {
        eprintln!("{}: ledger summaries, which are not read", path.display());
    }
    if !outcome.ended_early {
        eprintln!("{selected} of {read} records selected");
        for ledger in &outcome.ledgers {
            if !ledger.balanced() || ledger.lost_records() {
                eprintln!("records of captures were lost:\n{ledger}");
            }
        }
    }
    for error in &outcome.errors {
        print_error(&error.to_string());
    }
    match outcome.errors.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::FAILED),
    }
}
