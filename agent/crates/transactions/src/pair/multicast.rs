//! Multicast name resolution: a question to a group, answered by whoever knows.
//!
//! ```text
//!  LLMNR, one-shot mDNS    A:x    ─▶ group:5355, :5353    B:port ─▶ A:x         identifier, question
//!  mDNS                    A:5353 ─▶ group:5353           B:5353 ─▶ group:5353  no identifier, no
//!                                                                or ─▶ A:5353   question: its answers
//! ```
//!
//! A query to a group and its responses have no flow in common. They have a [`Key`] in common: in
//! the first case (RFC 4795 §2.1, RFC 6762 §6.7) the client's end and the identifier, in the second
//! (RFC 6762 §6, §18.1) the question: name, type and class. Of an end with one of
//! these ports the choice of a ring leaves the address out ([`tap53_ebpf::headers::flow_hash`]), so
//! that one worker sees both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tap53_dns::{Flow, Message, Question, Transport};
use tap53_ebpf::headers::{MULTICAST_DNS_PORT, MULTICAST_PORTS};

/// Answers of a response that are looked at for the question: those to one question stand together,
/// and a response to many tells of the first ones.
const ANSWERS: usize = 16;

/// ANY.
const ANY: u16 = 255;

/// True if a query may have gone to a group, or its response may answer such a query.
#[inline]
pub(super) fn is_possible(flow: &Flow) -> bool {
    let [one, other] = MULTICAST_PORTS;
    let port = flow.server.port();
    (port == one || port == other) && flow.transport == Transport::Udp
}

/// What a query to a group and its response have in common; hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    /// Without what only one of them has.
    flow: Flow,
    id: u16,
    asked: Option<Question<'a>>,
}

impl<'a> Key<'a> {
    /// Of a query to a group; `None` for a query to one host.
    pub(super) fn of_query(flow: &Flow, query: &'a Message) -> Option<Self> {
        if !flow.server.ip().is_multicast() {
            return None;
        }
        let question = query.question();
        Some(if is_continuous(flow) {
            Self::of_name(flow, question)
        } else {
            Self::of_client(flow, query.id)
        })
    }

    /// Of a response, one for each query that it may answer, with the question to remember it by.
    pub(super) fn of_response(
        flow: Flow,
        response: &'a Message,
    ) -> impl Iterator<Item = (Self, Option<Question<'a>>)> {
        let continuous = is_continuous(&flow);
        let client =
            (!continuous).then(|| (Self::of_client(&flow, response.id), response.question()));
        let answers = response.answers().take(if continuous { ANSWERS } else { 0 });
        let names = answers.flat_map(move |answer| {
            [answer.rtype, ANY].map(|qtype| {
                let question = Question { name: answer.name, qtype, qclass: answer.class };
                (Self::of_name(&flow, Some(question)), Some(question))
            })
        });
        client.into_iter().chain(names)
    }

    /// Whether a pending query is one that this is the key of.
    pub(super) fn is_of(&self, flow: &Flow, query: &Message) -> bool {
        Key::of_query(flow, query).is_some_and(|key| key == *self)
    }

    fn of_client(flow: &Flow, id: u16) -> Self {
        Self { flow: Flow { server: anywhere(flow.server), ..*flow }, id, asked: None }
    }

    fn of_name(flow: &Flow, asked: Option<Question<'a>>) -> Self {
        let flow = Flow { client: anywhere(flow.client), server: anywhere(flow.server), ..*flow };
        Self { flow, id: 0, asked }
    }
}

/// True for queriers that take part in Multicast DNS in full: they ask from its port and listen to
/// the group (RFC 6762 §5.2).
const fn is_continuous(flow: &Flow) -> bool {
    flow.client.port() == MULTICAST_DNS_PORT && flow.server.port() == MULTICAST_DNS_PORT
}

/// Any end with this port, in either version of IP.
const fn anywhere(end: SocketAddr) -> SocketAddr {
    let address = match end {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(address, end.port())
}

#[cfg(test)]
mod tests;
