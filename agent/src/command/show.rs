//! Commands that only print.

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use anyhow::Context;
use tap53::{
    capture::{Holders, Hook},
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
        ["NAME", "IFINDEX", "KIND", "MTU", "SELECTED", "INGRESS", "EGRESS", "HELD BY"]
            .map(str::to_owned),
    ];
    for interface in interfaces::list()? {
        let selected = interfaces::selects(&config.interfaces, &interface.name);
        let (hooks, held_by) = hooks(&config.capture, &interface);
        let [ingress, egress] = hooks;
        rows.push([
            interface.name,
            interface.ifindex.to_string(),
            interface.kind.to_string(),
            interface.mtu.to_string(),
            (if selected { "yes" } else { "no" }).to_owned(),
            ingress,
            egress,
            held_by,
        ]);
    }
    print(&table(&rows))
}

/// The hooks that each direction would be captured at, best first, and who holds hooks now.
fn hooks(config: &CaptureConfig, interface: &Interface) -> ([String; 2], String) {
    match Holders::of(interface) {
        Ok(holders) => {
            let candidates = Direction::ALL.map(|direction| {
                if !interface.ethernet {
                    return "none".to_owned();
                }
                let hooks = holders.candidates(config, interface, direction);
                let names: Vec<String> = hooks.iter().map(Hook::to_string).collect();
                names.join(" > ")
            });
            (candidates, held_by(&holders))
        }
        Err(error) => (Direction::ALL.map(|_| "?".to_owned()), error.to_string()),
    }
}

fn held_by(holders: &Holders) -> String {
    let mut held: Vec<String> = Vec::new();
    if let Some(xdp) = holders.describe_xdp() {
        held.push(format!("xdp: {xdp}"));
    }
    for (direction, programs) in Direction::ALL.iter().zip(holders.tcx.iter().flatten()) {
        for program in programs {
            held.push(format!("tcx {}: {program}", direction.name()));
        }
    }
    for filter in &holders.filters {
        let name = filter.name.as_deref().unwrap_or(&filter.kind);
        held.push(format!("tc {}: {name}", filter.direction.name()));
    }
    if held.is_empty() { "-".to_owned() } else { held.join(", ") }
}

/// Columns as wide as their widest cell; the last one is as long as it is.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
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
