//! The client for HTTP servers: a schema registry, an authorization server, an OpenTelemetry collector.
//!
//! - It trusts the authorities in a file, or those of the system. The file is read for each new client.
//! - A request and its answer have a deadline, and an answer has a maximum size.
//! - Redirects are not followed, since that would send the credentials along.
//!
//! For the API server of Kubernetes, `kube` has a client, with the ways to log in that a kubeconfig may
//! name.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;
mod url;

pub use url::{base_url, has_usable_port};

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header::USER_AGENT};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tap53_base::{
    files::{read_secret, read_secret_text},
    visible::{visible, with_causes},
};
use tokio::time::timeout;

/// The most characters of a server's text that are shown.
const MAX_SHOWN: usize = 300;

/// Reasons why a request has no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file with a secret or with certificates cannot be used.
    #[error("cannot use {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// There is no connection, or it broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Its certificate does not verify.
    #[error(
        "has a certificate that is not trusted ({0}): check the file of authorities, and the host \
         in the URL"
    )]
    Untrusted(String),
    /// No whole answer came in time.
    #[error("does not answer within {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The answer breaks off, is too long, or is not the one expected.
    #[error("gives an answer that cannot be read: {0}")]
    Unreadable(String),
}

impl Error {
    fn of_connection(error: &(dyn std::error::Error + 'static)) -> Self {
        match certificate_error(error) {
            Some(error) => Self::Untrusted(error.to_string()),
            None => Self::Unreachable(with_causes(error)),
        }
    }

    /// Returns the error for a file that cannot be used.
    #[must_use]
    pub fn file(path: &Path, why: &dyn fmt::Display) -> Self {
        Self::File { path: path.to_owned(), why: why.to_string() }
    }
}

/// An answer of any status.
pub struct Answer {
    /// Its status code.
    pub status: StatusCode,
    headers: HeaderMap,
    /// Its complete body.
    pub body: Bytes,
}

impl Answer {
    /// Returns the value of a header, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the beginning of its body, for the log.
    #[must_use]
    pub fn shown(&self) -> String {
        // Enough for what is shown, each character of at most four bytes.
        shortened(&String::from_utf8_lossy(&self.body[..self.body.len().min(4 * MAX_SHOWN)]))
    }
}

/// A client of one server, or of the instances of one.
pub struct Client {
    inner: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    max_answer: usize,
}

impl Client {
    /// Reads the certificates, unless all of `urls` are in the clear. Answers of more than
    /// `max_answer` bytes are refused.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn new(
        urls: &[String],
        ca_file: Option<&Path>,
        timeout: Duration,
        max_answer: usize,
    ) -> Result<Self, Error> {
        let is_secure = urls.iter().any(|url| url.starts_with("https:"));
        let builder = HttpsConnectorBuilder::new().with_tls_config(trust(is_secure, ca_file)?);
        let connector = match urls.iter().all(|url| url.starts_with("https:")) {
            true => builder.https_only().enable_http1().build(),
            false => builder.https_or_http().enable_http1().build(),
        };
        let inner = HyperClient::builder(TokioExecutor::new()).build(connector);
        Ok(Self { inner, timeout, max_answer })
    }

    /// Sends a request, and waits for the complete answer.
    ///
    /// # Errors
    /// When no complete answer comes in time. An answer of any status is no error.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        match timeout(self.timeout, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Silent(self.timeout)),
        }
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let agent = HeaderValue::from_static(concat!("tap53/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let response = self.inner.request(request).await;
        let (head, body) = response.map_err(|error| Error::of_connection(&error))?.into_parts();
        let body = Limited::new(body, self.max_answer).collect().await;
        let body = body.map_err(|error| Error::Unreadable(with_causes(&*error)))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// Finds rustls' error about a certificate. `io::Error`s around it do not have it as their `source()`.
fn certificate_error<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(error)) = error.downcast_ref() {
        return Some(error);
    }
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => certificate_error(inner),
        None => certificate_error(error.source()?),
    }
}

/// Returns a configuration that trusts the authorities in a file, or the system's.
fn trust(is_secure: bool, ca_file: Option<&Path>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder();
    let builder = match ca_file {
        // Reading the system's takes a while, and fails if there are none.
        _ if !is_secure => builder.with_root_certificates(RootCertStore::empty()),
        None => builder
            .with_native_roots()
            .map_err(|error| Error::Unreachable(format!("the system's authorities: {error}")))?,
        Some(path) => builder.with_root_certificates(authorities(path)?),
    };
    Ok(builder.with_no_client_auth())
}

fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let wrong = |why: &dyn fmt::Display| Error::file(path, why);
    let mut roots = RootCertStore::empty();
    let pem = read_secret(path).map_err(|error| wrong(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(roots) }
}

/// Runs requests on this thread until they are answered.
///
/// # Errors
/// When there can be no runtime for them.
pub fn block_on<T>(requests: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Unreachable(error.to_string()))?;
    let answer = runtime.block_on(requests);
    // Do not wait for the threads of the system's name resolution.
    runtime.shutdown_background();
    Ok(answer)
}

/// Reads a secret that is sent to a server.
///
/// # Errors
/// When the file cannot be read, or is not text.
pub fn secret(path: &Path) -> Result<String, Error> {
    read_secret_text(path).map_err(|error| Error::file(path, &error))
}

/// Returns a header with a secret from `path`; see [`HeaderValue::is_sensitive`].
///
/// # Errors
/// When the text cannot be in a header.
pub fn sensitive(text: String, path: &Path) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Error::file(path, &"it holds what cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns a server's text as one line for the log.
#[must_use]
pub fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = visible(&line);
    let mut shown: String = line.chars().take(MAX_SHOWN).collect();
    if line.chars().count() > MAX_SHOWN {
        shown.push('…');
    }
    shown
}
