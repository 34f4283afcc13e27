//! The parts, started together.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use tap53_harness::{
    kafka::Kafka,
    lake::{Connect, Connector, DEAD_LETTERS, Start, Store, Tables, connectors},
    namespace::Namespace,
    registry::Registry,
    varied::Version,
    wait,
};

/// A commit, a rebalance and a JVM on a loaded machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// A look starts Python.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// So that a test does not wait for minutes.
pub(super) const QUICK: [(&str, &str); 3] = [
    ("tasks.max", "1"),
    ("iceberg.control.commit.interval-ms", "4000"),
    ("iceberg.control.commit.timeout-ms", "8000"),
];

/// A broker, a registry, an S3 server with a catalog, and a Connect worker, in one namespace.
pub(super) struct Stage<'a> {
    // Fields drop in this order.
    pub(super) connect: Connect<'a>,
    pub(super) store: Store<'a>,
    pub(super) registry: Registry<'a>,
    pub(super) kafka: Kafka<'a>,
    pub(super) namespace: &'a Namespace,
}

impl<'a> Stage<'a> {
    pub(super) fn set(namespace: &'a Namespace) -> Result<Self> {
        let kafka = Kafka::start(namespace)?;
        let registry = Registry::start(namespace)?;
        let store = Store::start(namespace)?;
        let start = Start {
            brokers: &kafka.address(),
            registry: &registry.origin(),
            workers: 1,
            replicas: 1,
        };
        let connect = Connect::start(&store, &start)?;
        for connector in connectors::ALL {
            kafka.create_topic(connector.topic)?;
            kafka.create_topic(&connector.control_topic())?;
        }
        Ok(Self { connect, store, registry, kafka, namespace })
    }

    /// Creates the connectors of `deploy/downstream`.
    pub(super) fn connect_all(&self) -> Result<()> {
        connectors::ALL.iter().try_for_each(|connector| self.connect.create(connector, &QUICK))
    }

    /// Waits for what takes CPU to look at; where that is in vain, the error says what the connectors
    /// do meanwhile.
    pub(super) fn wait_for<T>(
        &self,
        what: &str,
        look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait::until_every(LOOK_INTERVAL, what, DEADLINE, look).with_context(|| self.diagnosis())
    }

    fn diagnosis(&self) -> String {
        let state = |connector: &Connector| {
            let failed = self.connect.restart_failed(connector.topic);
            format!("{}: {failed:?}", connector.topic)
        };
        let states = connectors::ALL.iter().map(state).collect::<Vec<_>>().join("\n");
        let letters = self.kafka.consume(DEAD_LETTERS).unwrap_or_default();
        let letters: Vec<_> = letters.iter().map(|letter| &*letter.headers).take(3).collect();
        let runs = self.tables().ask_completeness(["SELECT * FROM runs", "count dns_transactions"]);
        format!(
            "{states}\nruns: {runs:#?}\ndead letters: {letters:#?}\nthe worker's log:\n{}",
            self.connect.log(0)
        )
    }

    /// SQL over the tables.
    pub(super) const fn tables(&self) -> Tables<'_> {
        Tables::of(&self.store)
    }

    /// Registers the schemas of all versions for a topic, the first one first.
    pub(super) fn register_versions(&self, topic: &str) -> Result<Vec<Version>> {
        const NEWEST: u32 = tap53::encode::SCHEMA_VERSION.unsigned_abs();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("agent/schema");
        let mut versions = Vec::new();
        for number in 1..=NEWEST {
            let earlier = directory.join(format!("history/dns_transaction_v{number}.avsc"));
            let written = earlier.with_extension("hex");
            let newest = directory.join("dns_transaction.avsc");
            let schema = if number == NEWEST { newest } else { earlier };
            let text = fs::read_to_string(&schema)?;
            let id = self.registry.register(&format!("{topic}-value"), &text)?;
            versions.push(Version { id, schema, written });
        }
        Ok(versions)
    }
}
