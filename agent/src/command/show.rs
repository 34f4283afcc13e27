//! Commands that only print.

use std::process::ExitCode;

use anyhow::Context;
use tap53::{
    capture::{Holders, Hook},
    config::CaptureConfig,
    encode::SCHEMA_TEXT,
    interfaces::{self, Interface},
};
use tap53_ebpf::settings::Direction;

use super::{
    Selection,
    table::{Cell, colored, print, table},
};

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
            .map(Cell::from),
    ];
    for interface in interfaces::list()? {
        let selected = interfaces::selects(&config.interfaces, &interface.name);
        let (hooks, held_by) = hooks(&config.capture, &interface);
        let [ingress, egress] = hooks;
        let row = [
            interface.name,
            interface.ifindex.to_string(),
            interface.kind.to_string(),
            interface.mtu.to_string(),
            (if selected { "yes" } else { "no" }).to_owned(),
            ingress,
            egress,
            held_by,
        ];
        rows.push(row.map(Cell::from));
    }
    print(&table(&rows, colored()))
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
