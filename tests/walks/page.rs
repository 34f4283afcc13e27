//! A page with commands and their output.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    mask::masked,
    shell::{Shell, root},
};

/// The sign for lines that the page leaves out, and at the end of a line, for the rest of it.
const LEFT_OUT: &str = "…";

/// A page, whose commands run section by section.
pub(crate) struct Walk {
    name: String,
    path: PathBuf,
    parts: Vec<Part>,
    is_changed: bool,
}

/// A part of a page.
enum Part {
    /// A line that is no command, and no output of one.
    Line(String),
    /// A command with its output.
    Step(Step),
}

/// A command, and the output that the page has for it.
#[derive(Debug)]
struct Step {
    section: String,
    /// The lines of the command, without `$ `.
    command: String,
    output: Vec<String>,
    has_run: bool,
}

impl Walk {
    /// Reads `docs/walks/NAME.md`.
    ///
    /// # Errors
    /// If it cannot be read, or has no commands.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let path = root().join("docs/walks").join(name).with_extension("md");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let parts = parts(&text);
        ensure!(
            parts.iter().any(|part| matches!(part, Part::Step(_))),
            "{} has no commands",
            path.display()
        );
        Ok(Self { name: name.to_owned(), path, parts, is_changed: false })
    }

    /// Runs the commands below the heading `## SECTION` in their order.
    ///
    /// # Errors
    /// If the section has no commands, one of them fails, or it prints something else than the page has.
    /// With `UPDATE_DOCS`, the page will have what it prints.
    pub(crate) fn run(&mut self, section: &str, shell: &Shell) -> Result<()> {
        let steps = self.parts.iter_mut().filter_map(|part| match part {
            Part::Step(step) if step.section == section && !step.has_run => Some(step),
            _ => None,
        });
        let mut steps = steps.peekable();
        ensure!(steps.peek().is_some(), "{}.md has no commands below ## {section}", self.name);
        for step in steps {
            step.has_run = true;
            let printed = shell.run(&step.command)?;
            let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
            if matches(&step.output, &printed, !shell.compares_numbers()) {
                continue;
            }
            ensure!(
                env::var_os("UPDATE_DOCS").is_some(),
                "$ {}\nThe page has:\n{}\nIt prints:\n{}\nTo write it: UPDATE_DOCS=1 cargo test \
                 --package tap53-tests --test walks {}",
                step.command,
                step.output.join("\n"),
                printed.join("\n"),
                self.name
            );
            step.output = printed.into_iter().map(str::to_owned).collect();
            self.is_changed = true;
        }
        Ok(())
    }

    /// Writes the scripts of the page to a directory: the blocks of Python whose first line is their name.
    ///
    /// # Errors
    /// If a block has no name, or cannot be written.
    pub(crate) fn write_scripts(&self, directory: &Path) -> Result<()> {
        let lines = self.parts.iter().filter_map(|part| match part {
            Part::Line(line) => Some(&**line),
            Part::Step(_) => None,
        });
        let mut lines = lines.skip_while(|line| *line != "```python").peekable();
        while lines.next().is_some() {
            let name = lines.peek().and_then(|line| line.strip_prefix("# "));
            let name = name.context("a script has no name")?;
            let script: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            fs::write(directory.join(name), script.join("\n") + "\n")?;
            while lines.next_if(|line| *line != "```python").is_some() {}
        }
        Ok(())
    }

    /// Writes the page if an output has changed.
    ///
    /// # Errors
    /// If commands of the page did not run, or the page cannot be written.
    pub(crate) fn finish(self) -> Result<()> {
        for part in &self.parts {
            if let Part::Step(Step { section, command, has_run: false, .. }) = part {
                bail!("{}.md, ## {section}: the test does not run `{command}`", self.name);
            }
        }
        if self.is_changed {
            fs::write(&self.path, text(&self.parts))
                .with_context(|| format!("write {}", self.path.display()))?;
        }
        Ok(())
    }
}

/// Reads the parts of a page.
fn parts(text: &str) -> Vec<Part> {
    let (mut parts, mut section, mut is_console) = (Vec::new(), String::new(), false);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            is_console = line == "```console";
        } else if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        }
        match (is_console, line.strip_prefix("$ "), parts.last_mut()) {
            (true, Some(command), _) => {
                let mut command = command.to_owned();
                while command.ends_with('\\')
                    && let Some(line) = lines.next()
                {
                    command = format!("{command}\n{line}");
                }
                let (section, output) = (section.clone(), Vec::new());
                parts.push(Part::Step(Step { section, command, output, has_run: false }));
            }
            (true, None, Some(Part::Step(step))) => step.output.push(line.to_owned()),
            _ => parts.push(Part::Line(line.to_owned())),
        }
    }
    parts
}

/// Returns the text of a page.
fn text(parts: &[Part]) -> String {
    let mut text = String::new();
    let mut add = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    for part in parts {
        match part {
            Part::Line(line) => add(line),
            Part::Step(step) => {
                add(&format!("$ {}", step.command));
                step.output.iter().for_each(|line| add(line));
            }
        }
    }
    text
}

/// Returns true if a command prints what the page has.
fn matches(page: &[String], printed: &[&str], masks_numbers: bool) -> bool {
    let Some((line, page)) = page.split_first() else { return printed.is_empty() };
    if line == LEFT_OUT {
        return (0..=printed.len()).any(|from| matches(page, &printed[from..], masks_numbers));
    }
    let Some((first, printed)) = printed.split_first() else { return false };
    let first = masked(first, masks_numbers);
    let is_same = match line.strip_suffix(LEFT_OUT) {
        Some(begin) => first.starts_with(&masked(begin, masks_numbers)),
        None => first == masked(line, masks_numbers),
    };
    is_same && matches(page, printed, masks_numbers)
}

#[test]
fn a_page_has_commands_with_their_output() {
    let page = "# Walk\n\n## One\n\n```console\n$ a \\\n    -b\nc\n$ d\n```\n\n## Two\n\n```sh\n$ e\n```\n";
    let read = parts(page);
    let steps = read.iter().filter_map(|part| match part {
        Part::Step(step) => Some((&*step.section, &*step.command, step.output.join("|"))),
        Part::Line(_) => None,
    });
    let expected = [("One", "a \\\n    -b", "c".to_owned()), ("One", "d", String::new())];
    assert_eq!(steps.collect::<Vec<_>>(), expected);
    assert_eq!(text(&read), page);
}

#[test]
fn lines_and_ends_of_lines_can_be_left_out() {
    let is_same = |page: &str, printed: &str| {
        let page: Vec<_> = page.lines().map(str::to_owned).collect();
        matches(&page, &printed.lines().collect::<Vec<_>>(), false)
    };
    assert!(is_same("", ""));
    assert!(is_same("a  b\n12:00:00 c", "a b\n13:00:00 c"));
    assert!(is_same("a\n…\nd", "a\nb\nc\nd"));
    assert!(is_same("…\nd", "d"));
    assert!(is_same("a lo…\nb …", "a long line\nb c"));
    assert!(!is_same("a", "a\nb"));
    assert!(!is_same("a\n…\nd", "a\nb\nd\nc"));
    assert!(!is_same("a\nb", "a"));
}
