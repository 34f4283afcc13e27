//! `tap53 top`: a view of a running agent.
//!
//! ```text
//!  agent ─▶ source ─ snapshot ─▶ model ─▶ panel: tables ─▶ view ─▶ terminal
//!  keys ──▶ source ─ key ─▶ input ─┘
//! ```

mod input;
mod model;
mod panel;
mod source;
mod terminal;
#[cfg(test)]
mod tests;
mod units;
mod view;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use nix::sys::signal::Signal;
use ratatui::crossterm::event::Event as Input;
use tap53::{
    control::client::{Client, Counting, Error},
    tail::Selection,
};

use self::{
    input::Effect,
    model::Model,
    source::{Event, Source, block_signals, watch_input, watch_signals},
    terminal::{Screen, stop_job},
    view::Palette,
};
use super::{
    filters::Filters,
    switch::{Socket, lasting},
    table::{colored, print},
};
use crate::exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo tap53 top
  sudo tap53 top -n shop
  sudo tap53 top --qname example.com --interval 5s
  sudo tap53 top --once --interval 10s > top.txt

Shows names, workloads, servers, response codes, query types and latencies of the transactions that
the agent records from now on, after its filter and privacy rules, and its losses, sinks and brokers.
The agent counts while top runs, so no transaction is missed; dns_metrics need not be enabled. When
the agent ends, top waits for the next one, and counts begin anew. '?' lists the keys.

--once waits for one interval, and prints what was counted in it as text.

Exit status: 0 quit by a key, or --once has printed; 1 no agent answers, or it refuses the request;
2 invalid arguments; 128 + N ended by signal N.";

/// Width of `--once` where standard output is no terminal.
const PLAIN_WIDTH: u16 = 100;

/// Maximum number of rows of a panel with `--once`.
const PLAIN_ROWS: usize = 20;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    request: Request,
    #[command(flatten)]
    socket: Socket,
}

/// Selects the transactions that are counted, and sets the interval of the view.
#[derive(Args, Debug)]
pub(crate) struct Request {
    /// Interval between two readings, 250ms to 60s
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "2s")]
    interval: Duration,
    /// Print what is counted in one interval as text, also where standard output is no terminal
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    filters: Filters,
}

/// Parses the interval.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = lasting(text)?;
    let allowed = Duration::from_millis(250)..=Duration::from_secs(60);
    if allowed.contains(&interval) { Ok(interval) } else { Err("must be 250ms to 60s".to_owned()) }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    watch(&arguments.request, || Ok(arguments.socket.client()))
}

/// Shows the counts of the agent that `find` returns. It is called before any thread is started.
pub(in crate::command) fn watch(
    arguments: &Request,
    find: impl FnOnce() -> anyhow::Result<Client>,
) -> anyhow::Result<ExitCode> {
    if !arguments.once && !io::stdout().is_terminal() {
        super::transactions::refuse(
            "standard output is no terminal: use --once to print one frame",
        );
    }
    let selection = arguments.filters.selection();
    let client = find()?;
    let interval_ms = u64::try_from(arguments.interval.as_millis()).unwrap_or(u64::MAX);
    let model = Model::new(interval_ms, describe(&selection)?);
    if arguments.once {
        return once(arguments.interval, model, &client, selection);
    }
    // Before any thread is started.
    let signals = block_signals()?;
    let counting = connect(&client, &selection)?;
    let (events, received) = channel();
    watch_signals(signals, events.clone())?;
    let source = Source { client, selection, interval: arguments.interval };
    let (intervals, new_intervals) = channel();
    let screen = Screen::enter(Palette { colored: colored() })?;
    watch_input(events.clone())?;
    source.watch(counting, events, new_intervals)?;
    View { screen, model, received, intervals }.run()
}

/// Connects to the agent.
fn connect(client: &Client, selection: &Selection) -> anyhow::Result<Counting> {
    client.top(selection.clone()).map_err(|error| match error {
        Error::Fault(fault) if fault.message.contains("`top`") => anyhow::anyhow!(
            "this agent is of an earlier version, which has no 'top': use 'tap53 status' and \
             'tap53 tail', or upgrade the agent (it answers: {})",
            fault.message
        ),
        error => error.into(),
    })
}

/// Prints what is counted in one interval.
fn once(
    interval: Duration,
    mut model: Model,
    client: &Client,
    selection: Selection,
) -> anyhow::Result<ExitCode> {
    let mut counting = connect(client, &selection)?;
    model.push(counting.read()?);
    thread::sleep(interval);
    model.push(counting.read()?);
    let width = match io::stdout().is_terminal() {
        true => terminal_size::terminal_size().map_or(PLAIN_WIDTH, |(width, _)| width.0),
        false => PLAIN_WIDTH,
    };
    print(&view::plain(&model, width, PLAIN_ROWS))
}

/// Returns the options that select transactions, as text.
fn describe(selection: &Selection) -> anyhow::Result<String> {
    let value = serde_json::to_value(selection).context("cannot describe the selection")?;
    let options = value.as_object().into_iter().flatten();
    let texts = options.map(|(key, value)| format!("{key} {}", value.to_string().replace('"', "")));
    Ok(texts.collect::<Vec<_>>().join(", "))
}

/// The view on a terminal.
struct View {
    screen: Screen,
    model: Model,
    received: Receiver<Event>,
    intervals: Sender<Duration>,
}

/// The exit code of the view.
type End = ExitCode;

impl View {
    /// Runs until the user quits.
    fn run(mut self) -> anyhow::Result<ExitCode> {
        loop {
            let Ok(event) = self.received.recv() else {
                bail!("the threads of the view have ended")
            };
            if let Some(end) = self.handle(event)? {
                return Ok(end);
            }
            self.screen.draw(&mut self.model)?;
        }
    }

    fn handle(&mut self, event: Event) -> anyhow::Result<Option<End>> {
        match event {
            Event::Snapshot(snapshot) => self.model.push(*snapshot),
            Event::Lost(why) => self.model.lose(why),
            Event::Input(Input::Key(key)) => {
                let effect = input::press(&mut self.model, key);
                return self.carry_out(effect);
            }
            // Drawing looks at the size.
            Event::Input(_) => {}
            Event::InputEnded(why) => bail!("cannot read from the terminal: {why}"),
            Event::Signal(signal) => return self.handle_signal(signal),
        }
        Ok(None)
    }

    fn carry_out(&mut self, effect: Effect) -> anyhow::Result<Option<End>> {
        match effect {
            Effect::Nothing => {}
            Effect::Quit => return Ok(Some(ExitCode::SUCCESS)),
            Effect::Suspend => stop_job(),
            Effect::Redraw => self.screen.redraw()?,
            // The thread that receives it runs as long as the view.
            Effect::Interval(ms) => drop(self.intervals.send(Duration::from_millis(ms))),
        }
        Ok(None)
    }

    fn handle_signal(&mut self, signal: Signal) -> anyhow::Result<Option<End>> {
        match signal {
            Signal::SIGTSTP => self.screen.suspend(),
            Signal::SIGCONT => self.screen.resume()?,
            signal => return Ok(Some(ExitCode::from(exit::of_signal(signal)))),
        }
        Ok(None)
    }
}
