//! Address translation: what a record says about the sightings that it stands for.

use std::net::SocketAddr;

use tap53_dns::Flow;
use tap53_ebpf::record::Sender;

/// How addresses were translated between the sightings of an exchange on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Nat {
    /// They were not, as far as this node saw.
    #[default]
    None,
    /// The server's end (DNAT): a service's address became that of a backend.
    Destination,
    /// The client's end (SNAT, masquerade).
    Source,
    /// Both ends.
    Both,
    /// Another record may be of the same exchange, and the evidence does not say which.
    Undecided,
}

impl Nat {
    /// Returns the kind of translation that leads from one flow to another.
    #[must_use]
    pub fn between(outer: &Flow, inner: &Flow) -> Self {
        match (outer.client == inner.client, outer.server == inner.server) {
            (true, true) => Self::None,
            (true, false) => Self::Destination,
            (false, true) => Self::Source,
            (false, false) => Self::Both,
        }
    }

    /// Returns the symbol of the Avro enum.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Destination => "DESTINATION",
            Self::Source => "SOURCE",
            Self::Both => "BOTH",
            Self::Undecided => "UNDECIDED",
        }
    }
}

/// The sightings that one transaction stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sightings {
    /// How addresses were translated.
    pub nat: Nat,
    /// Endpoints after all translation on this node.
    pub client: SocketAddr,
    /// See `client`.
    pub server: SocketAddr,
    /// Number of flows under which the exchange was seen; 1 without translation and tunnels.
    pub count: u32,
    /// Number of messages that were seen under the other flows, which are copies. They are in no
    /// other transaction.
    pub messages: u32,
    /// The socket that sent the response, as far as only another sighting saw it.
    pub responder: Sender,
    /// Time of the response after all translation, nearest to the server, in CLOCK_MONOTONIC
    /// nanoseconds; `None` if it was seen under one flow.
    pub response_ns: Option<u64>,
}

impl Sightings {
    /// Returns the sightings of an exchange that was seen under one flow.
    #[must_use]
    pub const fn single(flow: &Flow) -> Self {
        Self {
            nat: Nat::None,
            client: flow.client,
            server: flow.server,
            count: 1,
            messages: 0,
            responder: Sender::UNKNOWN,
            response_ns: None,
        }
    }

    /// Returns the server that answered, if it is not the one that was addressed.
    #[must_use]
    pub fn backend(&self, flow: &Flow) -> Option<SocketAddr> {
        (self.server != flow.server).then_some(self.server)
    }

    /// Returns the client as the server saw it, if translation has changed it.
    #[must_use]
    pub fn translated_client(&self, flow: &Flow) -> Option<SocketAddr> {
        (self.client != flow.client).then_some(self.client)
    }
}
