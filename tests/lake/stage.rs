//! The parts, started together.

use std::{fs, path::Path};

use anyhow::Result;
use tap53_harness::{
    kafka::Kafka,
    lake::{Connector, Lake, connectors},
    namespace::Namespace,
    varied::{self, Sent, Version},
};

/// A broker, and all that comes after it, in one namespace.
pub(super) struct Stage<'a> {
    // Fields drop in this order.
    pub(super) lake: Lake<'a>,
    pub(super) kafka: Kafka<'a>,
    pub(super) namespace: &'a Namespace,
}

impl<'a> Stage<'a> {
    pub(super) fn set(namespace: &'a Namespace) -> Result<Self> {
        let kafka = Kafka::start(namespace)?;
        let lake = Lake::start(namespace, &kafka.address(), (1, 1), |_| ())?;
        connectors::topics().try_for_each(|topic| kafka.create_topic(&topic))?;
        Ok(Self { lake, kafka, namespace })
    }

    /// Registers the schemas of all versions from `first` on for a topic, in their order. `name` is the
    /// newest one's, in `agent/schema`.
    fn register_versions(&self, topic: &str, name: &str, first: u32) -> Result<Vec<Version>> {
        const NEWEST: u32 = tap53_records::encode::SCHEMA_VERSION.unsigned_abs();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("agent/schema");
        let mut versions = Vec::new();
        for number in first..=NEWEST {
            let earlier = directory.join(format!("history/{name}_v{number}.avsc"));
            let written = earlier.with_extension("hex");
            let newest = directory.join(format!("{name}.avsc"));
            let schema = if number == NEWEST { newest } else { earlier };
            let text = fs::read_to_string(&schema)?;
            let id = self.lake.registry.register(&format!("{topic}-value"), &text)?;
            versions.push(Version { id, schema, written });
        }
        Ok(versions)
    }

    /// Produces varied records of these versions, and messages that are none, to a connector's topic.
    pub(super) fn produce_varied(
        &self,
        connector: &Connector,
        (name, first): (&str, u32),
    ) -> Result<Vec<Sent>> {
        /// Generated for each version; another seed is another test.
        const RECORDS: usize = 40;
        const SEED: u64 = 53;
        connector.topics().iter().try_for_each(|topic| self.kafka.create_topic(topic))?;
        let versions = self.register_versions(connector.topic, name, first)?;
        let topic = (&*self.kafka.address(), connector.topic);
        varied::produce(self.namespace, topic, SEED, RECORDS, &versions)
    }
}
