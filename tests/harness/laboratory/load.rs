//! Clients in the laboratory's pods, which note each of their questions.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{CLUSTER_IP, Laboratory, Node, Pod};
use crate::{
    dns::{self, Response},
    wait,
};

/// Long enough for a loaded machine; only a failing test waits for it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
const FOLLOW_DEADLINE: Duration = Duration::from_secs(60);
/// Every so many questions, one goes over TCP.
const TCP_EVERY: usize = 25;
/// Questions whose number is a multiple of this are for names that clients share; each other one is for a
/// name that only it asks for.
pub const SHARED_EVERY: usize = 3;
/// Names that clients share.
const SHARED_NAMES: usize = 40;

/// The questions of a load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of the first question: it decides names and identifiers.
    pub first: usize,
    /// Clients, spread over the pods.
    pub clients: usize,
    /// Questions of all clients together.
    pub questions: usize,
    /// The server that they ask.
    pub server: Ipv4Addr,
}

/// A question that was asked and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Name without the trailing dot.
    pub qname: String,
    /// True if no other question is for this name.
    pub is_unique: bool,
    /// True over TCP.
    pub over_tcp: bool,
    /// The client as it sees itself.
    pub client: SocketAddrV4,
    /// Identifier of the query.
    pub id: u16,
    /// Response code.
    pub rcode: String,
    /// From before the client sent the query until it had the response.
    pub waited: Range<Instant>,
}

/// Runs `ask` for each client at the same time, in the pods by turns, and returns all answers.
pub(super) fn as_clients<T: Send>(
    laboratory: &Laboratory,
    clients: usize,
    ask: impl Fn(usize) -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let pods: Vec<&Pod> = laboratory.pods().collect();
    ensure!(!pods.is_empty(), "the laboratory has no pods for clients");
    let ask = &ask;
    let answers = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|client| {
                let pod = pods[client % pods.len()];
                scope.spawn(move || pod.namespace.enter(|| ask(client)))
            })
            .collect();
        let join = |client: thread::ScopedJoinHandle<'_, Result<Vec<T>>>| {
            client.join().map_err(|_| anyhow!("a client panicked"))?
        };
        clients.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok(answers.into_iter().flatten().collect())
}

impl Load {
    /// Asks all questions, each client one after the other, and returns them.
    ///
    /// # Errors
    /// When a question is not answered.
    pub fn run(&self, laboratory: &Laboratory) -> Result<Vec<Asked>> {
        as_clients(laboratory, self.clients, |client| self.ask_as(client))
    }

    fn ask_as(&self, client: usize) -> Result<Vec<Asked>> {
        let numbers = (client..self.questions).step_by(self.clients);
        numbers
            .map(|number| self.first + number)
            .map(|number| self.ask(number).with_context(|| format!("question {number}")))
            .collect()
    }

    /// The same way as the resolver of the C library: from a port of its own.
    fn ask(&self, number: usize) -> Result<Asked> {
        let is_unique = !number.is_multiple_of(SHARED_EVERY);
        let over_tcp = number.is_multiple_of(TCP_EVERY);
        let qname = name(number);
        // Spread like random ones, and those of one client differ for a long time.
        let id = u16::try_from(number * 40_503 % 65_536)?;
        let query = dns::query(id, &qname, "A");
        let server = SocketAddr::from((self.server, 53));
        let start = Instant::now();
        let (client, reply) =
            if over_tcp { over_stream(server, &query)? } else { in_datagram(server, &query)? };
        let waited = start..Instant::now();
        let response = Response::parse(&reply)?;
        ensure!(response.id == id, "asked with id {id}, answered with id {}", response.id);
        let SocketAddr::V4(client) = client else { bail!("{client} is not IPv4") };
        Ok(Asked { qname, is_unique, over_tcp, client, id, rcode: response.rcode, waited })
    }
}

/// Asks until the agent of `node` has followed an answer of its resolver to an upstream query: it knows a
/// resolver from its first exchanges on. The agents follow chains.
///
/// # Errors
/// When it does not, or a question is not answered.
pub fn ask_until_followed(laboratory: &Laboratory, node: &Node) -> Result<()> {
    // Names that only one question is for.
    let mut first = 1;
    wait::until("the agent to know its resolver", FOLLOW_DEADLINE, || {
        Load { first, clients: 1, questions: 2, server: CLUSTER_IP }.run(laboratory)?;
        first += SHARED_EVERY;
        let followed = node.metric("tap53_answers_total{from=\"upstream\"}")?;
        Ok(followed.is_some_and(|count| count > 0.0).then_some(()))
    })
}

fn name(number: usize) -> String {
    if number.is_multiple_of(SHARED_EVERY) {
        let shared = number / SHARED_EVERY % SHARED_NAMES;
        return format!("shared{shared}.t{}.test", shared % 5 + 1);
    }
    format!("q{number}.once.test")
}

fn in_datagram(server: SocketAddr, query: &[u8]) -> Result<(SocketAddr, Vec<u8>)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
    socket.send(query)?;
    let mut reply = vec![0; 65_535];
    let size = socket.recv(&mut reply).context("no answer")?;
    reply.truncate(size);
    Ok((socket.local_addr()?, reply))
}

fn over_stream(server: SocketAddr, query: &[u8]) -> Result<(SocketAddr, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&server, ANSWER_DEADLINE)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    // Length and message in one segment, as RFC 7766 8 requires.
    stream.write_all(&[&u16::try_from(query.len())?.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).context("no answer")?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok((stream.local_addr()?, reply))
}
