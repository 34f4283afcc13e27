//! The sources of the view's events: the agent, keys, and signals of the process, with a thread each.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::event::{self, Event as Input};
use tap53::{
    control::client::{Client, Counting, Error},
    tail::Selection,
    top::Snapshot,
};

/// Interval between two attempts to connect again.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// The signals that the view handles.
const SIGNALS: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP, Signal::SIGCONT];

/// Something that the view reacts to.
pub(super) enum Event {
    /// The agent has answered.
    Snapshot(Box<Snapshot>),
    /// The agent does not answer, for this reason.
    Lost(String),
    Input(Input),
    Signal(Signal),
    /// There will be no more keys, for this reason.
    InputEnded(String),
}

/// Blocks the signals, so that only the thread that waits for them gets them. Call it before any thread
/// is started, which inherits the mask.
pub(super) fn block_signals() -> anyhow::Result<SigSet> {
    let signals: SigSet = SIGNALS.into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    Ok(signals)
}

/// Reports blocked signals.
pub(super) fn watch_signals(signals: SigSet, events: Sender<Event>) -> anyhow::Result<()> {
    spawn("signals", move || {
        while let Ok(signal) = signals.wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })
}

/// Reports keys, and changes of the terminal's size.
pub(super) fn watch_input(events: Sender<Event>) -> anyhow::Result<()> {
    spawn("input", move || {
        loop {
            let event = match event::read() {
                Ok(input) => Event::Input(input),
                Err(error) => Event::InputEnded(error.to_string()),
            };
            let is_end = matches!(event, Event::InputEnded(_));
            if events.send(event).is_err() || is_end {
                return;
            }
        }
    })
}

/// The agent that is followed.
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) selection: Selection,
    pub(super) interval: Duration,
}

impl Source {
    /// Follows the agent in a thread: a snapshot for each interval, and another connection when one ends.
    /// `intervals` has new intervals.
    pub(super) fn watch(
        mut self,
        first: Counting,
        events: Sender<Event>,
        intervals: Receiver<Duration>,
    ) -> anyhow::Result<()> {
        let mut counting = Some(first);
        spawn("agent", move || {
            loop {
                let (event, pause) = match self.read(&mut counting) {
                    Ok(snapshot) => (Event::Snapshot(Box::new(snapshot)), self.interval),
                    Err(error) => (Event::Lost(error.to_string()), RECONNECT_INTERVAL),
                };
                if events.send(event).is_err() {
                    return;
                }
                match intervals.recv_timeout(pause) {
                    Ok(interval) => self.interval = interval,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })
    }

    /// Reads a snapshot; connects first if there is no connection.
    fn read(&self, counting: &mut Option<Counting>) -> Result<Snapshot, Error> {
        let mut connection = match counting.take() {
            Some(connection) => connection,
            None => self.client.top(self.selection.clone())?,
        };
        let snapshot = connection.read()?;
        *counting = Some(connection);
        Ok(snapshot)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(|_| ()).context("cannot start a thread")
}
