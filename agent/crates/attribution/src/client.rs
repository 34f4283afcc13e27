//! Requests to the API server, and what can go wrong with them.

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
use tap53_base::visible::with_causes;
use tokio::time::timeout;

use super::object::MetadataOnly;

/// The answer to one request: a page of 250 pods has some 2 MB, one with the largest object that
/// etcd takes 1.5 MB; a server that ignores the page size sends 100,000 pods in less than this,
/// and memory stays bounded where it sends more.
const MAX_ANSWER: usize = 1 << 30;

/// Of the message of a refusal, characters that are shown.
const MAX_MESSAGE: usize = 300;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until an answer begins, and from one part of it to the next.
    pub(super) answer: Duration,
    /// From one event of a watch to the next; bookmarks come once a minute or so.
    pub(super) quiet: Duration,
    /// First wait after a failure; it doubles up to `longest_wait`.
    pub(super) first_wait: Duration,
    pub(super) longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            quiet: Duration::from_secs(180),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// There is no way to reach an API server.
    #[error("no access to an API server: {0}")]
    NoAccess(String),
    /// 401.
    #[error("the API server does not accept the credentials (401): {0}")]
    Unauthorized(String),
    /// 403.
    #[error("the API server denies access (403): {0}")]
    Forbidden(String),
    /// 410, or an event that says so: what was seen last is no longer kept there.
    #[error("the API server no longer has the changes since the last event (410)")]
    Gone,
    /// 429 and others that say when to come back.
    #[error("the API server asks to come back later ({status})")]
    Busy { status: u16, after: Option<Duration> },
    /// Any other status.
    #[error("the API server answers with an error ({status}): {message}")]
    Refused { status: u16, message: String },
    /// No connection, or it broke.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing came for too long.
    #[error("the API server is silent: nothing for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// What came is not what was asked for.
    #[error("the API server's answer cannot be read: {0}")]
    Unreadable(String),
}

impl Trouble {
    /// How long the server wants to be left alone.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }

    /// Whether it is of the API server or the way to it, not of what was asked for.
    pub(super) const fn passes(&self) -> bool {
        match self {
            Self::NoAccess(_)
            | Self::Unauthorized(_)
            | Self::Busy { .. }
            | Self::Unreachable(_)
            | Self::Silent(_) => true,
            Self::Forbidden(_) | Self::Gone | Self::Refused { .. } | Self::Unreadable(_) => false,
        }
    }

    /// Whether another client might have better credentials.
    pub(super) const fn is_about_credentials(&self) -> bool {
        matches!(self, Self::Unauthorized(_) | Self::NoAccess(_))
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Auth(error) => Self::NoAccess(with_causes(&error)),
            error => Self::Unreachable(with_causes(&error)),
        }
    }
}

/// A client by a kubeconfig file, or by the account of the pod that this runs in.
///
/// The file of a token is read anew each minute, and by each new client, so that a token that was
/// replaced early is taken up after the first refusal.
pub(super) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Trouble> {
    let mut config = match kubeconfig {
        Some(path) => {
            let refused = |error| {
                Trouble::NoAccess(format!("kubeconfig {}: {}", path.display(), with_causes(&error)))
            };
            let file = Kubeconfig::read_from(path).map_err(refused)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(refused)?
        }
        None => Config::incluster().map_err(|error| {
            Trouble::NoAccess(format!(
                "not in a pod with a service account: {}",
                with_causes(&error)
            ))
        })?,
    };
    // Waiting is done here, where 429 is counted and shown.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    Client::try_from(config).map_err(|error| Trouble::NoAccess(with_causes(&error)))
}

/// Sends a request, and hands its answer back once it has begun well.
pub(super) async fn send(
    client: &Client,
    request: http::Request<Vec<u8>>,
    patience: &Patience,
) -> Result<http::Response<Body>, Trouble> {
    let answer = timeout(patience.answer, client.send(request.map(Body::from))).await;
    let response = answer.map_err(|_| Trouble::Silent(patience.answer))??;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(|value| value.parse().ok()).map(Duration::from_secs);
    let message = message(response, patience).await;
    Err(match status {
        StatusCode::UNAUTHORIZED => Trouble::Unauthorized(message),
        StatusCode::FORBIDDEN => Trouble::Forbidden(message),
        StatusCode::GONE => Trouble::Gone,
        StatusCode::TOO_MANY_REQUESTS => Trouble::Busy { status: status.as_u16(), after },
        _ if after.is_some() => Trouble::Busy { status: status.as_u16(), after },
        _ => Trouble::Refused { status: status.as_u16(), message },
    })
}

/// What a refusal says, shortened.
async fn message(response: http::Response<Body>, patience: &Patience) -> String {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let body = Limited::new(response.into_body(), 1 << 16);
    let Ok(Ok(body)) = timeout(patience.answer, body.collect()).await else {
        return "no reason given".to_owned();
    };
    let body = body.to_bytes();
    let said = serde_json::from_slice::<Said>(&body).map(|said| said.message);
    let text = said.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
    // One line for the log.
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        "no reason given".to_owned()
    } else {
        line.chars().take(MAX_MESSAGE).collect()
    }
}

/// The whole body of an answer.
pub(super) async fn read(
    response: http::Response<Body>,
    patience: &Patience,
) -> Result<Vec<u8>, Trouble> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    loop {
        let part = timeout(patience.answer, body.frame()).await;
        match part.map_err(|_| Trouble::Silent(patience.answer))? {
            None => return Ok(bytes),
            Some(Err(error)) => return Err(Trouble::Unreachable(with_causes(&error))),
            Some(Ok(part)) => {
                if let Some(part) = part.data_ref() {
                    bytes.extend_from_slice(part);
                }
                if bytes.len() > MAX_ANSWER {
                    return Err(Trouble::Unreadable(format!("more than {MAX_ANSWER} bytes")));
                }
            }
        }
    }
}

/// The metadata of one job.
pub(super) async fn job(
    client: &Client,
    namespace: &str,
    name: &str,
    patience: &Patience,
) -> Result<MetadataOnly, Trouble> {
    let jobs = Request::new(format!("/apis/batch/v1/namespaces/{namespace}/jobs"));
    let request = jobs
        .get_metadata(name, &GetParams::default())
        .map_err(|error| Trouble::Unreadable(with_causes(&error)))?;
    let body = read(send(client, request, patience).await?, patience).await?;
    serde_json::from_slice(&body).map_err(|error| Trouble::Unreadable(error.to_string()))
}
