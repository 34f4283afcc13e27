//! Reads the records of a running agent.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tap53_query::{avro::Shape, row::Projection};

use super::{Error, Outcome, Receiver, files::End};
use crate::{
    control::{
        client::{Client, Following, Item},
        protocol::PastRequest,
    },
    tail::{LineFormat, Selection, datum_of_line},
};

/// Maximum number of records that are taken at once.
const BLOCK_RECORDS: u64 = 1_024;

/// The records of an agent that a question is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The records in the agent's memory that come first; `None` for none.
    pub past: Option<PastRequest>,
    /// Time for which new ones are followed.
    pub live: Option<Duration>,
}

/// Reads the records of an agent: those in its memory, then new ones. `began` receives the connection, which
/// may be shut down to end; `is_ended` returns true then.
///
/// # Errors
/// When the agent refuses, or the result cannot be written. Other errors are in the outcome.
pub fn read_agent(
    client: &Client,
    window: Window,
    began: impl FnOnce(&Following) -> Result<(), Error>,
    is_ended: impl Fn() -> bool,
    receiver: &mut dyn Receiver,
) -> Result<Outcome, Error> {
    let following = client.tail(LineFormat::Avro, Selection::default(), window.past)?;
    began(&following)?;
    let protocol = |cause| Error::Protocol { agent: client.place(), cause };
    let schema = following.schema.as_deref();
    let schema = schema.ok_or_else(|| protocol("it sends no schema of its records".to_owned()))?;
    let (_, shape) = Shape::parse(schema).map_err(|error| protocol(error.to_string()))?;
    let socket = PathBuf::from(client.place());
    let projection =
        receiver.projection(&shape).map_err(|cause| Error::Flat { file: socket.clone(), cause })?;
    let mut reader = Reader {
        socket,
        window,
        following,
        projection,
        receiver,
        block: Vec::new(),
        records: 0,
        missed: 0,
        outcome: Outcome::default(),
    };
    let ended = reader.read(is_ended);
    let mut outcome = reader.outcome;
    if reader.missed > 0 {
        outcome.errors.push(Error::Missed(reader.missed));
    }
    match ended {
        Ok(()) => {}
        Err(End::Early) => outcome.ended_early = true,
        Err(End::Failed(error @ Error::Output(_))) => return Err(error),
        Err(End::Failed(error)) => outcome.errors.push(error),
    }
    Ok(outcome)
}

struct Reader<'a> {
    socket: PathBuf,
    window: Window,
    following: Following,
    projection: Projection,
    receiver: &'a mut dyn Receiver,
    /// Records that the receiver has not taken yet.
    block: Vec<u8>,
    records: u64,
    missed: u64,
    outcome: Outcome,
}

impl Reader<'_> {
    fn read(&mut self, is_ended: impl Fn() -> bool) -> Result<(), End> {
        let until = |live: Option<Duration>| live.map(|live| Instant::now() + live);
        // With a past, the time of new ones begins after it.
        let mut deadline = until(self.window.live.filter(|_| self.window.past.is_none()));
        let mut line = Vec::new();
        loop {
            let next = self.following.next_until(&mut line, deadline);
            if is_ended() {
                break;
            }
            match next.map_err(Error::from)? {
                None => break,
                Some(Item::Line) => self.push(&line)?,
                Some(Item::Lost(lost)) => self.missed += lost,
                Some(Item::Warning(text)) => self.outcome.notes.push(text),
                Some(Item::Past(_, is_complete)) => {
                    if !is_complete {
                        self.outcome.notes.push(SHORT_MEMORY.to_owned());
                    }
                    deadline = until(self.window.live);
                    if deadline.is_none() {
                        break;
                    }
                }
                Some(Item::End(why)) => {
                    self.outcome.notes.push(why);
                    break;
                }
                Some(Item::Displaced(why)) => {
                    self.outcome.errors.push(Error::Displaced(why));
                    break;
                }
            }
            if self.following.is_empty() {
                self.take()?;
                self.receiver.flush().map_err(|error| End::of(error, &self.socket))?;
            }
        }
        self.take()
    }

    fn push(&mut self, line: &[u8]) -> Result<(), End> {
        let Some(datum) = datum_of_line(line) else {
            let cause = "a record is not in base64".to_owned();
            return Err(Error::Protocol { agent: self.socket.display().to_string(), cause }.into());
        };
        self.block.extend_from_slice(&datum);
        self.records += 1;
        if self.records >= BLOCK_RECORDS { self.take() } else { Ok(()) }
    }

    /// Passes the records to the receiver.
    fn take(&mut self) -> Result<(), End> {
        let taken = self.receiver.take(&self.projection, &self.block, self.records);
        self.block.clear();
        self.records = 0;
        taken.map_err(|error| End::of(error, &self.socket))
    }
}

/// The remark if the agent's memory does not have all records of the window.
const SHORT_MEMORY: &str =
    "earlier records are no longer in the agent's memory: control.recent_bytes is its size";
