//! Reports of checks: their format, and the exit code for their verdict.

use std::{fmt::Display, process::ExitCode};

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use tap53::verdict::Verdict;

use super::table::print;
use crate::exit;

/// Format of a report.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// Prints a report, and returns the exit code for its verdict: only a failure is one.
pub(super) fn finish(
    report: &(impl Display + Serialize),
    verdict: Verdict,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let text = match format {
        Format::Text => report.to_string(),
        Format::Json => {
            let json = serde_json::to_string_pretty(report);
            json.context("cannot write the report as JSON")? + "\n"
        }
    };
    print(&text)?;
    Ok(match verdict {
        Verdict::Ok | Verdict::Warn => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::from(exit::FAILED),
    })
}
