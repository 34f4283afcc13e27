//! Streams of counts and of records from an agent.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::Instant,
};

use super::{Client, Error};
use crate::{
    control::protocol::{NOTE, Note},
    top::Snapshot,
};

/// Counts of an agent.
pub struct Counting {
    pub(super) lines: BufReader<UnixStream>,
    pub(super) client: Client,
}

impl Counting {
    /// Requests the counts as of now.
    ///
    /// # Errors
    /// See [`Error`]. The connection is of no use after one.
    pub fn read(&mut self) -> Result<Snapshot, Error> {
        // An agent that has ended the connection has sent the reason: it says more than EPIPE.
        let sent = self.lines.get_mut().write_all(b"\n");
        let line = self.client.read_line(&mut self.lines, sent)?;
        if let Some((&NOTE, note)) = line.split_first()
            && let Ok(Note::End(why)) = serde_json::from_slice(note)
        {
            return Err(Error::Ended(why));
        }
        serde_json::from_slice(&line)
            .map_err(|error| self.client.disconnected(format!("invalid answer: {error}")))
    }
}

/// A stream of records.
pub struct Following {
    /// Heading above the first line; may be empty.
    pub heading: String,
    /// Schema of records in [`LineFormat::Avro`].
    pub schema: Option<String>,
    pub(super) lines: BufReader<UnixStream>,
    pub(super) client: Client,
}

/// An item of a stream of records.
pub enum Item {
    /// The line of a record is in the buffer, with its line feed.
    Line,
    /// This number of lines was lost here.
    Lost(u64),
    /// This number of records of the past precede; false if there were more that the agent has dropped.
    Past(u64, bool),
    /// Something that the reader should know.
    Warning(String),
    /// The stream has ended, for this reason.
    End(String),
    /// The stream has ended because a newer follower took its place, for this reason.
    Displaced(String),
}

impl Following {
    /// Returns another handle of the connection, by which a different thread can end it.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn connection(&self) -> io::Result<UnixStream> {
        self.lines.get_ref().try_clone()
    }

    /// Waits for the next item; `line` receives the line of a record.
    ///
    /// # Errors
    /// When the connection ends without [`Item::End`] and [`Item::Displaced`].
    pub fn next(&mut self, line: &mut Vec<u8>) -> Result<Item, Error> {
        loop {
            line.clear();
            let read = self.lines.read_until(b'\n', line);
            match read {
                Ok(_) if line.ends_with(b"\n") => {}
                Ok(_) => {
                    return Err(self.client.disconnected("closed by the agent".to_owned()));
                }
                Err(error) => return Err(self.client.disconnected(error.to_string())),
            }
            let Some((&NOTE, note)) = line.split_first() else { return Ok(Item::Line) };
            match serde_json::from_slice(note) {
                Ok(Note::Lost(lost)) => return Ok(Item::Lost(lost)),
                Ok(Note::Past { records, complete }) => return Ok(Item::Past(records, complete)),
                Ok(Note::Warning(text)) => return Ok(Item::Warning(text)),
                Ok(Note::End(why)) => return Ok(Item::End(why)),
                Ok(Note::Displaced(why)) => return Ok(Item::Displaced(why)),
                // A note of a newer agent.
                Err(_) => {}
            }
        }
    }

    /// Waits for the next item until `deadline`; `None` if there is none by then.
    ///
    /// # Errors
    /// When the connection ends without [`Item::End`].
    pub fn next_until(
        &mut self,
        line: &mut Vec<u8>,
        deadline: Option<Instant>,
    ) -> Result<Option<Item>, Error> {
        let Some(deadline) = deadline else { return self.next(line).map(Some) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timed = self.lines.get_ref().set_read_timeout(Some(left));
        timed.map_err(|error| self.client.disconnected(error.to_string()))?;
        match self.next(line) {
            Err(_) if Instant::now() >= deadline => Ok(None),
            item => item.map(Some),
        }
    }

    /// Returns true if no item is buffered. The next one may take long, so the caller flushes its output.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.buffer().is_empty()
    }
}
