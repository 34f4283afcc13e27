//! The logs of the laboratory's servers: which queries they served, and how.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};

/// CoreDNS's log format, of which [`Served`] is read.
pub(super) const FORMAT: &str =
    "served {remote} {port} {>id} {type} {name} {proto} {rcode} {/forward/upstream}";
const PREFIX: &str = "served ";

/// A query that a CoreDNS answered, by its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// IPv4 address of the server, which it is named by.
    pub server: Ipv4Addr,
    /// The client, as the server saw it.
    pub client: SocketAddr,
    /// Identifier of the query.
    pub id: u16,
    /// Mnemonic of the type.
    pub qtype: String,
    /// Name in lower case, without the trailing dot.
    pub qname: String,
    /// True over TCP.
    pub over_tcp: bool,
    /// Response code.
    pub rcode: String,
    /// True if the answer came from the upstream server, false if from the cache.
    pub forwarded: bool,
}

impl Served {
    /// The queries in the log of the server with this address.
    pub(super) fn read_all(server: Ipv4Addr, lines: &[String]) -> Result<Vec<Self>> {
        let served = lines.iter().filter_map(|line| line.split_once(PREFIX));
        let read = |text: &str| Self::read(server, text).with_context(|| format!("log {text:?}"));
        served.map(|(_, text)| read(text)).collect()
    }

    fn read(server: Ipv4Addr, text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let mut next = || words.next().context("the line ends early");
        // In brackets, if it is an IPv6 address.
        let address: IpAddr = next()?.trim_matches(['[', ']']).parse()?;
        Ok(Self {
            server,
            client: SocketAddr::new(address, next()?.parse()?),
            id: next()?.parse()?,
            qtype: next()?.to_owned(),
            qname: next()?.trim_end_matches('.').to_ascii_lowercase(),
            over_tcp: next()? == "tcp",
            rcode: next()?.to_owned(),
            // No metadata without forwarding: the format prints a hyphen.
            forwarded: next()? != "-",
        })
    }
}

/// The names in the log of an unbound with `log-queries: yes`, without the trailing dot.
#[must_use]
pub fn queries_in(log: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.ends_with(" IN"));
    let names = lines.filter_map(|line| line.rsplit(' ').nth(2));
    names.map(|name| name.trim_end_matches('.').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 2);

    #[test]
    fn logs_are_read() {
        let lines = [
            "CoreDNS-1.15.0",
            "[INFO] served 10.244.1.2 43106 5808 A Q1.t1.test. udp NOERROR 192.168.53.53:53",
            "[INFO] served [fd00:a:f4:1::2] 54070 21135 A q1.t1.test. tcp NOERROR -",
        ]
        .map(str::to_owned);
        let served = Served::read_all(SERVER, &lines).expect("a log");
        let read: Vec<_> =
            served.iter().map(|one| (one.id, &*one.qname, one.over_tcp, one.forwarded)).collect();
        assert_eq!(read, [(5808, "q1.t1.test", false, true), (21135, "q1.t1.test", true, false)]);
        assert_eq!(served[1].client.to_string(), "[fd00:a:f4:1::2]:54070");
        assert!(Served::read_all(SERVER, &["served 10.244.1.2 x".to_owned()]).is_err());
        let log = "[1] unbound[2:0] info: start of service (unbound 1.17.1).\n\
                   [1] unbound[2:0] info: 10.244.2.2 q1.t1.test. A IN\n";
        assert_eq!(queries_in(log), ["q1.t1.test"]);
    }
}
