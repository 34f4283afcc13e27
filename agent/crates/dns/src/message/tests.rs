//! Well-formed and malformed messages.

use std::net::Ipv6Addr;

use super::*;
use crate::build::Build;

/// Returns a header with `counts`, the response bit, and identifier 0x1234.
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
fn entries_before_the_malformed_one_are_kept() {
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
fn trailing_bytes_are_reported() {
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

/// Returns a record of class IN with a TTL of a minute.
fn record(owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
    record_of_class(owner, rtype, 1, rdata)
}

fn record_of_class(owner: &[u8], rtype: u16, class: u16, rdata: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rdata.len()).unwrap();
    let fixed = [rtype.to_be_bytes(), class.to_be_bytes(), [0, 0], [0, 60], length.to_be_bytes()];
    [owner, &fixed.concat(), rdata].concat()
}

fn message_of(counts: [u16; 4], parts: &[&[u8]]) -> Message {
    Message::parse(&[header(counts), parts.concat()].concat()).unwrap()
}

/// Owners: the first question's name, the root.
const POINTER: &[u8] = b"\xc0\x0c";
const ROOT: &[u8] = b"\0";

#[test]
fn every_question_is_kept() {
    let message =
        message_of([3, 0, 0, 0], &[QUESTION, b"\xc0\x10\0\x1c\x80\x01", b"\0\0\x02\0\xff"]);
    assert_eq!(message.parse_status, ParseStatus::Ok);
    assert_eq!(message.question().unwrap(), Question { name: "www.test", qtype: 1, qclass: 1 });
    let more: Vec<_> = message.more_questions().map(|q| (q.name, q.qtype, q.qclass)).collect();
    assert_eq!(more, [("test", 28, 0x8001), (".", 2, 255)]);
}

#[test]
fn names_that_are_there_already_are_shared() {
    let canonical = record(POINTER, 5, b"\x03cdn\x04test\0");
    // The owner of the later record is the RDATA of the CNAME.
    let pointer = 12 + QUESTION.len() + canonical.len() - 10;
    let owner = [0xc0, u8::try_from(pointer).unwrap()];
    let address = record(&owner, 1, &[192, 0, 2, 1]);
    let message = message_of([1, 3, 0, 0], &[QUESTION, &canonical, &address, &address]);
    let answers: Vec<_> = message.answers().map(|answer| (answer.name, answer.rdata)).collect();
    let expected = [("www.test", "cdn.test"), ("cdn.test", "192.0.2.1"), ("cdn.test", "192.0.2.1")];
    assert_eq!(answers, expected);
    assert_eq!(message.text, "www.testWWW.testcdn.test192.0.2.1192.0.2.1");
}

#[test]
fn malformed_rdata_keeps_its_bytes_and_later_answers() {
    let broken = record(POINTER, 1, &[192, 0, 2]);
    let name_with_a_tail = record(POINTER, 5, b"\0\0");
    let whole = record(POINTER, 1, &[192, 0, 2, 1]);
    let message = message_of([1, 3, 0, 0], &[QUESTION, &broken, &name_with_a_tail, &whole]);
    assert_eq!(message.parse_status, ParseStatus::MalformedAnswer);
    let rdata: Vec<_> = message.answers().map(|answer| answer.rdata).collect();
    assert_eq!(rdata, ["\\# 3 c00002", "\\# 2 0000", "192.0.2.1"]);
    // Trailing bytes are the lesser error.
    let message = message_of([1, 1, 0, 0], &[QUESTION, &broken, b"\0"]);
    assert_eq!(message.parse_status, ParseStatus::MalformedAnswer);
}

#[test]
fn an_update_keeps_its_prerequisites_and_its_changes() {
    let mut wire = header([1, 1, 3, 0]);
    wire[2] = 0x28;
    wire.extend(b"\x04test\0\0\x06\0\x01");
    wire.extend(record_of_class(POINTER, 1, 255, b"")); // there is an A record
    wire.extend(record(POINTER, 16, b"\x03new"));
    wire.extend(record_of_class(POINTER, 1, 254, &[192, 0, 2, 1])); // delete this one
    wire.extend(record_of_class(POINTER, 28, 255, b"")); // delete the set
    let view = |records: &mut dyn Iterator<Item = Answer<'_>>| -> Vec<(u16, u16, String)> {
        records.map(|record| (record.rtype, record.class, record.rdata.to_owned())).collect()
    };
    let message = Message::parse(&wire).unwrap();
    assert_eq!(message.parse_status, ParseStatus::Ok);
    assert_eq!(view(&mut message.answers()), [(1, 255, String::new())]);
    assert_eq!(view(&mut message.prerequisites()), [(1, 255, String::new())]);
    let changes =
        [(16, 1, "\"new\"".to_owned()), (1, 254, "192.0.2.1".to_owned()), (28, 255, String::new())];
    assert_eq!(view(&mut message.updates()), changes);
    // In a response it is an ordinary section.
    wire[2] |= 0x80;
    assert_eq!(Message::parse(&wire).unwrap().updates().len(), 0);
    assert_eq!(Message::parse(&wire).unwrap().prerequisites().len(), 0);
}

