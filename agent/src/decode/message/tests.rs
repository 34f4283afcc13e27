//! Messages, whole and broken.

use super::*;

/// Header with `counts`, response bit set, identifier 0x1234.
fn header(counts: [u16; 4]) -> Vec<u8> {
    let mut wire = vec![0x12, 0x34, 0x81, 0x83];
    wire.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    wire
}

const QUESTION: &[u8] = b"\x03WWW\x04test\x00\x00\x01\x00\x01";

#[test]
fn a_whole_message_is_read() {
    let mut wire = header([1, 1, 0, 1]);
    wire.extend(QUESTION);
    wire.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
    // OPT: 1232 bytes, extended rcode 1, version 0, DO, an extended error 18 "blocked".
    wire.extend(b"\x00\x00\x29\x04\xd0\x01\x00\x80\x00\x00\x0d\x00\x0f\x00\x09\x00\x12blocked");
    let message = Message::parse(&wire).unwrap();
    assert_eq!(message.parse_status, ParseStatus::Ok);
    assert_eq!((message.id, message.response, message.rcode), (0x1234, true, 0x13));
    assert_eq!(message.question().unwrap().name, "www.test");
    assert_eq!(message.answers().next().unwrap().rdata, "192.0.2.1");
    assert_eq!(message.answers().next().unwrap().name, "www.test");
    assert_eq!(message.answers().next().unwrap().ttl, 60);
    let edns = message.edns().unwrap();
    assert_eq!((edns.version, edns.udp_payload_size, edns.dnssec_ok), (0, 1232, true));
    assert_eq!(edns.extended_error.unwrap(), ExtendedError { code: 18, text: "blocked" });
}

#[test]
fn what_precedes_the_broken_part_is_kept() {
    let status = |wire: &[u8]| Message::parse(wire).map(|message| message.parse_status);
    assert_eq!(status(&header([0; 4])[..11]), None);
    assert_eq!(status(&header([1, 0, 0, 0])), Some(ParseStatus::MalformedQuestion));
    let mut wire = header([1, 1, 0, 0]);
    wire.extend(QUESTION);
    let message = Message::parse(&wire).unwrap();
    assert_eq!(message.parse_status, ParseStatus::MalformedAnswer);
    assert_eq!(message.question().unwrap().name, "www.test");
    let mut wire = header([1, 0, 0, 9]);
    wire.extend(QUESTION);
    assert_eq!(status(&wire), Some(ParseStatus::MalformedRest));
}

#[test]
fn bytes_behind_the_message_are_noticed() {
    let mut wire = header([1, 0, 0, 0]);
    wire.extend(QUESTION);
    assert_eq!(Message::parse(&wire).unwrap().parse_status, ParseStatus::Ok);
    wire.push(0);
    assert_eq!(Message::parse(&wire).unwrap().parse_status, ParseStatus::TrailingBytes);
}

#[test]
fn a_pointer_loop_ends() {
    let mut wire = header([1, 0, 0, 0]);
    wire.extend(b"\xc0\x0c\x00\x01\x00\x01");
    assert_eq!(Message::parse(&wire).unwrap().parse_status, ParseStatus::MalformedQuestion);
}

#[test]
fn announced_counts_cost_no_memory() {
    let message = Message::parse(&header([u16::MAX; 4])).unwrap();
    assert_eq!(message.answers.capacity(), 0);
    assert_eq!(message.counts, [u16::MAX; 4]);
}
