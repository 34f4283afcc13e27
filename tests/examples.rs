//! The files of `examples/`: the agent and the chart accept each configuration, and the reader reads
//! records of the agent. None of this needs root.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tap53_harness::{agent, kafka::Security, kube, python};
use tempfile::TempDir;

/// Precedes the agent's configuration in values of the chart.
const CHART_SECTION: &str = "\nconfig:\n";

#[test]
fn every_example_is_listed_and_every_configuration_is_valid() -> Result<()> {
    let list = fs::read_to_string(examples().join("README.md"))?;
    let stage = Stage::new()?;
    let mut configurations = 0;
    for entry in fs::read_dir(examples())? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        ensure!(
            name == "README.md" || list.contains(&format!("]({name})")),
            "examples/README.md does not list {name}"
        );
        if name.ends_with(".yaml") {
            let text = fs::read_to_string(&path)?;
            let configuration = stage.write(&name, &configuration_of(&text))?;
            let mut check = Command::new(agent::binary()?);
            check.args(["check-config", "-c"]).arg(configuration);
            if text.contains(CHART_SECTION) {
                // The chart adds its interfaces.
                check.args(["-i", "kind:pods"]);
            }
            output(&mut check).with_context(|| format!("examples/{name}"))?;
            configurations += 1;
        }
    }
    ensure!(configurations > 2, "too few configurations to check: {configurations}");
    Ok(())
}

#[test]
fn the_chart_accepts_the_values() -> Result<()> {
    let values = examples().join("kubernetes-values.yaml").display().to_string();
    let chart = kube::chart().display().to_string();
    kube::helm(&["lint", "--strict", &chart, "--values", &values])?;
    Ok(())
}

#[test]
fn the_reader_finds_the_unanswered_query_in_files_of_the_agent() -> Result<()> {
    let stage = Stage::new()?;
    let text = fs::read_to_string(examples().join("resolver.yaml"))?;
    let configuration = stage.write("resolver.yaml", &text)?;
    let capture = examples().join("../docs/example.pcap");
    output(Command::new(agent::binary()?).args(["replay", "-c"]).arg(configuration).arg(capture))?;
    let files = fs::read_dir(stage.records())?.map(|entry| Ok(entry?.path()));
    let files: Vec<_> = files.collect::<Result<_>>()?;
    let reader = examples().join("unanswered.py");
    let printed = output(Command::new(python::python()?).arg(reader).args(files))?;
    ensure!(printed == "1\t10.96.0.10\tMX\tgone.example.com\n", "{printed:?}");
    Ok(())
}

/// A temporary directory in place of those that the examples name, with their files.
struct Stage(TempDir);

impl Stage {
    fn new() -> Result<Self> {
        let stage = Self(TempDir::new()?);
        fs::create_dir_all(stage.records())?;
        fs::copy(Security::new()?.path("ca.pem"), stage.0.path().join("ca.pem"))?;
        let password = stage.0.path().join("password");
        fs::write(&password, "a password\n")?;
        fs::set_permissions(password, Permissions::from_mode(0o600))?;
        Ok(stage)
    }

    fn records(&self) -> PathBuf {
        self.0.path().join("records")
    }

    /// Writes a configuration whose paths are below this directory.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let here = self.0.path().to_string_lossy();
        let path = self.0.path().join(name);
        fs::write(&path, text.replace("/etc/tap53", &here).replace("/var/lib/tap53", &here))?;
        Ok(path)
    }
}

/// Returns the agent's configuration: the whole text, or the value of `config` in values of the chart.
fn configuration_of(text: &str) -> String {
    let Some((_, rest)) = text.split_once(CHART_SECTION) else { return text.to_owned() };
    let lines = rest.lines().map_while(|line| line.strip_prefix("  "));
    lines.map(|line| format!("{line}\n")).collect()
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}
