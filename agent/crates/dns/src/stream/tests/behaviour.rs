use super::*;
use tcp_flags::ACK;

#[test]
fn whole_messages_come_straight_from_the_segment() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30, 300, 65_535]);
    tap.data(Client, 0, &framed(&sent));
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.streams.memory, 0);
    assert_eq!(tap.counts().bytes_in_messages, 30 + 300 + 65_535 + 6);
    assert_eq!(tap.losses(), []);
}

#[test]
fn a_message_may_be_cut_anywhere() {
    let sent = queries(&[30, 40]);
    let stream = framed(&sent);
    for cut in 1..stream.len() {
        let mut tap = Tap::connected(Config::default());
        tap.data(Client, 0, &stream[..cut]);
        tap.data(Client, cut, &stream[cut..]);
        assert_eq!(tap.messages(Client), sent, "cut at {cut}");
    }
}

#[test]
fn a_message_carries_the_time_of_its_latest_byte_and_its_senders_context() {
    let mut tap = Tap::connected(Config::default());
    let stream = framed(&queries(&[30, 30]));
    // The second message arrives whole while the end of the first is missing.
    tap.at_ns = 10;
    tap.data(Client, 0, &stream[..20]);
    tap.at_ns = 20;
    tap.data(Client, 32, &stream[32..]);
    let mut found = Vec::new();
    let segment = Segment {
        flow: tap.flow(Server),
        at_ns: 30,
        sequence: ISN[1].wrapping_add(1),
        acknowledgement: ISN[0].wrapping_add(1 + 64),
        flags: ACK,
        payload: &[],
        context: 99,
    };
    tap.streams.segment(&segment, |event| {
        if let StreamEvent::Message { flow, context, at_ns, message } = event {
            found.push((flow, context, at_ns, message.len()));
        }
    });
    assert_eq!(found, [(tap.flow(Client), Client as u32, 20, 30)]);
}

#[test]
fn the_first_copy_of_a_byte_wins() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[40]);
    let stream = framed(&sent);
    let forged = vec![0xee; stream.len()];
    tap.data(Client, 10, &stream[10..20]);
    tap.data(Client, 30, &stream[30..]);
    tap.data(Client, 0, &stream[..10]);
    tap.data(Client, 10, &forged[10..20]);
    tap.data(
        Client,
        15,
        &[&stream[20..20], &forged[15..20], &stream[20..30], &forged[30..]].concat(),
    );
    assert_eq!(tap.messages(Client), sent);
    // All of it differs from the processed bytes.
    assert_eq!(tap.ignored(StreamIgnored::Repeated), 0);
    assert_eq!(tap.lost(StreamLoss::Conflict), 10 + 5 + 12);
    assert_eq!(tap.losses().last(), Some(&(Client, StreamLoss::Conflict)));
}

#[test]
fn keep_alive_probes_are_ignored() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30, 30]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..32]);
    tap.data(Client, 31, &[0]);
    tap.data(Client, 31, &[]);
    tap.data(Client, 32, &stream[32..]);
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.ignored(StreamIgnored::KeepAlive), 1);
    assert_eq!(tap.losses(), []);
}

#[test]
fn messages_too_short_are_skipped_and_framing_goes_on() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[30]);
    let short = framed(&[vec![], vec![1; 11], vec![]]);
    tap.data(Client, 0, &[short.clone(), framed(&sent)].concat());
    assert_eq!(tap.messages(Client), sent);
    assert_eq!(tap.counts().messages_too_short, 3);
    assert_eq!(tap.lost(StreamLoss::ShorterThanHeader), short.len() as u64);
}

#[test]
fn a_gap_inside_a_message_ends_exactly_at_the_next() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[100, 50, 60]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..40]);
    // 40..70 is missing; the second message begins within this segment, at 102.
    tap.data(Client, 70, &stream[70..]);
    assert_eq!(tap.messages(Client), [] as [Vec<u8>; 0]);
    tap.acknowledge(Server, stream.len());
    assert_eq!(tap.messages(Client), sent[1..]);
    assert_eq!(tap.losses(), [(Client, StreamLoss::Gap)]);
    assert_eq!(tap.lost(StreamLoss::Gap), 40 + 32);
    let counts = tap.counts();
    assert_eq!((counts.gaps, counts.bytes_missing, counts.synchronisations), (1, 30, 0));
}

