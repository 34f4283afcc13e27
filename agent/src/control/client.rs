//! The client of the control socket.

mod connect;
mod stream;

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use nix::errno::Errno;
use serde::Deserialize;
use serde_json::Value;
use tap53_base::vitals::Probe;
use tap53_capture::interfaces::InterfaceStatus;

use super::protocol::{Call, Fault, Line, PastRequest, Reason, VERSION};
use crate::tail::{LineFormat, Selection};
pub use connect::Connect;
use connect::Socket;
pub use stream::{Counting, Following, Item};

/// Timeout of a request; longer than the agent's own deadline for an answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum size of an answer in bytes: some thousands of interfaces take less.
const MAX_ANSWER: u64 = 64 << 20;

/// An error of a request to an agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No agent listens.
    #[error("no agent answers at {agent}: is it running? ({})", cause.desc())]
    Unreachable {
        /// The place.
        agent: String,
        /// The kernel's error.
        cause: Errno,
    },
    /// The file is not open to this user.
    #[error("{agent} is not open to uid {own}: {}", owner_hint(*owner))]
    NotPermitted {
        /// The socket.
        agent: String,
        /// The user of this process.
        own: u32,
        /// The file's owner, if it can be read.
        owner: Option<u32>,
    },
    /// The agent does not answer in time.
    #[error("the agent at {agent} does not answer within {} s", TIMEOUT.as_secs())]
    Timeout {
        /// The place.
        agent: String,
    },
    /// The connection ended before the answer was complete.
    #[error("the connection to the agent at {agent} failed: {reason}")]
    Disconnected {
        /// The place.
        agent: String,
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

/// A client of an agent.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Arc<dyn Connect>,
}

#[derive(Deserialize)]
struct Answer {
    ok: Option<Value>,
    error: Option<Fault>,
    #[serde(default)]
    ledger_text: String,
}

impl Client {
    /// Creates a client of the agent whose control socket is at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::of(Socket(path.to_owned()))
    }

    /// Creates a client of the agent at another place.
    #[must_use]
    pub fn of(agent: impl Connect + 'static) -> Self {
        Self { agent: Arc::new(agent) }
    }

    /// Returns the place of the agent, for people.
    #[must_use]
    pub fn place(&self) -> String {
        self.agent.to_string()
    }

    /// Connects to the agent.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connect(&self) -> Result<UnixStream, Error> {
        self.agent.connect()
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
                Err(Error::Timeout { agent: self.place() })
            }
            (Ok(0), Err(error)) | (Err(error), _) => Err(self.disconnected(error.to_string())),
            (Ok(0), Ok(())) => Err(self.disconnected("closed without an answer".to_owned())),
            (Ok(_), _) => Ok(line),
        }
    }

    fn disconnected(&self, reason: String) -> Error {
        Error::Disconnected { agent: self.place(), reason }
    }
}