/// Returns a query with these EDNS options, and its status.
fn options(options: &[u8]) -> (Message, ParseStatus) {
    let message = message_of([0, 0, 0, 1], &[&record_of_class(ROOT, 41, 1232, options)]);
    let status = message.parse_status;
    (message, status)
}

#[test]
fn options_are_read_into_their_fields() {
    let (message, status) = options(
        b"\0\x08\0\x07\0\x01\x18\x10\xc0\0\x02\
          \0\x03\0\x02ns\
          \0\x0a\0\x08cookies!\
          \0\x0f\0\x08\0\x12a\x01\xff\xc3\xa9\0\
          \0\x0c\0\x03\0\0\0\
          \0\x14\0\x01x\
          \0\x0f\0\x02\0\x03",
    );
    assert_eq!(status, ParseStatus::Ok);
    let edns = message.edns().unwrap();
    let subnet =
        ClientSubnet { address: "192.0.2.0".parse().unwrap(), source_prefix: 24, scope_prefix: 16 };
    assert_eq!(edns.client_subnet, Some(subnet));
    assert_eq!((edns.nsid, edns.cookie), (Some(&b"ns"[..]), Some(&b"cookies!"[..])));
    let error = ExtendedError { code: 18, text: "a\u{fffd}\u{fffd}é" };
    assert_eq!((edns.extended_error, edns.padding), (Some(error), Some(3)));
    // Unknown, and a second error.
    let others: Vec<_> = edns.options().collect();
    assert_eq!(others, [(20, &b"x"[..]), (15, &b"\0\x03"[..])]);
}

#[test]
fn a_malformed_option_does_not_hide_the_others() {
    for malformed in [
        &b"\0\x08\0\x03\0\x01\x18"[..],            // a client subnet too short
        b"\0\x08\0\x07\0\x01\x17\0\xc0\0\x01",     // bits after the prefix
        b"\0\x08\0\x08\0\x01\x18\0\xc0\0\x02\x01", // more address than prefix
        b"\0\x08\0\x09\0\x01\x21\0\xc0\0\x02\x01\0", // a prefix of 33 bits
        b"\0\x08\0\x04\0\0\x18\0",                 // a prefix of no family
        b"\0\x08\0\x06\0\0\0\0\xc0\0",             // an address of no family
        b"\0\x0a\0\x07cookies",                    // a cookie of seven bytes
        b"\0\x0f\0\x01\0",                         // an error of one
    ] {
        let (message, status) = options(&[malformed, b"\0\x03\0\x02ns"].concat());
        assert_eq!(status, ParseStatus::MalformedRest, "{malformed:?}");
        let edns = message.edns().unwrap();
        assert_eq!(edns.nsid, Some(&b"ns"[..]));
        let code = u16::from_be_bytes([malformed[0], malformed[1]]);
        assert_eq!(edns.options().collect::<Vec<_>>(), [(code, &malformed[4..])]);
        assert_eq!((edns.client_subnet, edns.cookie, edns.extended_error), (None, None, None));
    }
    // The option exceeds the record: the available data is kept.
    let (message, status) = options(b"\0\x03\0\x02ns\0\x0a\0\x08cook");
    assert_eq!(status, ParseStatus::MalformedRest);
    let edns = message.edns().unwrap();
    assert_eq!((edns.nsid, edns.cookie), (Some(&b"ns"[..]), None));
    assert_eq!(edns.options().collect::<Vec<_>>(), [(10, &b"cook"[..])]);
    // An unknown address family is no error.
    let (message, status) = options(b"\0\x08\0\x05\0\x03\x08\0\x01");
    assert_eq!(status, ParseStatus::Ok);
    assert_eq!(message.edns().unwrap().options().next(), Some((8, &b"\0\x03\x08\0\x01"[..])));
}

