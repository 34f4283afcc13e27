//! Everything from the agent to the warehouse, in one namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tap53_harness::{
    agent, dns,
    kafka::{Kafka, Message},
    namespace::Namespace,
    numbered::name,
    pcap::Pcap,
    postgres::Postgres,
    process::run,
    python,
    registry::Registry,
    scratch,
    spark::{Job, Spark},
};
use tempfile::TempDir;

pub(super) const RECORDS: &str = "dns-transactions";
pub(super) const SUMMARIES: &str = "dns-ledger";
pub(super) const PARTITIONS: i32 = 3;
/// A job on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(240);

/// Numbers of a registry's framing, before the datum.
pub(super) const FRAMING: usize = 5;

pub(super) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

pub(super) fn records_schema() -> PathBuf {
    repository("agent/schema/dns_transaction.avsc")
}

pub(super) fn summaries_schema() -> PathBuf {
    repository("agent/schema/ledger_summary.avsc")
}

/// A namespace with nothing but its loopback.
pub(super) fn namespace() -> Result<Namespace> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    Ok(namespace)
}

pub(super) struct Stage<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) kafka: Kafka<'a>,
    pub(super) registry: Registry<'a>,
    pub(super) warehouse: Postgres<'a>,
    pub(super) spark: Spark,
    directory: TempDir,
}

impl<'a> Stage<'a> {
    pub(super) fn start(namespace: &'a Namespace) -> Result<Self> {
        let spark = Spark::get()?;
        let kafka = Kafka::start(namespace)?;
        kafka.create_topic_of(RECORDS, PARTITIONS)?;
        kafka.create_topic(SUMMARIES)?;
        let stage = Self {
            namespace,
            kafka,
            registry: Registry::start(namespace)?,
            warehouse: Postgres::start(namespace)?,
            spark,
            directory: scratch::directory("warehouse")?,
        };
        stage.create_table(&[])?;
        stage.create_table(&["--summary"])?;
        Ok(stage)
    }

    /// Creates a table of the warehouse from the agent's DDL; for records by default.
    pub(super) fn create_table(&self, of: &[&str]) -> Result<()> {
        self.warehouse.execute(&table(of)?)
    }

    /// A file in the stage's own directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A run of the agent over these exchanges, as this node.
    pub(super) fn replay(&self, node: &str, packets: &Pcap) -> Result<()> {
        let configuration = self.path("tap53.yaml");
        let (broker, registry) = (self.kafka.address(), self.registry.url());
        let yaml = format!(
            "node: {node}\n\
             pair: {{timeout_ms: 1000}}\n\
             sinks:\n\
             \x20 - type: kafka\n    brokers: [\"{broker}\"]\n    topic: {RECORDS}\n    \
             registry: {{urls: [\"{registry}\"]}}\n    \
             summary: {{topic: {SUMMARIES}, interval_s: 1}}\n"
        );
        fs::write(&configuration, yaml)?;
        let capture = self.path("packets.pcap");
        packets.write(&capture)?;
        let mut replay = self.namespace.command(agent::binary()?);
        run(replay.args(["replay", "--config"]).arg(&configuration).arg(&capture)).map(drop)
    }

    /// The loader, over both topics.
    pub(super) fn loader(&self, more: &[&str]) -> Result<Job> {
        let (records, summaries) = (records_schema(), summaries_schema());
        let (records, summaries) = (records.to_string_lossy(), summaries.to_string_lossy());
        let (brokers, registry) = (self.kafka.address(), self.registry.url());
        let conninfo = self.warehouse.conninfo();
        let mut arguments = vec![
            "--brokers",
            &brokers,
            "--registry",
            &registry,
            "--warehouse",
            &conninfo,
            "--load",
            RECORDS,
            "dns_transactions",
            &records,
            "--load",
            SUMMARIES,
            "ledger_summaries",
            &summaries,
        ];
        arguments.extend(more);
        self.spark.submit(self.namespace, "load.py", &arguments)
    }

