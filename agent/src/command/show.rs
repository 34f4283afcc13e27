//! Commands that only print.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tap53::{
    capture::Preflight,
    config::CaptureConfig,
    control::InterfaceStatus,
    encode::{SCHEMA_TEXT, SUMMARY_SCHEMA_TEXT},
    interfaces::{self, Interface},
};
use tap53_ebpf::settings::Direction;

use super::{
    Selection, status,
    switch::Socket,
    table::{Cell, colored, print, table},
};

pub(crate) fn config(selection: &Selection) -> anyhow::Result<ExitCode> {
    print(&selection.load()?.to_yaml().context("cannot write the configuration as YAML")?)
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Schema {
    /// That of a summary of the ledger instead
    #[arg(long)]
    summary: bool,
}

pub(crate) fn schema(arguments: Schema) -> anyhow::Result<ExitCode> {
    print(if arguments.summary { SUMMARY_SCHEMA_TEXT } else { SCHEMA_TEXT })
}

#[derive(Args, Debug)]
pub(crate) struct Interfaces {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    socket: Socket,
}

/// Every interface of this network namespace, a line each; with what an agent captures there, where
/// one answers.
pub(crate) fn interfaces(arguments: Interfaces) -> anyhow::Result<ExitCode> {
    let Interfaces { mut selection, socket } = arguments;
    let config = selection.load_to_look()?;
    // Without an agent, or the right to ask it, there is all the rest to tell.
    let captured = socket.client().status().ok();
    let captured = captured.and_then(|answer| status::interfaces(&answer.status).ok());
    let mut heading = vec!["NAME", "IFINDEX", "KIND", "DRIVER", "MTU", "SELECTED"];
    heading.extend(captured.as_ref().map(|_| "CAPTURED"));
    heading.extend(["INGRESS", "EGRESS", "HELD BY", "WHY"]);
    let mut rows = vec![heading.into_iter().map(Cell::from).collect::<Vec<_>>()];
    for interface in interfaces::list()? {
        let selected = interfaces::selects(&config.interfaces, &interface.name);
        let [driver, ingress, egress, held_by, why] = look(&config.capture, &interface);
        let captured = captured.as_ref().map(|all| {
            let of_this = |s: &&InterfaceStatus| {
                (s.name == interface.name) && (s.ifindex == interface.ifindex)
            };
            captured_text(all.iter().find(of_this)).into()
        });
        let mut row: Vec<Cell> = vec![
            interface.name.into(),
            interface.ifindex.to_string().into(),
            interface.kind.to_string().into(),
            driver.into(),
            interface.mtu.to_string().into(),
            (if selected { "yes" } else { "no" }).into(),
        ];
        row.extend(captured);
        row.extend([ingress, egress, held_by, why].map(Cell::from));
        rows.push(row);
    }
    print(&table(&rows, colored()))
}

/// The directions that a running agent captures in.
fn captured_text(status: Option<&InterfaceStatus>) -> &'static str {
    match status.map(|status| (status.ingress.capturing, status.egress.capturing)) {
        Some((true, true)) => "both",
        Some((true, false)) => "ingress",
        Some((false, true)) => "egress",
        Some((false, false)) | None => "no",
    }
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