/// Family 0 means that there is no address (RFC 7871), like a prefix of length 0.
#[test]
fn a_client_subnet_of_no_family_is_one_of_no_address() {
    let (message, status) = options(b"\0\x08\0\x04\0\0\0\0");
    assert_eq!(status, ParseStatus::Ok);
    let edns = message.edns().unwrap();
    let subnet =
        ClientSubnet { address: "0.0.0.0".parse().unwrap(), source_prefix: 0, scope_prefix: 0 };
    assert_eq!((edns.client_subnet, edns.options().len()), (Some(subnet), 0));
}

#[test]
fn the_first_opt_record_counts() {
    let first = record_of_class(ROOT, 41, 1232, b"");
    let second = record_of_class(ROOT, 41, 4096, b"\0\x03\0\0");
    let message = message_of([0, 0, 0, 2], &[&first, &second]);
    assert_eq!(message.parse_status, ParseStatus::MalformedRest);
    let edns = message.edns().unwrap();
    assert_eq!((edns.udp_payload_size, edns.nsid), (1232, None));
    // Its owner must be the root.
    let message = message_of([0, 0, 0, 1], &[&record_of_class(b"\x01a\0", 41, 1232, b"")]);
    assert_eq!(message.parse_status, ParseStatus::MalformedRest);
    assert!(message.edns().is_some());
    // In the answer section it is an ordinary record.
    let message = message_of([0, 1, 0, 0], &[&record_of_class(ROOT, 41, 1232, b"\0\x03\0\0")]);
    assert_eq!(message.parse_status, ParseStatus::Ok);
    assert_eq!(message.answers().next().unwrap().rdata, "\\# 4 00030000");
    assert!(message.edns().is_none());
}

/// 61 octets that need four characters each, four times.
fn long_name() -> Vec<u8> {
    let mut name = [&[61][..], &[0; 61]].concat().repeat(4);
    name.push(0);
    name
}

#[test]
fn answers_beyond_the_limit_of_text_are_counted() {
    let question = [&long_name()[..], b"\0\x01\0\x01"].concat();
    let answer = record(POINTER, 2, POINTER);
    let answers = answer.repeat(1_000);
    let opt = record_of_class(ROOT, 41, 1232, b"\0\x0f\0\x05\0\x12why");
    let message = message_of([1, 1_000, 0, 1], &[&question, &answers, &opt]);
    assert_eq!(message.parse_status, ParseStatus::Ok);
    // Question and RDATA: 979 characters each.
    assert_eq!(message.answers().len(), 64 * 1024 / 979 - 1);
    assert_eq!(message.answers_omitted as usize, 1_000 - message.answers().len());
    assert!(message.answers().all(|answer| answer.rdata.len() == 979));
    assert_eq!(message.edns().unwrap().extended_error.unwrap().text, "why");
    assert!(message.buffer_bytes() < 256 * 1024);
}

#[test]
fn questions_beyond_the_limit_of_text_are_counted() {
    let first = [&long_name()[..], b"\0\x01\0\x01"].concat();
    let more = b"\x01a\xc0\x0c\0\x01\0\x01".repeat(2_000);
    let answer = record(POINTER, 1, &[192, 0, 2, 1]);
    // 255 octets plus the label before them would be too many.
    let shorter = [&first[62..], &more].concat();
    let message = message_of([2_001, 1, 0, 0], &[&shorter, &answer]);
    assert_eq!(message.parse_status, ParseStatus::Ok);
    let kept = 1 + message.more_questions().len();
    assert!(kept < 100);
    assert_eq!(kept + message.questions_omitted as usize, 2_001);
    assert_eq!((message.answers().len(), message.answers_omitted), (0, 1));
}

/// SOA of RFC 2308: two names, serial, refresh, retry, expire, and MINIMUM of 900 s.
fn soa() -> Vec<u8> {
    let numbers = [1_u32, 3_600, 600, 86_400, 900].map(u32::to_be_bytes);
    record(POINTER, 6, &[b"\x02ns\xc0\x0c\x04root\xc0\x0c", &numbers.concat()[..]].concat())
}

