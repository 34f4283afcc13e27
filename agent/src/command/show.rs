//! Commands that only print.

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use anyhow::Context;
use tap53::{
    capture::Preflight,
    config::CaptureConfig,
    encode::SCHEMA_TEXT,
    interfaces::{self, Interface},
};
use tap53_ebpf::settings::Direction;

use super::Selection;

pub(crate) fn config(selection: &Selection) -> anyhow::Result<ExitCode> {
    print(&selection.load()?.to_yaml().context("cannot write the configuration as YAML")?)
}

pub(crate) fn schema() -> anyhow::Result<ExitCode> {
    print(SCHEMA_TEXT)
}

/// Every interface of this network namespace, a line each.
pub(crate) fn interfaces(mut selection: Selection) -> anyhow::Result<ExitCode> {
    let config = selection.load_to_look()?;
    let mut rows = vec![
        [
            "NAME", "IFINDEX", "KIND", "DRIVER", "MTU", "SELECTED", "INGRESS", "EGRESS", "HELD BY",
            "WHY",
        ]
        .map(str::to_owned),
    ];
    for interface in interfaces::list()? {
        let selected = interfaces::selects(&config.interfaces, &interface.name);
        let [driver, ingress, egress, held_by, why] = look(&config.capture, &interface);
        rows.push([
            interface.name,
            interface.ifindex.to_string(),
            interface.kind.to_string(),
            driver,
            interface.mtu.to_string(),
            (if selected { "yes" } else { "no" }).to_owned(),
            ingress,
            egress,
            held_by,
            why,
        ]);
    }
    print(&table(&rows))
}

/// The driver, the hooks that each direction would be captured at, best first, who holds hooks now,
/// and why these.
fn look(config: &CaptureConfig, interface: &Interface) -> [String; 5] {
    match Preflight::of(interface, config) {
        Ok(found) => [
            found.device.driver.clone().unwrap_or_else(|| "-".to_owned()),
            found.describe(Direction::Ingress),
            found.describe(Direction::Egress),
            found.holders.describe().unwrap_or_else(|| "-".to_owned()),
            if found.why.is_empty() { "first choice".to_owned() } else { found.why.join("; ") },
        ],
        Err(error) => ["?", "?", "?", "?", &error.to_string()].map(str::to_owned),
    }
}

/// Columns as wide as their widest cell; the last one is as long as it is.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A reader that goes away, such as `head`, is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
