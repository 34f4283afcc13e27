//! A Kafka sink's `summary` section.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use tap53_base::settings::{Machine, Section, boolean, seconds, text};
use tap53_ledger::signature::SigningKey;

use super::topic;

/// A topic of summaries of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryConfig {
    /// Topic.
    pub topic: String,
    /// The interval between summaries.
    #[serde(rename = "interval_s", serialize_with = "tap53_base::settings::as_seconds")]
    pub interval: Duration,
    /// True if summaries have digests of the records.
    pub chain: bool,
    /// The key that signs summaries.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub signing: Option<SigningKeyFile>,
}

/// A private key and the path of its file. Only the path is ever written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SigningKeyFile {
    /// The file.
    #[serde(rename = "signing_key_file")]
    pub file: PathBuf,
    /// The key that the file held when the configuration was read.
    #[serde(skip)]
    pub key: SigningKey,
}

impl SummaryConfig {
    pub(super) fn read(section: &mut Section<'_>, records: Option<&str>) -> Option<Self> {
        let topic = section.require("topic", text(topic));
        let interval = section.read("interval_s", seconds(1..=3_600));
        if topic.is_some() && topic.as_deref() == records {
            let value = topic.as_ref().map(|topic| format!("{topic:?}"));
            section.refuse("topic", value, "has the records: give summaries a topic of their own");
        }
        let chain = section.read("chain", boolean).unwrap_or(false);
        let machine = section.machine();
        let signing = section.read("signing_key_file", text(|path| signing_key(path, machine)));
        if let Some(signing) = signing.as_ref().filter(|_| !chain) {
            let value = format!("{:?}", signing.file.display().to_string());
            let reason = "signs digests, which need chain: true";
            section.refuse("signing_key_file", Some(value), reason);
        }
        Some(Self {
            topic: topic?,
            interval: interval.unwrap_or(Duration::from_secs(60)),
            chain,
            signing,
        })
    }
}

fn signing_key(path: &str, machine: Machine) -> Result<SigningKeyFile, String> {
    let file = PathBuf::from(path);
    let key = match machine {
        Machine::Agent => SigningKey::read(&file),
        Machine::Other => SigningKey::placeholder(),
    };
    let key = key.map_err(|error| error.to_string())?;
    Ok(SigningKeyFile { file, key })
}
