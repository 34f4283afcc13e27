//! The connectors of `deploy/downstream/`, generated from the schemas of the records.
//!
//! Connect has no type for `timestamp-micros`, applies no reader's schema, and stops at a message that
//! it cannot read. A connector must counter each of these, for each field of the schema: so they are
//! generated, and a test requires that what is committed is what is generated here.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// Topic for messages that cannot be read, of both connectors.
pub const DEAD_LETTERS: &str = "dns-dead-letters";

/// Namespace of their tables in the catalog. It must exist before the connectors.
pub const NAMESPACE: &str = "dns";

/// A sink connector for one topic.
#[derive(Clone, Copy, Debug)]
pub struct Connector {
    /// Its name, and that of its topic.
    pub topic: &'static str,
    /// Namespace and name of the table.
    pub table: &'static str,
    /// The newest schema, in `agent/schema`.
    pub schema: &'static str,
    /// The first schema that ever was, in `agent/schema`.
    first_schema: &'static str,
    /// True if each record has `event_time` and its exact times, so that nothing is transformed.
    is_flat: bool,
    /// Tasks in production; at most the topic's number of partitions.
    tasks: u32,
}

/// Records of transactions in the full profile, which needs transforms for its times.
pub const TRANSACTIONS: Connector = Connector {
    topic: "dns-transactions",
    table: "dns.transactions",
    schema: "dns_transaction.avsc",
    first_schema: "history/dns_transaction_v1.avsc",
    is_flat: false,
    tasks: 4,
};

/// Records of transactions in the flat profile.
pub const FLAT: Connector = Connector {
    topic: "dns-transactions-flat",
    table: "dns.transactions_flat",
    schema: "dns_transaction_flat.avsc",
    first_schema: "dns_transaction_flat.avsc",
    is_flat: true,
    tasks: 4,
};

/// Summaries of the ledger.
pub const LEDGER: Connector = Connector {
    topic: "dns-ledger",
    table: "dns.ledger",
    schema: "ledger_summary.avsc",
    first_schema: "history/ledger_summary_v1.avsc",
    is_flat: false,
    tasks: 1,
};

/// All that are generated.
pub const ALL: [Connector; 3] = [TRANSACTIONS, LEDGER, FLAT];

/// Those of an installation in the full profile, in the order in which they are created.
pub const FULL_PROFILE: [Connector; 2] = [TRANSACTIONS, LEDGER];

/// The topics that [`FULL_PROFILE`] needs, beside the dead letters', which Connect creates.
pub fn topics() -> impl Iterator<Item = String> {
    FULL_PROFILE.iter().flat_map(Connector::topics)
}

impl Connector {
    /// The same for another topic and table.
    #[must_use]
    pub const fn at(self, topic: &'static str, table: &'static str) -> Self {
        Self { topic, table, ..self }
    }

    /// The topics that it needs.
    #[must_use]
    pub fn topics(&self) -> [String; 2] {
        [self.topic.to_owned(), self.control_topic()]
    }

    /// The topic through which the sink's tasks agree on commits.
    #[must_use]
    pub fn control_topic(&self) -> String {
        format!("{}-control", self.topic)
    }

    /// Its configuration, as the worker's REST API takes it. What differs between installations is read
    /// from the worker's environment (`LAKE_…`).
    ///
    /// # Errors
    /// When a schema cannot be read.
    pub fn configuration(&self) -> Result<Map<String, Value>> {
        let mut keys = Map::new();
        let mut set = |key: &str, value: &str| {
            keys.insert(key.to_owned(), json!(value));
        };
        set("connector.class", "org.apache.iceberg.connect.IcebergSinkConnector");
        set("tasks.max", &self.tasks.to_string());
        set("topics", self.topic);
        set("consumer.override.auto.offset.reset", "earliest");
        for (key, value) in FIXED {
            set(key, value);
        }
        set("iceberg.tables", self.table);
        set("iceberg.control.topic", &self.control_topic());
        for (key, value) in self.transforms()? {
            set(&key, &value);
        }
        Ok(keys)
    }

