//! Errors of a configuration. A message includes its cause, so `source()` does not return it again.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
};

use serde_saphyr::{Localizer, Location, UserMessageFormatter};
use tap53_base::{settings::Problem, visible::visible};

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
    #[error("{}{}: {reason}{}", path.display(), at(*place), quoted(line))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line and column, from 1, if the parser knows them.
        place: Option<(u64, u64)>,
        /// The parser's error.
        reason: String,
        /// The line, or its beginning.
        line: String,
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

/// Leaves out the place in the parser's messages: ours begin with it.
struct NoPlace;

impl Localizer for NoPlace {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }
}

impl Error {
    /// Describes an error of the parser in `text`.
    pub(super) fn syntax(path: &Path, text: &str, cause: &serde_saphyr::Error) -> Self {
        let place = cause.location().map(|at| (at.line(), at.column())).filter(|at| at.0 > 0);
        let number = place.and_then(|(line, _)| usize::try_from(line).ok()?.checked_sub(1));
        let line = number.and_then(|number| text.lines().nth(number)).unwrap_or_default();
        Self::Syntax {
            path: path.to_owned(),
            place,
            reason: cause.render_with_formatter(&UserMessageFormatter.with_localizer(&NoPlace)),
            line: line.chars().take(SHOWN_CHARACTERS).collect(),
        }
    }
}

/// Maximum number of problems in a message.
const SHOWN_PROBLEMS: usize = 100;

/// Maximum number of characters of a line in a message.
const SHOWN_CHARACTERS: usize = 200;

fn at(place: Option<(u64, u64)>) -> String {
    place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"))
}

/// Returns the line of a file below a message.
fn quoted(line: &str) -> String {
    match line.trim() {
        "" => String::new(),
        line => format!("\n  {}", visible(line)),
    }
}

fn lines(file: Option<&Path>, problems: &[Problem]) -> String {
    let line = |problem: &Problem| match (file, problem.place) {
        (Some(file), Some(_)) => format!("{}{}: {problem}", file.display(), at(problem.place)),
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
