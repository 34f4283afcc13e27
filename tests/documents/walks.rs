//! The steps of a walk print what its page shows.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tap53_harness::{agent, python};
use tempfile::TempDir;

use super::docs;

/// A page and the directory in which its steps run.
struct Walk {
    page: PathBuf,
    directory: TempDir,
}

/// A block of code: its language and its text.
type Block<'a> = (&'a str, &'a str);

/// Returns the blocks of a page.
fn blocks(page: &str) -> impl Iterator<Item = Block<'_>> {
    page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
}

impl Walk {
    /// Prepares a directory with the sample's files and the page's scripts, each of which begins with its
    /// name.
    fn new(name: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        for file in fs::read_dir(docs().join("sample"))? {
            let file = file?;
            symlink(fs::canonicalize(file.path())?, directory.path().join(file.file_name()))?;
        }
        let page = docs().join("walks").join(name);
        for (language, text) in blocks(&fs::read_to_string(&page)?) {
            if language == "python" {
                let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
                fs::write(directory.path().join(name.context("a script has no name")?), text)?;
            }
        }
        // The programs by their usual names, in front of others.
        let programs = directory.path().join("bin");
        fs::create_dir(&programs)?;
        symlink(agent::binary()?, programs.join("tap53"))?;
        Ok(Self { page, directory })
    }

    /// Runs a command as a shell does; returns what a terminal would show.
    fn output(&self, command: &str) -> Result<String> {
        let python = python::python()?;
        let python = python.parent().context("a directory of programs")?;
        let programs = self.directory.path().join("bin");
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = [programs, python.to_owned()].into_iter().chain(env::split_paths(&inherited));
        let output = Command::new("sh")
            .args(["-c", &format!("{command} 2>&1")])
            .current_dir(self.directory.path())
            .env("PATH", env::join_paths(path)?)
            .output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs the commands of a block; returns the block with their output.
    fn replay(&self, block: &str) -> Result<String> {
        let mut shown = String::new();
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                let output = self.output(command)?;
                shown += &format!("{line}\n{}\n", output.trim_end());
            }
        }
        Ok(shown)
    }

    /// Runs all blocks of commands, in their order; returns the page as it should be, and how many ran.
    fn page(&self) -> Result<(String, usize)> {
        let written = fs::read_to_string(&self.page)?;
        let mut page = written.clone();
        let mut ran = 0;
        for (_, block) in blocks(&written).filter(|(language, _)| *language == "console") {
            let block = format!("{}\n", block.trim_end());
            page = page.replacen(&block, &self.replay(&block)?, 1);
            ran += 1;
        }
        Ok((page, ran))
    }
}

#[test]
fn the_data_engineers_steps_print_what_the_page_shows() -> Result<()> {
    let walk = Walk::new("data-engineer.md")?;
    let (page, ran) = walk.page()?;
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&walk.page, &page)?;
    }
    ensure!(ran >= 4, "{ran} blocks of commands ran");
    let written = fs::read_to_string(&walk.page)?;
    ensure!(written == page, "{} is old: {}", name_of(&walk.page), super::UPDATE);
    Ok(())
}

fn name_of(page: &Path) -> String {
    page.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
