//! Errors of a configuration. A message includes its cause, so `source()` does not return it again.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_saphyr::UserMessageFormatter;
use tap53_base::settings::Problem;

/// An error of reading a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The file is not YAML, or has a key twice.
    #[error("{}: {}", path.display(), cause.render_with_formatter(&UserMessageFormatter))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's error, with its position.
        cause: Box<serde_saphyr::Error>,
    },
    /// The file is YAML, but not a valid configuration; or a flag is invalid. One line for each problem.
    #[error("{}", lines(file.as_deref(), problems))]
    Refused {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// All problems; never empty.
        problems: Vec<Problem>,
    },
}

/// Maximum number of problems in a message.
const SHOWN_PROBLEMS: usize = 100;

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