#[test]
fn the_minimum_of_a_soa_record_is_read_without_its_section() {
    let message = message_of([1, 0, 2, 0], &[QUESTION, &record(POINTER, 2, POINTER), &soa()]);
    assert_eq!((message.parse_status, message.soa_minimum), (ParseStatus::Ok, Some(900)));
    assert_eq!((message.authorities().len(), message.entries()), (0, 1));
    // A SOA record in the answer section says nothing about negative answers, and a short one is malformed.
    assert_eq!(message_of([1, 1, 0, 0], &[QUESTION, &soa()]).soa_minimum, None);
    let short = record(POINTER, 6, b"\x02ns\xc0\x0c\x04root\xc0\x0c\0\0\0\x01");
    assert_eq!(message_of([1, 0, 1, 0], &[QUESTION, &short]).soa_minimum, None);
}

#[test]
fn the_authority_and_additional_sections_are_kept_on_request() {
    let glue = record(b"\x02ns\xc0\x0c", 1, &[192, 0, 2, 53]);
    let opt = record_of_class(ROOT, 41, 1232, b"");
    let sections = [QUESTION, &soa(), &opt, &glue].concat();
    let wire = [header([1, 0, 1, 2]), sections].concat();
    let message = Message::parse_keeping(&wire, Kept::All).unwrap();
    assert_eq!((message.parse_status, message.soa_minimum), (ParseStatus::Ok, Some(900)));
    let authority = message.authorities().next().unwrap();
    assert_eq!((authority.name, authority.rtype), ("www.test", 6));
    assert_eq!(authority.rdata, "ns.www.test root.www.test 1 3600 600 86400 900");
    let additionals: Vec<_> = message.additionals().map(|it| (it.name, it.rdata)).collect();
    assert_eq!(additionals, [("ns.www.test", "192.0.2.53")]);
    assert_eq!(message.edns().unwrap().udp_payload_size, 1232);
    assert_eq!(message.entries(), 3);
    // A later message in the same buffers has none of this.
    let mut message = message;
    assert!(message.read(&wire, Kept::Answers));
    assert_eq!(message, Message::parse(&wire).unwrap());
}

#[test]
fn a_malformed_authority_record_is_a_flaw_where_it_is_kept() {
    let wire = [&header([1, 0, 1, 0])[..], QUESTION, &record(POINTER, 1, b"\x01")].concat();
    assert_eq!(Message::parse(&wire).unwrap().parse_status, ParseStatus::Ok);
    let kept = Message::parse_keeping(&wire, Kept::All).unwrap();
    assert_eq!(kept.parse_status, ParseStatus::MalformedRest);
    assert_eq!(kept.authorities().next().unwrap().rdata, "\\# 1 01");
}

#[test]
fn a_message_is_read_in_the_place_of_another() {
    let mut message = Message::default();
    let long = [header([1, 0, 0, 0]), long_name(), b"\0\x01\0\x01".to_vec()].concat();
    assert!(message.read(&long, Kept::Answers));
    let opt = record_of_class(ROOT, 41, 1232, b"\0\x14\0\x01x");
    let short = [&header([1, 0, 0, 1])[..], QUESTION, &opt].concat();
    assert!(message.read(&short, Kept::Answers));
    assert_eq!(message, Message::parse(&short).unwrap());
    assert!(!message.read(&short[..11], Kept::Answers));
}

#[test]
fn private_addresses_are_noted_among_the_answers_alone() {
    let answer = |rtype, rdata: &[u8]| {
        Build::message(7, true).question("a.test", rtype).answer(rtype, 60, rdata).parse()
    };
    assert!(answer(1, &[10, 0, 0, 1]).has_private_address());
    assert!(!answer(1, &[198, 51, 100, 1]).has_private_address());
    assert!(answer(28, &"fd00::1".parse::<Ipv6Addr>().unwrap().octets()).has_private_address());
    assert!(
        !answer(28, &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets()).has_private_address()
    );
    // The same octets as text.
    assert!(!answer(16, &[4, 10, 0, 0, 1]).has_private_address());
    let mut message = answer(1, &[10, 0, 0, 1]);
    let query = Build::message(7, false).question("a.test", 1).wire();
    assert!(message.read(&query, Kept::All) && !message.has_private_address());
}
