//! `tap53 doctor`.

use std::{net::SocketAddr, process::ExitCode};

use clap::Args;
use tap53::doctor::{Subject, examine};

use tap53::telemetry::print_warning;
use tap53_base::privileges;

use super::{Selection, output::Output, probe, report, switch::Socket};

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo tap53 doctor
  sudo tap53 doctor -c tap53.yaml
  tap53 doctor -i 'eth*'
  sudo tap53 doctor -c tap53.yaml --live
  tap53 doctor -o json | jq '.checks[] | select(.verdict != \"ok\")'

Without --config it checks the configuration of the running agent, or else the file that the
environment variable TAP53_CONFIG names, or else /etc/tap53/tap53.yaml, and reports which.

It changes nothing, and nothing remains. Without root it checks what it can, and reports what it
could not check. With --live it also follows a query of its own through the running agent, as
'tap53 probe' does.

Exit status: 0 no check failed (there may be warnings); 1 a check failed; 2 invalid arguments.";

/// Arguments of `tap53 doctor`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Follow a query through the running agent too
    #[arg(long)]
    live: bool,
    /// Resolver for --live, as an address or as address:port [default: the first one in
    /// /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS", value_parser = probe::server, requires = "live")]
    server: Option<SocketAddr>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

pub(crate) fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Err(error) = privileges::raise_permitted() {
        print_warning(&error.to_string());
    }
    let selection = &mut arguments.selection;
    let discovered = selection.discover(&arguments.socket.client());
    let interfaces_named = selection.names_interfaces();
    let config = selection.load_for_inspection();
    let live = match arguments.live {
        true => Some(probe::resolver(arguments.server)?),
        false => None,
    };
    let file = selection.file();
    let report = examine(&Subject { config: &config, file, discovered, interfaces_named, live });
    report::finish(&report, report.verdict, arguments.output)
}
