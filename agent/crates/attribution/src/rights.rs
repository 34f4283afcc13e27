//! Checks the rights that the watches need, for `tap53 doctor`.
//!
//! Uses SelfSubjectAccessReview, which every authenticated user may create, and which the API
//! server does not store.

use std::{fmt, path::Path, time::Duration};

use http::{Method, header::CONTENT_TYPE};
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tap53_base::visible::with_causes;

use super::client::{RequestError, Timeouts, connect, read, send};
use crate::{
    config::KubernetesConfig,
    selection::{Selection, Selections},
};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Timeout of a review; a person waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A request that the watches make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Right {
    /// Name of the watch that needs it, as in the status; `jobs` for the queries of Jobs.
    pub watch: &'static str,
    /// `get`, `list` or `watch`.
    pub verb: &'static str,
    /// API group; empty for the core one.
    pub group: &'static str,
    /// Resource in the plural.
    pub resource: &'static str,
    /// Name of the only object that is requested; `None` for all.
    pub name: Option<String>,
    /// Namespace; `None` for all.
    pub namespace: Option<String>,
    /// Field selector, which some authorizers look at; RBAC does not.
    pub fields: Option<String>,
    /// Label selector, as above.
    pub labels: Option<String>,
}

/// Formats the right as arguments of `kubectl auth can-i`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, name, namespace, .. } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        name.iter().try_for_each(|name| write!(f, "/{name}"))?;
        namespace.iter().try_for_each(|namespace| write!(f, " --namespace={namespace}"))
    }
}

/// Returns the rights that the watches need.
pub fn needed(config: &KubernetesConfig, node: &str) -> Vec<Right> {
    let selections = Selections::new(config, node);
    // One node is watched by a field selector on its name.
    let only = |resource| (resource == "nodes" && !config.nodes).then(|| node.to_owned());
    let of = |verb, resource, selection: &Selection| Right {
        watch: selection.watch,
        verb,
        resource,
        name: only(resource),
        namespace: selection.namespace.clone(),
        fields: selection.fields.clone(),
        labels: selection.labels.clone(),
        ..Right::default()
    };
    let all = ["list", "watch"].into_iter().flat_map(|verb| {
        selections.iter().map(move |(resource, selection)| of(verb, resource, selection))
    });
    let jobs =
        Right { watch: "jobs", verb: "get", group: "batch", resource: "jobs", ..Right::default() };
    all.chain([jobs]).collect()
}

/// Reasons why the rights cannot be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No kubeconfig, or no service account of a pod.
    NoAccess(String),
    /// The API server rejects the credentials.
    Unauthorized(String),
    /// Any other error.
    Other(String),
}

impl From<RequestError> for NoAnswer {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NoAccess(_) => Self::NoAccess(error.to_string()),
            RequestError::Unauthorized(_) => Self::Unauthorized(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

/// Checks for each right whether this account has it; blocks until all are checked.
pub fn check(
    kubeconfig: Option<&Path>,
    rights: Vec<Right>,
) -> Result<Vec<(Right, bool)>, NoAnswer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| NoAnswer::Other(error.to_string()))?;
    let results = runtime.block_on(async {
        let client = connect(kubeconfig).await?;
        let mut answers = Vec::with_capacity(rights.len());
        for right in rights {
            let allowed = review(&client, &right).await?;
            answers.push((right, allowed));
        }
        Ok::<_, RequestError>(answers)
    });
    Ok(results?)
}

async fn review(client: &Client, right: &Right) -> Result<bool, RequestError> {
    #[derive(Deserialize)]
    struct Review {
        status: ReviewStatus,
    }
    #[derive(Deserialize)]
    struct ReviewStatus {
        allowed: bool,
    }
    let timeouts = Timeouts { response: TIMEOUT, ..Timeouts::default() };
    let mut attributes = json!({
        "verb": right.verb,
        "group": right.group,
        "resource": right.resource,
        "name": right.name,
        "namespace": right.namespace,
    });
    for (key, selector) in [("fieldSelector", &right.fields), ("labelSelector", &right.labels)] {
        if let Some(selector) = selector {
            attributes[key] = json!({"rawSelector": selector});
        }
    }
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(REVIEWS)
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|error| RequestError::Unreadable(with_causes(&error)))?;
    let response = read(send(client, request, &timeouts).await?, &timeouts).await?;
    let review: Review = serde_json::from_slice(&response)
        .map_err(|error| RequestError::Unreadable(error.to_string()))?;
    Ok(review.status.allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelSelector, config::Services};
    use tap53_base::settings::Section;

    #[test]
    fn only_what_the_configuration_watches_is_needed() {
        let read = |section: &mut Section<'_>| KubernetesConfig::read(section, true);
        let mut config = Section::root(None, &mut Vec::new(), read);
        let needed = |config: &KubernetesConfig| -> Vec<String> {
            needed(config, "node-1").iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            needed(&config),
            [
                "list pods",
                "list pods --namespace=kube-system",
                "list nodes/node-1",
                "list services",
                "watch pods",
                "watch pods --namespace=kube-system",
                "watch nodes/node-1",
                "watch services",
                "get jobs.batch"
            ]
        );
        config.services = Services::Servers;
        config.servers.namespace = None;
        assert_eq!(needed(&config)[1..4], ["list pods", "list nodes/node-1", "list services"]);
        config.services = Services::None;
        config.servers.selector = LabelSelector::default();
        config.nodes = true;
        assert_eq!(
            needed(&config),
            ["list pods", "list nodes", "watch pods", "watch nodes", "get jobs.batch"]
        );
    }

    #[test]
    fn a_right_has_the_selectors_of_its_request() {
        let read = |section: &mut Section<'_>| KubernetesConfig::read(section, true);
        let config = Section::root(None, &mut Vec::new(), read);
        let rights = needed(&config, "node-1");
        let selectors: Vec<_> = rights[..3]
            .iter()
            .map(|right| (right.watch, right.fields.as_deref(), right.labels.as_deref()))
            .collect();
        assert_eq!(
            selectors,
            [
                ("pods", Some("spec.nodeName=node-1"), None),
                (
                    "server_pods",
                    Some("spec.hostNetwork=false"),
                    Some("k8s-app in (kube-dns,node-local-dns)")
                ),
                ("nodes", Some("metadata.name=node-1"), None),
            ]
        );
    }
}
