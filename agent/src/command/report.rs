//! Reports of checks, and the exit code for their verdict.

use std::{fmt::Display, process::ExitCode};

use serde::Serialize;
use tap53::verdict::Verdict;

use super::output::Output;
use crate::exit;

/// Prints a report, and returns the exit code for its verdict: only a failure is one.
pub(super) fn finish(
    report: &(impl Display + Serialize),
    verdict: Verdict,
    output: Output,
) -> anyhow::Result<ExitCode> {
    output.print(report, || report.to_string())?;
    Ok(match verdict {
        Verdict::Ok | Verdict::Warn => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::from(exit::FAILED),
    })
}
