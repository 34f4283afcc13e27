//! Requests to the API server, and their errors.

use std::{path::Path, time::Duration};

use http::{StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
    core::{Request, params::GetParams},
};
use serde::Deserialize;
use tap53_base::{backoff::Backoff, visible::with_causes};
use tokio::time::timeout;

use super::object::MetadataOnly;

/// Maximum size of one response in bytes. A page of 250 pods has some 2 MB, one with the largest
/// object that etcd accepts 1.5 MB. A server that ignores the page size sends 100,000 pods in less
/// than this; the limit bounds memory if it sends more.
const MAX_RESPONSE: usize = 1 << 30;

/// Maximum number of characters of an error message that are shown.
const MAX_MESSAGE: usize = 300;

/// Timeouts and backoff of requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Until a response begins, and between two parts of it.
    pub(super) response: Duration,
    /// Between two events of a watch. Bookmarks arrive about once a minute.
    pub(super) idle: Duration,
    /// Backoff after the first failure; it doubles up to `max_backoff`.
    pub(super) initial_backoff: Duration,
    pub(super) max_backoff: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            response: Duration::from_secs(30),
            idle: Duration::from_secs(180),
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// Returns the backoff between requests.
    pub(super) const fn backoff(&self) -> Backoff {
        Backoff::new(self.initial_backoff, self.max_backoff)
    }
}

/// Errors of requests to the API server.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// There is no configuration to reach an API server with.
    #[error("no access to an API server: {0}")]
    NoAccess(String),
    /// 401.
    #[error("the API server does not accept the credentials (401): {0}")]
    Unauthorized(String),
    /// 403.
    #[error("the API server denies access (403): {0}")]
    Forbidden(String),
    /// 410, or an ERROR event with that code: the server no longer keeps the version to watch from.
    #[error("the API server no longer has the changes since the last event (410)")]
    Gone,
    /// 429, or another status with a Retry-After header.
    #[error("the API server requests a later retry ({status})")]
    Busy { status: u16, after: Option<Duration> },
    /// Any other status.
    #[error("the API server answers with an error ({status}): {message}")]
    Refused { status: u16, message: String },
    /// The connection was refused, timed out or broke.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// No data arrived within the timeout.
    #[error("the API server sent nothing for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The response is not valid or not of the requested kind.
    #[error("the response of the API server is invalid: {0}")]
    Unreadable(String),
}

impl RequestError {
    /// Returns the delay that the server requests before a retry.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }

    /// Returns true if the error is of the API server or the path to it, and not of the request.
    pub(super) const fn is_transient(&self) -> bool {
        match self {
            Self::NoAccess(_)
            | Self::Unauthorized(_)
            | Self::Busy { .. }
            | Self::Unreachable(_)
            | Self::Silent(_) => true,
            Self::Forbidden(_) | Self::Gone | Self::Refused { .. } | Self::Unreadable(_) => false,
        }
    }

    /// Returns true if a new client might have valid credentials.
    pub(super) const fn is_about_credentials(&self) -> bool {
        matches!(self, Self::Unauthorized(_) | Self::NoAccess(_))
    }
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Auth(error) => Self::NoAccess(with_causes(&error)),
            error => Self::Unreachable(with_causes(&error)),
        }
    }
}

/// Creates a client from a kubeconfig file, or from the service account of the agent's pod.
///
/// The token file is read again each minute and by each new client, so a token that was replaced
/// early is used after the first 401.
pub(super) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, RequestError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let refused = |error| {
                RequestError::NoAccess(format!(
                    "kubeconfig {}: {}",
                    path.display(),
                    with_causes(&error)
                ))
            };
            let file = Kubeconfig::read_from(path).map_err(refused)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(refused)?
        }
        None => Config::incluster().map_err(|error| {
            RequestError::NoAccess(format!(
                "not in a pod with a service account: {}",
                with_causes(&error)
            ))
        })?,
    };
    // The caller implements backoff, where 429 is counted and shown.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    Client::try_from(config).map_err(|error| RequestError::NoAccess(with_causes(&error)))
}

/// Sends a request, and returns the response once its status is known to be a success.
pub(super) async fn send(
    client: &Client,
    request: http::Request<Vec<u8>>,
    timeouts: &Timeouts,
) -> Result<http::Response<Body>, RequestError> {
    let result = timeout(timeouts.response, client.send(request.map(Body::from))).await;
    let response = result.map_err(|_| RequestError::Silent(timeouts.response))??;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(|value| value.parse().ok()).map(Duration::from_secs);
    let message = message(response, timeouts).await;
    Err(match status {
        StatusCode::UNAUTHORIZED => RequestError::Unauthorized(message),
        StatusCode::FORBIDDEN => RequestError::Forbidden(message),
        StatusCode::GONE => RequestError::Gone,
        StatusCode::TOO_MANY_REQUESTS => RequestError::Busy { status: status.as_u16(), after },
        _ if after.is_some() => RequestError::Busy { status: status.as_u16(), after },
        _ => RequestError::Refused { status: status.as_u16(), message },
    })
}

/// Returns the message of an error response, shortened.
async fn message(response: http::Response<Body>, timeouts: &Timeouts) -> String {
    #[derive(Deserialize)]
    struct Failure {
        message: String,
    }
    let body = Limited::new(response.into_body(), 1 << 16);
    let Ok(Ok(body)) = timeout(timeouts.response, body.collect()).await else {
        return "no reason given".to_owned();
    };
    let body = body.to_bytes();
    let parsed = serde_json::from_slice::<Failure>(&body).map(|failure| failure.message);
    let text = parsed.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
    // Make it one line, for the log.
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        "no reason given".to_owned()
    } else {
        line.chars().take(MAX_MESSAGE).collect()
    }
}

/// Reads the whole body of a response.
pub(super) async fn read(
    response: http::Response<Body>,
    timeouts: &Timeouts,
) -> Result<Vec<u8>, RequestError> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    loop {
        let part = timeout(timeouts.response, body.frame()).await;
        match part.map_err(|_| RequestError::Silent(timeouts.response))? {
            None => return Ok(bytes),
            Some(Err(error)) => return Err(RequestError::Unreachable(with_causes(&error))),
            Some(Ok(part)) => {
                if let Some(part) = part.data_ref() {
                    bytes.extend_from_slice(part);
                }
                if bytes.len() > MAX_RESPONSE {
                    return Err(RequestError::Unreadable(format!(
                        "more than {MAX_RESPONSE} bytes"
                    )));
                }
            }
        }
    }
}

/// Requests the metadata of one Job.
pub(super) async fn job(
    client: &Client,
    namespace: &str,
    name: &str,
    timeouts: &Timeouts,
) -> Result<MetadataOnly, RequestError> {
    let jobs = Request::new(format!("/apis/batch/v1/namespaces/{namespace}/jobs"));
    let request = jobs
        .get_metadata(name, &GetParams::default())
        .map_err(|error| RequestError::Unreadable(with_causes(&error)))?;
    let body = read(send(client, request, timeouts).await?, timeouts).await?;
    serde_json::from_slice(&body).map_err(|error| RequestError::Unreadable(error.to_string()))
}
