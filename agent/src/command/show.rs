//! `tap53 check-config`, `tap53 schema` and `tap53 interfaces`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tap53::{
    config::{CaptureConfig, MOST_MAX_BYTES},
    telemetry::print_warning,
};
use tap53_capture::{
    capture::Preflight,
    interfaces::{self, Choice, Class, Interface, InterfaceStatus},
};
use tap53_ebpf::settings::Direction;
use tap53_ledger::SUMMARY_SCHEMA_TEXT;
use tap53_records::{
    ddl::{self, Dialect, TableName},
    encode::{DEFAULT_MAX_BYTES, LEAST_MAX_BYTES, Profile},
};

use super::{
    Selection, status,
    switch::Socket,
    table::{Cell, colored, print, table},
};

pub(crate) fn config(selection: &Selection) -> anyhow::Result<ExitCode> {
    let config = selection.load()?;
    for warning in config.warnings() {
        print_warning(&warning.to_string());
    }
    print(&config.to_yaml().context("cannot write the configuration as YAML")?)
}

pub(crate) const SCHEMA_EXAMPLES: &str = "\
Examples:
  tap53 schema                                 The Avro schema of a record
  tap53 schema --profile flat                  The schema of the flat profile (record.profile: flat)
  tap53 schema --summary                       The schema of a summary of the ledger
  tap53 schema --profile flat --ddl postgres   CREATE TABLE for it, with a comment for each column
  tap53 schema --ddl vertica --table dns.transactions --max-bytes 131072";

#[derive(Args, Clone, Debug)]
pub(crate) struct Schema {
    /// Print the schema of a summary of the ledger instead of a record's
    #[arg(long, conflicts_with = "profile")]
    summary: bool,
    /// Profile of the record, as record.profile in the configuration [default: full; flat with --ddl
    /// vertica, which supports no other]
    #[arg(long, value_enum, value_name = "PROFILE")]
    profile: Option<Profile>,
    /// Print SQL that creates a table for the records, in this dialect
    #[arg(long, value_enum, value_name = "DIALECT")]
    ddl: Option<Dialect>,
    /// Name of the table, optionally with schema and database [default: dns_transactions, or
    /// ledger_summaries with --summary]
    #[arg(long, value_name = "NAME", requires = "ddl")]
    table: Option<TableName>,
    /// Maximum size of a record in bytes (record.max_bytes of the agents), which limits the width of
    /// text columns in Vertica
    #[arg(long, value_name = "BYTES", requires = "ddl", default_value_t = DEFAULT_MAX_BYTES,
        value_parser = max_bytes)]
    max_bytes: usize,
}

/// Parses a value of `record.max_bytes`.
fn max_bytes(text: &str) -> Result<usize, String> {
    let allowed = LEAST_MAX_BYTES..=MOST_MAX_BYTES;
    let bytes = text.parse().ok().filter(|bytes| allowed.contains(bytes));
    bytes.ok_or_else(|| format!("must be a number from {LEAST_MAX_BYTES} to {MOST_MAX_BYTES}"))
}

pub(crate) fn schema(arguments: &Schema) -> anyhow::Result<ExitCode> {
    let profile = match (arguments.profile, arguments.ddl) {
        (Some(profile), _) => profile,
        (None, Some(Dialect::Vertica)) => Profile::Flat,
        (None, _) => Profile::Full,
    };
    let schema = if arguments.summary { SUMMARY_SCHEMA_TEXT } else { profile.schema_text() };
    let Some(dialect) = arguments.ddl else { return print(schema) };
    let usual =
        if arguments.summary { TableName::of_summaries } else { TableName::of_transactions };
    let table = arguments.table.clone().unwrap_or_else(usual);
    let options = ddl::Options { dialect, table, max_bytes: arguments.max_bytes };
    print(&ddl::of_schema(schema, &options)?)
}

#[derive(Args, Debug)]
pub(crate) struct Interfaces {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    socket: Socket,
}

/// Prints every interface of this network namespace, with the directions that a running agent
/// captures there.
pub(crate) fn interfaces(arguments: Interfaces) -> anyhow::Result<ExitCode> {
    let Interfaces { mut selection, socket } = arguments;
    let config = selection.load_for_inspection()?;
    // Without an agent, or access to it, the column is omitted.
    let captured = socket.client().status().ok();
    let captured = captured.and_then(|answer| status::interfaces(&answer.status).ok());
    let mut heading = vec!["NAME", "IFINDEX", "KIND", "DRIVER", "MTU", "SELECTED"];
    heading.extend(captured.as_ref().map(|_| "CAPTURED"));
    heading.extend(["INGRESS", "EGRESS", "HELD BY", "WHY"]);
    let mut rows = vec![heading.into_iter().map(Cell::from).collect::<Vec<_>>()];
    for interface in interfaces::list()? {
        let choice = Choice::of(&config.interfaces, &interface);
        let selected = matches!(choice, Choice::Included(_));
        let [driver, ingress, egress, held_by, why] = look(&config.capture, &interface);
        let why = format!("{}; {why}", choice_text(&choice, &interface));
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

/// Returns the entry that decides on an interface, or which kind would select it.
fn choice_text(choice: &Choice<'_>, interface: &Interface) -> String {
    match (choice, Class::of(interface)) {
        (Choice::Included(_), _) => format!("selected {choice}"),
        (Choice::Unmatched, Some(class)) => format!("{choice} (is {class})"),
        _ => choice.to_string(),
    }
}

/// Returns the directions that a running agent captures.
fn captured_text(status: Option<&InterfaceStatus>) -> &'static str {
    match status.map(|status| (status.ingress.capturing, status.egress.capturing)) {
        Some((true, true)) => "both",
        Some((true, false)) => "ingress",
        Some((false, true)) => "egress",
        Some((false, false)) | None => "no",
    }
}

/// Returns the driver, the hooks that capture would use for each direction, best first, the programs
/// that hold hooks now, and the reason for the choice.
fn look(config: &CaptureConfig, interface: &Interface) -> [String; 5] {
    match Preflight::of(interface, config) {
        Ok(found) => [
            found.device.driver.clone().unwrap_or_else(|| "-".to_owned()),
            found.describe(Direction::Ingress),
            found.describe(Direction::Egress),
            found.owners.describe().unwrap_or_else(|| "-".to_owned()),
            if found.why.is_empty() { "first choice".to_owned() } else { found.why.join("; ") },
        ],
        Err(error) => ["?", "?", "?", "?", &error.to_string()].map(str::to_owned),
    }
}
