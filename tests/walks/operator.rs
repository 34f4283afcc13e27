//! The operator's walk: a workload whose search list floods the resolver, found and ended.

use anyhow::Result;
use tap53_harness::{laboratory::Flood, python};

use crate::{
    page::Walk,
    shell::{Shell, root},
};

/// The `ndots` of the page's change.
const NDOTS: u8 = 1;

#[test]
fn the_operators_walk_runs() -> Result<()> {
    let mut walk = Walk::open("operator")?;
    Flood::through(|flood| {
        let driver = root().join("tests/harness/python/duckdb_csv.py");
        let duckdb = format!("exec {} {} \"$@\"", python::python()?.display(), driver.display());
        let shell = Shell::new()?
            .inside(flood.node())
            .agent(flood.agent())?
            .with_program("kubectl", flood.kubectl())?
            .with_program("duckdb", &duckdb)?
            .variable("RECORDS", &flood.agent().directory().display().to_string())
            .variable("COLUMNS", "100")
            .without_numbers();
        for section in [
            "The alert",
            "Can the numbers be trusted?",
            "Who queries for names that do not exist?",
            "Which names?",
            "How many of them are in the records?",
            "What would end it?",
            "The change",
        ] {
            walk.run(section, &shell)?;
        }
        flood.replace_pods(NDOTS)?;
        walk.run("The effect", &shell)
    })?;
    walk.finish()
}
