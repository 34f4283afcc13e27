//! One query and its response, by sockets of this process.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::ValueEnum;
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use tap53_base::addresses;

/// Bytes of a UDP response that are read: more than any EDNS buffer.
const MAX_RESPONSE: usize = 65_535;

/// Transport of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// UDP.
    #[default]
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    /// The symbol of the record's field.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// A query that was sent.
#[derive(Clone, Debug)]
pub(super) struct Exchanged {
    /// Identifier.
    pub(super) id: u16,
    /// Transport.
    pub(super) transport: Transport,
    /// Address and port of the client.
    pub(super) local: SocketAddr,
    /// Interface that has the client's address.
    pub(super) interface: Option<String>,
    /// The response, if one came in time.
    pub(super) response: Option<Response>,
}

/// A response.
#[derive(Clone, Debug)]
pub(super) struct Response {
    /// Mnemonic of its code.
    pub(super) rcode: String,
    /// Time since the query was sent.
    pub(super) after: Duration,
}

/// Sends a query for the address of `name`, and waits for the response.
pub(super) fn exchange(
    server: SocketAddr,
    transport: Transport,
    name: &str,
    timeout: Duration,
) -> anyhow::Result<Exchanged> {
    let name = Name::from_ascii(name).with_context(|| format!("{name} is no domain name"))?;
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, RecordType::A));
    let wire = query.to_vec().context("cannot write the query")?;
    let (local, sent_at, response) = match transport {
        Transport::Udp => over_udp(server, &wire, timeout)?,
        Transport::Tcp => over_tcp(server, &wire, timeout)?,
    };
    let after = sent_at.elapsed();
    let response = response
        .map(|wire| Message::from_vec(&wire).context("cannot read the response"))
        .transpose()?;
    let response = response.filter(|response| response.metadata.id == query.metadata.id);
    Ok(Exchanged {
        id: query.metadata.id,
        transport,
        local,
        interface: interface_to(server.ip(), local.ip()),
        response: response.map(|response| {
            let code = u16::from(response.metadata.response_code);
            Response { rcode: tap53_dns::rcode_name(code).into_owned(), after }
        }),
    })
}

type Answered = (SocketAddr, Instant, Option<Vec<u8>>);

fn over_udp(server: SocketAddr, wire: &[u8], timeout: Duration) -> anyhow::Result<Answered> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).context("cannot open a socket")?;
    // Connected, so that the kernel chooses the address, and takes responses of the server alone.
    socket.connect(server).with_context(|| format!("cannot reach {server}"))?;
    socket.set_read_timeout(Some(timeout)).context("cannot set a timeout")?;
    let local = socket.local_addr().context("cannot read the socket's address")?;
    let sent_at = Instant::now();
    socket.send(wire).with_context(|| format!("cannot send to {server}"))?;
    let mut response = vec![0; MAX_RESPONSE];
    match socket.recv(&mut response) {
        Ok(length) => {
            response.truncate(length);
            Ok((local, sent_at, Some(response)))
        }
        // Nobody listens, which an ICMP message said.
        Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok((local, sent_at, None))
        }
        Err(error) => Err(error).with_context(|| format!("cannot receive from {server}")),
    }
}

fn over_tcp(server: SocketAddr, wire: &[u8], timeout: Duration) -> anyhow::Result<Answered> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)
        .with_context(|| format!("cannot connect to {server}"))?;
    stream.set_read_timeout(Some(timeout)).context("cannot set a timeout")?;
    let local = stream.local_addr().context("cannot read the socket's address")?;
    // With its length in front (RFC 1035 §4.2.2).
    let length = u16::try_from(wire.len()).context("the query is too long")?;
    let sent_at = Instant::now();
    let framed = [&length.to_be_bytes(), wire].concat();
    stream.write_all(&framed).with_context(|| format!("cannot send to {server}"))?;
    let mut read = || -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut response = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut response)?;
        Ok(response)
    };
    match read() {
        Ok(response) => Ok((local, sent_at, Some(response))),
        Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok((local, sent_at, None))
        }
        Err(error) => Err(error).with_context(|| format!("cannot receive from {server}")),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Returns the interface by which a packet from a local address leaves for `server`. Packets to an address
/// of this host pass the loopback interface.
fn interface_to(server: IpAddr, local: IpAddr) -> Option<String> {
    if server == local || server.is_loopback() {
        return Some("lo".to_owned());
    }
    let mut addresses = addresses::of_interfaces().ok()?;
    addresses.find(|(_, address)| *address == local).map(|(interface, _)| interface)
}
