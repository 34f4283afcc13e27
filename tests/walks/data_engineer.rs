//! The data engineer's walk. The files are those of the sample. The topic has the records of
//! `docs/example.pcap`, as a replay with a real broker and a real schema registry sends them.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result};
use tap53_harness::{
    agent, kafka::Kafka, namespace::Namespace, process::run, python, registry::Registry, scratch,
};

use crate::{
    page::Walk,
    shell::{Shell, root},
};

const TOPIC: &str = "dns-transactions";

#[test]
fn the_data_engineers_walk_runs() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    // The capture is older than what a broker keeps by default.
    let kafka = Kafka::start_with_properties(&namespace, "log.retention.ms=-1\n")?;
    kafka.create_topic(TOPIC)?;
    let registry = Registry::start(&namespace)?;
    fill_topic(&namespace, &kafka.address(), &registry.url())?;

    let mut walk = Walk::open("data-engineer")?;
    let directory = scratch::directory("walk")?;
    link_sample(directory.path())?;
    walk.write_scripts(directory.path())?;
    let python = format!("exec {} \"$@\"", python::python()?.display());
    let shell = Shell::new()?
        .inside(&namespace)
        .directory(directory.path())
        .with_program("python3", &python)?
        .variable("BROKER", &kafka.address())
        .variable("REGISTRY", &registry.url())
        // DuckDB shows times in the local zone.
        .variable("TZ", "UTC");
    walk.run("From a file", &shell)?;
    walk.run("From the topic", &shell)?;
    walk.finish()
}

/// Sends the records of a capture to the topic, and the schema to the registry.
fn fill_topic(namespace: &Namespace, broker: &str, registry: &str) -> Result<()> {
    let directory = scratch::directory("topic")?;
    let configuration = directory.path().join("tap53.yaml");
    let sink = format!(
        "{{type: kafka, brokers: [\"{broker}\"], topic: {TOPIC}, registry: {{urls: [\"{registry}\"]}}}}"
    );
    fs::write(&configuration, format!("sinks: [{sink}]\n"))?;
    let mut replay = namespace.command(agent::binary()?);
    replay.args(["replay", "-c"]).arg(configuration).arg(root().join("docs/example.pcap"));
    run(&mut replay)?;
    Ok(())
}

/// Puts the sample's files into a directory.
fn link_sample(directory: &Path) -> Result<()> {
    for file in fs::read_dir(root().join("docs/sample"))? {
        let file = file?;
        let target = fs::canonicalize(file.path()).context("a file of the sample")?;
        symlink(target, directory.join(file.file_name()))?;
    }
    Ok(())
}
