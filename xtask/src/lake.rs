//! `cargo xtask lake`: kills on the way to the lake, and the table in `docs/lake.md` made of what became
//! of the records.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    test,
    workspace::{Workspace, output, run as run_command},
};

const DOCUMENT: &str = "docs/lake.md";
const BEGIN: &str = "<!-- made by `cargo xtask lake` -->\n";
const END: &str = "<!-- end -->\n";

/// Arguments of `cargo xtask lake`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Number of transactions
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(8..))]
    records: u32,
}

/// Runs the trial and writes the table, only if nothing speaks against it.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let runner = test::runner(workspace)?;
    setup::install_missing(workspace, Purpose::Test)?;
    build_ebpf::run(workspace)?;
    run_command(workspace.cargo().args(["build", "--quiet", "--package", "tap53"]))?;
    let directory = workspace.target.join("lake");
    fs::create_dir_all(&directory)?;
    let rows = directory.join("rows.md");
    run_command(
        workspace
            .cargo()
            .args(["bench", "--quiet", "--package", "tap53-tests", "--bench", "lake_kills"])
            // Not optimized: the time goes into JVMs.
            .args(["--profile", "dev"])
            .args(&runner)
            .env("TAP53_BIN", workspace.target.join("debug/tap53"))
            .env("TAP53_LAKE_RECORDS", arguments.records.to_string())
            .env("TAP53_LAKE_TABLE", &rows),
    )?;
    let path = workspace.root.join(DOCUMENT);
    let document = fs::read_to_string(&path)?;
    let date = output(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
    let table = format!("\n{date}:\n\n{}\n", fs::read_to_string(&rows)?);
    fs::write(&path, with_table(&document, &table)?)?;
    println!("wrote {DOCUMENT}");
    Ok(())
}

fn with_table(document: &str, table: &str) -> Result<String> {
    let (before, rest) =
        document.split_once(BEGIN).with_context(|| format!("no {BEGIN:?} in {DOCUMENT}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no {END:?} in {DOCUMENT}"))?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("a\n{BEGIN}old\n{END}b\n");
        let expected = format!("a\n{BEGIN}new\n{END}b\n");
        assert_eq!(with_table(&document, "new\n").expect("both marks"), expected);
        assert!(with_table("a\n", "new\n").is_err());
    }
}
