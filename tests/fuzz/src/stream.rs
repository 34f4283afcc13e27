//! Target `stream`: segments of conversations, in whatever order and however often.

use tap53_dns::{
    Flow, Transport,
    stream::{Config, Segment, StreamEvent, Streams, tcp_flags},
};

use crate::input::Input;

/// Small, so that an input can reach every limit.
const CONFIG: Config = Config {
    streams: 3,
    stream_bytes: 8 << 10,
    bytes: 24 << 10,
    gap_timeout: std::time::Duration::from_secs(3),
    acknowledged_gap_timeout: std::time::Duration::from_millis(50),
    idle_timeout: std::time::Duration::from_secs(120),
};

/// Maximum memory of streams with these limits, in bytes: the bytes kept, one segment before space is
/// freed, and the connections themselves.
const MEMORY_LIMIT: usize = CONFIG.bytes + (64 << 10) + CONFIG.streams * (4 << 10);

/// Segments of one input at most.
const SEGMENTS: usize = 400;

/// Connections that an input talks about: more than are kept.
const CONNECTIONS: usize = 4;

/// Kind of an input, by its first byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Segments of what was sent, any of them, from the SYN on: no other message may come out.
    Honest,
    /// Every segment arrives, in any order: every message must come out.
    Whole,
    /// Segments of any content: any message may come out.
    Forged,
}

/// One direction of a connection.
struct Side {
    initial: u32,
    messages: Vec<Vec<u8>>,
    octets: Vec<u8>,
    /// Numbers of the messages that came out.
    seen: Vec<usize>,
}

impl Side {
    fn new(input: &mut Input<'_>, connection: usize, back: bool) -> Self {
        let messages: Vec<Vec<u8>> = (0..=input.up_to(5))
            .map(|number| message(connection, back, number, 12 + input.up_to(600)))
            .collect();
        let octets = messages
            .iter()
            .flat_map(|message| {
                let length = u16::try_from(message.len()).expect("a short message").to_be_bytes();
                [&length[..], message].concat()
            })
            .collect();
        Self { initial: input.u32(), messages, octets, seen: Vec::new() }
    }

    /// The sequence number of a byte; SYN takes the first.
    fn sequence(&self, offset: usize) -> u32 {
        self.initial.wrapping_add(1).wrapping_add(u32::try_from(offset).expect("a short stream"))
    }
}

