//! `tap53 report`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use tap53::{query, telemetry::Log};
use tap53_query::{
    catalogue::Catalogue,
    page::{Context, Page},
    query::Query,
    row::Fields,
};
use tap53_records::encode::Profile;

use super::{
    query::{
        CaptureArguments, TWO_EXPRESSIONS, catalogue_of, finish, parse, refuse, take_expression,
    },
    result_file::ResultFile,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  tap53 report capture.pcapng -o report.html
  tap53 report records/*.avro 'client_pod_namespace = shop' -o shop.html

The page has a timeline, response codes, latencies over time, top names and clients, chains,
anomalies and losses. It is one file without scripts that loads nothing.

Exit status: 0 all files were read; 1 a file cannot be read to its end; 2 invalid arguments or
expression.";

/// Arguments of `tap53 report`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Captures and Avro files; - is a capture on standard input. The last argument may be an expression
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Select the records that meet this expression
    #[arg(short, long = "where", value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Write the page to this file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Maximum number of rows of a table
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    capture: CaptureArguments,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { mut files, filter, output, rows, capture } = arguments;
    let last = take_expression(&mut files, &Catalogue::new(Profile::Full)?);
    if filter.is_some() && last.is_some() {
        return Ok(refuse(TWO_EXPRESSIONS));
    }
    let text = filter.or(last);
    let catalogue = catalogue_of(&files)?;
    let expression = match parse(text.as_deref(), &catalogue) {
        Ok(expression) => expression,
        Err(code) => return Ok(code),
    };
    let config = capture.load(true)?;
    let _log = Log::start(&config.log, &config.node)?;
    let file = ResultFile::create(Some(&output))?;
    let mut fields = Fields::default();
    let page = Page::new(&mut fields);
    let mut query = Query::new(fields, expression.as_ref(), page, None);
    let outcome = query::read_files(&files, &config, &mut query)?;
    let context = Context {
        files: files.iter().map(|file| file.display().to_string()).collect(),
        expression: text,
        read: query.counts().read,
        ledgers: outcome.ledgers.iter().map(ToString::to_string).collect(),
        errors: outcome.errors.iter().map(ToString::to_string).collect(),
    };
    query.consumer().write(&context, rows, &mut *file.writer()?)?;
    file.keep()?;
    Ok(finish(&outcome, query.counts()))
}
