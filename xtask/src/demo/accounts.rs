//! Three accounts of the same transactions, by parties that do not know of each other: the client,
//! the file (and the topic), and the ledger.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    account::{Ledger, records_equal_exchanges},
    avro,
    client::Exchange,
    fastavro,
    kafka::Kafka,
    lake::Lake,
};

use super::{lake, stage::Results, terminal::entry};
use crate::workspace::output;

/// The interface that the agent captures at, and the way queries pass it.
const INTERFACE: &str = "s0";
const DIRECTION: &str = "INGRESS";
/// Consumed records shown.
const CONSUMED_SHOWN: usize = 3;

/// The accounts to compare.
pub(super) struct Accounts<'a> {
    pub(super) exchanges: &'a [Exchange],
    pub(super) results: &'a Results,
    pub(super) topic: Option<(&'a Kafka<'a>, &'a str)>,
    pub(super) lake: Option<&'a Lake<'a>>,
    pub(super) binary: &'a Path,
}

impl Accounts<'_> {
    /// Prints each account, and fails unless they agree.
    pub(super) fn compare(&self) -> Result<()> {
        let asked = self.exchanges.len();
        let answered = self.exchanges.iter().filter(|exchange| exchange.response.is_some()).count();
        entry("the client", &format!("asked {asked} questions and got {answered} answers"));

        let path = self.results.transactions();
        let file = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let records = avro::read_container(&file)
            .with_context(|| format!("{} is not well-formed", path.display()))?;
        records_equal_exchanges(&records, self.exchanges, INTERFACE, DIRECTION)
            .context("the file and the client disagree")?;
        let size_kib = file.len().div_ceil(1024);
        entry(
            "the Avro file",
            &format!(
                "holds {} records in {size_kib} KiB, each as the client saw it",
                records.len()
            ),
        );

        if let Some((kafka, topic)) = self.topic {
            self.compare_topic(kafka, topic)?;
        }
        if let Some(lake) = self.lake {
            lake::compare(lake, self.exchanges, (INTERFACE, DIRECTION))?;
        }
        self.compare_ledger(answered)
    }

    /// Reads the topic with kcat and fastavro, which share nothing with the agent.
    fn compare_topic(&self, kafka: &Kafka<'_>, topic: &str) -> Result<()> {
        let schema = tempfile::NamedTempFile::new()?;
        fs::write(schema.path(), output(Command::new(self.binary).arg("schema"))?)?;
        let messages = kafka.consume(topic)?;
        let values = messages.iter().map(|message| &message.value[..]);
        let records = fastavro::read_single_objects(schema.path(), values)?;
        records_equal_exchanges(&records, self.exchanges, INTERFACE, DIRECTION)
            .context("the topic and the client disagree")?;
        entry(
            "the Kafka topic",
            &format!("holds {} records, equal too; read by kcat and fastavro:", records.len()),
        );
        for (message, record) in messages.iter().zip(&records).take(CONSUMED_SHOWN) {
            let text = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
            entry(
                "",
                &format!(
                    "{} bytes: {} {} {} {}",
                    message.value.len(),
                    text("qname"),
                    text("qtype"),
                    text("outcome"),
                    text("rcode")
                ),
            );
        }
        Ok(())
    }

    fn compare_ledger(&self, answered: usize) -> Result<()> {
        let path = self.results.ledger();
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let json: Value = serde_json::from_slice(&text).context("the ledger is not JSON")?;
        let ledger = Ledger(&json);
        let (mut seen, mut lost) = (0, 0);
        for direction in ["ingress", "egress"] {
            seen += ledger.number(&format!("/interfaces/0/{direction}/seen"))?;
            lost += ledger.sum(&format!("/interfaces/0/{direction}/lost"))?;
        }
        let messages = ledger.number("/agent/messages/decoded")?;
        let records = ledger.number("/agent/records/created")?;
        entry(
            "the ledger",
            &format!("counts {seen} packets ({lost} lost), {messages} messages, {records} records"),
        );
        ledger.require_balance()?;
        ensure!(lost == 0, "{lost} packets were lost in the kernel");
        ensure!(
            (messages, records)
                == ((self.exchanges.len() + answered) as u64, self.exchanges.len() as u64),
            "the ledger and the client disagree: {messages} messages, {records} records"
        );
        let sinks = json.pointer("/agent/sinks").and_then(Value::as_array);
        for sink in sinks.into_iter().flatten() {
            let delivered = &sink["records"]["delivered"];
            ensure!(*delivered == records, "{} delivered {delivered} of {records}", sink["name"]);
            entry(
                "",
                &format!("{} delivered to {}", delivered, sink["name"].as_str().unwrap_or("?")),
            );
        }
        entry("", "balanced: every packet, message and record is accounted for");
        Ok(())
    }
}

/// Says where the results are and how to read them.
pub(super) fn explain(results: &Results) {
    let shown = |path: &Path| {
        let here = std::env::current_dir().unwrap_or_default();
        path.strip_prefix(here).unwrap_or(path).display().to_string()
    };
    let file = shown(&results.transactions());
    entry("records", &file);
    entry("", "any Avro reader shows them; after `pip install fastavro`:");
    entry("", &format!("fastavro --pretty {file}"));
    entry("ledger", &shown(&results.ledger()));
    entry("configuration", &shown(&results.configuration()));
    entry("agent's log", &shown(&results.log()));
}
