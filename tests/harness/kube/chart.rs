//! helm, and the chart in `deploy/`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::programs;
use crate::{process::run, scratch};

/// The release and its namespace in the plain manifests.
pub const RELEASE: &str = "tap53";

/// Runs helm with `arguments`, which need no server.
///
/// # Errors
/// When it cannot be built, or fails; with its message.
pub fn helm(arguments: &[&str]) -> Result<String> {
    // It would make directories in the user's home.
    let home = scratch::directory("helm")?;
    let mut command = Command::new(programs()?.path("helm"));
    run(command.args(arguments).env("HOME", home.path()).env_remove("KUBECONFIG"))
}

/// Returns the directory of the chart.
#[must_use]
pub fn chart() -> PathBuf {
    deploy().join("helm/tap53")
}

/// Returns the path of the plain manifests.
#[must_use]
pub fn manifests() -> PathBuf {
    deploy().join("manifests/tap53.yaml")
}

/// The chart's objects with `arguments` for `helm template`, as `helm install` creates them, and with
/// brokers in place of the placeholders.
///
/// # Errors
/// When helm refuses the values, or a template.
pub fn render(arguments: &[&str]) -> Result<String> {
    template(&[&["--skip-tests"], arguments].concat())
}

/// The same, with what helm writes to standard error.
///
/// # Errors
/// See [`render`].
pub fn render_with_warnings(arguments: &[&str]) -> Result<(String, String)> {
    let chart = chart();
    let home = scratch::directory("helm")?;
    let mut command = Command::new(programs()?.path("helm"));
    command.args(["template", RELEASE]).arg(&chart).args(["--namespace", RELEASE, "--skip-tests"]);
    command.arg("--values").arg(brokers());
    let output = command.args(arguments).env("HOME", home.path()).output()?;
    let (stdout, stderr) =
        (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
    ensure!(output.status.success(), "{stderr}");
    Ok((stdout, stderr))
}

/// The pod of `helm test`.
///
/// # Errors
/// When helm refuses the values, or there is no such pod with them.
pub fn render_test(arguments: &[&str]) -> Result<String> {
    template(&[&["--show-only", "templates/tests/probe.yaml"], arguments].concat())
}

/// The same, with the chart's own values.
///
/// # Errors
/// See [`render`].
pub fn render_defaults(arguments: &[&str]) -> Result<String> {
    let chart = chart();
    let chart = chart.to_str().context("a path in UTF-8")?;
    helm(&[&["template", RELEASE, chart, "--namespace", RELEASE], arguments].concat())
}

/// Values with brokers and a registry.
fn brokers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/kube/values.yaml")
}

fn template(arguments: &[&str]) -> Result<String> {
    let (chart, brokers) = (chart(), brokers());
    let [chart, brokers] = [&chart, &brokers].map(|path| path.to_str().context("a path in UTF-8"));
    let fixed = ["template", RELEASE, chart?, "--namespace", RELEASE, "--values", brokers?];
    helm(&[&fixed[..], arguments].concat())
}

/// Renders the plain manifests.
///
/// # Errors
/// See [`render`].
pub fn rendered_manifests() -> Result<String> {
    let values = deploy().join("manifests/values.yaml");
    let objects = render(&["--values", values.to_str().context("a path in UTF-8")?])?;
    Ok(format!(
        "# Made of the chart by `cargo xtask manifests`: change deploy/helm/tap53 instead.\n{objects}"
    ))
}

/// Returns each file that the chart takes from elsewhere in `deploy/`, with its copy: helm reads no files
/// outside of the chart's directory.
#[must_use]
pub fn copied_files() -> [(PathBuf, PathBuf); 4] {
    let names = [
        "prometheus/alerts.yaml",
        "prometheus/dns-alerts.yaml",
        "grafana/tap53.json",
        "grafana/tap53-dns.json",
    ];
    names.map(|name| (deploy().join(name), chart().join("files").join(name)))
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy")
}
