//! The stage for most tests: a client and a resolver, in two namespaces joined by a veth pair.

use anyhow::Result;

use crate::{
    client::{Client, Exchange, Question, Transport},
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    unbound::Unbound,
};

/// Bytes; what most interfaces have.
const MTU: u32 = 1_500;

/// Questions that the resolver answers, one of each kind that a record can hold.
pub const ANSWERED: [Question; 11] = [
    question("www.tap53.test", "A"),
    question("www.tap53.test", "AAAA"),
    question("mail.tap53.test", "A"),
    question("tap53.test", "MX"),
    question("tap53.test", "TXT"),
    question("text.tap53.test", "TXT"),
    question("alias.tap53.test", "CNAME"),
    question("_dns._udp.tap53.test", "SRV"),
    question("10.113.0.203.in-addr.arpa", "PTR"),
    question("nowhere.absent.test", "A"),
    question("elsewhere.example", "A"),
];

/// A question that the resolver leaves unanswered.
pub const UNANSWERED: Question = question("quiet.silent.test", "A");

const fn question(name: &'static str, qtype: &'static str) -> Question {
    Question { name, qtype }
}

/// Client and resolver, ready to talk. Everything goes away when it is dropped.
pub struct Lab {
    // Fields drop in this order: the resolver before its namespace.
    _unbound: Unbound,
    /// Namespace of the clients; its interface is `c0`.
    pub client: Namespace,
    /// Namespace of the resolver and the agent; its interface is `s0`.
    pub server: Namespace,
}

impl Lab {
    /// Sets the stage.
    ///
    /// # Errors
    /// Without root, or when a part does not start.
    pub fn new() -> Result<Self> {
        Self::with_mtu(MTU)
    }

    /// Does the same as [`new`](Self::new), with another MTU.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn with_mtu(mtu_bytes: u32) -> Result<Self> {
        let client = Namespace::new()?;
        let server = Namespace::new()?;
        join((&client, CLIENT_END), (&server, SERVER_END), mtu_bytes)?;
        let addresses = [SERVER_END.ipv4.into(), SERVER_END.ipv6.into()];
        Ok(Self { _unbound: Unbound::start(&server, &addresses)?, client, server })
    }

    /// A client over IPv4.
    #[must_use]
    pub const fn client_v4(&self) -> Client<'_> {
        Client::new(&self.client, std::net::IpAddr::V4(SERVER_END.ipv4))
    }

    /// A client over IPv6.
    #[must_use]
    pub const fn client_v6(&self) -> Client<'_> {
        Client::new(&self.client, std::net::IpAddr::V6(SERVER_END.ipv6))
    }

    /// Asks every question of [`ANSWERED`] over UDP, by IPv4 and by IPv6, and the first of them over
    /// TCP, and [`UNANSWERED`] in vain.
    ///
    /// # Errors
    /// When an answer does not come.
    pub fn ask_everything(&self) -> Result<Vec<Exchange>> {
        let mut exchanges = Vec::new();
        for client in [self.client_v4(), self.client_v6()] {
            for question in ANSWERED {
                exchanges.push(client.ask(Transport::Udp, question)?);
            }
            exchanges.push(client.ask(Transport::Tcp, ANSWERED[0])?);
            exchanges.push(client.ask_in_vain(UNANSWERED)?);
        }
        Ok(exchanges)
    }
}
