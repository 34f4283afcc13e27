//! A DNS client that records its queries and responses.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    dns::{self, Response},
    namespace::Namespace,
};

/// Long enough for a loaded machine; only a failing test waits for it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

const DNS_PORT: u16 = 53;

/// Transport of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// A connection for each query.
    Tcp,
}

impl Transport {
    /// Returns the name that records have for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// A question for the server to answer, or not.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Name without the trailing dot.
    pub name: &'static str,
    /// Type mnemonic.
    pub qtype: &'static str,
}

/// One query and what came of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Transaction identifier.
    pub id: u16,
    /// Name of the question, without the trailing dot.
    pub qname: String,
    /// Type of the question.
    pub qtype: String,
    /// Transport of the query.
    pub transport: Transport,
    /// The client's own address and port.
    pub client: SocketAddr,
    /// The server's address and port.
    pub server: SocketAddr,
    /// Bytes of the query's DNS message.
    pub query_size: usize,
    /// The response and the bytes of its message; `None` where none was expected and none came.
    pub response: Option<(Response, usize)>,
}

/// Asks questions from inside a namespace.
pub struct Client<'a> {
    namespace: &'a Namespace,
    server: IpAddr,
}

impl<'a> Client<'a> {
    /// A client in `namespace` for the server at `server`, port 53.
    #[must_use]
    pub const fn new(namespace: &'a Namespace, server: IpAddr) -> Self {
        Self { namespace, server }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// When no response comes, or a malformed one, or one to something else.
    pub fn ask(&self, transport: Transport, question: Question) -> Result<Exchange> {
        let server = SocketAddr::new(self.server, DNS_PORT);
        let id = next_id();
        let query = dns::query(id, question.name, question.qtype);
        let (client, reply) = match transport {
            Transport::Udp => {
                let socket = self.udp_socket()?;
                socket.send(&query)?;
                let mut reply = vec![0; 65_535];
                let size = socket.recv(&mut reply).with_context(|| {
                    format!("no answer to {} {}", question.name, question.qtype)
                })?;
                reply.truncate(size);
                (socket.local_addr()?, reply)
            }
            Transport::Tcp => self.ask_over_tcp(server, &query)?,
        };
        let response = Response::parse(&reply)?;
        if response.id != id {
            bail!("asked with id {id}, answered with id {}", response.id);
        }
        Ok(Exchange {
            id,
            qname: question.name.to_owned(),
            qtype: question.qtype.to_owned(),
            transport,
            client,
            server,
            query_size: query.len(),
            response: Some((response, reply.len())),
        })
    }

    /// Sends a query over UDP that the server drops without an answer, and does not wait.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn ask_in_vain(&self, question: Question) -> Result<Exchange> {
        let socket = self.udp_socket()?;
        let id = next_id();
        let query = dns::query(id, question.name, question.qtype);
        socket.send(&query)?;
        Ok(Exchange {
            id,
            qname: question.name.to_owned(),
            qtype: question.qtype.to_owned(),
            transport: Transport::Udp,
            client: socket.local_addr()?,
            server: SocketAddr::new(self.server, DNS_PORT),
            query_size: query.len(),
            response: None,
        })
    }

    /// A UDP socket of the namespace, connected to the server.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn udp_socket(&self) -> Result<UdpSocket> {
        let server = SocketAddr::new(self.server, DNS_PORT);
        let any: IpAddr = if self.server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        self.namespace.enter(|| {
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
            Ok(socket)
        })
    }

    fn ask_over_tcp(&self, server: SocketAddr, query: &[u8]) -> Result<(SocketAddr, Vec<u8>)> {
        let mut stream =
            self.namespace.enter(|| Ok(TcpStream::connect_timeout(&server, ANSWER_DEADLINE)?))?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        // Length and message in one segment, as RFC 7766 §8 requires.
        let length = u16::try_from(query.len())?.to_be_bytes();
        stream.write_all(&[&length, query].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply)?;
        Ok((stream.local_addr()?, reply))
    }
}

/// Identifiers that differ, so that a record can be told from every other by its id alone in any
/// test of fewer than 65,536 queries.
fn next_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
