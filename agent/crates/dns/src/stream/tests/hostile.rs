use std::net::Ipv4Addr;

use super::*;
use tcp_flags::{ACK, SYN};

#[test]
fn a_flood_of_half_open_connections_leaves_memory_flat_and_streams_whole() {
    let mut tap = Tap::connected(Config { streams: 1_024, ..Config::default() });
    let sent: Vec<_> = (0..1_000).map(|number| message(number, false, 40)).collect();
    let stream = framed(&sent);
    let mut most = 0;
    for (number, at) in (0..100_000).zip(0..) {
        let flow = Flow {
            client: (Ipv4Addr::from_bits(10 << 24 | number), 1_024).into(),
            ..tap.flow(Client)
        };
        let syn = Segment {
            flow,
            at_ns: tap.at_ns,
            sequence: number,
            acknowledgement: 0,
            flags: SYN,
            payload: &[],
            context: 0,
        };
        tap.streams.segment(&syn, |_| {});
        if number % 100 == 0 {
            // The genuine stream continues, in segments without a whole message.
            let at = at / 100 * 42;
            if number == 0 {
                // An exchange proves it.
                tap.data(Client, 0, &stream[..42]);
            } else {
                tap.data(Client, at, &stream[at..at + 21]);
                tap.data(Client, at + 21, &stream[at + 21..at + 42]);
            }
        }
        if number == 2_000 {
            most = tap.streams.memory();
        }
    }
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.losses(), []);
    assert!(tap.streams.memory() <= most + 42);
    assert_eq!(tap.counts().streams, 1_024);
}

#[test]
fn forged_data_evicts_only_its_own_kind() {
    let mut tap = Tap::connected(Config { streams: 64, ..Config::default() });
    let sent = vec![message(1, false, 40)];
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..20]);
    for port in 1..2_000 {
        tap.client_port = port;
        // Half a message that looks genuine, of a connection without a handshake.
        tap.data(Client, 0, &stream[..30]);
    }
    tap.client_port = 40_000;
    tap.data(Client, 20, &stream[20..]);
    assert_eq!(tap.messages(Client), sent);
}

#[test]
fn the_sum_of_all_bytes_is_limited() {
    let mut tap = Tap::new(Config { bytes: 1 << 20, ..Config::default() });
    let stream = framed(&[message(1, false, 60_000)]);
    for port in 1..200 {
        tap.at_ns += 1;
        tap.client_port = port;
        tap.handshake();
        tap.data(Client, 0, &stream[..50_000]);
        assert!(tap.streams.memory <= 1 << 20);
    }
    assert!(tap.counts().streams_evicted > 100);
    assert_eq!(tap.lost(StreamLoss::Evicted), tap.counts().streams_evicted * 50_000);
}

#[test]
fn a_stated_length_alone_takes_no_memory() {
    let mut tap = Tap::connected(Config::default());
    for at in 0..60 {
        tap.data(Client, at, &[0xff]);
        assert!(tap.streams.memory <= 64);
    }
    tap.data(Client, 60, &[0xff; 10]);
    assert!(tap.streams.memory <= 128);
}

#[test]
fn length_zero_repeated_is_counted() {
    let mut tap = Tap::connected(Config::default());
    let sent = vec![message(1, false, 40)];
    tap.data(Client, 0, &[0; 65_536]);
    tap.data(Client, 65_536, &framed(&sent));
    assert_eq!(tap.counts().messages_too_short, 32_768);
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.losses(), []);
}

#[test]
fn segments_of_one_byte_make_messages() {
    let mut tap = Tap::connected(Config::default());
    let sent: Vec<_> =
        (0..20).map(|number| message(number, false, 40 + usize::from(number))).collect();
    for (at, byte) in framed(&sent).iter().enumerate() {
        tap.data(Client, at, &[*byte]);
        tap.acknowledge(Server, at + 1);
    }
    assert_eq!(tap.messages(Client), sent);
}

#[test]
fn ten_thousand_segments_in_reverse_are_joined() {
    let mut tap = Tap::connected(Config { stream_bytes: 16 << 20, ..Config::default() });
    let sent: Vec<_> = (0..10_000).map(|number| message(number, false, 100)).collect();
    let stream = framed(&sent);
    // Segments that begin and end within messages. A quadratic algorithm would move 5 GB here.
    for (place, segment) in stream.chunks(102).enumerate().collect::<Vec<_>>().into_iter().rev() {
        tap.data(Client, place * 102, segment);
    }
    assert_eq!(tap.messages(Client), sent);
}

#[test]
fn a_segment_over_many_pieces_fills_the_gaps_between_them() {
    let mut tap = Tap::connected(Config { stream_bytes: 16 << 20, ..Config::default() });
    let sent: Vec<_> = (0..1_000).map(|number| message(number, false, 60)).collect();
    let stream = framed(&sent);
    for at in (1..stream.len()).step_by(2) {
        tap.data(Client, at, &stream[at..=at]);
    }
    tap.data(Client, 1, &stream[1..]);
    tap.data(Client, 0, &stream);
    assert_eq!(tap.messages(Client), sent);
}

