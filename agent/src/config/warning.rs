//! Warnings about a configuration that is valid, but that its operator may not have intended.

use std::fmt;

use super::{Config, KafkaConfig, Observations, Scope, SinkConfig};

/// A warning about a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key: `sinks[1]`.
    pub key: String,
    /// The consequence.
    pub wrong: String,
    /// Keys that avoid it.
    pub remedy: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  {}", self.key, self.wrong, self.remedy)
    }
}

impl Warning {
    /// Warns of a Kafka sink without a registry, whose records common consumers cannot read.
    pub(crate) fn of_framing(number: usize, kafka: &KafkaConfig) -> Option<Self> {
        if kafka.registry.is_some() {
            return None;
        }
        Some(Self {
            key: format!("sinks[{number}]"),
            wrong: "without `registry`, records are in Avro's single-object encoding, which Kafka \
                    Connect's Avro converters, ksqlDB, Vertica's KafkaAvroParser, ClickHouse's \
                    AvroConfluent, Flink's avro-confluent and Confluent's deserializers cannot read"
                .to_owned(),
            remedy:
                "registry: {urls: [\"http://REGISTRY:8081\"]}   # or readers of your own, which \
                     look up the fingerprint in each record: tap53 schema"
                    .to_owned(),
        })
    }

    /// Warns of a setting that an agent can obey only for the pods that it knows.
    fn of_observations(config: &Config) -> Option<Self> {
        let knows_other_nodes =
            config.kubernetes.enabled && config.kubernetes.scope == Scope::Cluster;
        if config.record.observations == Observations::All || knows_other_nodes {
            return None;
        }
        Some(Self {
            key: "record.observations".to_owned(),
            wrong: "without the pods of other nodes, the agent does not know whether another node \
                    records an exchange: it records it too"
                .to_owned(),
            remedy: "kubernetes: {scope: cluster}   # its cost: docs/scale.md".to_owned(),
        })
    }
}

impl Config {
    /// Returns the warnings, in the order of the file.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let of_sink = |(number, sink): (usize, &SinkConfig)| match sink {
            SinkConfig::Kafka(kafka) => Warning::of_framing(number, kafka),
            SinkConfig::Stdout(_) | SinkConfig::File(_) => None,
        };
        let of_observations = Warning::of_observations(self);
        self.sinks.iter().enumerate().filter_map(of_sink).chain(of_observations).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn a_kafka_sink_without_a_registry_is_warned_about_with_the_readers_it_excludes() {
        let kafka = "type: kafka, brokers: [\"b:1\"], topic: dns";
        let config = parse(&format!(
            "interfaces: {{include: [eth0]}}\nsinks:\n  - {{type: stdout}}\n  \
             - {{{kafka}, registry: {{urls: [\"http://r:1\"]}}}}\n  - {{{kafka}2, name: k2}}\n"
        ));
        let warnings = config.unwrap().warnings();
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert_eq!(warning.key, "sinks[2]");
        for reader in ["Kafka Connect", "Vertica", "ksqlDB"] {
            assert!(warning.wrong.contains(reader), "{warning}");
        }
        assert!(warning.remedy.contains("registry: {urls:"), "{warning}");
    }

    #[test]
    fn records_of_the_clients_node_alone_need_the_pods_of_all_nodes() {
        let warned = |more: &str| {
            let config = parse(&format!("interfaces: {{include: [eth0]}}\n{more}\n"));
            let warnings = config.unwrap().warnings();
            warnings.iter().any(|warning| warning.key == "record.observations")
        };
        let only = "record: {observations: client_node}";
        assert!(warned(only));
        assert!(warned(&format!("{only}\nkubernetes: {{scope: node}}")));
        assert!(warned(&format!("{only}\nkubernetes: {{enabled: false, scope: cluster}}")));
        assert!(!warned(&format!("{only}\nkubernetes: {{scope: cluster}}")));
        assert!(!warned("kubernetes: {scope: node}"));
    }
}
