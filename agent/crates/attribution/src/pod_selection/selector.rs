//! Selects pods by all of namespace, workload and labels.

use serde::Serialize;
use tap53_base::settings::{Section, text};
use tap53_records::encode::{Attribution, Identity};

use super::{
    NamespacePattern, WorkloadPattern,
    config::{KnownPods, label_selector},
};
use crate::LabelSelector;

/// Selects pods. A pod must match every list that has entries; it matches a list with any of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodSelector {
    /// Patterns of namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<NamespacePattern>,
    /// Patterns of workloads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadPattern>,
    /// Selectors of labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pod_labels: Vec<LabelSelector>,
}

impl PodSelector {
    /// Reads the keys of a section that selects pods.
    pub fn read(section: &mut Section<'_>, known: &KnownPods) -> Self {
        let has_key = ["namespaces", "workloads", "pod_labels"].iter().any(|key| section.has(key));
        let namespaces = section.read_some("namespaces", text(str::parse));
        let workloads = section.read_some("workloads", text(str::parse));
        let pod_labels = section.read_some("pod_labels", text(|it| label_selector(it, known)));
        if !has_key {
            section.refuse_all("selects no pods: give namespaces, workloads or pod_labels");
        } else if !known.enabled {
            section.refuse_all(KnownPods::MISSING);
        }
        Self {
            namespaces: namespaces.unwrap_or_default(),
            workloads: workloads.unwrap_or_default(),
            pod_labels: pod_labels.unwrap_or_default(),
        }
    }

    /// Returns true if it selects an owner, which must be a known pod.
    #[must_use]
    pub fn selects(&self, owner: &Identity) -> bool {
        if owner.attribution != Attribution::Pod {
            return false;
        }
        let workload = owner.workload();
        let no_labels = Default::default();
        let labels = owner.labels.as_ref().unwrap_or(&no_labels);
        (self.namespaces.is_empty() || self.namespaces.iter().any(|it| it.matches(workload)))
            && (self.workloads.is_empty() || self.workloads.iter().any(|it| it.matches(workload)))
            && (self.pod_labels.is_empty() || self.pod_labels.iter().any(|it| it.selects(labels)))
    }
}
