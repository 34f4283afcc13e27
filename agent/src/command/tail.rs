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

Shows what becomes records from now on, under the privacy rules of the agent. An option that is
repeated holds any of its values; different options must all hold, but for --rcode and
--unanswered: either. The agent does not wait for a slow reader: lines are lost then, and standard
error says how many. No record is: sinks get all of them.

Exit status: 0 the agent stopped, COUNT is reached, or the reader went away; 1 no agent answers;
2 arguments refused.";

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print each transaction as a JSON object on a line
    #[arg(long)]
    json: bool,
    /// End after so many transactions
    #[arg(short = 'n', value_name = "COUNT")]
    count: Option<NonZeroU64>,
    /// Only this name and those below it
    #[arg(long = "qname", value_name = "SUFFIX", value_parser = zone)]
    qnames: Vec<String>,
    /// Only clients of this prefix
    #[arg(long = "client", value_name = "CIDR", value_parser = prefix)]
    clients: Vec<IpNet>,
    /// Only servers of this prefix
    #[arg(long = "server", value_name = "CIDR", value_parser = prefix)]
    servers: Vec<IpNet>,
    /// Only this query type
    #[arg(long = "qtype", value_name = "TYPE")]
    qtypes: Vec<QueryType>,
    /// Only this response code
    #[arg(long = "rcode", value_name = "RCODE", value_parser = rcode)]
    rcodes: Vec<u16>,
    /// Only what was not answered
    #[arg(long)]
    unanswered: bool,
    /// Only this interface, or a shell pattern of names
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
        // A reader that goes away, such as `head`, is not an error.
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
                // The text has its colours from the agent, and no other text of others as it is.
                match (format, str::from_utf8(&line)) {
                    (LineFormat::Json, Ok(text)) => {
                        out.write_all(visible_lines(text).as_bytes()).context(WRITE)?;
                    }
                    _ => out.write_all(&line).context(WRITE)?,
                }
                printed += 1;
            }
            Item::Lost(lost) => {
                // Behind the lines that came before.
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
