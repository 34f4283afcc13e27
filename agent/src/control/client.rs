//! The client of the control socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
    unistd::geteuid,
};
use serde::Deserialize;
use serde_json::Value;
use tap53_base::vitals::Probe;
use tap53_capture::interfaces::InterfaceStatus;

use super::protocol::{Call, Fault, Line, NOTE, Note, PastRequest, Reason, VERSION};
use crate::{
    tail::{LineFormat, Selection},
    top::Snapshot,
};

/// Timeout of a request; longer than the agent's own deadline for an answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum size of an answer in bytes: some thousands of interfaces take less.
const MAX_ANSWER: u64 = 64 << 20;

/// An error of a request to an agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No agent listens.
    #[error("no agent answers at {}: is it running? ({})", path.display(), cause.desc())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        cause: Errno,
    },
    /// The file is not open to this user.
    #[error("{} is not open to uid {own}: {}", path.display(), owner_hint(*owner))]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// The user of this process.
        own: u32,
        /// The file's owner, if it can be read.
        owner: Option<u32>,
    },
    /// The agent does not answer in time.
    #[error("the agent at {} does not answer within {} s", .0.display(), TIMEOUT.as_secs())]
    Timeout(PathBuf),
    /// The connection ended before the answer was complete.
    #[error("the connection to the agent at {} failed: {reason}", path.display())]
    Disconnected {
        /// The socket.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The agent refused the request.
    #[error("{}", .0.message)]
    Fault(Fault),
    /// The agent ended the connection, for this reason.
    #[error("{0}")]
    Ended(String),
}

/// Adds to the refusal of a malformed request that the agent may be of an earlier version: only another
/// version does not understand what this one sends.
fn hint_at_version(error: Error) -> Error {
    match error {
        Error::Fault(Fault { reason: reason @ Reason::Malformed, message }) => {
            let hint = "is the agent of an earlier version than this command?";
            Error::Fault(Fault { reason, message: format!("{message}; {hint}") })
        }
        error => error,
    }
}

fn owner_hint(owner: Option<u32>) -> String {
    owner.map_or_else(
        || "only its owner and root may enter its directory".to_owned(),
        |owner| format!("allowed are uid {owner} and root"),
    )
}

/// The status of an agent.
#[derive(Debug)]
pub struct StatusAnswer {
    /// The status as JSON.
    pub status: Value,
    /// The ledger as text.
    pub ledger_text: String,
}

/// A client of the agent at one socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Answer {
    ok: Option<Value>,
    error: Option<Fault>,
    #[serde(default)]
    ledger_text: String,
}

impl Client {
    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a client of the agent at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Requests the agent's status.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn status(&self) -> Result<StatusAnswer, Error> {
        let (_, answer) = self.call(Call::Status)?;
        let ledger_text = answer.ledger_text;
        Ok(StatusAnswer { status: answer.ok.unwrap_or_default(), ledger_text })
    }

    /// Requests whether the agent is alive, with the reasons if it is not.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn live(&self) -> Result<Probe, Error> {
        let (_, answer) = self.call(Call::Live)?;
        serde_json::from_value(answer.ok.unwrap_or_default())
            .map_err(|error| self.disconnected(format!("invalid answer: {error}")))
    }

    /// Switches capture; returns the status of every interface that the pattern matches.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn switch(&self, call: Call) -> Result<Vec<InterfaceStatus>, Error> {
        let (_, answer) = self.call(call)?;
        serde_json::from_value(answer.ok.unwrap_or_default())
            .map_err(|error| self.disconnected(format!("invalid answer: {error}")))
    }

    /// Follows the records; with `past`, those of the past come first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn tail(
        &self,
        format: LineFormat,
        selection: Selection,
        past: Option<PastRequest>,
    ) -> Result<Following, Error> {
        let answered = self.call(Call::Tail { format, selection: Box::new(selection), past });
        let (lines, answer) = answered.map_err(hint_at_version)?;
        // Without a timeout: there may be no record for hours.
        let endless = lines.get_ref().set_read_timeout(None);
        endless.map_err(|error| self.disconnected(error.to_string()))?;
        let ok = answer.ok.unwrap_or_default();
        let text = |name| ok.get(name).and_then(Value::as_str).map(str::to_owned);
        let (heading, schema) = (text("heading").unwrap_or_default(), text("schema"));
        Ok(Following { heading, schema, lines, client: self.clone() })
    }

    /// Makes the agent count the records.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn top(&self, selection: Selection) -> Result<Counting, Error> {
        let answered = self.call(Call::Top { selection: Box::new(selection) });
        let (lines, _) = answered.map_err(hint_at_version)?;
        Ok(Counting { lines, client: self.clone() })
    }

    fn call(&self, call: Call) -> Result<(BufReader<UnixStream>, Answer), Error> {
        let mut stream = self.connect()?;
        let mut line = serde_json::to_vec(&Line { version: VERSION, call })
            .map_err(|error| self.disconnected(error.to_string()))?;
        line.push(b'\n');
        // An agent that denies the connection answers without reading: its answer says more than EPIPE.
        let sent = stream.write_all(&line);
        let mut lines = BufReader::new(stream);
        let answer = self.read_line(&mut lines, sent)?;
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|error| self.disconnected(format!("invalid answer: {error}")))?;
        match answer.error {
            Some(fault) => Err(Error::Fault(fault)),
            None => Ok((lines, answer)),
        }
    }

    /// Reads a line of an answer to what was `sent`.
    fn read_line(
        &self,
        lines: &mut BufReader<UnixStream>,
        sent: io::Result<()>,
    ) -> Result<Vec<u8>, Error> {
        let mut line = Vec::new();
        let read = lines.by_ref().take(MAX_ANSWER).read_until(b'\n', &mut line);
        match (read, sent) {
            (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(Error::Timeout(self.path.clone()))
            }
            (Ok(0), Err(error)) | (Err(error), _) => Err(self.disconnected(error.to_string())),
            (Ok(0), Ok(())) => Err(self.disconnected("closed without an answer".to_owned())),
            (Ok(_), _) => Ok(line),
        }
    }

    /// Connects, with a timeout if the agent does not accept.
    fn connect(&self) -> Result<UnixStream, Error> {
        let connected = || -> Result<UnixStream, Errno> {
            let socket: OwnedFd =
                socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            let timeout = TimeVal::new(TIMEOUT.as_secs().try_into().unwrap_or(1), 0);
            // Also the timeout of connect(2) (unix(7)).
            setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(&self.path)?)?;
            Ok(UnixStream::from(socket))
        };
        connected().map_err(|cause| match cause {
            Errno::EACCES | Errno::EPERM => Error::NotPermitted {
                path: self.path.clone(),
                own: geteuid().as_raw(),
                owner: std::fs::metadata(&self.path).ok().map(|found| found.uid()),
            },
            Errno::EAGAIN => Error::Timeout(self.path.clone()),
            cause => Error::Unreachable { path: self.path.clone(), cause },
        })
    }

    fn disconnected(&self, reason: String) -> Error {
        Error::Disconnected { path: self.path.clone(), reason }
    }
}

/// Counts of an agent.
pub struct Counting {
    lines: BufReader<UnixStream>,
    client: Client,
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
    lines: BufReader<UnixStream>,
    client: Client,
}

/// An item of a stream of records.
pub enum Item {
    /// The line of a record is in the buffer, with its line feed.
    Line,
    /// This number of lines was lost here.
    Lost(u64),
    /// This number of records of the past precede; false if there were more that the agent has dropped.
    Past(u64, bool),
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
