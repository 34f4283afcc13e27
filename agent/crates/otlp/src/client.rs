//! Sends requests to the collector, and reads its answers.

use std::{io::Write as _, time::Duration};

use flate2::{Compression as Level, write::GzEncoder};
use http::{
    HeaderValue, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::{Timestamp, fmt::rfc2822};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use tap53_http::{Answer, block_on, secret, sensitive, shortened};

use crate::{
    config::{Compression, OtlpConfig},
    failure::Failure,
};

/// The most bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// The longest pause that a collector can request, so that a wrong answer does not end the export.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Reasons why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Http(#[from] tap53_http::Error),
    #[error("cannot accept metrics now ({status}): {message}")]
    Busy { status: u16, message: String, retry_after: Option<Duration> },
    #[error("refuses ({status}): {message}")]
    Refused { status: u16, message: String },
}

impl Error {
    pub(crate) const fn failure(&self) -> Failure {
        match self {
            Self::Http(tap53_http::Error::File { .. }) => Failure::File,
            Self::Http(tap53_http::Error::Unreachable(_)) => Failure::Unreachable,
            Self::Http(tap53_http::Error::Untrusted(_)) => Failure::Untrusted,
            Self::Http(tap53_http::Error::Silent(_)) => Failure::Timeout,
            Self::Http(tap53_http::Error::Unreadable(_)) => Failure::Unreadable,
            Self::Busy { .. } => Failure::Busy,
            Self::Refused { .. } => Failure::Refused,
        }
    }

    /// Returns a clause that says what failed.
    pub(crate) fn clause(&self) -> String {
        match self {
            Self::Http(tap53_http::Error::File { .. }) => self.to_string(),
            _ => format!("the collector {self}"),
        }
    }

    /// True if the same may succeed soon; otherwise somebody has to change something.
    pub(crate) const fn is_temporary(&self) -> bool {
        matches!(
            self.failure(),
            Failure::Unreachable | Failure::Timeout | Failure::Busy | Failure::Unreadable
        )
    }

    /// Returns the pause that the collector requests.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Busy { retry_after: Some(pause), .. } => (*pause).min(MAX_RETRY_AFTER),
            _ => Duration::ZERO,
        }
    }
}

/// The collector's answer to a request that it accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Points that it rejected.
    pub(crate) rejected: u64,
    /// Its message; empty unless it rejected points, or warns.
    pub(crate) message: String,
}

impl Accepted {
    /// True if the collector rejected points, or warns.
    pub(crate) const fn is_notable(&self) -> bool {
        self.rejected > 0 || !self.message.is_empty()
    }
}

/// The error of gRPC in an answer (google.rpc.Status).
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// A client for one export.
pub(crate) struct Client<'a> {
    http: tap53_http::Client,
    config: &'a OtlpConfig,
    headers: Vec<(&'a str, HeaderValue)>,
}

impl<'a> Client<'a> {
    /// Reads the files that the configuration names.
    pub(crate) fn new(config: &'a OtlpConfig) -> Result<Self, tap53_http::Error> {
        let urls = std::slice::from_ref(&config.endpoint);
        let ca_file = config.ca_file.as_deref();
        let http = tap53_http::Client::new(urls, ca_file, config.timeout, MAX_ANSWER)?;
        let plain = config.headers.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let mut headers: Vec<_> = plain.collect();
        for (name, path) in &config.header_files {
            headers.push((name, sensitive(secret(path)?, path)?));
        }
        Ok(Self { http, config, headers })
    }

    pub(crate) async fn send(&self, body: &[u8]) -> Result<Accepted, Error> {
        let request = self
            .request(body)
            .map_err(|error| Error::Http(tap53_http::Error::Unreachable(error.to_string())))?;
        let answer = self.http.send(request).await?;
        read(&answer, Timestamp::now())
    }

    fn request(&self, body: &[u8]) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::post(self.config.url()).header(CONTENT_TYPE, PROTOBUF);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let body = match self.config.compression {
            Compression::None => body.to_vec(),
            Compression::Gzip => {
                request = request.header(CONTENT_ENCODING, "gzip");
                gzip(body)
            }
        };
        request.body(Full::new(body.into()))
    }
}

/// Sends the collector a request without metrics, with this thread.
///
/// # Errors
/// The kind of the failure and its message, if the collector would not accept metrics now.
pub fn try_collector(config: &OtlpConfig) -> Result<(), (Failure, String)> {
    let request = ExportMetricsServiceRequest::default().encode_to_vec();
    let attempt = async { Client::new(config)?.send(&request).await };
    let accepted = block_on(attempt).map_err(Error::Http).flatten();
    accepted.map(|_| ()).map_err(|error| (error.failure(), error.clause()))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Level::fast());
    // Writing to a Vec does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

fn read(answer: &Answer, now: Timestamp) -> Result<Accepted, Error> {
    let status = answer.status;
    if status.is_success() {
        let response = ExportMetricsServiceResponse::decode(answer.body.clone());
        let response = response.map_err(|error| {
            Error::Http(tap53_http::Error::Unreadable(shortened(&error.to_string())))
        })?;
        let partial = response.partial_success.unwrap_or_default();
        return Ok(Accepted {
            rejected: u64::try_from(partial.rejected_data_points).unwrap_or_default(),
            message: shortened(&partial.error_message),
        });
    }
    let message = message(answer);
    let number = status.as_u16();
    // https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Error::Busy {
            status: number,
            message,
            retry_after: answer.header(RETRY_AFTER).and_then(|text| pause(text, now)),
        },
        _ => Error::Refused { status: number, message },
    })
}

/// Reads `Retry-After`: seconds or a date (RFC 9110 §10.2.3).
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// Returns what an answer says about its error.
fn message(answer: &Answer) -> String {
    if answer.status.is_redirection() {
        let location = shortened(answer.header(LOCATION).unwrap_or("somewhere"));
        return format!("redirects are not followed, and this one leads to {location}");
    }
    let is_protobuf =
        answer.header(CONTENT_TYPE).is_some_and(|of| of.starts_with("application/x-protobuf"));
    let status = is_protobuf.then(|| Status::decode(answer.body.clone()).ok()).flatten();
    match status {
        Some(Status { message, .. }) if !message.is_empty() => shortened(&message),
        _ if is_protobuf || answer.body.is_empty() => "no reason given".to_owned(),
        _ => answer.shown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_pause_is_in_seconds_or_until_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(pause("120", now), Some(seconds(120)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(seconds(30)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(pause("soon", now), None);
        let retry_after = Some(seconds(1_000_000));
        let error = Error::Busy { status: 503, message: String::new(), retry_after };
        assert_eq!(error.retry_after(), MAX_RETRY_AFTER);
    }
}