    /// The chain of transforms: where and when a message was, then each time of the schema.
    fn transforms(&self) -> Result<Vec<(String, String)>> {
        if self.is_flat {
            return Ok(Vec::new());
        }
        let mut chain = Chain::default();
        chain.add(
            "origin",
            "org.apache.kafka.connect.transforms.InsertField$Value",
            &[
                ("timestamp.field", "event_time"),
                ("partition.field", "kafka_partition"),
                ("offset.field", "kafka_offset"),
            ],
        );
        for time in times(self.schema, self.first_schema)? {
            chain.convert(&time);
        }
        Ok(chain.keys())
    }
}

/// Required properties of a connector that do not depend on the topic.
const FIXED: [(&str, &str); 27] = [
    // A message that cannot be read becomes a dead letter, with the reason in its headers.
    ("errors.tolerance", "all"),
    ("errors.deadletterqueue.topic.name", DEAD_LETTERS),
    ("errors.deadletterqueue.topic.replication.factor", "3"),
    ("errors.deadletterqueue.context.headers.enable", "true"),
    ("errors.log.enable", "true"),
    ("key.converter", "org.apache.kafka.connect.converters.ByteArrayConverter"),
    ("value.converter", "io.apicurio.registry.utils.converter.AvroConverter"),
    ("value.converter.apicurio.registry.url", "${env:LAKE_REGISTRY_URL}"),
    // The framing that the agent writes: a zero byte and the schema's id in four bytes.
    ("value.converter.apicurio.registry.as-confluent", "true"),
    ("value.converter.apicurio.registry.use-id", "contentId"),
    ("iceberg.catalog.type", "rest"),
    ("iceberg.catalog.uri", "${env:LAKE_CATALOG_URI}"),
    ("iceberg.catalog.warehouse", "${env:LAKE_WAREHOUSE}"),
    ("iceberg.catalog.credential", "${env:LAKE_CATALOG_CREDENTIAL}"),
    ("iceberg.catalog.oauth2-server-uri", "${env:LAKE_CATALOG_TOKEN_URI}"),
    ("iceberg.catalog.io-impl", "org.apache.iceberg.aws.s3.S3FileIO"),
    ("iceberg.catalog.s3.endpoint", "${env:LAKE_S3_ENDPOINT}"),
    ("iceberg.catalog.s3.path-style-access", "true"),
    ("iceberg.catalog.s3.access-key-id", "${env:LAKE_S3_ACCESS_KEY_ID}"),
    ("iceberg.catalog.s3.secret-access-key", "${env:LAKE_S3_SECRET_ACCESS_KEY}"),
    ("iceberg.catalog.client.region", "${env:LAKE_S3_REGION}"),
    ("iceberg.tables.auto-create-enabled", "true"),
    // A newer agent adds fields; an older one's records lack them, in whatever order they come.
    ("iceberg.tables.evolve-schema-enabled", "true"),
    ("iceberg.tables.schema-force-optional", "true"),
    // Never null, unlike query_time.
    ("iceberg.tables.default-partition-by", "hour(event_time)"),
    // Each commit writes a file of each task and hour: short intervals make many small files.
    ("iceberg.control.commit.interval-ms", "120000"),
    // The next commit has what a task has not reported by then.
    ("iceberg.control.commit.timeout-ms", "30000"),
];

/// A field of the schema that is a time in microseconds.
struct Time {
    field: String,
    /// True if every version of the schema has it.
    always: bool,
}

/// The times of a schema. Those within arrays do not exist, and `tests/lake.rs` checks that.
fn times(newest: &str, first: &str) -> Result<Vec<Time>> {
    let names = |file: &str| -> Result<Vec<String>> {
        let schema = schema(file)?;
        let fields = schema["fields"].as_array().context("fields")?.iter();
        let times = fields.filter(|field| is_time(&field["type"]));
        Ok(times.filter_map(|field| Some(field["name"].as_str()?.to_owned())).collect())
    };
    let first = names(first)?;
    let newest = names(newest)?.into_iter();
    Ok(newest.map(|field| Time { always: first.contains(&field), field }).collect())
}

