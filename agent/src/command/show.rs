//! Commands that only print.

use std::process::ExitCode;

use anyhow::Context;
use tap53::{
    capture::Preflight,
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
        [
            "NAME", "IFINDEX", "KIND", "DRIVER", "MTU", "SELECTED", "INGRESS", "EGRESS", "HELD BY",
            "WHY",
        ]
        .map(Cell::from),
    ];
    for interface in interfaces::list()? {
        let selected = interfaces::selects(&config.interfaces, &interface.name);
        let [driver, ingress, egress, held_by, why] = look(&config.capture, &interface);
        let row = [
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
        ];
        rows.push(row.map(Cell::from));
    }
    print(&table(&rows, colored()))
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
