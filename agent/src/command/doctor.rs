//! `tap53 doctor`.

use std::process::ExitCode;

use clap::Args;
use tap53::doctor::{Subject, examine};

use super::{Selection, report};

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
    output: report::Format,
}

pub(crate) fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    let selection = &mut arguments.selection;
    let interfaces_named = selection.names_interfaces();
    let config = selection.load_for_inspection();
    let report = examine(&Subject { config: &config, file: selection.file(), interfaces_named });
    report::finish(&report, report.verdict, arguments.output)
}
