//! Builds DNS messages for tests.

#![allow(clippy::unwrap_used, reason = "only tests build messages here")]

use std::net::IpAddr;

use tap53_ebpf::{record::Sender, settings::Direction};

use super::{Message, Origin};

/// Returns the origin of a packet that arrived at an interface without VLAN tags and tunnels.
pub fn origin(
    captured_at_ns: u64,
    ifindex: u32,
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
) -> Origin {
    Origin {
        captured_at_ns,
        ifindex,
        direction: Direction::Ingress,
        frame: 0,
        vlan_id: None,
        vlan_inner_id: None,
        vlan_visible: true,
        tunnel: None,
        source: source.into(),
        destination: destination.into(),
        identification: 0,
        hop_limit: 64,
        sender: Sender::UNKNOWN,
    }
}

/// A message under construction; sections must be added in their order.
pub struct Build(Vec<u8>);

impl Build {
    /// Creates a message with a header, in which RD is set.
    pub fn message(id: u16, response: bool) -> Self {
        let [high, low] = id.to_be_bytes();
        Self(vec![high, low, if response { 0x81 } else { 0x01 }, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// Appends a question of class IN. Dots separate the labels of `name`; there are no escapes.
    pub fn question(mut self, name: &str, qtype: u16) -> Self {
        for label in name.split('.').filter(|label| !label.is_empty()) {
            self.0.push(u8::try_from(label.len()).unwrap());
            self.0.extend(label.as_bytes());
        }
        self.0.push(0);
        self.0.extend([qtype.to_be_bytes(), [0, 1]].concat());
        self.count(0)
    }

    /// Appends a record of class IN whose owner is the first question's name.
    pub fn answer(mut self, rtype: u16, ttl: u32, rdata: &[u8]) -> Self {
        self.0.extend([0xc0, 0x0c]);
        self.0.extend([rtype.to_be_bytes(), [0, 1]].concat());
        self.0.extend(ttl.to_be_bytes());
        self.0.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
        self.0.extend(rdata);
        self.count(1)
    }

    /// Appends an OPT record: 1,232 bytes, version 0, DO.
    pub fn opt(mut self, options: &[u8]) -> Self {
        self.0.extend(b"\0\0\x29\x04\xd0\0\0\x80\0");
        self.0.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
        self.0.extend(options);
        self.count(3)
    }

    /// Returns the bytes.
    pub fn wire(self) -> Vec<u8> {
        self.0
    }

    /// Parses the message like the agent.
    pub fn parse(self) -> Message {
        Message::parse(&self.0).unwrap()
    }

    fn count(mut self, section: usize) -> Self {
        self.0[5 + 2 * section] += 1;
        self
    }
}