    /// Another job of the warehouse's, with its connection string.
    pub(super) fn job(&self, job: &str, arguments: &[&str]) -> Result<Job> {
        self.spark.submit(self.namespace, job, arguments)
    }

    /// Loads the messages of the topic, and waits for the end.
    pub(super) fn load_all(&self) -> Result<()> {
        self.loader(&["--once"])?.finish(DEADLINE)
    }

    /// Messages of the records' topic.
    pub(super) fn records(&self) -> Result<Vec<Message>> {
        self.kafka.consume(RECORDS)
    }

    /// Returns the input of the scripts that read messages: the messages and their writers' schemas.
    fn messages(&self, messages: &[Message]) -> Result<Value> {
        let hex: Vec<_> = messages.iter().map(|message| HEXLOWER.encode(&message.value)).collect();
        let ids: BTreeSet<_> =
            messages.iter().filter_map(|message| schema_id(&message.value)).collect();
        let schemas: BTreeMap<u32, String> =
            ids.iter().map(|id| Ok((*id, self.registry.schema(*id)?))).collect::<Result<_>>()?;
        Ok(json!({"messages": hex, "schemas": schemas}))
    }

    /// The rows of the warehouse are these messages, in every field.
    pub(super) fn require_equal(&self, messages: &[Message]) -> Result<()> {
        let mut input = self.messages(messages)?;
        input["rows"] = self.warehouse.query("SELECT * FROM dns_transactions")?.into();
        let schema = records_schema();
        let arguments = [OsStr::new("compare"), schema.as_os_str()];
        let input = input.to_string();
        let mut answers = python::json_lines("warehouse_rows.py", arguments, input.as_bytes())?;
        let last = answers.pop().context("an answer")?;
        ensure!(answers.is_empty(), "{} differences, as {:#?}", answers.len(), answers.first());
        ensure!(last["equal"] == messages.len(), "{last}, of {}", messages.len());
        Ok(())
    }

    /// Writes messages to a Parquet file, in the place of the lake.
    pub(super) fn write_parquet(
        &self,
        messages: &[Message],
        schema: &Path,
        path: &Path,
    ) -> Result<()> {
        let input = self.messages(messages)?.to_string();
        let arguments = [schema.as_os_str(), path.as_os_str()];
        let rows = python::json_lines("write_parquet.py", arguments, input.as_bytes())?;
        ensure!(rows == [Value::from(messages.len())], "{rows:?}");
        Ok(())
    }
}

/// The statements that create a table, as the agent prints them.
pub(super) fn table(of: &[&str]) -> Result<String> {
    let output = agent::run(&[&["schema", "--ddl", "postgres"], of].concat())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Id of the schema in a registry's framing.
pub(super) fn schema_id(message: &[u8]) -> Option<u32> {
    let (zero, rest) = message.split_first()?;
    (*zero == 0).then_some(u32::from_be_bytes(*rest.first_chunk()?))
}

/// A message that is framed.
pub(super) fn framed(schema_id: u32, datum: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(schema_id.to_be_bytes());
    message.extend(datum);
    message
}

/// Exchanges with these numbers, some without a response, some with an error, one a second.
pub(super) fn exchanges(numbers: std::ops::Range<u32>) -> Result<Pcap> {
    let mut packets = Pcap::default();
    for number in numbers {
        let client = u8::try_from(number % 3)?;
        let port = 40_000 + u16::try_from(number >> 16)?;
        let client = SocketAddr::from(([192, 0, 2, 1 + client], port));
        let server = SocketAddr::from(([192, 0, 2, 53], 53));
        let at = Duration::from_secs(number.into());
        let id = u16::try_from(number & 0xffff)?;
        let mut message = dns::query(id, &name(number % 40), "A");
        packets.udp_at(at, client, server, &message);
        if number % 5 != 0 {
            message[2] |= 0x80;
            message[3] |= u8::try_from(number % 4)?;
            packets.udp_at(
                at + Duration::from_micros(700 * u64::from(number % 50)),
                server,
                client,
                &message,
            );
        }
    }
    Ok(packets)
}
