//! Why a configuration was refused. A message holds its cause, which is therefore not offered as
//! `source()` again.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde_saphyr::UserMessageFormatter;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file is not YAML, or has a key twice.
    #[error("{}: {}", path.display(), cause.render_with_formatter(&UserMessageFormatter))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser said, and where.
        cause: Box<serde_saphyr::Error>,
    },
    /// The file is YAML, but not a configuration; or a flag is wrong. One line for each problem.
    #[error("{}", lines(file.as_deref(), problems))]
    Refused {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// Everything that is wrong; never empty.
        problems: Vec<Problem>,
    },
}

/// Problems that a message shows at most, and characters of a value.
const SHOWN_PROBLEMS: usize = 100;
const SHOWN_CHARACTERS: usize = 200;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, `sinks[1].rotate_bytes`, or the flag, `--interface`.
    pub path: String,
    /// Line of the file, from 1; `None` where the key is missing or a flag is wrong.
    pub line: Option<u64>,
    /// The value found, texts in quotes; `None` where there is none.
    pub value: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        if let Some(value) = &self.value {
            match value.char_indices().nth(SHOWN_CHARACTERS) {
                Some((end, _)) => write!(f, "{}…: ", &value[..end])?,
                None => write!(f, "{value}: ")?,
            }
        }
        f.write_str(&self.reason)
    }
}

fn lines(file: Option<&Path>, problems: &[Problem]) -> String {
    let line = |problem: &Problem| match (file, problem.line) {
        (Some(file), Some(line)) => format!("{}:{line}: {problem}", file.display()),
        (Some(file), None) if !problem.path.starts_with("--") => {
            format!("{}: {problem}", file.display())
        }
        _ => problem.to_string(),
    };
    let mut lines: Vec<String> = problems.iter().take(SHOWN_PROBLEMS).map(line).collect();
    if let more @ 1.. = problems.len().saturating_sub(SHOWN_PROBLEMS) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}
