//! The `telemetry.otlp` section: the collector that metrics are exported to.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::ValueEnum;
use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use tap53_base::settings::{
    Section, as_milliseconds, boolean, choice, milliseconds, readable_file, text,
};
use tap53_http::base_url;

/// The path of metrics, which follows the endpoint.
const PATH: &str = "/v1/metrics";

/// Attributes of the resource that the agent sets itself.
const OWN: [&str; 3] = ["service.name", "service.version", "service.instance.id"];

/// Headers that the agent sets itself.
const OWN_HEADERS: [&str; 6] = [
    "content-type",
    "content-encoding",
    "content-length",
    "host",
    "transfer-encoding",
    "user-agent",
];

/// A collector, or a server that accepts OTLP/HTTP as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtlpConfig {
    /// Its address, `http://` or `https://`; `/v1/metrics` is appended unless it ends with that.
    pub endpoint: String,
    /// Headers of each request.
    #[serde(serialize_with = "headers_as_text", skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderValue>,
    /// Headers whose values are in files, which are read for each export.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header_files: BTreeMap<String, PathBuf>,
    /// True if values of `header_files` may be sent without TLS.
    pub allow_cleartext: bool,
    /// Certificates of the authorities to trust; `None`: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Time from one export to the next.
    #[serde(rename = "interval_ms", serialize_with = "as_milliseconds")]
    pub interval: Duration,
    /// The deadline of each request.
    #[serde(rename = "timeout_ms", serialize_with = "as_milliseconds")]
    pub timeout: Duration,
    /// Compression of requests.
    pub compression: Compression,
    /// Attributes of the resource in addition to the agent's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resource_attributes: BTreeMap<String, String>,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952.
    #[default]
    Gzip,
    /// None.
    None,
}

impl OtlpConfig {
    /// Reads the section; `None` if it has no usable endpoint, which is reported.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let endpoint = section.require("endpoint", text(base_url));
        let headers = section.section("headers", |section| {
            pairs(section, header_name, |section, name| section.read(name, text(header_value)))
        });
        let header_files = section.section("header_files", |section| {
            let check = section.path(readable_file);
            pairs(section, header_name, |section, name| section.read(name, &check))
        });
        let allow_cleartext = section.read("allow_cleartext", boolean).unwrap_or(false);
        let ca_file = section.read("ca_file", section.path(readable_file));
        let interval = section.read("interval_ms", milliseconds(1_000..=3_600_000));
        let timeout = section.read("timeout_ms", milliseconds(100..=300_000));
        let compression = section.read("compression", choice).unwrap_or_default();
        let resource_attributes = section.section("resource_attributes", |section| {
            pairs(section, attribute_name, |section, name| {
                section.read(name, text(attribute_value))
            })
        });
        if endpoint.iter().any(|url| url.contains(['@', '?'])) {
            // Without the value, which may hold a secret.
            section.refuse(
                "endpoint",
                None,
                "must not hold a name or a password, nor anything after the path: use header_files",
            );
        }
        if let Some(name) = headers.keys().find(|name| header_files.contains_key(*name)) {
            section.refuse_all(format!("{name} is in headers and in header_files: keep one"));
        }
        let endpoint = endpoint?;
        let is_secure = endpoint.starts_with("https:");
        if ca_file.is_some() && !is_secure {
            section.refuse_all("ca_file is for https, and the endpoint is not https");
        }
        if !header_files.is_empty() && !is_secure && !allow_cleartext {
            section.refuse_all(
                "the values of header_files are sent as they are, and without https everybody on \
                 the way can read them: use an https endpoint, or set allow_cleartext: true",
            );
        }
        Some(Self {
            endpoint,
            headers,
            header_files,
            allow_cleartext,
            ca_file,
            interval: interval.unwrap_or(Duration::from_secs(60)),
            timeout: timeout.unwrap_or(Duration::from_secs(10)),
            compression,
            resource_attributes,
        })
    }

    /// Returns the URL that metrics are posted to.
    #[must_use]
    pub fn url(&self) -> String {
        match self.endpoint.ends_with(PATH) {
            true => self.endpoint.clone(),
            false => format!("{}{PATH}", self.endpoint),
        }
    }
}

/// Reads a section whose keys are free, as far as `check` accepts them.
fn pairs<T>(
    section: &mut Section<'_>,
    check: impl Fn(&str) -> Result<String, String>,
    read: impl Fn(&mut Section<'_>, &str) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut pairs = BTreeMap::new();
    for key in section.keys() {
        let value = read(section, &key);
        match check(&key) {
            Ok(name) => pairs.extend(value.map(|value| (name, value))),
            Err(reason) => section.refuse(&key, None, reason),
        }
    }
    pairs
}

/// Returns a header's name in lower case, as HTTP/2 has it and `http` compares it.
fn header_name(name: &str) -> Result<String, String> {
    let name = HeaderName::try_from(name).map_err(|_| "is not the name of a header".to_owned())?;
    match OWN_HEADERS.contains(&name.as_str()) {
        true => Err("is set by the agent".to_owned()),
        false => Ok(name.as_str().to_owned()),
    }
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::try_from(text).map_err(|_| "cannot be the value of a header".to_owned())
}

fn attribute_name(name: &str) -> Result<String, String> {
    match name {
        "" => Err("must not be empty".to_owned()),
        name if OWN.contains(&name) => Err("is set by the agent".to_owned()),
        name => Ok(name.to_owned()),
    }
}

fn attribute_value(text: &str) -> Result<String, String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn headers_as_text<S: Serializer>(
    headers: &BTreeMap<String, HeaderValue>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        headers
            .iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(value.as_bytes()).into_owned())),
    )
}
