//! `tap53 enable`, `tap53 disable` and `tap53 reset`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use jiff::SignedDuration;
use tap53::{
    config::{CONTROL_SOCKET, Directions},
    control::{client::Client, protocol::Call},
};
use tap53_capture::interfaces::InterfaceStatus;

use super::{status, table::print};
use crate::exit;

pub(super) const ENABLE_EXAMPLES: &str = "\
Examples:
  sudo tap53 enable eth1
  sudo tap53 enable 'veth*' --direction ingress --for 10m

It overrides the configuration and the Node's annotation until it ends, until the agent ends, or
until tap53 reset; interfaces that appear later and match are switched too. Programs are attached
where there are none yet; nothing of others is touched.

Exit status: 0 done; 1 no agent answers, no interface matches, or one could not be captured from;
2 arguments refused.";

pub(super) const DISABLE_EXAMPLES: &str = "\
Examples:
  sudo tap53 disable eth1
  sudo tap53 disable 'veth*' --for 90s
  sudo tap53 disable eth1 --detach

The programs stay attached and pass packets by, which takes effect at once and costs some
nanoseconds a packet. --detach takes them off, for lasting changes; it waits until none runs.

Exit status: 0 done; 1 no agent answers, or no interface matches; 2 arguments refused.";

pub(super) const RESET_EXAMPLES: &str = "\
Examples:
  sudo tap53 reset eth1
  sudo tap53 reset 'veth*'
  sudo tap53 reset '*'

Forgets the enable or disable of this pattern, and those of patterns that it matches as if they
were names: '*' forgets all. Afterwards the Node's annotation decides, and where there is none the
configuration.

Exit status: 0 done; 1 no agent answers, or there is neither such an interface nor such a command;
2 arguments refused.";

/// Where the agent is to be found.
#[derive(Args, Debug)]
pub(super) struct Socket {
    /// Control socket of the agent
    #[arg(long = "socket", value_name = "PATH", default_value = CONTROL_SOCKET)]
    path: PathBuf,
}

impl Socket {
    pub(super) fn client(&self) -> Client {
        Client::new(&self.path)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Enable {
    /// Interface, or a shell pattern of names
    #[arg(value_name = "IFACE|PATTERN")]
    pattern: String,
    /// ingress (what arrives), egress (what leaves) or both
    #[arg(long, value_enum, default_value = "both", hide_possible_values = true)]
    direction: Directions,
    /// For how long, such as 90s, 10m, 2h; then this command is forgotten
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    lasts: Option<Duration>,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Args, Debug)]
pub(crate) struct Disable {
    /// Interface, or a shell pattern of names
    #[arg(value_name = "IFACE|PATTERN")]
    pattern: String,
    /// Take the programs off, instead of having them pass packets by
    #[arg(long)]
    detach: bool,
    /// For how long, such as 90s, 10m, 2h; then this command is forgotten
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    lasts: Option<Duration>,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Args, Debug)]
pub(crate) struct Reset {
    /// Pattern of an earlier enable or disable
    #[arg(value_name = "IFACE|PATTERN")]
    pattern: String,
    #[command(flatten)]
    socket: Socket,
}

pub(crate) fn enable(arguments: Enable) -> anyhow::Result<ExitCode> {
    let Enable { pattern, direction, lasts, socket } = arguments;
    let call = Call::Enable { pattern, directions: direction, lasts_ms: milliseconds(lasts) };
    switch(&socket, call)
}

pub(crate) fn disable(arguments: Disable) -> anyhow::Result<ExitCode> {
    let Disable { pattern, detach, lasts, socket } = arguments;
    switch(&socket, Call::Disable { pattern, detach, lasts_ms: milliseconds(lasts) })
}

pub(crate) fn reset(arguments: Reset) -> anyhow::Result<ExitCode> {
    let Reset { pattern, socket } = arguments;
    // Done with the forgetting, whatever becomes of what the file or the annotation wants then.
    print(&status::interface_table(&socket.client().switch(Call::Reset { pattern })?))
}

fn switch(socket: &Socket, call: Call) -> anyhow::Result<ExitCode> {
    let interfaces = socket.client().switch(call)?;
    print(&status::interface_table(&interfaces))?;
    let as_wanted = interfaces.iter().all(InterfaceStatus::is_as_wanted);
    Ok(if as_wanted { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn milliseconds(lasts: Option<Duration>) -> Option<u64> {
    lasts.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX))
}

/// `90s`, `10m`, `1h 30m`.
fn lasting(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration =
        text.parse().map_err(|_| "write it as 90s, 10m, 2h or 1h30m".to_owned())?;
    Duration::try_from(duration)
        .ok()
        .filter(|duration| duration.as_millis() > 0)
        .ok_or_else(|| "must be longer than nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7_200), ("1h30m", 5_400)] {
            assert_eq!(lasting(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(lasting("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "10", "0s", "-5m", "soon", "10 parsecs"] {
            assert!(lasting(wrong).is_err(), "{wrong}");
        }
    }
}