/// A schema of `agent/schema`.
///
/// # Errors
/// When it cannot be read.
pub fn schema(file: &str) -> Result<Value> {
    let path = repository().join("agent/schema").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

fn is_time(kind: &Value) -> bool {
    match kind {
        Value::Array(branches) => branches.iter().any(is_time),
        Value::Object(_) => kind["logicalType"] == "timestamp-micros",
        _ => false,
    }
}

/// Transforms in their order.
#[derive(Default)]
struct Chain {
    names: Vec<String>,
    keys: Vec<(String, String)>,
}

impl Chain {
    fn add(&mut self, name: &str, class: &str, parameters: &[(&str, &str)]) {
        self.names.push(name.to_owned());
        self.keys.push((format!("transforms.{name}.type"), class.to_owned()));
        for (key, value) in parameters {
            self.keys.push((format!("transforms.{name}.{key}"), (*value).to_owned()));
        }
    }

    /// Exact microseconds stay in `FIELD_us`, a long. Where all versions have the field, `FIELD` is a
    /// timestamp beside it, in milliseconds, which is all that Connect has; where an earlier version
    /// lacks it, it is only renamed, since `CopyValue` fails on a record without its source.
    fn convert(&mut self, time: &Time) {
        let Time { field, always } = time;
        let exact = format!("{field}_us");
        if !always {
            self.add(
                &format!("{field}_us"),
                "org.apache.kafka.connect.transforms.ReplaceField$Value",
                &[("renames", &format!("{field}:{exact}"))],
            );
            return;
        }
        self.add(
            &format!("{field}_us"),
            "org.apache.iceberg.connect.transforms.CopyValue",
            &[("source.field", field), ("target.field", &exact)],
        );
        self.add(
            field,
            "org.apache.kafka.connect.transforms.TimestampConverter$Value",
            &[("field", field), ("target.type", "Timestamp"), ("unix.precision", "microseconds")],
        );
    }

    fn keys(self) -> Vec<(String, String)> {
        let names = ("transforms".to_owned(), self.names.join(","));
        std::iter::once(names).chain(self.keys).collect()
    }
}

/// Returns the generated files: path and content.
///
/// # Errors
/// See [`Connector::configuration`].
pub fn files() -> Result<Vec<(PathBuf, String)>> {
    let directory = repository().join("deploy/downstream");
    let mut files = Vec::new();
    for connector in ALL {
        let configuration = connector.configuration()?;
        let name = connector.topic;
        let body = json!({"name": name, "config": configuration});
        let json = format!("{}\n", serde_json::to_string_pretty(&body)?);
        files.push((directory.join(format!("connect/{name}.json")), json));
        let yaml = strimzi(&connector, &configuration)?;
        files.push((directory.join(format!("strimzi/{name}.yaml")), yaml));
    }
    Ok(files)
}

/// Strimzi's resource: it restarts a connector and tasks that have failed, and names class and number
/// of tasks on its own.
fn strimzi(connector: &Connector, configuration: &Map<String, Value>) -> Result<String> {
    let own = ["connector.class", "tasks.max"];
    let class = configuration["connector.class"].as_str().context("a class")?;
    let mut text = format!(
        "# Generated from agent/schema by `cargo xtask manifests`; see deploy/downstream/README.md.\n\
         apiVersion: kafka.strimzi.io/v1beta2\n\
         kind: KafkaConnector\n\
         metadata:\n\
         \x20 name: {}\n\
         \x20 labels:\n\
         \x20   strimzi.io/cluster: tap53-connect\n\
         spec:\n\
         \x20 class: {class}\n\
         \x20 tasksMax: {}\n\
         \x20 # After an outage of the S3 server or the catalog, a task stays FAILED until it is restarted.\n\
         \x20 autoRestart:\n\
         \x20   enabled: true\n\
         \x20 config:\n",
        connector.topic, connector.tasks
    );
    for (key, value) in configuration.iter().filter(|(key, _)| !own.contains(&key.as_str())) {
        // A string of JSON is one of YAML.
        writeln!(text, "    {key}: {value}")?;
    }
    Ok(text)
}

fn repository() -> &'static Path {
    const HERE: &str = env!("CARGO_MANIFEST_DIR");
    Path::new(HERE).parent().unwrap_or(Path::new(HERE))
}
