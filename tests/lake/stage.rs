//! The parts, started together.

use std::{fs, path::Path};

use anyhow::Result;
use tap53_harness::{
    kafka::Kafka,
    lake::{Lake, connectors},
    namespace::Namespace,
    varied::Version,
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
            let id = self.lake.registry.register(&format!("{topic}-value"), &text)?;
            versions.push(Version { id, schema, written });
        }
        Ok(versions)
    }
}
