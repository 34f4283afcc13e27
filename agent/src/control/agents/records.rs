//! Merges the records of several agents.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tap53_records::encode::Row;

use super::{Agent, Agents, Answers, no_answer};
use crate::{
    control::{
        client::{Following, Item},
        protocol::{Note, PastRequest},
    },
    tail::{LineFormat, Selection},
};

/// Time that a record waits for earlier ones of other agents.
pub(super) const HOLD: Duration = Duration::from_millis(250);

/// Time that records wait for those of the past of all agents.
const PAST_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of records that wait. More are shown without their order.
const MAX_WAITING: usize = 65_536;

/// Number of items between an agent's thread and the merging one. If it is full, the agent drops records and
/// counts them.
const QUEUED: usize = 1_024;

/// An event in the stream of one agent.
enum Event {
    /// A record with its time.
    Record(i64, Vec<u8>),
    Lost(u64),
    Past {
        records: u64,
        complete: bool,
    },
    /// The agent's stream has ended, for this reason.
    End(String),
}

/// A record that waits for earlier ones. The order is that of the fields.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    at_us: i64,
    /// Number in the order of arrival.
    number: u64,
    arrived: Instant,
    line: Vec<u8>,
}

/// Answers a `tail`.
pub(super) fn serve(
    agents: &Agents,
    answers: &mut Answers,
    format: LineFormat,
    selection: &Selection,
    past: Option<PastRequest>,
) -> io::Result<()> {
    let asked = agents.each(|agent| {
        let following = agent.client.tail(format, selection.clone(), past);
        following.map_err(|error| format!("{}: {error}", agent.node))
    });
    let failures: Vec<_> = asked.iter().filter_map(|it| it.as_ref().err()).collect();
    if failures.len() == asked.len() {
        return answers.result::<()>(Err(no_answer(failures)));
    }
    answers.result(Ok(json!({})))?;
    for failure in failures {
        answers.note(&Note::Warning(failure.clone()))?;
    }
    let (events, received) = sync_channel(QUEUED);
    let mut following = 0;
    for (agent, stream) in agents.0.iter().zip(asked) {
        let (Ok(stream), events) = (stream, events.clone()) else { continue };
        let agent = agent.clone();
        thread::Builder::new()
            .name("follower".to_owned())
            .spawn(move || follow(&agent, stream, &events))?;
        following += 1;
    }
    drop(events);
    let past_until = past.map(|_| Instant::now() + PAST_TIMEOUT);
    let waiting = BinaryHeap::new();
    let mut merge =
        Merge { answers, waiting, number: 0, following, past: (0, true, 0), past_until };
    merge.run(&received)
}

/// Passes on what an agent sends, until its stream or the receiver ends.
fn follow(agent: &Agent, mut stream: Following, events: &SyncSender<Event>) {
    let mut line = Vec::new();
    loop {
        let event = match stream.next(&mut line) {
            Ok(Item::Line) => {
                let at_us = Row::from_json(&line).map_or(0, |row| row.began_us());
                Event::Record(at_us, std::mem::take(&mut line))
            }
            Ok(Item::Lost(lost)) => Event::Lost(lost),
            Ok(Item::Past(records, complete)) => Event::Past { records, complete },
            Ok(Item::Warning(_)) => continue,
            Ok(Item::End(why) | Item::Displaced(why)) => {
                Event::End(format!("{}: {why}", agent.node))
            }
            Err(error) => Event::End(format!("{}: {error}", agent.node)),
        };
        let is_end = matches!(event, Event::End(_));
        if events.send(event).is_err() || is_end {
            return;
        }
    }
}

struct Merge<'a> {
    answers: &'a mut Answers,
    waiting: BinaryHeap<Reverse<Waiting>>,
    number: u64,
    /// Number of agents that still send.
    following: usize,
    /// The records of the past: their number, whether they are complete, and the number of agents that have
    /// sent theirs.
    past: (u64, bool, usize),
    /// Until then the records of the past are collected.
    past_until: Option<Instant>,
}

impl Merge<'_> {
    fn run(&mut self, received: &Receiver<Event>) -> io::Result<()> {
        loop {
            let now = Instant::now();
            self.end_of_past(now)?;
            self.pass_on(now)?;
            let event = match self.next_due() {
                Some(due) => received.recv_timeout(due.saturating_duration_since(now)),
                None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(event) => self.take(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
        }
    }

    fn take(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Record(at_us, line) => {
                let (number, arrived) = (self.number, Instant::now());
                self.number += 1;
                self.waiting.push(Reverse(Waiting { at_us, number, arrived, line }));
                Ok(())
            }
            Event::Lost(lost) => self.answers.note(&Note::Lost(lost)),
            Event::Past { records, complete } => {
                let (sum, all, agents) = self.past;
                self.past = (sum + records, all && complete, agents + 1);
                Ok(())
            }
            Event::End(why) => {
                self.following -= 1;
                match self.following {
                    0 => Ok(()),
                    _ => self.answers.note(&Note::Warning(why)),
                }
            }
        }
    }

    /// Returns the time at which something has to be done although no agent sends.
    fn next_due(&self) -> Option<Instant> {
        let due = || self.waiting.peek().map(|Reverse(first)| first.arrived + HOLD);
        self.past_until.or_else(due)
    }

    /// Ends the collection of the past once every agent has sent its part.
    fn end_of_past(&mut self, now: Instant) -> io::Result<()> {
        let (records, complete, agents) = self.past;
        let Some(until) = self.past_until else { return Ok(()) };
        if agents < self.following && now < until {
            return Ok(());
        }
        self.past_until = None;
        self.write_all_waiting()?;
        let complete = complete && agents >= self.following;
        self.answers.note(&Note::Past { records, complete })
    }

    /// Passes on the records that have waited long enough.
    fn pass_on(&mut self, now: Instant) -> io::Result<()> {
        let is_due = |first: &Waiting| first.arrived + HOLD <= now;
        while self.waiting.len() > MAX_WAITING
            || self.past_until.is_none() && self.waiting.peek().is_some_and(|it| is_due(&it.0))
        {
            let Some(Reverse(first)) = self.waiting.pop() else { break };
            self.answers.0.write_all(&first.line)?;
        }
        Ok(())
    }

    fn write_all_waiting(&mut self) -> io::Result<()> {
        while let Some(Reverse(first)) = self.waiting.pop() {
            self.answers.0.write_all(&first.line)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.past_until = self.past_until.map(|_| Instant::now());
        self.end_of_past(Instant::now())?;
        self.write_all_waiting()?;
        self.answers.note(&Note::End("all agents have ended their streams".to_owned()))
    }
}
