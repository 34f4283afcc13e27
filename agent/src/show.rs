//! Commands that only print.

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use anyhow::Context;
use tap53::{encode::SCHEMA_TEXT, interfaces};

use crate::args::Selection;

pub(crate) fn config(selection: &Selection) -> anyhow::Result<ExitCode> {
    print(&selection.load()?.to_yaml().context("cannot write the configuration as YAML")?)
}

pub(crate) fn schema() -> anyhow::Result<ExitCode> {
    print(SCHEMA_TEXT)
}

pub(crate) fn interfaces(_selection: &Selection) -> anyhow::Result<ExitCode> {
    let _ = interfaces::list()?;
    print("")
}

/// A reader that goes away, such as `head`, is not an error.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
