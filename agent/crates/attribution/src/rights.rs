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
use crate::config::KubernetesConfig;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Timeout of a review; a person waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A request that the watches make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// `get`, `list` or `watch`.
    pub verb: &'static str,
    /// API group; empty for the core one.
    pub group: &'static str,
    /// Resource in the plural.
    pub resource: &'static str,
    /// Name of the only object that is requested; `None` for all.
    pub name: Option<String>,
}

/// Formats the right as arguments of `kubectl auth can-i`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, name } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        name.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

/// Returns the rights that the watches need.
pub fn needed(config: &KubernetesConfig, node: &str) -> Vec<Right> {
    let right = |verb, group, resource, name| Right { verb, group, resource, name };
    let mut rights = Vec::new();
    for verb in ["list", "watch"] {
        rights.push(right(verb, "", "pods", None));
        if config.services {
            rights.push(right(verb, "", "services", None));
        }
        // One node is watched by a field selector on its name.
        let name = (!config.nodes).then(|| node.to_owned());
        rights.push(right(verb, "", "nodes", name));
    }
    rights.push(right("get", "batch", "jobs", None));
    rights
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
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "verb": right.verb,
            "group": right.group,
            "resource": right.resource,
            "name": right.name,
        }},
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
                "list services",
                "list nodes",
                "watch pods",
                "watch services",
                "watch nodes",
                "get jobs.batch"
            ]
        );
        (config.services, config.nodes) = (false, false);
        assert_eq!(
            needed(&config),
            [
                "list pods",
                "list nodes/node-1",
                "watch pods",
                "watch nodes/node-1",
                "get jobs.batch"
            ]
        );
    }
}
