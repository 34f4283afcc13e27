//! `cargo xtask bench --system`: builds, measures as root, and writes the tables.

use std::{env, fs, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};
use tap53_harness::system::{Plan, Section};

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    workspace::{Workspace, as_root, output, run as run_command},
};

/// The document with the table of a section.
const fn document(section: Section) -> &'static str {
    match section {
        Section::Watches => "docs/scale.md",
        _ => "docs/performance.md",
    }
}

/// Options of the system benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these sections (gateway, node, resolver, agent, threads, delay, capacity, producers, services,
    /// watches); other tables are not changed. May be repeated [default: all]
    #[arg(long, requires = "system", value_name = "SECTION", value_parser = section)]
    only: Vec<Section>,
    /// Only check that everything runs, in a minute or two, with a debug build of the agent unless
    /// TAP53_BIN names another one; prints the tables and writes nothing
    #[arg(long, requires = "system")]
    short: bool,
    /// Only measure: everything is installed and built. The task calls itself with this option, as root
    #[arg(long, requires = "system", hide = true)]
    staged: bool,
}

fn section(name: &str) -> Result<Section> {
    let found = Section::ALL.into_iter().find(|section| section.to_string() == name);
    let names = Section::ALL.map(|section| section.to_string()).join(", ");
    found.with_context(|| format!("no such section; there are {names}"))
}

/// Builds everything, and continues as root.
pub(super) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.staged {
        return measure(workspace, options);
    }
    let mut as_root = as_root("the measurements")?;
    setup::install_missing(workspace, Purpose::Test)?;
    let binary = match env::var_os("TAP53_BIN") {
        Some(binary) => binary,
        None => build(workspace, options.short)?.into(),
    };
    as_root
        .arg(format!("TAP53_BIN={}", Path::new(&binary).display()))
        .arg(format!("TAP53_CACHE={}", workspace.cache.display()))
        .arg(format!("CARGO_TARGET_DIR={}", workspace.target.display()))
        .arg(env::current_exe().context("cannot find this program")?)
        .args(["bench", "--system", "--staged"])
        .args(options.short.then_some("--short"))
        .args(options.only.iter().map(|section| format!("--only={section}")));
    // In place of this process: a signal sent to it then reaches the one that cleans up.
    Err(as_root.exec()).context("cannot start the part that needs root")
}

fn build(workspace: &Workspace, short: bool) -> Result<std::path::PathBuf> {
    build_ebpf::run(workspace)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--package", "tap53"]).args((!short).then_some("--release"));
    run_command(&mut cargo)?;
    Ok(workspace.target.join(if short { "debug" } else { "release" }).join("tap53"))
}

fn measure(workspace: &Workspace, options: &Options) -> Result<()> {
    let plan = if options.short { Plan::short() } else { Plan::full() };
    let chosen = Section::ALL
        .into_iter()
        .filter(|section| options.only.is_empty() || options.only.contains(section));
    for section in chosen {
        let circumstances = circumstances(workspace)?;
        let tables = section.measure(&plan).with_context(|| format!("section {section}"))?;
        println!("── {section}\n\n{circumstances}\n\n{tables}");
        if !options.short {
            let path = workspace.root.join(document(section));
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let part = format!("{circumstances}\n\n{}", tables.trim_end());
            let text = replaced(&text, &section.to_string(), &part);
            fs::write(&path, text.with_context(|| path.display().to_string())?)
                .with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// The document with the part between the marks of `name` replaced.
fn replaced(text: &str, name: &str, part: &str) -> Result<String> {
    let [begin, end] = ["begin", "end"].map(|what| format!("<!-- {what} {name} -->"));
    let missing = || format!("no {begin} with {end} after it");
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok(format!("{before}{begin}\n{part}\n\n{end}{after}"))
}

/// Describes the machine and versions of the figures.
fn circumstances(workspace: &Workspace) -> Result<String> {
    let date = output(Command::new("date").args(["--utc", "+%Y-%m-%d %H:%M"]))?;
    let mut git = Command::new("git");
    let commit = output(git.current_dir(&workspace.root).args(["rev-parse", "--short", "HEAD"]))?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let load = fs::read_to_string("/proc/loadavg")?;
    let kafka = tap53_harness::kafka::version()?;
    Ok(format!(
        "_{date} UTC, commit {commit}; {} CPUs ({model}), Linux {}, Apache Kafka {kafka}; load average \
         before: {}._",
        std::thread::available_parallelism()?,
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_replaced_between_its_marks() {
        let text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
        let new = "a\n<!-- begin x -->\nnew\n\n<!-- end x -->\nb\n";
        assert_eq!(replaced(text, "x", "new").expect("marks"), new);
        assert_eq!(replaced(new, "x", "new").expect("marks"), new);
        assert!(replaced("a <!-- end x --> <!-- begin x -->", "x", "new").is_err());
    }

    #[test]
    fn each_section_has_a_place_in_its_document() {
        for section in Section::ALL {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(document(section));
            let text = fs::read_to_string(path).expect("the document");
            replaced(&text, &section.to_string(), "").expect("a place");
        }
    }
}
