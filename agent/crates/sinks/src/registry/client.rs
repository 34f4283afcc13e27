//! Requests to a registry.
//!
//! Each round of requests has a client of its own, since rounds are rare: it reads the files again,
//! and no idle connection stays open.

use std::time::Duration;

use data_encoding::BASE64;
use http::{
    HeaderValue, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use http_body_util::Full;
use serde::{Deserialize, de::DeserializeOwned};
use tap53_http::{secret, sensitive, shortened};

use super::error::Error;
use crate::config::{RegistryConfig, RegistryCredentials};

/// The most bytes of an answer: schemas have some 100 KB.
const MAX_ANSWER: usize = 4 << 20;

/// Confluent's `error_code`s of status 404: no such subject, version, schema.
const NOTHING_THERE: [i64; 3] = [40_401, 40_402, 40_403];

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/vnd.schemaregistry.v1+json, application/json");

/// The registry's verdict on a new schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// It may be registered.
    Compatible,
    /// The subject has no version yet.
    NoSubject,
    /// With the reason.
    Incompatible(String),
}

/// A client for a round of requests.
pub struct Client {
    http: tap53_http::Client,
    urls: Vec<String>,
    /// The index of the URL that answered last.
    current: usize,
    authorization: Option<HeaderValue>,
    requests: u64,
    failures: u64,
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

#[derive(Deserialize)]
struct CompatibilityBody {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error_code: i64,
    #[serde(default)]
    message: String,
}

impl Client {
    /// Reads the files that the configuration names.
    pub fn new(config: &RegistryConfig) -> Result<Self, Error> {
        let ca_file = config.ca_file.as_deref();
        let http = tap53_http::Client::new(&config.urls, ca_file, config.timeout, MAX_ANSWER)?;
        let authorization = config.credentials.as_ref().map(authorization).transpose()?;
        Ok(Self {
            http,
            urls: config.urls.clone(),
            current: 0,
            authorization,
            requests: 0,
            failures: 0,
        })
    }

    /// Returns the requests since the last call, and how many of them failed.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.requests), std::mem::take(&mut self.failures))
    }

    /// Returns the id of a schema that is registered under `subject`.
    pub async fn look_up(&mut self, subject: &str, schema: &str) -> Result<Option<u32>, Error> {
        // If it was registered by hand, it may differ in white space, which some registries ignore
        // only with this option.
        for query in ["", "?normalize=true"] {
            let path = format!("/subjects/{subject}{query}");
            if let Some(Id { id }) = self.query(&path, schema).await? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Registers a schema under `subject`, unless it is there, and returns its id.
    pub(crate) async fn register(&mut self, subject: &str, schema: &str) -> Result<u32, Error> {
        let path = format!("/subjects/{subject}/versions");
        match self.query(&path, schema).await {
            Ok(Some(Id { id })) => Ok(id),
            Ok(None) => Err(Error::NoSuchPath(path)),
            Err(Error::Refused { status: 409, message, .. }) => {
                Err(Error::Incompatible { subject: subject.to_owned(), why: message })
            }
            Err(error) => Err(error),
        }
    }

    /// Checks whether a schema may be registered under `subject`.
    pub async fn compatibility(
        &mut self,
        subject: &str,
        schema: &str,
    ) -> Result<Compatibility, Error> {
        let path = format!("/compatibility/subjects/{subject}/versions/latest?verbose=true");
        Ok(match self.query(&path, schema).await? {
            None => Compatibility::NoSubject,
            Some(CompatibilityBody { is_compatible: true, .. }) => Compatibility::Compatible,
            Some(CompatibilityBody { messages, .. }) if messages.is_empty() => {
                Compatibility::Incompatible("it does not say why".to_owned())
            }
            Some(CompatibilityBody { messages, .. }) => {
                Compatibility::Incompatible(shortened(&messages.join("; ")))
            }
        })
    }

    /// Posts a schema to the instances in turn, until one can answer; `None` if nothing is found.
    async fn query<T: DeserializeOwned>(
        &mut self,
        path: &str,
        schema: &str,
    ) -> Result<Option<T>, Error> {
        let mut error = tap53_http::Error::Unreachable("no URL".to_owned()).into();
        for _ in 0..self.urls.len() {
            let url = format!("{}{path}", self.urls[self.current]);
            self.requests += 1;
            let answer = self.post(&url, schema).await;
            self.failures += u64::from(answer.is_err());
            match answer {
                Err(other) if other.is_instance_error() => error = other,
                answer => return answer,
            }
            self.current = (self.current + 1) % self.urls.len();
        }
        Err(error)
    }

    async fn post<T: DeserializeOwned>(&self, url: &str, schema: &str) -> Result<Option<T>, Error> {
        let unsent = |error: http::Error| tap53_http::Error::Unreachable(error.to_string());
        let body = serde_json::json!({"schema": schema}).to_string();
        let mut request =
            Request::post(url).header(CONTENT_TYPE, MEDIA_TYPE).header(ACCEPT, ACCEPTED);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body.into())).map_err(unsent)?;
        let answer = self.http.send(request).await?;
        let (status, body) = (answer.status, &answer.body);
        if status.is_success() {
            return serde_json::from_slice(body).map(Some).map_err(|error| {
                let why = format!("{}, in {:?}", shortened(&error.to_string()), answer.shown());
                tap53_http::Error::Unreadable(why).into()
            });
        }
        if status.is_redirection() {
            let location = shortened(answer.header(LOCATION).unwrap_or("somewhere"));
            return Err(Error::Redirected { status: status.as_u16(), location });
        }
        let error_body: Option<ErrorBody> = serde_json::from_slice(body).ok();
        if let Some(error_body) = &error_body
            && status == StatusCode::NOT_FOUND
            && NOTHING_THERE.contains(&error_body.error_code)
        {
            return Ok(None);
        }
        let message = match error_body {
            Some(ErrorBody { message, .. }) if !message.is_empty() => shortened(&message),
            _ if body.is_empty() => "no reason given".to_owned(),
            _ => answer.shown(),
        };
        Err(match status {
            StatusCode::UNAUTHORIZED => Error::Unauthorized(message),
            StatusCode::FORBIDDEN => Error::Forbidden(message),
            StatusCode::NOT_FOUND => Error::NoSuchPath(message),
            StatusCode::UNPROCESSABLE_ENTITY => Error::Invalid(message),
            _ => Error::Refused {
                status: status.as_u16(),
                message,
                retry_after: answer
                    .header(RETRY_AFTER)
                    .and_then(|text| text.parse().ok())
                    .map_or(Duration::ZERO, Duration::from_secs),
            },
        })
    }
}

fn authorization(credentials: &RegistryCredentials) -> Result<HeaderValue, tap53_http::Error> {
    let (path, text) = match credentials {
        RegistryCredentials::Password { username, password_file } => {
            let plain = format!("{username}:{}", secret(password_file)?);
            (password_file, format!("Basic {}", BASE64.encode(plain.as_bytes())))
        }
        RegistryCredentials::Token { token_file } => {
            (token_file, format!("Bearer {}", secret(token_file)?))
        }
    };
    sensitive(text, path)
}
