//! `tap53 tail`.

mod limit;
mod lines;

use std::{
    io::{self, ErrorKind, Write},
    num::NonZeroU64,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use tap53::{
    config::{StdoutFlags, TextFormat},
    control::{
        client::{Client, Following, Item},
        protocol::PastRequest,
    },
};
use tap53_base::visible::visible;

use self::{limit::Limit, lines::Printer};
use super::{
    filters::Filters,
    interrupt::Interrupt,
    switch::{Socket, lasting},
    transactions::Output,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo tap53 tail
  sudo tap53 tail -n shop --workload checkout --slower 50ms
  sudo tap53 tail --qname example.com --qtype AAAA --qtype HTTPS
  sudo tap53 tail --client 10.1.0.0/16 --unanswered --rcode SERVFAIL
  sudo tap53 tail --since 5m --no-follow -o csv > last.csv
  sudo tap53 tail -o jsonl --count 100 | jq .qname

Prints the transactions that the agent records from now on, after its filter and privacy rules. With
--last or --since, it begins with recent ones from the agent's memory (control.recent_bytes).
An option that is repeated matches any of its values. A transaction must match all options, except
that --rcode and --unanswered match either. The agent does not wait for a slow reader: lines are
lost then, and standard error has their number. Sinks still get every record.

On a terminal, text fits its width, and a line with a date precedes the transactions of another day.
Elsewhere nothing is cut, and times of another day have their date.

Internationalized names are accepted, and matched as their A-label: --qname müller.example matches
xn--mller-kva.example.

Without a terminal, as in `kubectl exec` without -t, it stops after 10 minutes: nothing else would end
it when kubectl has ended. --for gives another time.

Exit status: 0 the agent stopped, COUNT or the time is reached, the output was closed, or Ctrl-C; 1 no
agent answers, it refuses the request, or a newer follower took this one's place (8 may follow at a
time); 2 invalid arguments.";

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    request: Request,
    #[command(flatten)]
    socket: Socket,
}

/// The records to print, and how.
#[derive(Args, Debug)]
pub(crate) struct Request {
    #[command(flatten)]
    output: Output,
    /// Print each transaction as a line of JSON, like --output jsonl
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Stop after this number of transactions
    #[arg(long, value_name = "COUNT")]
    count: Option<NonZeroU64>,
    /// Begin with the last COUNT transactions in the agent's memory
    #[arg(long, value_name = "COUNT")]
    last: Option<u64>,
    /// Begin with transactions in the agent's memory that ended within this time, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = lasting)]
    since: Option<Duration>,
    /// Stop after the transactions of --last or --since
    #[arg(long)]
    no_follow: bool,
    /// Stop after this time, such as 90s or 8h, or `forever` [default: forever on a terminal, else 10m]
    #[arg(long = "for", value_name = "DURATION", value_parser = limit::parse)]
    limit: Option<Limit>,
    #[command(flatten)]
    filters: Filters,
}

impl Request {
    fn past(&self) -> Option<PastRequest> {
        let since_ms = self.since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        (self.last.is_some() || since_ms.is_some())
            .then_some(PastRequest { last: self.last, since_ms })
    }
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    follow(arguments.request, Nodes::One, || Ok(arguments.socket.client()))
}

/// The nodes whose records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nodes {
    /// The node of one agent.
    One,
    /// Several nodes, which a column names.
    Several,
}

/// Prints the records of the agent that `find` returns. It is called once the signals are handled.
pub(super) fn follow(
    arguments: Request,
    nodes: Nodes,
    find: impl FnOnce() -> anyhow::Result<Client>,
) -> anyhow::Result<ExitCode> {
    let past = arguments.past();
    if arguments.no_follow && past.is_none() {
        super::transactions::refuse("--no-follow needs --last or --since");
    }
    let json = arguments.json.then_some(TextFormat::Json);
    let flags = arguments.output.flags(json);
    let mut flags = flags.unwrap_or_else(|| StdoutFlags::from(TextFormat::Text));
    if nodes == Nodes::Several {
        let columns = flags.columns.unwrap_or(flags.format.columns());
        flags.columns = Some(columns.with_node());
    }
    let printer = Printer::new(flags)?;
    let interrupt = Interrupt::new()?;
    let client = find()?;
    let following = client.tail(printer.line_format(), arguments.filters.selection(), past)?;
    let limit = arguments.limit.unwrap_or_else(Limit::usual);
    if let Limit::After(duration) = limit {
        interrupt.expires_after(duration)?;
    }
    interrupt.ends(following.connection().context("cannot follow the agent")?);
    let mut tail = Tail {
        following,
        printer,
        interrupt,
        count: arguments.count.map_or(u64::MAX, NonZeroU64::get),
        follows: !arguments.no_follow,
        limit_is_usual: arguments.limit.is_none(),
        began: Instant::now(),
        shown: 0,
        lost: 0,
    };
    match tail.run() {
        // A closed pipe, as of `head`, is not an error.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        outcome => outcome.map(|()| ExitCode::SUCCESS),
    }
}

/// A follower of an agent.
struct Tail {
    following: Following,
    printer: Printer,
    interrupt: Interrupt,
    /// Number of transactions after which it stops.
    count: u64,
    /// False if it stops after the transactions of the past.
    follows: bool,
    /// True if no option requests an end, so that the end needs an explanation.
    limit_is_usual: bool,
    began: Instant,
    shown: u64,
    lost: u64,
}

impl Tail {
    fn run(&mut self) -> anyhow::Result<()> {
        self.printer.begin()?;
        let mut line = Vec::new();
        while self.shown < self.count {
            let next = self.following.next(&mut line);
            if self.interrupt.is_requested() {
                self.printer.flush()?;
                note(&self.closing_line());
                return Ok(());
            }
            if self.interrupt.is_expired() {
                self.printer.flush()?;
                note(&self.closing_line());
                if self.limit_is_usual {
                    note("tap53: ended, because there is no terminal; --for gives another time");
                }
                return Ok(());
            }
            match next? {
                Item::Line => {
                    self.printer.print(&line)?;
                    self.shown += 1;
                }
                Item::Lost(lost) => {
                    // After the lines before the gap.
                    self.printer.flush()?;
                    self.lost += lost;
                    note(&format!("… {lost} {} lost", plural(lost, "line")));
                }
                Item::Past(records, is_complete) => {
                    if !is_complete {
                        self.printer.flush()?;
                        note(&format!(
                            "tap53: the agent's memory has only {records} of these transactions \
                             (control.recent_bytes)"
                        ));
                    }
                    if !self.follows {
                        break;
                    }
                }
                Item::Warning(text) => {
                    self.printer.flush()?;
                    note(&format!("tap53: {}", visible(&text)));
                }
                Item::End(why) => {
                    self.printer.flush()?;
                    note(&format!("tap53: {}", visible(&why)));
                    return Ok(());
                }
                Item::Displaced(why) => {
                    self.printer.flush()?;
                    anyhow::bail!("{}", visible(&why));
                }
            }
            if self.following.is_empty() {
                self.printer.flush()?;
            }
        }
        self.printer.flush()
    }

    /// Returns what was shown and what was lost.
    fn closing_line(&self) -> String {
        let (shown, lost) = (self.shown, self.lost);
        let seconds = self.began.elapsed().as_secs_f64();
        format!(
            "tap53: {shown} {} shown, {lost} {} lost because this reader was slow, in {seconds:.1} s",
            plural(shown, "transaction"),
            plural(lost, "line")
        )
    }
}

/// Writes a line to standard error.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
