//! `tap53 check-config`, `tap53 schema` and `tap53 interfaces`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tap53::{
    config::{CaptureConfig, Config, MOST_MAX_BYTES, Machine},
    telemetry::{print_notice, print_warning},
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
    Selection,
    output::{DataFormat, Output},
    status,
    switch::Socket,
    table::{Cell, colored, print, table},
};

pub(super) const CHECK_CONFIG_EXAMPLES: &str = "\
Examples:
  tap53 check-config -c tap53.yaml
  tap53 check-config -c tap53.yaml --offline > /dev/null    In CI, away from the node
  tap53 check-config -c tap53.yaml -o json | jq .sinks

With --offline, nothing but the file is looked at: files that it names may be missing, and defaults
that depend on the machine are this machine's, with the node's name unknown.

Exit status: 0 the configuration is valid (there may be warnings); 2 it is not.";

#[derive(Args, Debug)]
pub(crate) struct CheckConfig {
    #[command(flatten)]
    selection: Selection,
    /// Look at nothing but the configuration: not at the files and directories that it names
    #[arg(long)]
    offline: bool,
    /// Format in which the configuration is printed: yaml or json
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "yaml",
        hide_possible_values = true
    )]
    output: DataFormat,
}

pub(crate) fn config(arguments: &CheckConfig) -> anyhow::Result<ExitCode> {
    let machine = if arguments.offline { Machine::Other } else { Machine::Agent };
    let config = arguments.selection.load_on(machine)?;
    for warning in config.warnings() {
        print_warning(&warning.to_string());
    }
    if !config.record.keep.keeps_everything() {
        print_notice(&format!("record.keep: {}", config.record.keep));
    }
    print(&arguments.output.render(&config)?)
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
    /// Format of the Avro schema: json, as Avro's tools read it, or yaml
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        conflicts_with = "ddl",
        hide_possible_values = true
    )]
    output: Option<DataFormat>,
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
    let Some(dialect) = arguments.ddl else {
        return match arguments.output {
            None | Some(DataFormat::Json) => print(schema),
            Some(DataFormat::Yaml) => {
                let schema: Value = serde_json::from_str(schema).context("cannot read JSON")?;
                print(&DataFormat::Yaml.render(&schema)?)
            }
        };
    };
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
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

/// An interface of this network namespace.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    ifindex: u32,
    kind: String,
    /// `None` if it cannot be read.
    driver: Option<String>,
    mtu: u32,
    /// True if the configuration selects it.
    selected: bool,
    /// Directions that a running agent captures; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    captured: Option<&'static str>,
    /// Hooks that capture would use, best first.
    ingress: String,
    egress: String,
    /// Programs that hold hooks now.
    held_by: Option<String>,
    why: String,
}

/// Prints every interface of this network namespace, with the directions that a running agent
/// captures there.
pub(crate) fn interfaces(arguments: Interfaces) -> anyhow::Result<ExitCode> {
    let Interfaces { mut selection, output, socket } = arguments;
    let client = socket.client();
    let discovered = selection.discover(&client);
    if let (Some(reason), Some(file)) = (discovered, selection.file()) {
        eprintln!("tap53: configuration {}: {reason}", file.display());
    }
    let config = selection.load_for_inspection()?;
    // Without an agent, or access to it, the column is omitted.
    let agent = client.status().ok();
    let agent = agent.and_then(|answer| status::interfaces(&answer.status).ok());
    let list: Vec<Listed> = interfaces::list()?
        .into_iter()
        .map(|interface| Listed::new(interface, &config, agent.as_deref()))
        .collect();
    output.print(&list, || listing(&list, agent.is_some()))
}

impl Listed {
    fn new(interface: Interface, config: &Config, agent: Option<&[InterfaceStatus]>) -> Self {
        let choice = Choice::of(&config.interfaces, &interface);
        let Look { driver, ingress, egress, held_by, why } = look(&config.capture, &interface);
        let captured = agent.map(|all| {
            let is_this = |s: &&InterfaceStatus| {
                (s.name == interface.name) && (s.ifindex == interface.ifindex)
            };
            captured_text(all.iter().find(is_this))
        });
        Self {
            ifindex: interface.ifindex,
            kind: interface.kind.to_string(),
            driver,
            mtu: interface.mtu,
            selected: matches!(choice, Choice::Included(_)),
            captured,
            ingress,
            egress,
            held_by,
            why: format!("{}; {why}", choice_text(&choice, &interface)),
            name: interface.name,
        }
    }
}

fn listing(list: &[Listed], has_agent: bool) -> String {
    let mut heading = vec!["NAME", "IFINDEX", "KIND", "DRIVER", "MTU", "SELECTED"];
    heading.extend(has_agent.then_some("CAPTURED"));
    heading.extend(["INGRESS", "EGRESS", "HELD BY", "WHY"]);
    let mut rows = vec![heading.into_iter().map(Cell::from).collect::<Vec<_>>()];
    for interface in list {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let mut row: Vec<Cell> = vec![
            interface.name.as_str().into(),
            interface.ifindex.to_string().into(),
            interface.kind.as_str().into(),
            or_dash(&interface.driver).into(),
            interface.mtu.to_string().into(),
            (if interface.selected { "yes" } else { "no" }).into(),
        ];
        row.extend(interface.captured.map(Cell::from));
        let Listed { ingress, egress, held_by, why, .. } = interface;
        row.extend(
            [ingress.clone(), egress.clone(), or_dash(held_by), why.clone()].map(Cell::from),
        );
        rows.push(row);
    }
    table(&rows, colored())
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

/// The hooks of an interface.
struct Look {
    driver: Option<String>,
    /// Hooks that capture would use, best first.
    ingress: String,
    egress: String,
    /// Programs that hold hooks now.
    held_by: Option<String>,
    /// The reason for the choice.
    why: String,
}

fn look(config: &CaptureConfig, interface: &Interface) -> Look {
    match Preflight::of(interface, config) {
        Ok(found) => Look {
            driver: found.device.driver.clone(),
            ingress: found.describe(Direction::Ingress),
            egress: found.describe(Direction::Egress),
            held_by: found.owners.describe(),
            why: match found.why.is_empty() {
                true => "first choice".to_owned(),
                false => found.why.join("; "),
            },
        },
        Err(error) => Look {
            driver: Some("?".to_owned()),
            ingress: "?".to_owned(),
            egress: "?".to_owned(),
            held_by: Some("?".to_owned()),
            why: error.to_string(),
        },
    }
}
