//! The `create_topic` section: the topic that the agent creates.

use std::collections::BTreeMap;

use serde::Serialize;
use tap53_base::settings::{Section, whole_number};

use super::options;

/// The shape of a topic that the agent creates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CreateTopic {
    /// The number of partitions; `None`: the brokers' default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// The number of brokers that have each partition; `None`: the brokers' default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,
    /// The topic's own settings, by their names at the brokers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl CreateTopic {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        // Far above what clusters have.
        let partitions = section.read("partitions", whole_number(1..=100_000));
        let replication_factor = section.read("replication_factor", whole_number(1..=100));
        let options = section.section("options", |section| {
            let mut options = BTreeMap::new();
            for name in section.keys() {
                let value = section.read(&name, options::text_or_number);
                options.extend(value.map(|value| (name, value)));
            }
            options
        });
        Self { partitions, replication_factor, options }
    }
}
