//! Excludes transactions by the pod of the client.

use tap53_records::encode::{Attribution, Identity};
use tap53_transactions::filter::{FilterReason, config::Lists};

use super::config::PodFilterConfig;

/// Decides by the client's pod whether a transaction becomes a record.
///
/// - A client that is no known pod matches no entry: it passes unless there is an `allow` list.
/// - Patterns have no order of precision, so `deny` precedes `allow`.
#[derive(Clone, Debug, Default)]
pub struct PodFilter {
    /// `None` if everything passes.
    rules: Option<Box<PodFilterConfig>>,
}

impl PodFilter {
    /// Creates a filter from a checked configuration.
    #[must_use]
    pub fn new(config: &PodFilterConfig) -> Self {
        Self { rules: (!config.is_empty()).then(|| Box::new(config.clone())) }
    }

    /// Returns true if every transaction passes.
    #[inline]
    #[must_use]
    pub const fn keeps_everything(&self) -> bool {
        self.rules.is_none()
    }

    /// Returns the reason why the transactions of a client are not recorded, or `None` if they are.
    #[must_use]
    pub fn decide(&self, client: &Identity) -> Option<FilterReason> {
        use FilterReason as Reason;
        let rules = self.rules.as_ref()?;
        let pod = (client.attribution == Attribution::Pod).then(|| client.workload());
        let no_labels = Default::default();
        let labels = pod.map(|_| client.labels.as_ref().unwrap_or(&no_labels));
        refusal(
            &rules.namespaces,
            |it| pod.is_some_and(|pod| it.matches(pod)),
            [Reason::NamespaceDenied, Reason::NamespaceNotAllowed],
        )
        .or_else(|| {
            refusal(
                &rules.workloads,
                |it| pod.is_some_and(|pod| it.matches(pod)),
                [Reason::WorkloadDenied, Reason::WorkloadNotAllowed],
            )
        })
        .or_else(|| {
            refusal(
                &rules.pod_labels,
                |it| labels.is_some_and(|labels| it.selects(labels)),
                [Reason::PodLabelsDenied, Reason::PodLabelsNotAllowed],
            )
        })
    }
}

/// Returns the first reason if `deny` matches, and the second one if there is an `allow` list without a
/// match.
fn refusal<T>(
    lists: &Lists<T>,
    matches: impl Fn(&T) -> bool,
    [denied, not_allowed]: [FilterReason; 2],
) -> Option<FilterReason> {
    if lists.deny.iter().any(&matches) {
        return Some(denied);
    }
    let is_allowed = lists.allow.is_empty() || lists.allow.iter().any(matches);
    (!is_allowed).then_some(not_allowed)
}

#[cfg(test)]
mod tests {
    use FilterReason as Reason;

    use super::*;
    use crate::{LabelSelector, pod_selection::PodSelector};

    fn pod(namespace: &str, workload: &str, labels: &[(&str, &str)]) -> Identity {
        Identity {
            attribution: Attribution::Pod,
            pod_name: Some(format!("{workload}-1")),
            pod_namespace: Some(namespace.to_owned()),
            workload_name: Some(workload.to_owned()),
            labels: Some(
                labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ),
            ..Identity::default()
        }
    }

    fn parsed<T>(texts: &[&str]) -> Vec<T>
    where
        T: std::str::FromStr<Err: std::fmt::Debug>,
    {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn selectors(texts: &[&str]) -> Vec<LabelSelector> {
        texts.iter().map(|text| LabelSelector::parse(text).unwrap()).collect()
    }

    #[test]
    fn deny_precedes_allow_and_the_first_reason_in_order_counts() {
        let filter = PodFilter::new(&PodFilterConfig {
            namespaces: Lists { allow: parsed(&["team-*"]), deny: parsed(&["team-x"]) },
            workloads: Lists { allow: vec![], deny: parsed(&["team-a/batch", "*-test"]) },
            pod_labels: Lists { allow: selectors(&["tier"]), deny: selectors(&["dns=off"]) },
        });
        let decide =
            |namespace, workload, labels: &[_]| filter.decide(&pod(namespace, workload, labels));
        let front = ("tier", "front");
        assert_eq!(decide("team-a", "web", &[front]), None);
        assert_eq!(decide("team-x", "batch", &[]), Some(Reason::NamespaceDenied));
        assert_eq!(decide("shop", "web-test", &[front]), Some(Reason::NamespaceNotAllowed));
        assert_eq!(decide("team-a", "batch", &[]), Some(Reason::WorkloadDenied));
        assert_eq!(decide("team-b", "batch", &[front]), None);
        assert_eq!(decide("team-b", "x-test", &[front]), Some(Reason::WorkloadDenied));
        assert_eq!(decide("team-a", "web", &[]), Some(Reason::PodLabelsNotAllowed));
        let off = [front, ("dns", "off")];
        assert_eq!(decide("team-a", "web", &off), Some(Reason::PodLabelsDenied));
    }

    #[test]
    fn a_client_that_is_no_pod_passes_only_without_an_allow_list() {
        let lists = |allow: &[&str], deny: &[&str]| {
            let workloads = Lists { allow: parsed(allow), deny: parsed(deny) };
            PodFilter::new(&PodFilterConfig { workloads, ..PodFilterConfig::default() })
        };
        let node = Identity { attribution: Attribution::Node, ..Identity::default() };
        assert_eq!(lists(&[], &["*"]).decide(&node), None);
        assert_eq!(lists(&["*"], &[]).decide(&node), Some(Reason::WorkloadNotAllowed));
        assert!(PodFilter::new(&PodFilterConfig::default()).keeps_everything());
    }

    #[test]
    fn a_selector_requires_a_match_in_every_list_that_it_has() {
        let selector = PodSelector {
            namespaces: parsed(&["team-a", "team-b"]),
            workloads: vec![],
            pod_labels: selectors(&["tier!=back"]),
        };
        assert!(selector.selects(&pod("team-b", "web", &[])), "a missing label is not back");
        assert!(!selector.selects(&pod("team-b", "web", &[("tier", "back")])));
        assert!(!selector.selects(&pod("team-c", "web", &[])));
        assert!(!selector.selects(&Identity::default()), "no pod");
    }
}
