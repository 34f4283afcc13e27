//! The operator's walk of the manual: each command of the page runs, and prints what the page has.
//!
//! `UPDATE_DOCS=1` writes what they print into the page.

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, ensure};
use tap53_harness::laboratory::Walk;

/// Begins the command after which the pods are replaced.
const CHANGE: &str = "kubectl patch";

/// The most lines of an output that are written into the page.
const MAX_LINES: usize = 12;

#[test]
fn each_command_of_the_operators_walk_prints_what_the_page_has() -> Result<()> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("walks/operator.md");
    let page = fs::read_to_string(&path)?;
    let mut blocks = page.split("```console\n");
    let mut written = blocks.next().unwrap_or_default().to_owned();
    let (mut steps, mut different) = (0, String::new());
    Walk::through(|walk| {
        for block in blocks {
            let (step, text) = block.split_once("```\n").context("the end of a block")?;
            let (command, expected) = step_of(step)?;
            let printed = walk.run(command)?;
            let missing = missing(expected, &printed);
            if !missing.is_empty() || (expected.is_empty() && !printed.is_empty()) {
                write!(different, "$ {command}\nlacks {missing:?}\n{printed}")?;
            }
            write!(written, "```console\n$ {command}\n{}```\n{text}", shortened(&printed))?;
            if command.starts_with(CHANGE) {
                walk.replace_pods(1)?;
            }
            steps += 1;
        }
        Ok(())
    })?;
    ensure!(steps >= 8, "too few commands: {steps}");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, written)?;
        return Ok(());
    }
    ensure!(
        different.is_empty(),
        "docs/walks/operator.md is old: run `UPDATE_DOCS=1 cargo test -p tap53-tests --test \
         operator_walk`\n{different}"
    );
    Ok(())
}

/// Returns the command of a block, which goes on after a backslash at a line's end, and its output.
fn step_of(block: &str) -> Result<(&str, &str)> {
    let block = block.strip_prefix("$ ").context("a block begins with `$ `")?;
    let lines = block.split_inclusive('\n');
    let mut length = 0;
    for line in lines {
        length += line.len();
        if !line.ends_with("\\\n") {
            break;
        }
    }
    let (command, output) = block.split_at(length);
    Ok((command.trim_end(), output))
}

/// Returns the lines of the page that a command did not print. Their order may differ.
fn missing<'a>(expected: &'a str, printed: &str) -> Vec<&'a str> {
    let printed: BTreeSet<String> = printed.lines().map(shape).collect();
    let expected = expected.lines().filter(|line| !line.starts_with('…'));
    expected.filter(|line| !printed.contains(&shape(line))).collect()
}

/// Returns a line with one space between its words and one sign for each number, since rates, times and
/// counts differ in each run.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for character in line.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match character {
            '0'..='9' if shape.ends_with('#') => {}
            '0'..='9' => shape.push('#'),
            '.' | ':' | ',' if shape.ends_with('#') => {}
            other => shape.push(other),
        }
    }
    shape
}

fn shortened(printed: &str) -> String {
    let mut lines: Vec<&str> = printed.lines().take(MAX_LINES).collect();
    if printed.lines().count() > MAX_LINES {
        lines.push("…");
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}
