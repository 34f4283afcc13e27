//! A Kafka sink's `summary` section.

use std::time::Duration;

use serde::Serialize;

use super::super::super::tree::{Section, seconds, text};
use super::topic;

/// A topic of summaries of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryConfig {
    /// Topic.
    pub topic: String,
    /// How often one is written.
    #[serde(rename = "interval_s", serialize_with = "super::super::super::as_seconds")]
    pub interval: Duration,
}

impl SummaryConfig {
    pub(super) fn read(section: &mut Section<'_>, records: Option<&str>) -> Option<Self> {
        let topic = section.require("topic", text(topic));
        let interval = section.read("interval_s", seconds(1..=3_600));
        if topic.is_some() && topic.as_deref() == records {
            let value = topic.as_ref().map(|topic| format!("{topic:?}"));
            section.refuse("topic", value, "has the records: give summaries a topic of their own");
        }
        Some(Self { topic: topic?, interval: interval.unwrap_or(Duration::from_secs(60)) })
    }
}