#[test]
fn any_flags_and_numbers_are_accounted_for() {
    let mut tap = Tap::connected(Config { streams: 4, bytes: 4_096, ..Config::default() });
    let mut random = 1_u64;
    let payload = framed(&[message(1, false, 90), message(2, false, 20)]);
    for _ in 0..50_000 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [a, b, c, d, e, f, g, h] = random.to_be_bytes();
        tap.client_port = u16::from(a & 7);
        tap.at_ns += u64::from(b) * MS;
        let near = u32::from(c) | if d & 15 == 0 { u32::from(e) << 24 } else { 0 };
        let flags = if f & 3 == 0 { g } else { ACK };
        let length = usize::from(h) % payload.len();
        let who = if d & 16 == 0 { Client } else { Server };
        tap.send(who, near, u32::from(e), flags, &payload[usize::from(c) % 8..][..length.min(80)]);
        if a == 0 {
            tap.expire();
        }
        tap.seen.clear();
    }
    tap.finish();
}

/// A connection that has half a message, among as many others as fit, and many more.
fn survives_a_flood(flood: impl Fn(&mut Tap)) -> bool {
    let mut tap = Tap::connected(Config { streams: 64, ..Config::default() });
    let sent = vec![message(1, false, 40)];
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..20]);
    for port in 1..2_000 {
        tap.at_ns += 1;
        tap.client_port = port;
        flood(&mut tap);
    }
    assert_eq!(tap.counts().streams, 64);
    tap.client_port = 40_000;
    tap.data(Client, 20, &stream[20..]);
    tap.messages(Client).last() == sent.last()
        && tap.losses().iter().all(|(_, loss)| *loss == StreamLoss::Evicted)
}

#[test]
fn connections_without_data_are_evicted_first() {
    assert!(survives_a_flood(Tap::handshake));
}

#[test]
fn forged_syns_with_data_are_evicted_first_even_if_answered() {
    assert!(survives_a_flood(|tap| {
        tap.send(Client, ISN[0], 0, SYN, &framed(&[message(2, false, 40)])[..30]);
        tap.send(Server, ISN[1], ISN[0].wrapping_add(1), SYN | ACK, &[]);
    }));
}

#[test]
fn a_forged_reset_does_not_make_a_stream_that_goes_on_the_first_to_go() {
    let mut tap = Tap::connected(Config { streams: 64, ..Config::default() });
    let sent: Vec<_> = (0..2).map(|number| message(number, false, 40)).collect();
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..42]);
    tap.send(Client, ISN[0].wrapping_add(1 + 42), 0, tcp_flags::RST, &[]);
    tap.data(Client, 42, &stream[42..60]);
    for port in 1..200 {
        tap.at_ns += 1;
        tap.client_port = port;
        tap.handshake();
    }
    tap.client_port = 40_000;
    tap.data(Client, 60, &stream[60..]);
    assert_eq!(tap.messages(Client), sent);
}

#[test]
fn bytes_that_come_again_and_differ_are_a_conflict_however_they_are_divided() {
    let decoy = framed(&[message(1, false, 40)]);
    let genuine = framed(&[message(2, false, 40)]);
    for size in [1, 7, 21, 42] {
        let mut tap = Tap::connected(Config::default());
        tap.data(Client, 0, &decoy);
        for (at, part) in genuine.chunks(size).enumerate() {
            tap.data(Client, at * size, part);
        }
        assert_eq!(tap.messages(Client), [message(1, false, 40)]);
        assert!(tap.losses().contains(&(Client, StreamLoss::Conflict)), "in pieces of {size}");
        let again = tap.lost(StreamLoss::Conflict) + tap.ignored(StreamIgnored::Repeated);
        assert_eq!(again + tap.ignored(StreamIgnored::KeepAlive), 42);
    }
    // Equal bytes are no conflict, however they are split.
    let mut tap = Tap::connected(Config::default());
    tap.data(Client, 0, &decoy);
    for (at, part) in decoy.chunks(5).enumerate() {
        tap.data(Client, at * 5, part);
    }
    assert_eq!((tap.losses(), tap.lost(StreamLoss::Conflict)), (vec![], 0));
}

#[test]
fn repeated_bytes_after_a_gap_are_compared_too() {
    let stream = framed(&[message(1, false, 60)]);
    let mut tap = Tap::connected(Config::default());
    tap.data(Client, 20, &stream[20..40]);
    // Equal bytes around the piece.
    tap.data(Client, 10, &stream[10..50]);
    assert_eq!(tap.lost(StreamLoss::Conflict), 0);
    assert_eq!(tap.ignored(StreamIgnored::Repeated), 20);
    // Other bytes into a piece, and over a whole one.
    tap.data(Client, 45, &[0xee; 10]);
    assert_eq!(tap.lost(StreamLoss::Conflict), 5);
    tap.data(Client, 9, &[0xee; 12]);
    assert!(tap.lost(StreamLoss::Conflict) > 5);
    assert!(tap.losses().iter().all(|loss| *loss == (Client, StreamLoss::Conflict)));
}
