//! The connection to an agent in a pod.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Read, Write},
    iter,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::json;
use tap53::control::{
    client::{Connect, Error},
    protocol::{Fault, NOTE, Note, Reason},
};

/// Timeout of an answer: `kubectl exec` takes a second or two.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum number of bytes of kubectl's error output that are shown.
const MAX_SAID: u64 = 4_096;

/// A command whose standard input and output lead to an agent's control socket.
#[derive(Debug)]
pub(super) struct Exec {
    /// The program and its arguments: each connection has a process of its own.
    words: Vec<OsString>,
    place: String,
}

impl Exec {
    pub(super) fn new(command: &Command, place: String) -> Self {
        let words = iter::once(command.get_program()).chain(command.get_args());
        Self { words: words.map(OsString::from).collect(), place }
    }
}

impl fmt::Display for Exec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.place)
    }
}

impl Connect for Exec {
    fn connect(&self) -> Result<UnixStream, Error> {
        self.start().map_err(|error| Error::Disconnected {
            agent: self.place.clone(),
            reason: format!("cannot run kubectl: {error}"),
        })
    }
}

impl Exec {
    fn start(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(TIMEOUT))?;
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the command that reads from it: the end of the connection ends this one.
            .process_group(0)
            .spawn()?;
        let answers = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        thread::Builder::new()
            .name("exec".to_owned())
            .spawn(move || pass_on(child, answers, theirs))?;
        Ok(ours)
    }
}

/// Copies the command's output to the connection. The error output becomes the last answer.
fn pass_on(mut child: Child, mut answers: ChildStdout, mut to: UnixStream) {
    let mut said = child.stderr.take();
    let copied = copy(&mut answers, &mut to);
    if copied.is_err() {
        // Nobody reads any more.
        let _ = child.kill();
    }
    let mut why = Vec::new();
    if let Some(said) = &mut said {
        let _ = said.take(MAX_SAID).read_to_end(&mut why);
    }
    let status = child.wait();
    if let Ok(copied) = copied {
        let why = String::from_utf8_lossy(&why);
        let why = match (why.trim(), status) {
            ("", Ok(status)) => format!("kubectl exec: {status}"),
            ("", Err(error)) => error.to_string(),
            (why, _) => why.replace('\n', "; "),
        };
        let _ = to.write_all(&ending(copied, why));
    }
}

/// Returns the line that tells the client why the answers end here.
fn ending(copied: u64, why: String) -> Vec<u8> {
    if copied == 0 {
        let fault = Fault { reason: Reason::NoAnswer, message: why };
        return format!("{}\n", json!({ "error": fault })).into_bytes();
    }
    let note = serde_json::to_string(&Note::End(why)).unwrap_or_default();
    format!("{}{note}\n", char::from(NOTE)).into_bytes()
}

/// Copies until the end; returns the number of bytes.
///
/// # Errors
/// When `to` is closed.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let (mut buffer, mut copied) = ([0; 16 * 1_024], 0);
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(copied),
            Ok(read) => {
                to.write_all(buffer.get(..read).unwrap_or_default())?;
                copied += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tap53::control::client::Client;

    use super::*;

    fn shell(script: &str) -> Client {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Client::of(Exec::new(&command, "node-1 (tap53/tap53-a)".to_owned()))
    }

    #[test]
    fn the_standard_input_and_output_of_the_command_are_the_connection() {
        let client =
            shell(r#"read line; echo "{\"ok\":{\"asked\":$line},\"ledger_text\":\"none\"}""#);
        let answer = client.status().unwrap();
        assert_eq!(answer.status["asked"]["call"], "status");
        assert_eq!(answer.ledger_text, "none");
        // Each call has a command of its own.
        assert!(client.status().is_ok());
    }

    #[test]
    fn the_error_output_of_a_command_that_fails_is_the_error() {
        let client = shell("echo 'pods \"tap53-a\" is forbidden' >&2; exit 1");
        assert_eq!(client.status().unwrap_err().to_string(), "pods \"tap53-a\" is forbidden");
        let silent = shell("exit 7").status().unwrap_err().to_string();
        assert_eq!(silent, "kubectl exec: exit status: 7");
    }

    #[test]
    fn a_command_that_is_missing_is_an_error() {
        let client = Client::of(Exec::new(&Command::new("/no/kubectl"), "node-1".to_owned()));
        let error = client.status().unwrap_err().to_string();
        assert!(error.contains("node-1 failed: cannot run kubectl"), "{error}");
    }
}