#[test]
fn a_gap_up_to_the_end_of_a_message_needs_no_looks() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[100, 50]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..40]);
    tap.acknowledge(Server, 102);
    // A segment of two bytes: its look would prove nothing.
    tap.data(Client, 102, &stream[102..104]);
    tap.data(Client, 104, &stream[104..]);
    assert_eq!(tap.messages(Client), [] as [Vec<u8>; 0]);
    tap.at_ns += 50 * MS;
    tap.data(Client, stream.len(), &[]);
    tap.acknowledge(Client, 0);
    assert_eq!(tap.messages(Client), sent[1..]);
    assert_eq!(tap.counts().synchronisations, 0);
}

#[test]
fn a_gap_that_hides_a_boundary_ends_where_a_segment_begins_a_message() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[100, 50, 60, 70]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..40]);
    // 40..120 is missing, and with it the second prefix, at 102.
    tap.data(Client, 120, &stream[120..154]);
    tap.data(Client, 154, &stream[154..155]);
    tap.data(Client, 155, &stream[155..170]);
    tap.data(Client, 170, &stream[170..]);
    tap.acknowledge(Server, stream.len());
    assert_eq!(tap.messages(Client), sent[2..]);
    assert_eq!(tap.counts().synchronisations, 1);
    assert_eq!(tap.lost(StreamLoss::Unsynchronised), 34);
}

#[test]
fn an_acknowledgement_reveals_a_missed_segment_at_the_end() {
    let mut tap = Tap::connected(Config::default());
    let answers = [message(1, true, 80)];
    tap.data(Server, 0, &framed(&answers));
    tap.acknowledge(Server, 32);
    assert_eq!(tap.losses(), [(Client, StreamLoss::Gap)]);
    assert_eq!(tap.messages(Server), answers);
    tap.at_ns += 3 * SECOND;
    tap.expire();
    assert_eq!((tap.counts().gaps, tap.counts().bytes_missing), (1, 32));
    // It is too late now.
    tap.data(Client, 0, &framed(&queries(&[30])));
    assert_eq!(tap.ignored(StreamIgnored::Repeated), 32);
}

#[test]
fn data_acknowledged_before_its_capture_is_read() {
    let mut tap = Tap::connected(Config::default());
    let (asked, answers) = (queries(&[30, 40]), [message(1, true, 80), message(2, true, 90)]);
    let (questions, stream) = (framed(&asked), framed(&answers));
    tap.send(Server, ISN[1].wrapping_add(1), ISN[0].wrapping_add(1 + 32), ACK, &stream[..82]);
    tap.send(Server, ISN[1].wrapping_add(83), ISN[0].wrapping_add(1 + 74), ACK, &stream[82..]);
    tap.data(Client, 0, &questions[..32]);
    tap.data(Client, 32, &questions[32..]);
    assert_eq!((tap.messages(Client), tap.messages(Server)), (asked, answers.to_vec()));
    let counts = tap.counts();
    assert_eq!((counts.gaps, counts.bytes_missing, counts.bytes_waiting), (0, 0, 0));
    tap.finish();
    assert_eq!(tap.counts().gaps, 0);
}

#[test]
fn a_query_after_a_gap_is_read_before_its_response() {
    let mut tap = Tap::connected(Config::default());
    let (asked, answers) = (queries(&[30, 40]), [message(1, true, 80), message(2, true, 90)]);
    let (questions, stream) = (framed(&asked), framed(&answers));
    // The first query was not captured.
    tap.send(Server, ISN[1].wrapping_add(1), ISN[0].wrapping_add(1 + 32), ACK, &stream[..82]);
    tap.data(Client, 32, &questions[32..]);
    assert_eq!(tap.messages(Client), [] as [Vec<u8>; 0]);
    tap.send(Server, ISN[1].wrapping_add(83), ISN[0].wrapping_add(1 + 74), ACK, &stream[82..]);
    let heard = tap.seen.iter().filter(|seen| matches!(seen, Seen::Message(..)));
    let [first, second] = answers;
    assert!(heard.eq(&[
        Seen::Message(Server, first),
        Seen::Message(Client, asked[1].clone()),
        Seen::Message(Server, second)
    ]));
}

#[test]
fn a_far_acknowledgement_is_believed_at_once() {
    let mut tap = Tap::connected(Config::default());
    for at in [5 << 20, 10 << 20, 15 << 20, 20 << 20] {
        tap.acknowledge(Server, at);
    }
    assert_eq!(tap.counts().bytes_missing, 20 << 20);
    tap.data(Client, 20 << 20, &framed(&queries(&[30])));
    assert_eq!(tap.messages(Client), queries(&[30]));
}

