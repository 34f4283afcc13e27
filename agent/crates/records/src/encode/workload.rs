//! The workload of an owner, by which metrics count.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::{Attribution, Identity};

/// Namespace and name of a workload. Owners outside of a namespace have a name that begins with a tilde,
/// which no name in Kubernetes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Workload<'a> {
    /// Namespace; empty for an owner without one.
    pub namespace: &'a str,
    /// Name of the workload, of a pod without one, or of a service.
    pub name: &'a str,
}

impl Identity {
    /// Returns the workload.
    #[must_use]
    pub fn workload(&self) -> Workload<'_> {
        let (namespace, name) = match self.attribution {
            Attribution::Pod => {
                (&self.pod_namespace, self.workload_name.as_deref().or(self.pod_name.as_deref()))
            }
            Attribution::Service => (&self.service_namespace, self.service_name.as_deref()),
            Attribution::AmbiguousHostNetwork | Attribution::Node => (&None, Some("~node")),
            Attribution::Unknown => (&None, Some("~unknown")),
            Attribution::External => (&None, Some("~external")),
            Attribution::Unattributed => (&None, Some("~unattributed")),
        };
        Workload {
            namespace: namespace.as_deref().unwrap_or_default(),
            name: name.unwrap_or("~unknown"),
        }
    }
}

impl Workload<'_> {
    /// Returns a number that stands for it within this process; never 0.
    pub(super) fn tag(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        self.hash(&mut hash);
        hash.finish().max(1)
    }

    /// Returns a number that stands for its namespace, or for itself if it has none; never 0.
    pub(super) fn namespace_tag(&self) -> u64 {
        if self.namespace.is_empty() { self.tag() } else { Self { name: "", ..*self }.tag() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Owner;

    fn pod(namespace: &str, pod: &str, workload: Option<&str>) -> Owner {
        Owner::new(Identity {
            attribution: Attribution::Pod,
            pod_name: Some(pod.to_owned()),
            pod_namespace: Some(namespace.to_owned()),
            workload_name: workload.map(str::to_owned),
            ..Identity::default()
        })
    }

    #[test]
    fn pods_of_a_workload_have_one_tag_and_others_have_another() {
        let [one, two] = ["web-1", "web-2"].map(|name| pod("shop", name, Some("web")));
        assert_eq!(one.workload_tag(), two.workload_tag());
        let others = [pod("shop", "web-1", Some("db")), pod("test", "web-1", Some("web"))];
        assert!(others.iter().all(|other| other.workload_tag() != one.workload_tag()));
        assert_eq!(others[0].namespace_tag(), one.namespace_tag());
        assert_ne!(others[1].namespace_tag(), one.namespace_tag());
        assert_ne!(one.namespace_tag(), one.workload_tag());
        let bare = pod("shop", "debug", None);
        assert_eq!(bare.identity().workload(), Workload { namespace: "shop", name: "debug" });
    }

    #[test]
    fn owners_without_a_workload_are_named_by_their_kind() {
        let owner = |attribution| Owner::new(Identity { attribution, ..Identity::default() });
        let [node, external] = [Attribution::Node, Attribution::External].map(owner);
        assert_eq!(node.identity().workload(), Workload { namespace: "", name: "~node" });
        assert_eq!(node.namespace_tag(), node.workload_tag());
        assert_ne!(node.workload_tag(), external.workload_tag());
        assert!(!node.is_workload() && pod("a", "b", None).is_workload());
    }

    #[test]
    fn tags_are_no_part_of_the_encoded_fields() {
        let identity = Identity { attribution: Attribution::External, ..Identity::default() };
        let encoded = super::super::binary::encoded(&identity);
        assert_eq!(Owner::new(identity).encoded(crate::encode::Profile::Full), encoded);
    }
}
