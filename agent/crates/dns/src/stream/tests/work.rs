//! Work is bounded: [`Tap::check`] compares steps with the bound after every call.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{Tunnel, TunnelKind};
use tcp_flags::{ACK, FIN, SYN};

/// Returns the steps per segment.
fn steps_a_segment(tap: &Tap) -> f64 {
    let counts = tap.counts();
    counts.steps as f64 / counts.segments as f64
}

#[test]
fn segments_of_a_byte_in_reverse_order_cost_a_few_steps_each() {
    let mut tap = Tap::connected(Config::default());
    let stream = framed(&[message(1, false, 2_600)]);
    for at in (0..stream.len()).rev() {
        tap.data(Client, at, &stream[at..=at]);
    }
    assert_eq!(tap.messages(Client).len(), 1);
    assert!(steps_a_segment(&tap) < 6.0, "{:?}", tap.counts());
}

#[test]
fn pieces_that_are_overlapped_again_and_again_cost_no_more_than_their_bytes() {
    let mut tap = Tap::connected(Config::default());
    let stream = framed(&[message(1, false, 4_000)]);
    // Every other byte, after a gap that remains.
    for at in (2..2_000).step_by(2) {
        tap.data(Client, at, &stream[at..=at]);
    }
    let before = tap.counts();
    for _ in 0..100 {
        tap.data(Client, 1, &stream[1..2_000]);
    }
    let counts = tap.counts();
    let bytes = counts.bytes_received - before.bytes_received;
    assert!(counts.steps - before.steps <= bytes + 1_000, "{counts:?}");
}

#[test]
fn a_stream_without_a_boundary_costs_a_name_for_each_segment() {
    let mut tap = Tap::new(Config::default());
    // The longest name in labels of one byte, byte by byte, without an end.
    let mut stream =
        [&[0xff, 0xff, 7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[1, b'a'].repeat(127)].concat();
    stream.push(1);
    for port in 1..20 {
        tap.client_port = port;
        for at in 0..stream.len() {
            tap.data(Client, at, &stream[at..=at]);
        }
    }
    assert!(steps_a_segment(&tap) > 30.0, "this is no worst case: {:?}", tap.counts());
}

#[test]
fn connections_in_many_tunnels_do_not_share_a_bucket() {
    let mut tap = Tap::new(Config::default());
    for id in 0..20_000 {
        let tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, id: Some(id) });
        let segment = Segment {
            flow: Flow { tunnel, ..tap.flow(Client) },
            at_ns: tap.at_ns,
            sequence: 1,
            acknowledgement: 0,
            flags: SYN,
            payload: &[],
            context: 0,
        };
        tap.streams.segment(&segment, |_| {});
    }
    tap.check();
    assert!(steps_a_segment(&tap) < 2.0, "{:?}", tap.counts());
}

/// A segment: connection and sender, position, acknowledgement, flags, length, milliseconds since
/// the previous one.
type Sent = (u8, u16, u16, u8, u16, u16);

fn sent() -> impl Strategy<Value = Sent> {
    let length = prop_oneof![6 => 1..4_u16, 2 => 0..1_u16, 1 => 4..3_000_u16];
    let pause = prop_oneof![20 => 0..2_u16, 1 => 0..5_000_u16];
    let flags = prop_oneof![8 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(SYN), 2 => any::<u8>()];
    (any::<u8>(), 0..5_000_u16, 0..5_000_u16, flags, length, pause)
}

proptest! {
    #[test]
    fn whatever_comes_costs_no_more_steps_than_stated(
        all in vec(sent(), 0..600),
        bytes in vec(prop_oneof![3 => Just(1_u8), 1 => Just(0), 1 => any::<u8>()], 3_000),
        streams in 1..8_usize,
        bytes_limit in 0..20_000_usize,
    ) {
        let config = Config { streams, bytes: bytes_limit, stream_bytes: bytes_limit / 2, ..Config::default() };
        let mut tap = Tap::new(config);
        for (which, at, acknowledged, flags, length, pause) in all {
            tap.at_ns += u64::from(pause) * MS;
            tap.client_port = u16::from(which >> 1) % 12;
            let who = if which & 1 == 0 { Client } else { Server };
            let sequence = ISN[who as usize].wrapping_add(u32::from(at));
            let acknowledgement = ISN[1 - who as usize].wrapping_add(acknowledged.into());
            // It compares after each call.
            tap.send(who, sequence, acknowledgement, flags, &bytes[..length.into()]);
            tap.expire();
        }
        tap.finish();
    }
}
