//! `tap53 tail`.

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    num::NonZeroU64,
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use glob::Pattern;
use ipnet::IpNet;
use tap53::{
    config::{QueryType, prefix, zone},
    control::client::{Following, Item},
    tail::{LineFormat, Selection, rcode},
};
use tap53_base::visible::{visible, visible_lines};

use super::{switch::Socket, table::colored};

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo tap53 tail
  sudo tap53 tail --qname example.com --qtype AAAA --qtype HTTPS
  sudo tap53 tail --client 10.1.0.0/16 --unanswered --rcode SERVFAIL
  sudo tap53 tail --json -n 100 | jq .qname

Prints the transactions that the agent records from now on, after its filter and privacy rules.
An option that is repeated matches any of its values. A transaction must match all options, except
that --rcode and --unanswered match either. The agent does not wait for a slow reader: lines are
lost then, and standard error has their number. Sinks still get every record.

Internationalized names are accepted, and matched as their A-label: --qname müller.example matches
xn--mller-kva.example.

Exit status: 0 the agent stopped, COUNT is reached, or the output was closed; 1 no agent answers;
2 invalid arguments.";

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print each transaction as a line of JSON
    #[arg(long)]
    json: bool,
    /// Stop after this number of transactions
    #[arg(short = 'n', value_name = "COUNT")]
    count: Option<NonZeroU64>,
    /// Only this name and names below it; internationalized names are matched as their A-label
    /// (xn--…); may be repeated
    #[arg(long = "qname", value_name = "SUFFIX", value_parser = zone)]
    qnames: Vec<String>,
    /// Only clients of this prefix, such as 10.1.0.0/16; may be repeated
    #[arg(long = "client", value_name = "CIDR", value_parser = prefix)]
    clients: Vec<IpNet>,
    /// Only servers of this prefix; may be repeated
    #[arg(long = "server", value_name = "CIDR", value_parser = prefix)]
    servers: Vec<IpNet>,
    /// Only this query type, such as AAAA or TYPE65; may be repeated
    #[arg(long = "qtype", value_name = "TYPE")]
    qtypes: Vec<QueryType>,
    /// Only this response code, such as SERVFAIL; may be repeated
    #[arg(long = "rcode", value_name = "RCODE", value_parser = rcode)]
    rcodes: Vec<u16>,
    /// Only transactions without a response
    #[arg(long)]
    unanswered: bool,
    /// Only this interface, by name or shell pattern; may be repeated
    #[arg(long = "interface", short, value_name = "PATTERN")]
    interfaces: Vec<Pattern>,
    #[command(flatten)]
    socket: Socket,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let format = match (arguments.json, colored()) {
        (true, _) => LineFormat::Json,
        (false, true) => LineFormat::ColoredText,
        (false, false) => LineFormat::Text,
    };
    let interfaces = arguments.interfaces.iter().map(|pattern| pattern.as_str().to_owned());
    let selection = Selection {
        qnames: arguments.qnames,
        clients: arguments.clients,
        servers: arguments.servers,
        qtypes: arguments.qtypes.iter().map(|qtype| qtype.0).collect(),
        rcodes: arguments.rcodes,
        unanswered: arguments.unanswered,
        interfaces: interfaces.collect(),
    };
    let following = arguments.socket.client().tail(format, selection)?;
    let count = arguments.count.map_or(u64::MAX, NonZeroU64::get);
    match follow(following, format, count) {
        // A closed pipe, as of `head`, is not an error.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        outcome => outcome.map(|()| ExitCode::SUCCESS),
    }
}

fn follow(mut following: Following, format: LineFormat, count: u64) -> anyhow::Result<()> {
    const WRITE: &str = "cannot write to standard output";
    let mut out = BufWriter::new(io::stdout().lock());
    out.write_all(following.heading.as_bytes()).context(WRITE)?;
    out.flush().context(WRITE)?;
    let mut line = Vec::new();
    let mut printed = 0;
    while printed < count {
        match following.next(&mut line)? {
            Item::Line => {
                // The agent has escaped text lines already, and added colours.
                match (format, str::from_utf8(&line)) {
                    (LineFormat::Json, Ok(text)) => {
                        out.write_all(visible_lines(text).as_bytes()).context(WRITE)?;
                    }
                    _ => out.write_all(&line).context(WRITE)?,
                }
                printed += 1;
            }
            Item::Lost(lost) => {
                // After the lines before the gap.
                out.flush().context(WRITE)?;
                let lines = if lost == 1 { "line" } else { "lines" };
                let _ = writeln!(io::stderr(), "… {lost} {lines} lost");
            }
            Item::End(why) => {
                out.flush().context(WRITE)?;
                let _ = writeln!(io::stderr(), "tap53: {}", visible(&why));
                return Ok(());
            }
        }
        if following.is_empty() {
            out.flush().context(WRITE)?;
        }
    }
    out.flush().context(WRITE)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
