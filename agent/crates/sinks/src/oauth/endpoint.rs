//! Requests a token from an authorization server (RFC 6749 §4.4).

use std::time::Duration;

use data_encoding::BASE64;
use form_urlencoded::{Serializer, byte_serialize};
use http::{
    Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use tap53_http::{Client, secret, sensitive, shortened};

use super::token::{Token, Unusable};
use crate::config::TokenEndpoint;

/// The limit from the connection to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// Reasons why there is no token. Each text follows the server's URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Http(#[from] tap53_http::Error),
    #[error("refuses ({status}): {why}")]
    Refused { status: u16, why: String },
    #[error("gives a token that cannot be used: {0}")]
    Unusable(#[from] Unusable),
}

/// RFC 6749 §5.1.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    expires_in: Option<f64>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
    error_description: Option<String>,
}

/// Requests a token. The files are read again each time.
pub(super) async fn request(endpoint: &TokenEndpoint) -> Result<Token, Error> {
    let requested_at = Timestamp::now();
    let message = message(endpoint)?;
    let url = std::slice::from_ref(&endpoint.url);
    let client = Client::new(url, endpoint.ca_file.as_deref(), TIMEOUT, MAX_ANSWER)?;
    let answer = client.send(message).await?;
    read(answer.status, &answer.body, &endpoint.client_id, requested_at)
}

fn message(endpoint: &TokenEndpoint) -> Result<Request<Full<Bytes>>, tap53_http::Error> {
    let path = &endpoint.client_secret_file;
    let secret = secret(path)?;
    // RFC 6749 §2.3.1: both as in a form, then as a user and a password.
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let both = format!("{}:{}", encoded(&endpoint.client_id), encoded(&secret));
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if let Some(scope) = &endpoint.scope {
        form.append_pair("scope", scope);
    }
    let authorization = format!("Basic {}", BASE64.encode(both.as_bytes()));
    Request::post(&endpoint.url)
        .header(AUTHORIZATION, sensitive(authorization, path)?)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(form.finish())))
        .map_err(|error| tap53_http::Error::Unreachable(error.to_string()))
}

fn read(
    status: StatusCode,
    body: &[u8],
    client_id: &str,
    requested_at: Timestamp,
) -> Result<Token, Error> {
    if status != StatusCode::OK {
        let why = match serde_json::from_slice::<ErrorResponse>(body) {
            Ok(ErrorResponse { error, error_description: Some(why) }) => format!("{error}: {why}"),
            Ok(ErrorResponse { error, .. }) => error,
            Err(_) => status.canonical_reason().unwrap_or("without a reason").to_owned(),
        };
        return Err(Error::Refused { status: status.as_u16(), why: shortened(&why) });
    }
    // Without the parser's error, which may quote the token.
    let granted: TokenResponse = serde_json::from_slice(body)
        .map_err(|_| tap53_http::Error::Unreadable("it has no access_token".to_owned()))?;
    Ok(Token::of_answer(&granted.access_token, granted.expires_in, client_id, requested_at)?)
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
            (401, "{\"error\":\"invalid_client\"}", "refuses (401): invalid_client"),
            (400, "{\"error\":\"x\",\"error_description\":\"no\\n\"}", "refuses (400): x: no"),
            (500, "<html>secret</html>", "refuses (500): Internal Server Error"),
            (302, "", "refuses (302): Found"),
            (200, "{\"access_token\":[\"secret\"]}", "gives an answer that cannot be read"),
            (200, "secret", "gives an answer that cannot be read"),
            (200, "{\"access_token\":\"secret\"}", "does not say when it expires"),
            (200, "{\"access_token\":\"secret\",\"expires_in\":0}", "it expired at"),
        ] {
            let refused = answer(status, body).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
