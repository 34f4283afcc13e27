//! `kubectl tap53`: the commands for a running agent, for all agents of a cluster.
//!
//! ```text
//!  kubectl tap53 tail ─┬─ kubectl exec -i tap53-x7k2p -- tap53 relay ─▶ agent of node-1
//!                      ├─ kubectl exec -i tap53-q9c4d -- tap53 relay ─▶ agent of node-2
//!                      └─ …
//! ```
//!
//! kubectl runs the program `kubectl-tap53` (<https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/>),
//! which is this one by another name. It reaches the agents by kubectl alone, with the permissions of its user:
//! `list` of pods and `create` of `pods/exec`.

mod agents;
mod exec;
mod status;

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use glob::Pattern;
use tap53::{
    control::{agents::Agents, client::Client},
    version,
};

use super::{output::Output, switch, tail, top};

/// Name of the program as a plugin of kubectl.
const NAME: &str = "kubectl-tap53";

const EXAMPLES: &str = "\
Examples:
  kubectl tap53 status
  kubectl tap53 tail -n shop --workload checkout --slower 50ms
  kubectl tap53 tail --since 5m --no-follow -o csv > last.csv
  kubectl tap53 top
  kubectl tap53 enable 'veth*' --node worker-3 --for 10m

Runs on all nodes that have an agent, or on those of --node. Records are merged in the order of their
times, and counts are added. Options of a command have the meaning that they have in tap53: -n selects
clients by their namespace, not agents.

It needs kubectl, and the permission to list pods and to create pods/exec in the namespace of the agents.";

const TAIL_EXAMPLES: &str = "\
Examples:
  kubectl tap53 tail
  kubectl tap53 tail -n shop --workload checkout --slower 50ms
  kubectl tap53 tail --node worker-3 --rcode SERVFAIL --unanswered
  kubectl tap53 tail --since 5m --no-follow -o csv > last.csv

A record waits 250 ms for earlier ones of other nodes. The options are those of 'tap53 tail'.

Exit status: 0 all agents stopped, COUNT or the time is reached, or Ctrl-C; 1 no agent answers, or each
refuses the request; 2 invalid arguments.";

const TOP_EXAMPLES: &str = "\
Examples:
  kubectl tap53 top
  kubectl tap53 top -n shop
  kubectl tap53 top --once --interval 10s > top.txt

The counts of an agent that stops remain in the sums; one that starts later is not included.

Exit status: 0 quit by a key, or --once has printed; 1 no agent answers, or each refuses the request;
2 invalid arguments; 128 + N ended by signal N.";

const ENABLE_EXAMPLES: &str = "\
Examples:
  kubectl tap53 enable 'veth*' --for 10m
  kubectl tap53 enable eth1 --node worker-3

A switch lasts until the agent stops, or for the time of --for.";

const DISABLE_EXAMPLES: &str = "\
Examples:
  kubectl tap53 disable kind:pods --for 10m
  kubectl tap53 disable eth1 --node worker-3 --detach";

const RESET_EXAMPLES: &str = "\
Examples:
  kubectl tap53 reset 'veth*'
  kubectl tap53 reset '*' --node worker-3";

/// The commands for a running agent, for all agents of a cluster.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    bin_name = "kubectl tap53",
    version = version::text(),
    propagate_version = true,
    after_help = EXAMPLES
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: Cluster,
    #[command(subcommand)]
    command: Command,
}

/// Arguments that select the agents.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cluster")]
struct Cluster {
    /// Only the agents of this node, by name or shell pattern; may be repeated
    #[arg(long = "node", value_name = "PATTERN", global = true)]
    nodes: Vec<Pattern>,
    /// Namespace of the agents [default: all that you may list]
    #[arg(long, value_name = "NAMESPACE", global = true)]
    agents: Option<String>,
    /// Label selector of the agents
    #[arg(
        long,
        value_name = "SELECTOR",
        global = true,
        default_value = "app.kubernetes.io/name=tap53"
    )]
    selector: String,
    /// Context of the configuration of kubectl
    #[arg(long, value_name = "NAME", global = true)]
    context: Option<String>,
    /// Configuration file of kubectl
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the state of the agents
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Print the transactions of all nodes as they happen
    #[command(after_help = TAIL_EXAMPLES)]
    Tail(tail::Request),
    /// Show the DNS of all nodes on the terminal, again and again
    #[command(after_help = TOP_EXAMPLES)]
    Top(top::Request),
    /// Start capture on interfaces of all nodes
    #[command(after_help = ENABLE_EXAMPLES)]
    Enable(switch::EnableRequest),
    /// Stop capture on interfaces of all nodes
    #[command(after_help = DISABLE_EXAMPLES)]
    Disable(switch::DisableRequest),
    /// Undo an earlier enable or disable
    #[command(after_help = RESET_EXAMPLES)]
    Reset(switch::ResetRequest),
}

/// Returns true if this program was started as the plugin.
pub(crate) fn is_called() -> bool {
    let called = env::args_os().next();
    let name = called.as_deref().map(Path::new).and_then(Path::file_name);
    name == Some(OsStr::new(NAME))
}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let Arguments { cluster, command } = Arguments::parse();
    let find = || Ok(Client::of(Agents::new(cluster.agents()?)));
    match command {
        Command::Status { output } => status::run(&cluster.agents()?, output),
        Command::Tail(request) => tail::follow(request, tail::Nodes::Several, find),
        Command::Top(request) => top::watch(&request, find),
        Command::Enable(request) => request.send(&find()?),
        Command::Disable(request) => request.send(&find()?),
        Command::Reset(request) => request.send(&find()?),
    }
}
