//! `tap53 verify`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;
use tap53::{
    config::{Config, KafkaConfig, Overrides, SinkConfig},
    verify::{Options, Verifier, read_files, read_topics},
};
use tap53_ledger::signature::VerifyingKey;

use super::output::Output;
use crate::exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  tap53 verify -c tap53.yaml --key ledger-public.pem    The topics of a Kafka sink
  tap53 verify summaries.avro records-*.avro            Avro object containers
  duckdb lake.db < verify_export.sql | tap53 verify summaries.json -    Any table or Parquet file

Files are Avro object containers or lines of JSON objects; - is standard input, for records.

Exit status: 0 everything is as the agent wrote it, as far as that can be proven; 1 failed;
2 invalid arguments or configuration; 3 something was altered, removed or inserted.";

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Files with summaries and records, in any order
    #[arg(value_name = "FILE", required_unless_present = "config", conflicts_with = "config")]
    files: Vec<PathBuf>,
    /// Configuration file (YAML) with the Kafka sink whose topics are read
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the sink; required if there are several
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Public key (PEM) that the summaries must be signed with; may be repeated
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Accept that records older than the oldest summary of a run are missing, as after the topic's
    /// retention
    #[arg(long)]
    expired: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let keys = arguments.keys.iter().map(|path| {
        VerifyingKey::read(path).map_err(|why| anyhow::anyhow!("{} {why}", path.display()))
    });
    let kafka = arguments.config.as_deref().map(|path| {
        let overrides = Overrides { interfaces: vec!["*".to_owned()], ..Overrides::default() };
        let config = Config::load(Some(path), &overrides)?;
        kafka(&config, arguments.sink.as_deref())
    });
    let kafka = kafka.transpose()?;
    let mut verifier = Verifier::new(Options {
        keys: keys.collect::<Result<_, _>>()?,
        sink: kafka.as_ref().map(|kafka| kafka.name.clone()).or_else(|| arguments.sink.clone()),
        expired: arguments.expired,
    })?;
    match &kafka {
        Some(kafka) => read_topics(&mut verifier, kafka)?,
        None => read_files(&mut verifier, &arguments.files)?,
    }
    let report = verifier.finish();
    arguments.output.print(&report, || report.to_string())?;
    Ok(ExitCode::from(if report.findings.is_empty() { 0 } else { exit::LOSS }))
}

/// Returns the Kafka sink with this name, or the only one.
///
/// # Errors
/// If there is none, or there are several without a name.
fn kafka(config: &Config, name: Option<&str>) -> anyhow::Result<KafkaConfig> {
    let kafka = |sink: &SinkConfig| match sink {
        SinkConfig::Kafka(kafka) => Some((**kafka).clone()),
        _ => None,
    };
    let mut sinks: Vec<_> = config.sinks.iter().filter_map(kafka).collect();
    sinks.retain(|sink| name.is_none_or(|name| name == sink.name));
    match (sinks.pop(), sinks.is_empty()) {
        (Some(sink), true) => Ok(sink),
        (None, _) => bail!("the configuration has no such Kafka sink"),
        (Some(_), false) => {
            bail!("the configuration has several Kafka sinks: choose one by --sink")
        }
    }
}
