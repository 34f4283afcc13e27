//! `tap53 report`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use tap53::telemetry::Log;
use tap53_query::{
    page::{Context, Page},
    query::Query,
    row::Fields,
};

use super::{
    result_file::ResultFile,
    source::{Source, finish},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  tap53 report capture.pcapng -o report.html
  tap53 report records/*.avro 'client_pod_namespace = shop' -o shop.html
  sudo tap53 report --agent --for 5m -o now.html

The page has a timeline, response codes, latencies over time, top names and clients, chains,
anomalies and losses. It is one file without scripts that loads nothing.

Exit status: 0 all records were read; 1 a file cannot be read to its end, no agent answers, or some of
its records were missed; 2 invalid arguments or expression.";

/// Arguments of `tap53 report`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    result: ResultArguments,
}

/// Arguments of the page.
#[derive(Args, Debug)]
#[command(next_help_heading = "Page")]
struct ResultArguments {
    /// Write the page to this file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Maximum number of rows of a table
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    rows: usize,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { source, result: ResultArguments { output, rows } } = arguments;
    let selected = match source.select()? {
        Ok(selected) => selected,
        Err(code) => return Ok(code),
    };
    let config = selected.config(true)?;
    let _log = Log::start(&config.log, &config.node)?;
    let file = ResultFile::create(Some(&output))?;
    let mut fields = Fields::default();
    let page = Page::new(&mut fields);
    let mut query = Query::new(fields, selected.expression.as_ref(), page, None);
    let outcome = selected.read(&config, &mut query)?;
    let context = Context {
        sources: selected.names(),
        expression: selected.text.clone(),
        read: query.counts().read,
        ledgers: outcome.ledgers.iter().map(ToString::to_string).collect(),
        errors: outcome.errors.iter().map(ToString::to_string).collect(),
        notes: outcome.notes.clone(),
    };
    query.consumer().write(&context, rows, &mut *file.writer()?)?;
    file.keep()?;
    Ok(finish(&outcome, query.counts()))
}
