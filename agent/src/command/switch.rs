//! `tap53 enable`, `tap53 disable` and `tap53 reset`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use jiff::SignedDuration;
use tap53::{
    config::{CONTROL_SOCKET, Directions},
    control::{client::Client, protocol::Call},
};
use tap53_capture::interfaces::InterfaceStatus;

use super::{output::Output, status};
use crate::exit;

pub(super) const ENABLE_EXAMPLES: &str = "\
Examples:
  sudo tap53 enable eth1
  sudo tap53 enable 'veth*' --direction ingress --for 10m

The switch overrides the configuration and the annotation of the Node. It ends after the time of
--for, with 'tap53 reset', or when the agent stops. It also applies to matching interfaces that
appear later. Programs are attached where they are missing; programs of others are not touched.

Exit status: 0 done; 1 no agent answers, no interface matches, or capture failed on one of them;
2 invalid arguments.";

pub(super) const DISABLE_EXAMPLES: &str = "\
Examples:
  sudo tap53 disable eth1
  sudo tap53 disable 'veth*' --for 90s
  sudo tap53 disable eth1 --detach

The programs stay attached and ignore packets, which costs some nanoseconds for each packet.
--detach removes the programs as well, for lasting changes; it waits until none of them runs.

Exit status: 0 done; 1 no agent answers, or no interface matches; 2 invalid arguments.";

pub(super) const RESET_EXAMPLES: &str = "\
Examples:
  sudo tap53 reset eth1
  sudo tap53 reset 'veth*'
  sudo tap53 reset '*'

Undoes the enable or disable of this pattern, and of all patterns that it matches as if they were
names: '*' undoes all of them. After that the annotation of the Node decides, or the configuration
if there is none.

Exit status: 0 done; 1 no agent answers, or there is neither such an interface nor such a switch;
2 invalid arguments.";

/// Arguments that select the agent.
#[derive(Args, Debug)]
pub(super) struct Socket {
    /// Control socket of the agent
    #[arg(long = "socket", value_name = "PATH", default_value = CONTROL_SOCKET)]
    path: PathBuf,
}

impl Socket {
    /// Its path.
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.path)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Enable {
    #[command(flatten)]
    request: EnableRequest,
    #[command(flatten)]
    socket: Socket,
}

/// The interfaces to capture from.
#[derive(Args, Debug)]
pub(crate) struct EnableRequest {
    /// Interface, or a shell pattern of names
    #[arg(value_name = "IFACE|PATTERN")]
    pattern: String,
    /// Direction of the packets: ingress (received), egress (sent) or both
    #[arg(long, value_enum, default_value = "both", hide_possible_values = true)]
    direction: Directions,
    /// Duration of the switch, such as 90s, 10m or 2h [default: until the agent stops]
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    lasts: Option<Duration>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Disable {
    #[command(flatten)]
    request: DisableRequest,
    #[command(flatten)]
    socket: Socket,
}

/// The interfaces to leave.
#[derive(Args, Debug)]
pub(crate) struct DisableRequest {
    /// Interface, or a shell pattern of names
    #[arg(value_name = "IFACE|PATTERN")]
    pattern: String,
    /// Detach the programs as well
    #[arg(long)]
    detach: bool,
    /// Duration of the switch, such as 90s, 10m or 2h [default: until the agent stops]
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    lasts: Option<Duration>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Reset {
    #[command(flatten)]
    request: ResetRequest,
    #[command(flatten)]
    socket: Socket,
}

/// The switches to undo.
#[derive(Args, Debug)]
pub(crate) struct ResetRequest {
    /// Pattern of an earlier enable or disable
    #[arg(value_name = "IFACE|PATTERN")]
    pattern: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn enable(arguments: Enable) -> anyhow::Result<ExitCode> {
    arguments.request.send(&arguments.socket.client())
}

pub(crate) fn disable(arguments: Disable) -> anyhow::Result<ExitCode> {
    arguments.request.send(&arguments.socket.client())
}

pub(crate) fn reset(arguments: Reset) -> anyhow::Result<ExitCode> {
    arguments.request.send(&arguments.socket.client())
}

impl EnableRequest {
    pub(super) fn send(self, client: &Client) -> anyhow::Result<ExitCode> {
        let Self { pattern, direction, lasts, output } = self;
        let call = Call::Enable { pattern, directions: direction, lasts_ms: milliseconds(lasts) };
        switch(client, call, output)
    }
}

impl DisableRequest {
    pub(super) fn send(self, client: &Client) -> anyhow::Result<ExitCode> {
        let Self { pattern, detach, lasts, output } = self;
        switch(client, Call::Disable { pattern, detach, lasts_ms: milliseconds(lasts) }, output)
    }
}

impl ResetRequest {
    pub(super) fn send(self, client: &Client) -> anyhow::Result<ExitCode> {
        let Self { pattern, output } = self;
        // Always a success: whether the interfaces can be captured from then is shown, not checked.
        let interfaces = client.switch(Call::Reset { pattern })?;
        output.print(&interfaces, || status::interface_table(&interfaces))
    }
}

fn switch(client: &Client, call: Call, output: Output) -> anyhow::Result<ExitCode> {
    let interfaces = client.switch(call)?;
    output.print(&interfaces, || status::interface_table(&interfaces))?;
    let as_wanted = interfaces.iter().all(InterfaceStatus::is_as_wanted);
    Ok(if as_wanted { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn milliseconds(lasts: Option<Duration>) -> Option<u64> {
    lasts.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX))
}

/// Parses a duration such as `90s`, `10m` or `1h 30m`.
pub(super) fn lasting(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration =
        text.parse().map_err(|_| "write it as 90s, 10m, 2h or 1h30m".to_owned())?;
    Duration::try_from(duration)
        .ok()
        .filter(|duration| duration.as_millis() > 0)
        .ok_or_else(|| "must be longer than zero".to_owned())
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
