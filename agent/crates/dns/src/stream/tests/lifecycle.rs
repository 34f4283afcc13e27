use super::*;
use tcp_flags::{ACK, FIN, RST, SYN};

#[test]
fn a_syn_may_carry_data_and_be_sent_again_without() {
    let mut tap = Tap::new(Config::default());
    let sent = queries(&[30, 31]);
    let stream = framed(&sent);
    tap.send(Client, ISN[0], 0, SYN, &stream[..32]);
    tap.send(Client, ISN[0], 0, SYN, &[]);
    tap.send(Server, ISN[1], ISN[0].wrapping_add(1), SYN | ACK, &[]);
    tap.data(Client, 0, &stream);
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.ignored(StreamIgnored::Repeated), 32);
}

#[test]
fn retransmissions_to_a_closed_connection_are_recognised() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream);
    let next = ISN[0].wrapping_add(33);
    tap.send(Client, next, 0, FIN, &[]);
    tap.send(Server, ISN[1].wrapping_add(1), next.wrapping_add(1), FIN | ACK, &[]);
    tap.send(Client, next.wrapping_add(1), ISN[1].wrapping_add(2), ACK, &[]);
    tap.data(Client, 0, &stream);
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.ignored(StreamIgnored::Repeated), 32);
    assert_eq!(tap.counts().gaps, 0);
    assert_eq!(tap.losses(), []);
}

#[test]
fn a_message_cut_by_a_fin_is_lost() {
    let mut tap = Tap::connected(Config::default());
    tap.send(Client, ISN[0].wrapping_add(1), 0, FIN, &framed(&queries(&[30]))[..20]);
    assert_eq!(tap.losses(), [(Client, StreamLoss::Closed)]);
    assert_eq!(tap.lost(StreamLoss::Closed), 20);
}

#[test]
fn only_a_reset_with_the_expected_number_counts() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..20]);
    tap.send(Client, 12_345, 0, RST, b"forged");
    assert_eq!(tap.ignored(StreamIgnored::ResetText), 6);
    tap.data(Client, 20, &stream[20..]);
    assert_eq!(tap.messages(Client), sent);
    tap.data(Client, 32, &stream[..20]);
    tap.send(Client, ISN[0].wrapping_add(1 + 52), 0, RST, &[]);
    assert_eq!(tap.lost(StreamLoss::Closed), 20);
}

#[test]
fn a_new_syn_begins_a_new_stream() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..20]);
    tap.send(Client, 777, 0, SYN, &[]);
    tap.send(Client, 778, 0, 0, &stream);
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.lost(StreamLoss::Closed), 20);
}

#[test]
fn a_new_connection_whose_syn_was_missed_is_found_by_its_far_numbers() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30, 40]);
    tap.data(Client, 0, &framed(&sent[..1]));
    tap.send(Client, ISN[0].wrapping_add(1 << 30), 0, 0, &framed(&sent[1..]));
    assert_eq!(tap.messages(Client), sent);
}

#[test]
fn silence_ends_a_connection() {
    let mut tap = Tap::connected(Config::default());
    tap.data(Client, 0, &framed(&queries(&[30]))[..20]);
    tap.at_ns += 120 * SECOND;
    tap.expire();
    assert_eq!(tap.lost(StreamLoss::Idle), 20);
    assert_eq!(tap.losses(), [(Client, StreamLoss::Idle)]);
    assert_eq!(tap.counts().streams, 0);
}

#[test]
fn interfaces_are_kept_apart() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30]);
    for ifindex in [2, 3] {
        let segment = Segment {
            flow: Flow { ifindex, ..tap.flow(Client) },
            at_ns: 1,
            sequence: ISN[0].wrapping_add(1),
            acknowledgement: 0,
            flags: 0,
            payload: &framed(&sent),
            context: 0,
        };
        tap.streams.segment(&segment, |_| {});
    }
    assert_eq!(tap.counts().messages, 2);
}

#[test]
fn data_after_a_forged_fin_continues() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30, 40]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..20]);
    tap.send(Client, ISN[0].wrapping_add(1 + 25), 0, FIN, &[]);
    tap.data(Client, 20, &stream[20..50]);
    tap.data(Client, 50, &stream[50..]);
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.losses(), []);
}

#[test]
fn a_syn_with_data_that_is_refused_loses_it() {
    let mut tap = Tap::new(Config::default());
    tap.send(Client, ISN[0], 0, SYN, &framed(&queries(&[30]))[..20]);
    tap.send(Server, 0, ISN[0].wrapping_add(1 + 20), RST | ACK, &[]);
    assert_eq!(tap.losses(), [(Client, StreamLoss::Closed)]);
}

#[test]
fn a_syn_ack_whose_syn_was_missed_starts_a_new_connection() {
    let mut tap = Tap::new(Config::default());
    let sent = queries(&[30]);
    let stream = framed(&sent);
    // The end of an old connection.
    tap.data(Client, 0, &stream[..20]);
    tap.send(Server, ISN[1], 778, SYN | ACK, &[]);
    assert_eq!(tap.lost(StreamLoss::Closed), 20);
    tap.send(Client, 778, ISN[1].wrapping_add(1), ACK, &stream);
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.counts().gaps, 0);
}

#[test]
fn a_stream_whose_gap_was_given_up_stays_for_the_idle_timeout() {
    let mut tap = Tap::connected(Config::default());
    tap.data(Client, 10, &[1; 20]);
    tap.at_ns += 4 * SECOND;
    tap.expire();
    assert_eq!(tap.counts().gaps, 1);
    tap.at_ns += 120 * SECOND - 1;
    tap.expire();
    assert_eq!(tap.counts().streams, 1);
    tap.at_ns += 1;
    tap.expire();
    assert_eq!(tap.counts().streams, 0);
}

#[test]
fn a_clock_that_is_set_back_makes_no_connection_idle() {
    let mut tap = Tap::new(Config::default());
    tap.at_ns = 7_200 * SECOND;
    tap.expire();
    tap.at_ns = SECOND;
    tap.handshake();
    let sent = queries(&[30]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..20]);
    // The latest time does not change.
    tap.streams.expire(7_200 * SECOND, |event| panic!("{event:?}"));
    tap.data(Client, 20, &stream[20..]);
    assert_eq!(tap.messages(Client), sent);
    tap.at_ns = 7_320 * SECOND;
    tap.expire();
    assert_eq!(tap.counts().streams, 0);
}
