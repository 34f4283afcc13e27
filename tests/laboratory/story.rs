//! The picture of the README: one lookup of a pod, as it is recorded today.

use std::{env, fs, path::Path};

use anyhow::{Context, Result, ensure};
use tap53_harness::laboratory::Story;

const BEGIN: &str = "<!-- printed by `cargo xtask story` -->\n```text\n";
const END: &str = "```\n";
/// Width of the README on its page.
const MOST_COLUMNS: usize = 100;

#[test]
fn the_readme_shows_a_lookup_as_it_is_recorded() -> Result<()> {
    let story = Story::record()?.to_string();
    println!("{story}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("README.md");
    let page = fs::read_to_string(&path)?;
    let (before, rest) = page.split_once(BEGIN).context("no picture in README.md")?;
    let (shown, after) = rest.split_once(END).context("the picture has no end")?;
    if env::var_os("UPDATE_DOCS").is_some() && masked(shown) != masked(&story) {
        fs::write(&path, format!("{before}{BEGIN}{story}{END}{after}"))?;
    } else {
        ensure!(
            masked(shown) == masked(&story),
            "README.md shows another lookup: run `cargo xtask story`\n{story}"
        );
    }
    let widest = story.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    ensure!(widest <= MOST_COLUMNS, "{widest} columns");
    Ok(())
}

/// The text without its times, whose digits and width differ in each run.
fn masked(text: &str) -> Vec<String> {
    let word = |word: &str| match word.split_once('.') {
        Some((whole, part)) if part.len() == 2 && whole.parse::<u64>().is_ok() => "_".to_owned(),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect()
}
