//! `tap53 doctor`.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tap53::doctor::{Subject, Verdict, examine};

use super::{Selection, table::print};
use crate::exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo tap53 doctor -c tap53.yaml
  tap53 doctor -i 'eth*'
  tap53 doctor -o json | jq '.checks[] | select(.verdict != \"ok\")'

It changes nothing, and leaves nothing behind. Without root it checks what it can, and reports what
it could not check.

Exit status: 0 no check failed (there may be warnings); 1 a check failed; 2 invalid arguments.";

/// Arguments of `tap53 doctor`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Format of the report
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Format of a report.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(crate) fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    let selection = &mut arguments.selection;
    let interfaces_named = selection.names_interfaces();
    let config = selection.load_for_inspection();
    let report = examine(&Subject { config: &config, file: selection.file(), interfaces_named });
    let text = match arguments.output {
        Output::Text => report.to_string(),
        Output::Json => {
            let json = serde_json::to_string_pretty(&report);
            json.context("cannot write the report as JSON")? + "\n"
        }
    };
    print(&text)?;
    Ok(match report.verdict {
        Verdict::Ok | Verdict::Warn => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::from(exit::FAILED),
    })
}
