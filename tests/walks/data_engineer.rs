//! The data engineer's walk: each command of the page runs and prints what the page shows. `UPDATE_DOCS=1`
//! writes the page's outputs.
//!
//! The files are those of the sample. The topic has the records of `docs/example.pcap`, as a replay with a
//! real broker and a real schema registry sends them.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tap53_harness::{
    agent, kafka::Kafka, namespace::Namespace, process::run, python, registry::Registry, scratch,
};
use tempfile::TempDir;

const TOPIC: &str = "dns-transactions";

/// Environment variables of the steps.
type Variables<'a> = [(&'a str, &'a str)];

#[test]
fn each_command_of_the_data_engineers_walk_prints_what_the_page_has() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    // The capture is older than what a broker keeps by default.
    let kafka = Kafka::start_with_properties(&namespace, "log.retention.ms=-1\n")?;
    kafka.create_topic(TOPIC)?;
    let registry = Registry::start(&namespace)?;
    fill_topic(&namespace, &kafka.address(), &registry.url())?;

    let path = docs().join("walks/data-engineer.md");
    let written = fs::read_to_string(&path)?;
    let walk = Walk::new(&namespace, &written)?;
    let variables = [("BROKER", &*kafka.address()), ("REGISTRY", &*registry.url())];
    let (page, ran) = walk.page(&written, &variables)?;
    ensure!(ran >= 7, "{ran} commands ran");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page)?;
    }
    ensure!(
        fs::read_to_string(&path)? == page,
        "{} is old: run `UPDATE_DOCS=1 cargo test -p tap53-tests --test data_engineer`; it should be\n{page}",
        path.display()
    );
    Ok(())
}

/// Sends the records of a capture to the topic, and the schema to the registry.
fn fill_topic(namespace: &Namespace, broker: &str, registry: &str) -> Result<()> {
    let directory = scratch::directory("walk")?;
    let configuration = directory.path().join("tap53.yaml");
    let sink = format!(
        "{{type: kafka, brokers: [\"{broker}\"], topic: {TOPIC}, registry: {{urls: [\"{registry}\"]}}}}"
    );
    fs::write(&configuration, format!("sinks: [{sink}]\n"))?;
    let mut replay = namespace.command(agent::binary()?);
    replay.args(["replay", "-c"]).arg(configuration).arg(docs().join("example.pcap"));
    run(&mut replay)?;
    Ok(())
}

/// A directory in which the steps of a page run.
struct Walk<'a> {
    namespace: &'a Namespace,
    directory: TempDir,
}

impl<'a> Walk<'a> {
    /// Prepares a directory with the sample's files, the programs by their usual names, and the page's
    /// scripts, each of which begins with its name.
    fn new(namespace: &'a Namespace, page: &str) -> Result<Self> {
        let directory = scratch::directory("walk")?;
        for file in fs::read_dir(docs().join("sample"))? {
            let file = file?;
            symlink(fs::canonicalize(file.path())?, directory.path().join(file.file_name()))?;
        }
        for (language, text) in blocks(page) {
            if language == "python" {
                let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
                let name = name.context("a script has no name")?;
                fs::write(directory.path().join(name), format!("{text}\n"))?;
            }
        }
        let programs = directory.path().join("bin");
        fs::create_dir(&programs)?;
        symlink(agent::binary()?, programs.join("tap53"))?;
        Ok(Self { namespace, directory })
    }

    /// Runs all blocks of commands, in their order; returns the page as it should be, and how many commands
    /// ran.
    fn page(&self, written: &str, variables: &Variables<'_>) -> Result<(String, usize)> {
        let mut page = written.to_owned();
        let mut ran = 0;
        for (_, block) in blocks(written).filter(|(language, _)| *language == "console") {
            let mut shown = Vec::new();
            for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
                shown.push(format!("$ {command}"));
                let printed = self.output(command, variables)?;
                shown.extend(printed.trim_end().lines().map(str::to_owned));
                ran += 1;
            }
            page = page.replacen(block, &shown.join("\n"), 1);
        }
        Ok((page, ran))
    }

    /// Runs a command as a shell does; returns what a terminal would show.
    fn output(&self, command: &str, variables: &Variables<'_>) -> Result<String> {
        let python = python::python()?;
        let python = python.parent().context("a directory of programs")?;
        let programs = self.directory.path().join("bin");
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = [programs, python.to_owned()].into_iter().chain(env::split_paths(&inherited));
        let mut shell: Command = self.namespace.command("sh");
        shell
            .args(["-c", &format!("{command} 2>&1")])
            .current_dir(self.directory.path())
            .env("PATH", env::join_paths(path)?)
            // DuckDB shows times in the local zone.
            .env("TZ", "UTC")
            .envs(variables.iter().copied());
        let output = shell.output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{command}: {}\n{printed}", output.status);
        Ok(printed)
    }
}

/// Returns the blocks of code of a page: the language and the text of each.
fn blocks(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs")
}
