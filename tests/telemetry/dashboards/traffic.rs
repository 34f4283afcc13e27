//! DNS traffic of every kind that a panel shows.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tap53_harness::{
    client::{Client, Question, Transport},
    dns,
    lab::UNANSWERED,
    namespace::SERVER_END,
};

use super::stage::Network;

/// Rate of rounds, low enough for a machine with other work.
const PAUSE: Duration = Duration::from_millis(40);

/// Longer than loopback takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// Each of them is answered: from the resolver's own data, by a failure, through the search list of a pod,
/// and from upstream or the cache. The agent's filter excludes the type SRV.
const ANSWERED: [Question; 10] = [
    Question { name: "www.tap53.test", qtype: "A" },
    Question { name: "www.tap53.test", qtype: "AAAA" },
    Question { name: "tap53.test", qtype: "MX" },
    Question { name: "_dns._udp.tap53.test", qtype: "SRV" },
    Question { name: "nowhere.absent.test", qtype: "A" },
    Question { name: "www.broken.test", qtype: "A" },
    Question { name: "api.default.svc.up.test", qtype: "A" },
    Question { name: "api.svc.up.test", qtype: "A" },
    Question { name: "api.up.test", qtype: "A" },
    Question { name: "api.up.test", qtype: "A" },
];

/// Does not fit into a datagram.
const LARGE: Question = Question { name: "large.tap53.test", qtype: "TXT" };

/// A client, and a server that gives two answers to each query.
pub(super) struct Traffic<'a> {
    client: Client<'a>,
    client_of_liar: Client<'a>,
    liar: UdpSocket,
}

impl<'a> Traffic<'a> {
    pub(super) fn new(network: &'a Network) -> Result<Self> {
        let liar: IpAddr = SERVER_END.ipv6.into();
        let socket = network.node.enter(|| Ok(UdpSocket::bind((liar, 53))?))?;
        socket.set_read_timeout(Some(DEADLINE))?;
        Ok(Self {
            client: Client::new(&network.client, SERVER_END.ipv4.into()),
            client_of_liar: Client::new(&network.client, liar),
            liar: socket,
        })
    }

    /// Sends rounds of queries until it is over.
    pub(super) fn run(&self, is_over: &AtomicBool) -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            self.round()?;
            // A rate, not a wait for an event. A park would end at once: threads of a scope unpark.
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn round(&self) -> Result<()> {
        for question in ANSWERED {
            self.client.ask(Transport::Udp, question)?;
        }
        // Truncated, and then whole.
        for transport in [Transport::Udp, Transport::Tcp] {
            self.client.ask(transport, LARGE)?;
        }
        self.repeat_in_vain()?;
        self.ask_liar()?;
        // Not even a header.
        self.client.udp_socket()?.send(&[0; 5])?;
        Ok(())
    }

    /// Sends a query twice that the server drops.
    fn repeat_in_vain(&self) -> Result<()> {
        let query = dns::query(1, UNANSWERED.name, UNANSWERED.qtype);
        let socket = self.client.udp_socket()?;
        for _ in 0..2 {
            socket.send(&query)?;
        }
        Ok(())
    }

    fn ask_liar(&self) -> Result<()> {
        let query = dns::query(2, "bank.example", "A");
        let socket = self.client_of_liar.udp_socket()?;
        socket.send(&query)?;
        let mut buffer = [0; 512];
        let (size, from): (usize, SocketAddr) =
            self.liar.recv_from(&mut buffer).context("a query for the liar")?;
        for last in [1, 66] {
            self.liar.send_to(&answer(&buffer[..size], [192, 0, 2, last]), from)?;
            socket.recv(&mut [0; 512]).context("an answer of the liar")?;
        }
        Ok(())
    }
}

/// An answer with one address to a query of one question.
fn answer(query: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message[7] = 1;
    // The question's name, type A, class IN, a TTL of 60 s, four bytes of data.
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend(address);
    message
}
