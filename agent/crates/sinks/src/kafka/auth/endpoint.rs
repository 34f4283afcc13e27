//! Requests a token from an authorization server (RFC 6749 §4.4).
//!
//! Not by librdkafka, which could do this where it is built with curl: the Kubernetes client brings
//! an HTTP client already.

use std::{path::PathBuf, time::Duration};

use data_encoding::BASE64;
use form_urlencoded::{Serializer, byte_serialize};
use http::{
    Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use jiff::Timestamp;
use rustls::ClientConfig;
use serde::Deserialize;
use tap53_base::visible::visible;
use tokio::time::timeout;

use super::token::{Token, Unusable};
use crate::trust::secret;
use crate::{config::TokenEndpoint, trust};

/// From the connection to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A token and what is around it.
const MAX_ANSWER: usize = 1 << 20;

/// Of what a server says about its refusal, characters that are shown.
const MAX_SHOWN: usize = 200;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A file that the request needs.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No connection, or it broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing came.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Silent,
    /// It gives none.
    #[error("it refuses ({status}): {why}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// What the answer says.
        why: String,
    },
    /// The answer is no token.
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
    /// The token in it cannot be used.
    #[error("the token that it gives cannot be used: {0}")]
    Unusable(#[from] Unusable),
}

/// RFC 6749 §5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<f64>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

/// Requests a token. Files are read anew each time.
pub(super) async fn fetch(endpoint: &TokenEndpoint) -> Result<Token, Error> {
    match timeout(TIMEOUT, request_token(endpoint)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Silent),
    }
}

async fn request_token(endpoint: &TokenEndpoint) -> Result<Token, Error> {
    let asked_at = Timestamp::now();
    let request = request(endpoint)?;
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(endpoint)?)
        .https_only()
        .enable_http1()
        .build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client
        .request(request)
        .await
        .map_err(|error| Error::Unreachable(tap53_base::visible::with_causes(&error)))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| Error::Unreadable(error.to_string()))?
        .to_bytes();
    read(status, &body, &endpoint.client_id, asked_at)
}

fn request(endpoint: &TokenEndpoint) -> Result<Request<Full<Bytes>>, Error> {
    let path = &endpoint.client_secret_file;
    let secret =
        secret(path).map_err(|error| Error::File { path: path.clone(), why: error.to_string() })?;
    // RFC 6749 §2.3.1: both as in a form, then as a user and a password.
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let both = format!("{}:{}", encoded(&endpoint.client_id), encoded(&secret));
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if let Some(scope) = &endpoint.scope {
        form.append_pair("scope", scope);
    }
    Request::builder()
        .method(Method::POST)
        .uri(&endpoint.url)
        .header(AUTHORIZATION, format!("Basic {}", BASE64.encode(both.as_bytes())))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(form.finish())))
        .map_err(|error| Error::Unreachable(error.to_string()))
}

fn tls(endpoint: &TokenEndpoint) -> Result<ClientConfig, Error> {
    trust::client_config(endpoint.ca_file.as_deref()).map_err(|error| match error {
        trust::Error::File { path, why } => Error::File { path, why },
        trust::Error::System(_) => Error::Unreachable(error.to_string()),
    })
}

fn read(
    status: StatusCode,
    body: &[u8],
    client_id: &str,
    asked_at: Timestamp,
) -> Result<Token, Error> {
    if status != StatusCode::OK {
        let why = match serde_json::from_slice::<Refused>(body) {
            Ok(Refused { error, error_description: Some(why) }) => format!("{error}: {why}"),
            Ok(Refused { error, .. }) => error,
            Err(_) => status.canonical_reason().unwrap_or("without a reason").to_owned(),
        };
        let shown = visible(&why).chars().take(MAX_SHOWN).collect();
        return Err(Error::Refused { status: status.as_u16(), why: shown });
    }
    // What the parser says may quote the token.
    let granted: Granted = serde_json::from_slice(body)
        .map_err(|_| Error::Unreadable("it has no access_token".to_owned()))?;
    Ok(Token::of_answer(&granted.access_token, granted.expires_in, client_id, asked_at)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Token, String> {
        let now = Timestamp::from_second(1_000).unwrap();
        read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "me", now)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn answers_are_a_token_or_a_reason_that_shows_none() {
        let token = answer(
            200,
            "{\"access_token\":\"opaque\",\"expires_in\":300,\"token_type\":\"Bearer\"}",
        );
        assert_eq!(token.unwrap().expires_at.as_second(), 1_300);
        for (status, body, expected) in [
            (401, "{\"error\":\"invalid_client\"}", "it refuses (401): invalid_client"),
            (400, "{\"error\":\"x\",\"error_description\":\"no\\n\"}", "it refuses (400): x: no"),
            (500, "<html>secret</html>", "it refuses (500): Internal Server Error"),
            (302, "", "it refuses (302): Found"),
            (200, "{\"access_token\":[\"secret\"]}", "its answer cannot be read"),
            (200, "secret", "its answer cannot be read"),
            (200, "{\"access_token\":\"secret\"}", "does not say when it expires"),
            (200, "{\"access_token\":\"secret\",\"expires_in\":0}", "it expired at"),
        ] {
            let refused = answer(status, body).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
