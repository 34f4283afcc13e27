//! `tap53 relay`: standard input to the control socket of the agent, and its answers to standard output. It is
//! the other end of `kubectl tap53`, in the agent's pod.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    process::ExitCode,
    thread,
};

use anyhow::Context;
use clap::Args;

use super::switch::Socket;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    socket: Socket,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut answers = arguments.socket.client().connect()?;
    // For hours: there may be no record for a follower.
    answers.set_read_timeout(None).context("cannot wait for the agent")?;
    let mut requests = answers.try_clone().context("cannot wait for the agent")?;
    let pass_on = move || {
        let _ = copy(&mut io::stdin().lock(), &mut requests);
        // The reader at the other end is gone, and `kubectl exec` would go on for ever.
        let _ = requests.shutdown(Shutdown::Both);
    };
    thread::Builder::new()
        .name("requests".to_owned())
        .spawn(pass_on)
        .context("cannot start a thread")?;
    // An error says that one of the two ends is gone.
    let _ = copy(&mut answers, &mut io::stdout().lock());
    Ok(ExitCode::SUCCESS)
}

/// Copies at once what is there, without waiting for more.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 16 * 1_024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..read).unwrap_or_default())?;
        to.flush()?;
    }
}
