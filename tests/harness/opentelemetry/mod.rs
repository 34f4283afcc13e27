//! The OpenTelemetry Collector, built once from Go modules.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{cache, kafka::Security, kube::go, namespace::Namespace, process::Process, scratch};

const GO_MOD: &str = include_str!("programs/go.mod");
const MAIN: &str = include_str!("programs/collector/main.go");
const MODULE: &str = "go.opentelemetry.io/collector/otelcol ";
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Logged once its port is open.
const READY: &str = "Everything is ready.";

/// The usual port. The namespace is the test's own, so the port is free.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4318);

/// The program; built now if it is not in the cache yet, which takes two minutes.
///
/// # Errors
/// When there is no Go new enough, a module cannot be fetched, or it does not compile.
pub fn program() -> Result<PathBuf> {
    let name = cache_name()?;
    let cache = cache::directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    // Several tests may come here at once; two builds would take twice as long as one.
    let lock = File::create(cache.join(format!(".{name}.lock")))?;
    lock.lock().context("wait for another process that builds the collector")?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/opentelemetry/programs");
    let directory = cache::filled(&name, |target| {
        go()?.build(&sources, "./collector", &target.join("collector"), "-s -w")
    })?;
    Ok(directory.join("collector"))
}

/// True if [`program`] has nothing to build.
///
/// # Errors
/// Without a cache directory.
pub fn is_built() -> Result<bool> {
    Ok(cache::directory()?.join(cache_name()?).is_dir())
}

/// Ends with the length of the program, which changes with its parts.
fn cache_name() -> Result<String> {
    let line = GO_MOD.lines().find_map(|line| line.split_once(MODULE));
    let version = line.and_then(|(_, rest)| rest.split_whitespace().next());
    let version = version.context("programs/go.mod does not require the collector")?;
    Ok(format!("opentelemetry-collector-{version}-{}", MAIN.len()))
}

/// Files and secrets with which a collector accepts requests.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// The authority of its certificate.
    pub security: &'a Security,
    /// The bearer token that it requires.
    pub token: &'a str,
}

/// A running collector; dropping it kills it.
pub struct Collector {
    process: Process,
    _directory: TempDir,
}

impl Collector {
    /// Starts it on [`ADDRESS`] in `namespace`, and waits until it accepts requests. It appends them to
    /// the file `received`, or is busy while there is a [`busy_file`]. With `access`, it requires TLS and a
    /// token.
    ///
    /// # Errors
    /// When it cannot be built or does not start.
    pub fn start(
        namespace: &Namespace,
        received: &Path,
        access: Option<Access<'_>>,
    ) -> Result<Self> {
        let directory = scratch::directory("collector")?;
        let mut http = json!({"endpoint": ADDRESS.to_string()});
        let mut extensions = json!({});
        if let Some(Access { security, token }) = access {
            http["tls"] = json!({
                "cert_file": security.path("broker.pem"), "key_file": security.path("broker.key"),
            });
            http["auth"] = json!({"authenticator": "bearertokenauth"});
            extensions["bearertokenauth"] = json!({"token": token});
        }
        let names: Vec<_> = extensions.as_object().into_iter().flat_map(|of| of.keys()).collect();
        // JSON is YAML.
        let configuration = json!({
            "extensions": extensions,
            "receivers": {"otlp": {"protocols": {"http": http}}},
            "exporters": {"lines": {"path": received, "busy": busy_file(received)}},
            "service": {
                "extensions": names,
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"metrics": {"receivers": ["otlp"], "exporters": ["lines"]}},
            },
        });
        let path = directory.path().join("collector.yaml");
        fs::write(&path, configuration.to_string())?;
        let mut command = namespace.command(program()?);
        command.arg(format!("--config=file:{}", path.display()));
        let process = Process::spawn("collector", command)?;
        process.wait_for_line(READY, 0, START_DEADLINE)?;
        Ok(Self { process, _directory: directory })
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr().text()
    }
}

/// The file that makes a collector busy, which appends to the file `received`. It has the time after which
/// to retry, such as `2s`.
#[must_use]
pub fn busy_file(received: &Path) -> PathBuf {
    received.with_extension("busy")
}

/// A point as the collector received it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Attributes in the order of their names, each as `name=value`.
    pub attributes: Vec<String>,
    /// The value, or the number of observations of a histogram.
    pub value: f64,
    /// The observations by bucket; empty unless it is of a histogram.
    pub buckets: Vec<f64>,
    /// Start of counting, in nanoseconds since 1970; 0 for a gauge.
    pub started_at_ns: u64,
}

/// A request as the collector received it.
#[derive(Clone, Debug)]
pub struct Request(Value);

impl Request {
    /// The complete requests in the file `received`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn all(received: &Path) -> Result<Vec<Self>> {
        let text = fs::read_to_string(received).context("what the collector received")?;
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| Ok(Self(serde_json::from_str(line)?))).collect()
    }

    /// The attributes of the resource, each as `name=value`.
    #[must_use]
    pub fn resource(&self) -> Vec<String> {
        attributes(&self.0["resourceMetrics"][0]["resource"])
    }

    /// The metric of this name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&Value> {
        let metrics = self.0["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array()?;
        metrics.iter().find(|metric| metric["name"] == name)
    }

    /// The points of the metric of this name; none if there is no such metric.
    #[must_use]
    pub fn points(&self, name: &str) -> Vec<Point> {
        let Some(metric) = self.metric(name) else { return Vec::new() };
        let data = ["sum", "gauge", "histogram"].iter().find_map(|kind| metric.get(kind));
        let points = data.and_then(|data| data["dataPoints"].as_array());
        points.into_iter().flatten().map(point).collect()
    }

    /// The sum over the points of this name.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        self.points(name).iter().map(|point| point.value).sum()
    }
}

fn point(point: &Value) -> Point {
    // Proto3's JSON has 64 bit numbers as text, and leaves out what is 0.
    let number = |value: &Value| {
        let text = value.as_str().and_then(|text| text.parse().ok());
        text.or_else(|| value.as_f64()).unwrap_or_default()
    };
    let value = if point.get("bucketCounts").is_some() { "count" } else { "asDouble" };
    let buckets = point["bucketCounts"].as_array();
    let started_at = point["startTimeUnixNano"].as_str().unwrap_or_default();
    Point {
        attributes: attributes(point),
        value: number(&point[value]),
        buckets: buckets.into_iter().flatten().map(number).collect(),
        started_at_ns: started_at.parse().unwrap_or_default(),
    }
}

fn attributes(of: &Value) -> Vec<String> {
    let attribute = |attribute: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{}={}", text(&attribute["key"]), text(&attribute["value"]["stringValue"]))
    };
    let attributes = of["attributes"].as_array().into_iter().flatten();
    let mut attributes: Vec<_> = attributes.map(attribute).collect();
    attributes.sort();
    attributes
}
