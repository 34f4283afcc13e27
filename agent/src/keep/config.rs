//! The sections that decide which transactions become records: `filter` and `record.keep`.

use std::time::Duration;

use serde::{Serialize, Serializer};
use tap53_attribution::pod_selection::{
    PodSelector,
    config::{KnownPods, PodFilterConfig},
};
use tap53_base::settings::{Section, Value, choice, milliseconds};
use tap53_transactions::{
    filter::config::FilterConfig,
    sampling::{Notables, SampleKey, Share},
};

/// The `filter` section: by what is on the wire, and by the client's pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RecordFilterConfig {
    /// Names, types and addresses.
    #[serde(flatten)]
    pub exchanges: FilterConfig,
    /// Namespaces, workloads and labels.
    #[serde(flatten)]
    pub pods: PodFilterConfig,
}

impl RecordFilterConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>, known: &KnownPods) -> Self {
        Self { exchanges: FilterConfig::read(section), pods: PodFilterConfig::read(section, known) }
    }
}

/// The transactions that become records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeepConfig {
    /// Kinds of transactions that are always kept.
    pub always: Notables,
    /// Answers with at least this latency are always kept.
    #[serde(
        rename = "slower_ms",
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_optional_milliseconds"
    )]
    pub slower: Option<Duration>,
    /// Share of the others that is kept.
    pub share: Share,
    /// The part of an exchange that decides whether it is in the share.
    pub by: SampleKey,
    /// Shares of certain clients; the first rule that selects a client decides.
    pub rules: Vec<KeepRule>,
}

/// The share of certain clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeepRule {
    /// The clients.
    #[serde(flatten)]
    pub pods: PodSelector,
    /// Share of their other transactions that is kept.
    pub share: Share,
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self {
            always: Notables::ALL,
            slower: None,
            share: Share::WHOLE,
            by: SampleKey::default(),
            rules: Vec::new(),
        }
    }
}

/// Maximum number of rules: each is compared with the client of a transaction.
const MAX_RULES: usize = 64;

impl KeepConfig {
    /// Returns true if every transaction becomes a record.
    #[must_use]
    pub fn keeps_everything(&self) -> bool {
        self.share.is_whole() && self.rules.iter().all(|rule| rule.share.is_whole())
    }

    /// Reads the section.
    pub fn read(section: &mut Section<'_>, known: &KnownPods) -> Self {
        let usual = Self::default();
        let always = section.read_list("always", choice);
        let mut rules = section.sections("rules", |section| KeepRule::read(section, known));
        if rules.len() > MAX_RULES {
            section.refuse("rules", None, format!("must not have more than {MAX_RULES} entries"));
            rules.clear();
        }
        Self {
            always: always.map_or(usual.always, Notables::from_iter),
            slower: section.read("slower_ms", milliseconds(1..=3_600_000)),
            share: section.read("share", share).unwrap_or_default(),
            by: section.read("by", choice).unwrap_or_default(),
            rules,
        }
    }
}

impl KeepRule {
    fn read(section: &mut Section<'_>, known: &KnownPods) -> Self {
        Self {
            pods: PodSelector::read(section, known),
            share: section.require("share", share).unwrap_or_default(),
        }
    }
}

fn share(value: &Value) -> Result<Share, String> {
    match value {
        Value::Integer(1) => Ok(Share::WHOLE),
        Value::Real(number) => Share::new(*number),
        // A number that is not above 0, up to 1.
        _ => Share::new(0.0),
    }
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn as_optional_milliseconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let ms = duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    ms.serialize(serializer)
}
