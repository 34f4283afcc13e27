//! Clients that ask for A and AAAA of a name at once, from one socket, as C libraries do.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Laboratory, load::as_clients};
use crate::dns::{self, Response};

/// Long enough for a loaded machine; only a failing test waits for it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Both types, in the order in which they are sent.
const TYPES: [&str; 2] = ["A", "AAAA"];

/// The lookups of a load. Each is of a name of its own.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// Number of the first lookup: it decides names and identifiers.
    pub first: usize,
    /// Clients, spread over the pods.
    pub clients: usize,
    /// Lookups of all clients together.
    pub lookups: usize,
    /// The server that they ask.
    pub server: IpAddr,
}

/// One of the two questions of a lookup, which was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Name without the trailing dot.
    pub qname: String,
    /// Mnemonic of the type.
    pub qtype: String,
    /// The client as it sees itself; the same for both questions.
    pub client: SocketAddr,
    /// Identifier of the query.
    pub id: u16,
    /// Number of records in the answer.
    pub answers: usize,
}

impl Pairs {
    /// Makes all lookups, each client one after the other, and returns their questions.
    ///
    /// # Errors
    /// When a question is not answered.
    pub fn run(&self, laboratory: &Laboratory) -> Result<Vec<Asked>> {
        as_clients(laboratory, self.clients, |client| self.ask_as(client))
    }

    fn ask_as(&self, client: usize) -> Result<Vec<Asked>> {
        let numbers =
            (client..self.lookups).step_by(self.clients).map(|number| self.first + number);
        let asked = numbers.map(|number| {
            self.look_up(number).with_context(|| format!("lookup {number} at {}", self.server))
        });
        Ok(asked.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn look_up(&self, number: usize) -> Result<[Asked; 2]> {
        let qname = format!("pair{number}.once.test");
        // Spread like random ones; the two of a lookup differ.
        let id = u16::try_from(number * 40_503 % 65_535)?;
        let ids = [id, id + 1];
        let any = match self.server {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((self.server, 53))?;
        socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
        for (id, qtype) in ids.into_iter().zip(TYPES) {
            socket.send(&dns::query(id, &qname, qtype))?;
        }
        let client = socket.local_addr()?;
        let responses = [receive(&socket)?, receive(&socket)?];
        let of = |id: u16| {
            let response = responses.iter().find(|response| response.id == id);
            response.map(|response| response.answers.len()).context("two answers to one query")
        };
        let answers = [of(ids[0])?, of(ids[1])?];
        let asked = |at: usize| Asked {
            qname: qname.clone(),
            qtype: TYPES[at].to_owned(),
            client,
            id: ids[at],
            answers: answers[at],
        };
        Ok([asked(0), asked(1)])
    }
}

fn receive(socket: &UdpSocket) -> Result<Response> {
    let mut reply = vec![0; 65_535];
    let size = socket.recv(&mut reply).context("no answer")?;
    Response::parse(&reply[..size])
}