/// A message of its own bytes: its header tells it from every other, and nothing in it looks like a
/// length and a header behind it.
fn message(connection: usize, back: bool, number: usize, length: usize) -> Vec<u8> {
    let tag = u8::try_from(connection * 16 + number).expect("few messages");
    let mut message = vec![0xee, tag, if back { 0x80 } else { 0 }, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(b"\x01a\0\0\x01\0\x01");
    message.resize(length.max(12), 0xee);
    message
}

/// Reassembles the segments that `bytes` describe.
///
/// # Panics
/// When a message comes out that nobody sent, one that was captured does not, or bytes are not
/// accounted for.
pub fn stream(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = match input.u8() % 3 {
        0 => Kind::Honest,
        1 => Kind::Whole,
        _ => Kind::Forged,
    };
    let mut tap = Tap::new(&mut input, if kind == Kind::Whole { 1 } else { CONNECTIONS });
    match kind {
        Kind::Whole => tap.whole(&mut input),
        Kind::Honest | Kind::Forged => {
            for _ in 0..SEGMENTS {
                if input.is_empty() {
                    break;
                }
                tap.step(&mut input, kind);
            }
        }
    }
    let at_ns = tap.at_ns;
    tap.call(kind, |streams, events| streams.finish(at_ns, events));
    assert_eq!(tap.streams.counts().bytes_waiting, 0, "nothing waits behind the end");
}

/// Streams, and the messages that were sent in them.
struct Tap {
    streams: Streams<()>,
    connections: Vec<[Side; 2]>,
    at_ns: u64,
}

impl Tap {
    fn new(input: &mut Input<'_>, connections: usize) -> Self {
        let connections = (0..connections)
            .map(|number| [Side::new(input, number, false), Side::new(input, number, true)])
            .collect();
        let mut tap = Self { streams: CONFIG.build(), connections, at_ns: 1 };
        for connection in 0..tap.connections.len() {
            tap.segment(Kind::Honest, connection, 0, tcp_flags::SYN, (0, 0), 0);
            tap.segment(Kind::Honest, connection, 1, tcp_flags::SYN | tcp_flags::ACK, (0, 0), 0);
        }
        tap
    }

    /// One segment, or some time.
    fn step(&mut self, input: &mut Input<'_>, kind: Kind) {
        let choice = input.u8();
        let (connection, side) =
            (usize::from(choice) % self.connections.len(), usize::from(choice >> 7));
        match choice >> 2 & 7 {
            0 => {
                // Less than the idle timeout in all: after that, segments are of another connection.
                self.at_ns += u64::from(input.u8()) * 1_000_000;
                let at_ns = self.at_ns;
                self.call(kind, |streams, events| streams.expire(at_ns, events));
            }
            1 if kind == Kind::Forged => self.forge(input, connection, side),
            2 => {
                let end = self.connections[connection][side].octets.len();
                let flags = tcp_flags::FIN | tcp_flags::ACK;
                self.segment(kind, connection, side, flags, (end, end), 0);
            }
            _ => {
                let length = self.connections[connection][side].octets.len();
                let start = input.up_to(length);
                let end = start + input.up_to(length - start);
                let other = self.connections[connection][1 - side].octets.len();
                let acknowledged = input.up_to(other);
                self.segment(kind, connection, side, tcp_flags::ACK, (start, end), acknowledged);
            }
        }
    }

    fn forge(&mut self, input: &mut Input<'_>, connection: usize, side: usize) {
        let near = self.connections[connection][side].sequence(0);
        let segment = Segment {
            flow: flow(connection, side),
            at_ns: self.at_ns,
            sequence: near.wrapping_add(input.u32() % 10_000).wrapping_sub(1_000),
            acknowledgement: input.u32(),
            flags: input.u8(),
            payload: {
                let length = input.up_to(400);
                input.bytes(length)
            },
            context: (),
        };
        self.call(Kind::Forged, |streams, events| streams.segment(&segment, events));
    }

    /// Every byte of either direction, in any order; no acknowledgement of what did not come.
    fn whole(&mut self, input: &mut Input<'_>) {
        for side in [0, 1] {
            // The limit bounds what waits at once.
            for (start, end) in input.pieces(self.connections[0][side].octets.len(), 100) {
                self.segment(Kind::Whole, 0, side, tcp_flags::ACK, (start, end), 0);
            }
        }
        for Side { messages, seen, .. } in self.connections.iter().flatten() {
            assert_eq!(seen.len(), messages.len(), "messages that came out of those captured");
        }
    }

    fn segment(
        &mut self,
        kind: Kind,
        connection: usize,
        side: usize,
        flags: u8,
        (start, end): (usize, usize),
        acknowledged: usize,
    ) {
        let sides = &self.connections[connection];
        let payload = sides[side].octets[start..end].to_vec();
        let is_syn = flags & tcp_flags::SYN != 0;
        let segment = Segment {
            flow: flow(connection, side),
            at_ns: self.at_ns,
            sequence: if is_syn { sides[side].initial } else { sides[side].sequence(start) },
            acknowledgement: sides[1 - side].sequence(acknowledged),
            flags,
            payload: &payload,
            context: (),
        };
        self.call(kind, |streams, events| streams.segment(&segment, events));
    }

    /// Calls the streams, and looks at everything that comes of it.
    fn call(
        &mut self,
        kind: Kind,
        call: impl FnOnce(&mut Streams<()>, &mut dyn FnMut(StreamEvent<'_, ()>)),
    ) {
        let connections = &mut self.connections;
        call(&mut self.streams, &mut |event| {
            let StreamEvent::Message { flow, message, .. } = event else { return };
            assert!(message.len() >= 12, "{} bytes are no message", message.len());
            if kind == Kind::Forged {
                return;
            }
            let (connection, back) = ends(&flow);
            let side = &mut connections[connection][usize::from(back)];
            let number = side.messages.iter().position(|sent| sent == message);
            side.seen.push(number.unwrap_or_else(|| panic!("nobody sent {message:02x?}")));
        });
        let counts = self.streams.counts();
        assert_eq!(counts.bytes_received, counts.bytes_accounted(), "{counts:?}");
        assert!(counts.steps <= counts.most_steps(), "{counts:?}");
        assert!(self.streams.memory() <= MEMORY_LIMIT, "{} bytes", self.streams.memory());
        if counts.streams_evicted == 0 && kind != Kind::Forged {
            let in_order = |side: &Side| side.seen.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(
                self.connections.iter().flatten().all(in_order),
                "messages out of order or twice"
            );
        }
    }
}

const CLIENT_PORT: u16 = 40_000;

fn flow(connection: usize, side: usize) -> Flow {
    let port = CLIENT_PORT + u16::try_from(connection).expect("few connections");
    let ends = [([192, 0, 2, 1], port).into(), ([192, 0, 2, 53], 53).into()];
    Flow {
        transport: Transport::Tcp,
        client: ends[side],
        server: ends[1 - side],
        tunnel: None,
        ifindex: 1,
    }
}

/// The connection of a flow, and whether its sender is the server.
fn ends(flow: &Flow) -> (usize, bool) {
    let back = flow.client.port() == 53;
    let port = if back { flow.server.port() } else { flow.client.port() };
    (usize::from(port - CLIENT_PORT), back)
}
