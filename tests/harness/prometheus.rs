//! Prometheus, as Debian has it, which scrapes one target every second.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use form_urlencoded::Serializer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    http::{JsonAnswer, JsonRequest},
    namespace::Namespace,
    process::Process,
    scratch,
};

const START_DEADLINE: Duration = Duration::from_secs(60);

/// Logged once it answers queries.
const READY: &str = "Server is ready to receive web requests.";

/// The usual port. The namespace is the test's own, so the port is free.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// A running Prometheus; dropping it kills it and removes its data.
pub struct Prometheus<'a> {
    namespace: &'a Namespace,
    _process: Process,
    _directory: TempDir,
}

impl<'a> Prometheus<'a> {
    /// Starts Prometheus on loopback of `namespace`, and waits until it answers queries. It scrapes
    /// `target` and evaluates the rules of these files, each every second.
    ///
    /// # Errors
    /// When it is not installed or does not start; the message ends with its log.
    pub fn start(
        namespace: &'a Namespace,
        target: SocketAddr,
        rule_files: &[PathBuf],
    ) -> Result<Self> {
        let directory = scratch::directory("prometheus")?;
        let path = directory.path().join("prometheus.yml");
        // JSON is YAML.
        let configuration = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rule_files,
            "scrape_configs": [{
                "job_name": "tap53",
                "static_configs": [{"targets": [target.to_string()]}],
            }],
        });
        fs::write(&path, configuration.to_string())?;
        let mut command = namespace.command("prometheus");
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={ADDRESS}"));
        let process =
            Process::spawn("prometheus", command).context("prometheus, a package of Debian")?;
        process.wait_for_line(READY, 0, START_DEADLINE)?;
        Ok(Self { namespace, _process: process, _directory: directory })
    }

    /// Evaluates a query now, and returns the values of its series.
    ///
    /// # Errors
    /// When the query is invalid or fails, with the message of Prometheus.
    pub fn query(&self, query: &str) -> Result<Vec<f64>> {
        let body = Serializer::new(String::new()).append_pair("query", query).finish();
        let data = self.request("POST", "/api/v1/query", &body)?;
        let series = data["result"].as_array().context("series")?;
        series
            .iter()
            .map(|series| Ok(series["value"][1].as_str().context("a value")?.parse()?))
            .collect()
    }

    /// Returns the values that a label of the selected series has.
    ///
    /// # Errors
    /// When the selector is invalid.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let query = Serializer::new(String::new()).append_pair("match[]", selector).finish();
        let data = self.request("GET", &format!("/api/v1/label/{label}/values?{query}"), "")?;
        Ok(serde_json::from_value(data)?)
    }

    /// Returns all rules with their state, as its API describes them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let data = self.request("GET", "/api/v1/rules", "")?;
        let groups = data["groups"].as_array().context("groups of rules")?;
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let content_type = "application/x-www-form-urlencoded";
        let request = JsonRequest { method, path, content_type, body };
        let JsonAnswer { code, mut body } = request.send(self.namespace, ADDRESS)?;
        ensure!(code == 200 && body["status"] == "success", "{code}: {}", body["error"]);
        Ok(body["data"].take())
    }
}
