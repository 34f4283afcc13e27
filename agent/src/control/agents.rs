//! Several agents as one.
//!
//! ```text
//!  command ─ Client ─▶ connection ─▶ thread ─┬─ Client ─▶ agent of node-1
//!                                            ├─ Client ─▶ agent of node-2
//!                                            └─ …
//! ```
//!
//! A connection to [`Agents`] ends in a thread that speaks the agent's side of the [protocol](super::protocol):
//! it passes the call to every agent, and merges what they answer. So each command that works with one
//! agent works with all of a cluster.
//!
//! - Records are merged in the order of their times. A record waits [`HOLD`](records::HOLD) for earlier ones of
//!   other agents.
//! - Counts are added. Lists of the most frequent items keep their bounds of error.
//! - An agent that does not answer is named in a warning; the others go on. It is an error if none answers.

mod counts;
mod records;

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
};

use serde::Serialize;
use serde_json::{Value, json};
use tap53_capture::interfaces::InterfaceStatus;

use super::{
    client::{Client, Connect, Error, TIMEOUT},
    protocol::{self, Call, Fault, NOTE, Note, Reason},
};

/// An agent, and the node that it runs on.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Name of the node.
    pub node: String,
    /// Its client.
    pub client: Client,
}

/// Several agents that answer as one.
#[derive(Clone, Debug)]
pub struct Agents(Arc<[Agent]>);

impl Agents {
    /// Merges these agents.
    #[must_use]
    pub fn new(agents: Vec<Agent>) -> Self {
        Self(agents.into())
    }

    /// Calls all agents at the same time. Returns what they answer, in their order.
    pub fn each<T: Send>(&self, call: impl Fn(&Agent) -> T + Sync) -> Vec<T> {
        let call = &call;
        thread::scope(|scope| {
            let calls: Vec<_> =
                self.0.iter().map(|agent| scope.spawn(move || call(agent))).collect();
            let answers = calls.into_iter().map(|thread| thread.join());
            answers
                .map(|answer| answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }
}

impl fmt::Display for Agents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [agent] => formatter.write_str(&agent.node),
            agents => write!(formatter, "{} nodes", agents.len()),
        }
    }
}

impl Connect for Agents {
    fn connect(&self) -> Result<UnixStream, Error> {
        let failed = |error: io::Error| Error::Disconnected {
            agent: self.to_string(),
            reason: error.to_string(),
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        // The agents have theirs for each of their answers.
        ours.set_read_timeout(Some(TIMEOUT + TIMEOUT)).map_err(failed)?;
        let agents = self.clone();
        let serve = move || {
            // The only failure is that the command has ended.
            let _ = agents.serve(theirs);
        };
        thread::Builder::new().name("agents".to_owned()).spawn(serve).map_err(failed)?;
        Ok(ours)
    }
}

impl Agents {
    /// Answers one call.
    fn serve(&self, connection: UnixStream) -> io::Result<()> {
        let mut requests = BufReader::new(connection.try_clone()?);
        let mut line = Vec::new();
        requests.read_until(b'\n', &mut line)?;
        let call = protocol::read(line.trim_ascii_end());
        let mut answers = Answers(connection);
        match call {
            Ok(Call::Tail { format, selection, past }) => {
                records::serve(self, &mut answers, format, &selection, past)
            }
            Ok(Call::Top { selection }) => counts::serve(self, requests, &mut answers, &selection),
            Ok(call @ (Call::Enable { .. } | Call::Disable { .. } | Call::Reset { .. })) => {
                answers.result(self.switch(&call))
            }
            Ok(Call::Status | Call::Live) => answers.result::<Value>(Err(Fault::new(
                Reason::Refused,
                "the states of several agents are not merged: ask each of them",
            ))),
            Err(fault) => answers.result::<Value>(Err(fault)),
        }
    }

    /// Switches capture on all nodes. The names of the interfaces begin with that of their node. An agent
    /// without a matching interface is left out, unless there is none at all.
    fn switch(&self, call: &Call) -> Result<Vec<InterfaceStatus>, Fault> {
        let answers = self.each(|agent| agent.client.switch(call.clone()));
        let (mut switched, mut failures) = (Vec::new(), Vec::new());
        for (agent, answer) in self.0.iter().zip(answers) {
            let of_node = |it: InterfaceStatus| InterfaceStatus {
                name: format!("{}/{}", agent.node, it.name),
                ..it
            };
            match answer {
                Ok(interfaces) => switched.extend(interfaces.into_iter().map(of_node)),
                Err(error) => failures.push((agent, error)),
            }
        }
        let is_refusal =
            |error: &Error| matches!(error, Error::Fault(Fault { reason: Reason::Refused, .. }));
        let is_complete = failures.iter().all(|(_, error)| is_refusal(error));
        if is_complete && !switched.is_empty() {
            return Ok(switched);
        }
        let reasons = failures.iter().map(|(agent, error)| format!("{}: {error}", agent.node));
        let mut message = reasons.collect::<Vec<_>>().join("; ");
        if !switched.is_empty() {
            let names: Vec<_> = switched.iter().map(|it| it.name.as_str()).collect();
            message = format!("{message}; done for {}", names.join(", "));
        }
        Err(Fault::new(Reason::Refused, message))
    }
}

/// Returns the fault of a call that no agent answers.
fn no_answer<'a>(failures: impl IntoIterator<Item = &'a String>) -> Fault {
    let failures: Vec<_> = failures.into_iter().map(String::as_str).collect();
    Fault::new(Reason::NoAnswer, format!("no agent answers: {}", failures.join("; ")))
}

/// The lines to the command.
struct Answers(UnixStream);

impl Answers {
    fn result<T: Serialize>(&mut self, result: Result<T, Fault>) -> io::Result<()> {
        match result {
            Ok(answer) => self.json(&json!({ "ok": answer })),
            Err(fault) => self.json(&json!({ "error": fault })),
        }
    }

    fn note(&mut self, note: &Note) -> io::Result<()> {
        self.0.write_all(&[NOTE])?;
        self.json(note)
    }

    fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

#[cfg(test)]
mod tests;
