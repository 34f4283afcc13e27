use super::*;
use crate::Transport;

mod behaviour;
mod hostile;
mod lifecycle;
mod properties;
mod work;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// Returns a plausible query or response of `size` bytes.
pub(super) fn message(number: u16, response: bool, size: usize) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let flags = if response { 0x80 } else { 0x01 };
    let mut message = vec![high, low, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(b"\x01a\x04test\x00\x00\x01\x00\x01");
    message.extend(
        (message.len()..size).map(|at| at.to_le_bytes()[0].wrapping_mul(7).wrapping_add(low) | 1),
    );
    message
}

pub(super) fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let frame = |message: &Vec<u8>| {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        [&length[..], message].concat()
    };
    messages.iter().flat_map(frame).collect()
}

/// Returns queries of these sizes, numbered from 1.
pub(super) fn queries(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes.iter().zip(1..).map(|(size, number)| message(number, false, *size)).collect()
}

/// The output, in order: messages with the side that sent them, and losses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Message(Who, Vec<u8>),
    Loss(Who, StreamLoss),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Client,
    Server,
}

use Who::{Client, Server};

/// Streams with one test connection, and all of their output.
pub(super) struct Tap {
    pub(super) streams: Streams<u32>,
    pub(super) at_ns: u64,
    pub(super) client_port: u16,
    pub(super) seen: Vec<Seen>,
}

/// First sequence number of each side: both wrap soon.
pub(super) const ISN: [u32; 2] = [u32::MAX - 5, 0x7fff_fff0];

impl Tap {
    pub(super) fn new(config: Config) -> Self {
        Self { streams: config.build(), at_ns: SECOND, client_port: 40_000, seen: Vec::new() }
    }

    /// Creates streams whose connection has completed its handshake.
    pub(super) fn connected(config: Config) -> Self {
        let mut tap = Self::new(config);
        tap.handshake();
        tap
    }

    pub(super) fn handshake(&mut self) {
        use tcp_flags::{ACK, SYN};
        self.send(Client, ISN[0], 0, SYN, &[]);
        self.send(Server, ISN[1], ISN[0].wrapping_add(1), SYN | ACK, &[]);
        self.send(Client, ISN[0].wrapping_add(1), ISN[1].wrapping_add(1), ACK, &[]);
    }

    pub(super) fn flow(&self, who: Who) -> Flow {
        let ends = [([192, 0, 2, 1], self.client_port).into(), ([192, 0, 2, 53], 53).into()];
        Flow {
            transport: Transport::Tcp,
            client: ends[who as usize],
            server: ends[1 - who as usize],
            tunnel: None,
            ifindex: 2,
        }
    }

    pub(super) fn send(
        &mut self,
        who: Who,
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        payload: &[u8],
    ) {
        let segment = Segment {
            flow: self.flow(who),
            at_ns: self.at_ns,
            sequence,
            acknowledgement,
            flags,
            payload,
            context: who as u32,
        };
        let seen = &mut self.seen;
        self.streams.segment(&segment, |event| note(seen, event));
        self.check();
    }

    /// Sends the bytes of a stream from `at` on, without an acknowledgement.
    pub(super) fn data(&mut self, who: Who, at: usize, payload: &[u8]) {
        let sequence = ISN[who as usize].wrapping_add(1).wrapping_add(u32::try_from(at).unwrap());
        self.send(who, sequence, 0, 0, payload);
    }

    /// Acknowledges the other side's stream up to `at`.
    pub(super) fn acknowledge(&mut self, who: Who, at: usize) {
        let other = ISN[1 - who as usize].wrapping_add(1);
        let acknowledgement = other.wrapping_add(u32::try_from(at).unwrap());
        self.send(who, ISN[who as usize].wrapping_add(1), acknowledgement, tcp_flags::ACK, &[]);
    }

    pub(super) fn expire(&mut self) {
        let seen = &mut self.seen;
        self.streams.expire(self.at_ns, |event| note(seen, event));
        self.check();
    }

    pub(super) fn finish(&mut self) {
        let seen = &mut self.seen;
        self.streams.finish(self.at_ns, |event| note(seen, event));
        self.check();
        assert_eq!((self.streams.memory, self.counts().bytes_waiting), (0, 0));
    }

    /// Checks that the ledger balances, and that the sums are those of the connections.
    pub(super) fn check(&self) {
        let counts = self.counts();
        assert_eq!(counts.bytes_accounted(), counts.bytes_received, "{counts:?}");
        assert!(counts.steps <= counts.most_steps(), "{counts:?}");
    }

    pub(super) fn counts(&self) -> StreamCounts {
        self.streams.counts()
    }

    pub(super) fn lost(&self, reason: StreamLoss) -> u64 {
        self.counts().bytes_lost[reason as usize]
    }

    pub(super) fn ignored(&self, reason: StreamIgnored) -> u64 {
        self.counts().bytes_ignored[reason as usize]
    }

    /// Returns the messages of one side.
    pub(super) fn messages(&self, who: Who) -> Vec<Vec<u8>> {
        let of = |seen: &Seen| match seen {
            Seen::Message(sender, message) if *sender == who => Some(message.clone()),
            _ => None,
        };
        self.seen.iter().filter_map(of).collect()
    }

    pub(super) fn losses(&self) -> Vec<(Who, StreamLoss)> {
        let loss = |seen: &Seen| match seen {
            Seen::Loss(who, reason) => Some((*who, *reason)),
            Seen::Message(..) => None,
        };
        self.seen.iter().filter_map(loss).collect()
    }
}

fn note(seen: &mut Vec<Seen>, event: StreamEvent<'_, u32>) {
    let who = |flow: Flow| if flow.server.port() == 53 { Client } else { Server };
    seen.push(match event {
        StreamEvent::Message { flow, message, .. } => Seen::Message(who(flow), message.to_vec()),
        StreamEvent::Loss { flow, reason, .. } => Seen::Loss(who(flow), reason),
    });
}
