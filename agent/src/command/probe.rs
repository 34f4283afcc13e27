//! `tap53 probe`.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use jiff::SignedDuration;
use tap53::{
    config::zone,
    probe::{Agent, Config, SUFFIX, Transport, probe},
};

use super::{output::Output, report, switch::Socket};

/// Port of DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo tap53 probe
  sudo tap53 probe --server 10.96.0.10 --transport tcp
  sudo tap53 probe --server 10.96.0.10 --netns /proc/4711/ns/net
  tap53 probe --agent 127.0.0.1:9530
  tap53 probe -o json | jq '.stages[] | select(.verdict != \"ok\")'

Sends a query for a name that exists nowhere, and waits until the running agent has recorded it. Each
stage on the way is reported: the agent's interfaces, the resolver's response, the record, and
whether the record says what was sent and received. The resolver sees one query more.

--agent needs no right on the node: it asks the agent at its telemetry port, which shows of the record
neither addresses nor owners, and confirms no other names.

Exit status: 0 the query was captured (there may be warnings); 1 it was not, or no agent answers;
2 invalid arguments.";

/// Arguments of `tap53 probe`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Resolver, as an address or as address:port [default: the first one in /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    server: Option<SocketAddr>,
    /// Transport of the query
    #[arg(long, value_enum, default_value = "udp")]
    transport: Transport,
    /// Name below which the query asks for a random name; choose one that the resolver forwards to
    /// include its upstream servers
    #[arg(long, value_name = "NAME", value_parser = zone, default_value = SUFFIX)]
    suffix: String,
    /// Network namespace to send from, such as /proc/PID/ns/net or /run/netns/NAME; needs root
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// Longest wait for the response, and then for the record, such as 5s
    #[arg(long, value_name = "DURATION", value_parser = timeout, default_value = "5s")]
    timeout: Duration,
    /// Telemetry port of the agent, as address:port, instead of its control socket
    #[arg(long, value_name = "ADDRESS", value_parser = agent_address, conflicts_with_all = ["path", "suffix"])]
    agent: Option<SocketAddr>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let server = resolver(arguments.server)?;
    let agent = match arguments.agent {
        Some(address) => Agent::Telemetry(address),
        None => Agent::Socket(arguments.socket.path().to_owned()),
    };
    let report = probe(&Config {
        agent,
        server,
        transport: arguments.transport,
        suffix: arguments.suffix,
        namespace: arguments.netns,
        timeout: arguments.timeout,
    })?;
    report::finish(&report, report.verdict, arguments.output)
}

/// Returns the resolver that was named, else the first one of this machine.
pub(super) fn resolver(named: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    named.map_or_else(|| first_resolver(Path::new("/etc/resolv.conf")), Ok)
}

/// An address, or one with a port.
pub(super) fn server(text: &str) -> Result<SocketAddr, String> {
    let address = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
    text.parse().or_else(|_| address()).map_err(|_| {
        "is neither an address nor address:port: write 10.96.0.10, 10.96.0.10:53 or [fd00::a]:53"
            .to_owned()
    })
}

/// An address with a port. IPv4 addresses may be in brackets too, since a pod's specification cannot know
/// which kind of address `status.hostIP` is.
fn agent_address(text: &str) -> Result<SocketAddr, String> {
    let address = || {
        let (host, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
        Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?))
    };
    text.parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| "is not address:port: write 127.0.0.1:9530 or [fd00::a]:9530".to_owned())
}

/// A duration of up to a minute.
fn timeout(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(60);
    let duration: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let duration = Duration::try_from(duration).map_err(|_| "must not be negative".to_owned())?;
    if duration.is_zero() || duration > LONGEST {
        return Err("must be above 0s and at most 60s".to_owned());
    }
    Ok(duration)
}

/// The first name server of a resolv.conf(5).
fn first_resolver(path: &Path) -> anyhow::Result<SocketAddr> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    let address = addresses.into_iter().next();
    let address = address.with_context(|| format!("{shown} names no server: set --server"))?;
    Ok(SocketAddr::new(address, DNS_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        assert_eq!(server("192.0.2.1").unwrap().to_string(), "192.0.2.1:53");
        assert_eq!(server("192.0.2.1:5353").unwrap().to_string(), "192.0.2.1:5353");
        assert_eq!(server("2001:db8::1").unwrap().to_string(), "[2001:db8::1]:53");
        assert_eq!(server("[2001:db8::1]:54").unwrap().to_string(), "[2001:db8::1]:54");
        assert!(server("resolver.example").unwrap_err().contains("neither"));
    }

    #[test]
    fn an_agent_has_a_port_and_any_address_may_be_in_brackets() {
        for (text, address) in [
            ("127.0.0.1:9530", "127.0.0.1:9530"),
            ("[192.0.2.1]:9530", "192.0.2.1:9530"),
            ("[fd00::a]:9530", "[fd00::a]:9530"),
        ] {
            assert_eq!(agent_address(text).unwrap().to_string(), address);
        }
        for refused in
            ["127.0.0.1", "[127.0.0.1]", "fd00::a", "node-1:9530", "[node-1]:9530", ":9530"]
        {
            assert!(agent_address(refused).unwrap_err().contains("address:port"), "{refused}");
        }
    }

    #[test]
    fn timeouts_have_limits() {
        assert_eq!(timeout("250ms"), Ok(Duration::from_millis(250)));
        for refused in ["0s", "-1s", "61s", "soon"] {
            assert!(timeout(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn the_first_server_of_resolv_conf_is_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "# none\nsearch a b\nnameserver fe80::1%eth0\nnameserver 192.0.2.7\n",
        )
        .unwrap();
        assert_eq!(first_resolver(file.path()).unwrap().to_string(), "192.0.2.7:53");
        fs::write(file.path(), "nameserver\n").unwrap();
        assert!(first_resolver(file.path()).unwrap_err().to_string().contains("--server"));
    }
}