#[test]
fn a_gap_is_given_up_after_its_timeout_also_in_a_silent_stream() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[100, 50]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..40]);
    tap.data(Client, 60, &stream[60..]);
    tap.at_ns += 3 * SECOND - 1;
    tap.expire();
    assert_eq!(tap.counts().gaps, 0);
    tap.at_ns += 1;
    tap.expire();
    assert_eq!(tap.messages(Client), sent[1..]);
}

#[test]
fn a_gap_is_given_up_after_its_timeout_in_a_stream_that_goes_on() {
    let mut tap = Tap::connected(Config::default());
    let sent = queries(&[100, 50, 60]);
    let stream = framed(&sent);
    tap.data(Client, 0, &stream[..40]);
    tap.data(Client, 60, &stream[60..100]);
    for at in 100..130 {
        tap.at_ns += 200 * MS;
        tap.data(Client, at, &stream[at..=at]);
        tap.expire();
    }
    assert_eq!(tap.counts().gaps, 1);
    tap.data(Client, 130, &stream[130..]);
    assert_eq!(tap.messages(Client), sent[1..]);
}

#[test]
fn a_gap_is_given_up_when_too_much_waits_after_it() {
    let mut tap = Tap::connected(Config { stream_bytes: 4_096, ..Config::default() });
    let sent = queries(&[100; 80]);
    let stream = framed(&sent);
    let mut at = 50;
    while at < stream.len() {
        let end = stream.len().min(at + 512);
        tap.data(Client, at, &stream[at..end]);
        assert!(tap.streams.memory <= 4_096 + 102);
        at = end;
    }
    assert_eq!(tap.counts().gaps, 1);
    // The first segment begins within the first message, others at no boundary either.
    assert!(tap.lost(StreamLoss::Unsynchronised) > 0);
}

#[test]
fn a_stream_that_was_there_before_is_synchronised_by_its_looks() {
    let mut tap = Tap::new(Config::default());
    let sent = queries(&[100, 50]);
    let stream = framed(&sent);
    tap.data(Client, 60, &stream[60..102]);
    tap.data(Client, 102, &stream[102..]);
    assert_eq!(tap.messages(Client), sent[1..]);
    assert_eq!(tap.lost(StreamLoss::Unsynchronised), 42);
    assert_eq!(tap.losses()[0], (Client, StreamLoss::Unsynchronised));
}

#[test]
fn other_protocols_never_synchronise() {
    let http = b"GET /dns-query?dns=AAAB HTTP/1.1\r\nHost: resolver.test\r\nAccept: */*\r\n\r\n";
    let tls =
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let post = b"POST / HTTP/1.1\r\nHost: resolver.test\r\nContent-Length: 17\r\n\r\n";
    for stream in [&http[..], tls, post, &[0; 600], &[0xff; 600]] {
        let mut tap = Tap::new(Config::default());
        for (place, segment) in stream.chunks(64).enumerate() {
            tap.data(Client, place * 64, segment);
        }
        tap.finish();
        assert_eq!(tap.counts().synchronisations, 0);
        assert_eq!(
            tap.lost(StreamLoss::Unsynchronised) + tap.lost(StreamLoss::Ended),
            stream.len() as u64
        );
    }
}

#[test]
fn a_message_does_not_take_the_time_of_the_one_before() {
    let mut tap = Tap::connected(Config::default());
    let stream = framed(&queries(&[30, 30]));
    tap.at_ns = 10;
    tap.data(Client, 0, &stream[..20]);
    tap.at_ns = 20;
    tap.data(Client, 25, &stream[25..40]);
    tap.at_ns = 25;
    tap.data(Client, 40, &stream[40..]);
    let mut times = Vec::new();
    let missing = Segment {
        flow: tap.flow(Client),
        at_ns: 30,
        sequence: ISN[0].wrapping_add(1 + 20),
        acknowledgement: 0,
        flags: 0,
        payload: &stream[20..25],
        context: 0,
    };
    tap.streams.segment(&missing, |event| {
        if let StreamEvent::Message { at_ns, .. } = event {
            times.push(at_ns);
        }
    });
    assert_eq!(times, [30, 25]);
}

#[test]
fn bytes_before_the_first_one_seen_are_no_repetition() {
    let mut tap = Tap::new(Config::default());
    let sent = queries(&[30, 40]);
    let stream = framed(&sent);
    tap.data(Client, 32, &stream[32..]);
    tap.data(Client, 0, &stream[..40]);
    assert_eq!(tap.messages(Client), sent[1..]);
    assert_eq!(tap.lost(StreamLoss::Unsynchronised), 32);
    assert_eq!(tap.ignored(StreamIgnored::Repeated), 8);
}
