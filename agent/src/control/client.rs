//! A command's end of the socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
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

use super::protocol::{Call, Fault, Line, NOTE, Note, VERSION};
use crate::tail::{LineFormat, Selection};

/// More than the agent takes at most before it says that it cannot.
const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of an answer at most: some thousands of interfaces.
const MAX_ANSWER: u64 = 64 << 20;

/// Why a command could not reach an agent, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no agent answers at {}: is it running? ({})", path.display(), cause.desc())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        cause: Errno,
    },
    /// The file is not open to this user.
    #[error("{} is not open to uid {own}: {}", path.display(), owner_hint(*owner))]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// Who asks.
        own: u32,
        /// Whose it is, where that can be seen.
        owner: Option<u32>,
    },
    /// It accepts connections and says nothing.
    #[error("the agent at {} does not answer within {} s", .0.display(), PATIENCE.as_secs())]
    Silent(PathBuf),
    /// It ended, or was ended, before it had answered.
    #[error("the agent at {} broke off: {reason}", path.display())]
    BrokeOff {
        /// The socket.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// It answered with a refusal.
    #[error("{}", .0.message)]
    Fault(Fault),
}

fn owner_hint(owner: Option<u32>) -> String {
    owner.map_or_else(
        || "its directory may be entered by its owner and root alone".to_owned(),
        |owner| format!("allowed are uid {owner} and root"),
    )
}

/// What an agent said of itself.
#[derive(Debug)]
pub struct StatusAnswer {
    /// All of it.
    pub status: Value,
    /// The ledger for people.
    pub ledger_text: String,
}

/// Speaks to the agent at one socket.
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
    /// For the agent at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// How things are.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn status(&self) -> Result<StatusAnswer, Error> {
        let (_, answer) = self.call(Call::Status)?;
        let ledger_text = answer.ledger_text;
        Ok(StatusAnswer { status: answer.ok.unwrap_or_default(), ledger_text })
    }

    /// Asks if the agent is alive, and why not.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn live(&self) -> Result<Probe, Error> {
        let (_, answer) = self.call(Call::Live)?;
        serde_json::from_value(answer.ok.unwrap_or_default())
            .map_err(|error| self.broke_off(format!("its answer makes no sense: {error}")))
    }

    /// Makes a change; every interface that it concerns, as it is then.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn switch(&self, call: Call) -> Result<Vec<InterfaceStatus>, Error> {
        let (_, answer) = self.call(call)?;
        serde_json::from_value(answer.ok.unwrap_or_default())
            .map_err(|error| self.broke_off(format!("its answer makes no sense: {error}")))
    }

    /// Follows the records.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn tail(&self, format: LineFormat, selection: Selection) -> Result<Following, Error> {
        let (lines, answer) = self.call(Call::Tail { format, selection })?;
        // Quiet nights last longer than any patience.
        let endless = lines.get_ref().set_read_timeout(None);
        endless.map_err(|error| self.broke_off(error.to_string()))?;
        let ok = answer.ok.unwrap_or_default();
        let heading = ok.get("heading").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Following { heading, lines, client: self.clone() })
    }

    fn call(&self, call: Call) -> Result<(BufReader<UnixStream>, Answer), Error> {
        let mut stream = self.connect()?;
        let mut line = serde_json::to_vec(&Line { version: VERSION, call })
            .map_err(|error| self.broke_off(error.to_string()))?;
        line.push(b'\n');
        // An agent that lets nobody in answers without reading: its answer says more than EPIPE.
        let sent = stream.write_all(&line);
        let mut lines = BufReader::new(stream);
        let mut answer = Vec::new();
        let read = lines.by_ref().take(MAX_ANSWER).read_until(b'\n', &mut answer);
        match (read, sent) {
            (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Error::Silent(self.path.clone()));
            }
            (Ok(0), Err(error)) | (Err(error), _) => {
                return Err(self.broke_off(error.to_string()));
            }
            (Ok(0), Ok(())) => return Err(self.broke_off("without an answer".to_owned())),
            (Ok(_), _) => {}
        }
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|error| self.broke_off(format!("its answer makes no sense: {error}")))?;
        match answer.error {
            Some(fault) => Err(Error::Fault(fault)),
            None => Ok((lines, answer)),
        }
    }

    /// Connects, but does not wait for ever where nobody accepts.
    fn connect(&self) -> Result<UnixStream, Error> {
        let connected = || -> Result<UnixStream, Errno> {
            let socket: OwnedFd =
                socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            let patience = TimeVal::new(PATIENCE.as_secs().try_into().unwrap_or(1), 0);
            // Also how long connect(2) waits (unix(7)).
            setsockopt(&socket, sockopt::SendTimeout, &patience)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(&self.path)?)?;
            Ok(UnixStream::from(socket))
        };
        connected().map_err(|cause| match cause {
            Errno::EACCES | Errno::EPERM => Error::NotPermitted {
                path: self.path.clone(),
                own: geteuid().as_raw(),
                owner: std::fs::metadata(&self.path).ok().map(|found| found.uid()),
            },
            Errno::EAGAIN => Error::Silent(self.path.clone()),
            cause => Error::Unreachable { path: self.path.clone(), cause },
        })
    }

    fn broke_off(&self, reason: String) -> Error {
        Error::BrokeOff { path: self.path.clone(), reason }
    }
}

/// A stream of records.
pub struct Following {
    /// What stands above the first line; empty where nothing does.
    pub heading: String,
    lines: BufReader<UnixStream>,
    client: Client,
}

/// What comes of a stream of records.
pub enum Item {
    /// A record's line is in the buffer, with its line feed.
    Line,
    /// So many lines are missing here.
    Lost(u64),
    /// Nothing more comes, and why.
    End(String),
}

impl Following {
    /// Waits for the next item; the line of a record is put into `line`.
    ///
    /// # Errors
    /// When the agent is gone without a word.
    pub fn next(&mut self, line: &mut Vec<u8>) -> Result<Item, Error> {
        loop {
            line.clear();
            let read = self.lines.read_until(b'\n', line);
            match read {
                Ok(_) if line.ends_with(b"\n") => {}
                Ok(_) => return Err(self.client.broke_off("without a word".to_owned())),
                Err(error) => return Err(self.client.broke_off(error.to_string())),
            }
            let Some((&NOTE, note)) = line.split_first() else { return Ok(Item::Line) };
            match serde_json::from_slice(note) {
                Ok(Note::Lost(lost)) => return Ok(Item::Lost(lost)),
                Ok(Note::End(why)) => return Ok(Item::End(why)),
                // Of a newer agent.
                Err(_) => {}
            }
        }
    }

    /// True if the next item may be long in coming: what was printed should be seen by now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.buffer().is_empty()
    }
}
