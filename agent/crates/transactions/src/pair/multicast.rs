//! Multicast name resolution: a query to a group, to which any host may respond.
//!
//! ```text
//!  LLMNR, one-shot mDNS    A:x    ─▶ group:5355, :5353    B:port ─▶ A:x         identifier, question
//!  mDNS                    A:5353 ─▶ group:5353           B:5353 ─▶ group:5353  no identifier, no
//!                                                                or ─▶ A:5353   question: its answers
//! ```
//!
//! A query to a group and its responses do not have the same flow, but the same [`Key`]: in the
//! first case (RFC 4795 §2.1, RFC 6762 §6.7) the client's endpoint and the identifier, in the
//! second (RFC 6762 §6, §18.1) the question: name, type and class. A ring is selected by the identifier,
//! which responses of the first kind repeat, and for the second kind without addresses
//! ([`tap53_ebpf::headers::message_hash`]), so that one worker sees both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tap53_dns::{Flow, Message, Question, Transport};
use tap53_ebpf::headers::{MULTICAST_DNS_PORT, MULTICAST_PORTS};

/// Maximum number of answers that are searched for the question: those to one question are
/// adjacent, and only the first questions of a response to many are found.
const ANSWERS: usize = 16;

/// The query type ANY.
const ANY: u16 = 255;

/// Returns true if a query may have gone to a group, or its response may belong to such a query.
#[inline]
pub(super) fn is_possible(flow: &Flow) -> bool {
    let [one, other] = MULTICAST_PORTS;
    let port = flow.server.port();
    (port == one || port == other) && flow.transport == Transport::Udp
}

/// The common properties of a query to a group and its response; hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    /// Without the properties that only one of them has.
    flow: Flow,
    id: u16,
    question: Option<Question<'a>>,
}

impl<'a> Key<'a> {
    /// Returns the key of a query to a group; `None` for a query to one host.
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

    /// Returns the keys of a response, one for each query that it may answer, with the question
    /// that it is recorded by.
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

    /// Returns true if this is the key of a pending query.
    pub(super) fn is_of(&self, flow: &Flow, query: &Message) -> bool {
        Key::of_query(flow, query).is_some_and(|key| key == *self)
    }

    fn of_client(flow: &Flow, id: u16) -> Self {
        Self { flow: Flow { server: anywhere(flow.server), ..*flow }, id, question: None }
    }

    fn of_name(flow: &Flow, question: Option<Question<'a>>) -> Self {
        let flow = Flow { client: anywhere(flow.client), server: anywhere(flow.server), ..*flow };
        Self { flow, id: 0, question }
    }
}

/// Returns true for full participants in Multicast DNS: they send queries from its port and listen
/// to the group (RFC 6762 §5.2).
const fn is_continuous(flow: &Flow) -> bool {
    flow.client.port() == MULTICAST_DNS_PORT && flow.server.port() == MULTICAST_DNS_PORT
}

/// Returns the endpoint with this port and any address of its IP version.
const fn anywhere(end: SocketAddr) -> SocketAddr {
    let address = match end {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(address, end.port())
}

#[cfg(test)]
mod tests;
