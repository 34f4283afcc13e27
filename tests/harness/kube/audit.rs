//! Reads the audit log of the API server.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::KubeApi;

pub(super) const LOG: &str = "audit.log";

/// A request that the API server answered, or a watch that it opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// get, list, watch, create, update, patch, delete …
    pub verb: String,
    /// Resource, such as `pods` or `serviceaccounts/token`; the path for other requests.
    pub resource: String,
    /// API group, empty for the core.
    pub group: String,
    /// Namespace of the request, empty for all or none.
    pub namespace: String,
    /// The object's name, empty for many.
    pub name: String,
    /// Status: 200, 403 …
    pub code: u64,
    /// Path and query.
    pub uri: String,
}

impl KubeApi<'_> {
    /// The requests of `user`, oldest first, since the API server was started for the first time.
    /// A watch is among them twice: when it opens and when it ends.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests_of(&self, user: &str) -> Result<Vec<Request>> {
        let path = self.directory.path().join(LOG);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // The last line may still be in the making.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut requests = Vec::new();
        for line in whole.lines() {
            let event: Value = serde_json::from_str(line).context("a line of the audit log")?;
            if event["user"]["username"] == user {
                requests.push(request(&event));
            }
        }
        Ok(requests)
    }
}

fn request(event: &Value) -> Request {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let uri = text(&event["requestURI"]);
    let resource = match (object["resource"].as_str(), object["subresource"].as_str()) {
        (Some(resource), Some(part)) => format!("{resource}/{part}"),
        (Some(resource), None) => resource.to_owned(),
        (None, _) => uri.split('?').next().unwrap_or_default().to_owned(),
    };
    Request {
        verb: text(&event["verb"]),
        resource,
        group: text(&object["apiGroup"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        uri,
    }
}
