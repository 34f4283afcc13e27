//! The keys of the `filter` section that select pods, and what selections can refer to.

use serde::Serialize;
use tap53_base::settings::{Section, nearest, text};
use tap53_transactions::filter::config::{Lists, lists};

use super::{NamespacePattern, WorkloadPattern};
use crate::LabelSelector;

/// The properties of pods that this configuration knows.
#[derive(Clone, Debug, Default)]
pub struct KnownPods {
    /// True if addresses are attributed to pods (`kubernetes.enabled`).
    pub enabled: bool,
    /// Keys of the labels that are known (`kubernetes.labels`).
    pub labels: Vec<String>,
}

impl KnownPods {
    /// The reason why a selection is refused where no pods are known.
    pub(super) const MISSING: &str = "selects pods, and they are known only with kubernetes.enabled: \
                                      add the section kubernetes";
}

/// Excludes transactions by the pod of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodFilterConfig {
    /// Patterns of namespaces.
    pub namespaces: Lists<NamespacePattern>,
    /// Patterns of workloads.
    pub workloads: Lists<WorkloadPattern>,
    /// Selectors of labels.
    pub pod_labels: Lists<LabelSelector>,
}

impl PodFilterConfig {
    /// Reads the keys of the section.
    pub fn read(section: &mut Section<'_>, known: &KnownPods) -> Self {
        let read = Self {
            namespaces: section.section("namespaces", |it| lists(it, text(str::parse))),
            workloads: section.section("workloads", |it| lists(it, text(str::parse))),
            pod_labels: section
                .section("pod_labels", |it| lists(it, text(|it| label_selector(it, known)))),
        };
        let used = [
            ("namespaces", read.namespaces.is_empty()),
            ("workloads", read.workloads.is_empty()),
            ("pod_labels", read.pod_labels.is_empty()),
        ];
        if !known.enabled
            && let Some((key, _)) = used.iter().find(|(_, is_empty)| !is_empty)
        {
            section.refuse(key, None, KnownPods::MISSING);
        }
        read
    }

    /// Returns true if it excludes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.workloads.is_empty() && self.pod_labels.is_empty()
    }
}

/// Parses a selector of labels that are known.
pub(super) fn label_selector(text: &str, known: &KnownPods) -> Result<LabelSelector, String> {
    let selector = LabelSelector::parse(text)?;
    if selector.is_empty() {
        return Err("selects nothing: write app=web, or a key alone".to_owned());
    }
    let is_unknown = |key: &&str| !known.labels.iter().any(|label| label == key);
    // Without Kubernetes, another problem is reported.
    if let Some(key) = selector.keys().find(is_unknown).filter(|_| known.enabled) {
        let near = nearest(key, known.labels.iter().map(String::as_str));
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        return Err(format!(
            "has the label {key}, which the agent does not keep: add it to kubernetes.labels{hint}"
        ));
    }
    Ok(selector)
}
