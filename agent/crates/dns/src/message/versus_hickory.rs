//! Compares our reading of messages with that of hickory-proto.
//!
//! Messages are generated whole, including compressed names and empty values, and some are then
//! damaged. Everything that hickory reads of a message, section by section, we must read alike.
//! Differences are listed at [`excused`].

use hickory_proto::{
    op::{Header, MessageType, Query},
    rr::{DNSClass, Name, RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{name::presentation, text::Text};

/// The parts of a message that hickory reads before it finds an error.
#[derive(Default)]
struct Hickory {
    header: Option<Header>,
    questions: Vec<Query>,
    answers: Vec<Record>,
    rest: Vec<Record>,
    /// True if everything that the header announces was read.
    whole: bool,
}

fn hickory(wire: &[u8]) -> Hickory {
    let mut read = Hickory::default();
    let mut decoder = BinDecoder::new(wire);
    let mut sections = || -> Result<(), hickory_proto::serialize::binary::DecodeError> {
        let header = Header::read(&mut decoder)?;
        let counts = header.counts;
        read.header = Some(header);
        for _ in 0..counts.queries {
            read.questions.push(Query::read(&mut decoder)?);
        }
        for _ in 0..counts.answers {
            read.answers.push(Record::read(&mut decoder)?);
        }
        for _ in 0..u32::from(counts.authorities) + u32::from(counts.additionals) {
            read.rest.push(Record::read(&mut decoder)?);
        }
        Ok(())
    };
    read.whole = sections().is_ok();
    read
}

/// Formats RDATA like our decoder, if hickory parses its fields; `None` for the other types.
fn text_of(rdata: &RData) -> Option<String> {
    let name = |name: &Name| presentation(name.iter());
    let mut text = Text::default();
    let mut quoted = |string: &[u8]| {
        if text.len() > 0 {
            text.ascii(b' ');
        }
        text.quoted(string);
    };
    Some(match rdata {
        RData::A(address) => address.to_string(),
        RData::AAAA(address) => {
            text.ipv6(address.octets());
            text.finish()
        }
        RData::NS(target) => name(target),
        RData::CNAME(target) => name(target),
        RData::PTR(target) => name(target),
        RData::MX(mx) => format!("{} {}", mx.preference, name(&mx.exchange)),
        RData::SRV(srv) => {
            format!("{} {} {} {}", srv.priority, srv.weight, srv.port, name(&srv.target))
        }
        // REFRESH, RETRY and EXPIRE are unsigned (RFC 1035 §3.3.13); hickory reads them as signed.
        RData::SOA(soa) => format!(
            "{} {} {} {} {} {} {}",
            name(&soa.mname),
            name(&soa.rname),
            soa.serial,
            soa.refresh.cast_unsigned(),
            soa.retry.cast_unsigned(),
            soa.expire.cast_unsigned(),
            soa.minimum
        ),
        RData::TXT(txt) => {
            txt.txt_data.iter().for_each(|string| quoted(string));
            text.finish()
        }
        RData::HINFO(hinfo) => {
            quoted(&hinfo.cpu);
            quoted(&hinfo.os);
            text.finish()
        }
        RData::NAPTR(naptr) => {
            quoted(&naptr.flags);
            quoted(&naptr.services);
            quoted(&naptr.regexp);
            let (order, preference, strings) = (naptr.order, naptr.preference, text.finish());
            format!("{order} {preference} {strings} {}", name(&naptr.replacement))
        }
        RData::CAA(caa) => {
            quoted(&caa.value);
            format!("{} {} {}", caa.flags(), caa.tag, text.finish())
        }
        RData::SSHFP(sshfp) => sshfp.to_string().trim_end().to_owned(),
        RData::TLSA(tlsa) => tlsa.to_string().trim_end().to_owned(),
        _ => return None,
    })
}

/// Returns true if hickory reads this RDATA and we do not, or not as this type:
/// - without any bytes, which it accepts as an update's whatever the opcode (RFC 2136 §2.4),
/// - TXT without a string, and CAA with a tag of other characters than letters and digits or
///   without a tag (RFC 1035 §3.3.14, RFC 8659 §4.1),
/// - invalid service parameters (RFC 9460 §2.2),
/// - type bitmaps out of order (RFC 4034 §4.1.2),
/// - an address of Chaosnet, which has a different format,
/// - malformed RDATA of types that it does not know.
fn excused(record: &Record) -> bool {
    match &record.data {
        RData::Update0(_) | RData::Unknown { .. } => true,
        RData::A(_) => record.dns_class == DNSClass::CH,
        RData::TXT(txt) => txt.txt_data.is_empty(),
        RData::CAA(caa) => {
            caa.tag.is_empty() || !caa.tag.bytes().all(|c| c.is_ascii_alphanumeric())
        }
        RData::SVCB(_) | RData::HTTPS(_) | RData::CSYNC(_) => true,
        _ => false,
    }
}

/// Returns true if a name anywhere in `wire` has a pointer to octets that reach into the name
/// itself: hickory follows it, dnspython and we do not, since the target must be complete before
/// the name (RFC 1035 §4.1.4: a prior occurrence).
fn overlaps(wire: &[u8]) -> bool {
    let octet = |at: usize| wire.get(at).copied().unwrap_or_default();
    (0..wire.len()).any(|name| {
        let (mut start, mut at, mut end) = (name, name, wire.len());
        loop {
            let length = octet(at);
            match length {
                1..=63 => at += 1 + usize::from(length),
                0xc0.. if at + 2 <= end => {
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, octet(at + 1)]));
                    if target >= start {
                        return false;
                    }
                    (end, start, at) = (start, target, target);
                }
                0xc0.. => return end < wire.len(),
                _ => return false,
            }
            if at >= end {
                return end < wire.len();
            }
        }
    })
}

fn same(wire: &[u8]) -> Result<(), TestCaseError> {
    prop_assume!(!overlaps(wire));
    let theirs = hickory(wire);
    let Some(ours) = Message::parse(wire) else {
        prop_assert!(theirs.header.is_none());
        return Ok(());
    };
    let header = theirs.header.unwrap();
    let (sent, counts) = (header.metadata, header.counts);
    prop_assert_eq!(ours.id, sent.id);
    prop_assert_eq!(ours.response, sent.message_type == MessageType::Response);
    prop_assert_eq!(ours.opcode, u8::from(sent.op_code));
    prop_assert_eq!(ours.rcode & 0xf, u16::from(sent.response_code));
    let flags = Flags {
        authoritative: sent.authoritative,
        truncated: sent.truncation,
        recursion_desired: sent.recursion_desired,
        recursion_available: sent.recursion_available,
        // Hickory does not keep it.
        reserved: ours.flags.reserved,
        authentic_data: sent.authentic_data,
        checking_disabled: sent.checking_disabled,
    };
    prop_assert_eq!(ours.flags, flags);
    let announced = [counts.queries, counts.answers, counts.authorities, counts.additionals];
    prop_assert_eq!(ours.counts, announced);

    let questions: Vec<_> = ours.question().into_iter().chain(ours.more_questions()).collect();
    prop_assert!(questions.len() >= theirs.questions.len());
    for (question, query) in questions.iter().zip(&theirs.questions) {
        prop_assert_eq!(question.name, presentation(query.name().iter()));
        prop_assert_eq!(question.qtype, u16::from(query.query_type()));
        prop_assert_eq!(question.qclass, u16::from(query.query_class()));
    }
    if let (Some(as_sent), Some(query)) = (ours.name_as_sent(), theirs.questions.first()) {
        let lower = questions.first().map(|question| question.name).unwrap_or_default();
        prop_assert_eq!(as_sent.to_ascii_lowercase(), lower);
        let upper = |octet: &&u8| octet.is_ascii_uppercase();
        let sent = query.name().iter().flatten().filter(upper).count();
        prop_assert_eq!(as_sent.as_bytes().iter().filter(upper).count(), sent);
    }
    prop_assert!(ours.answers().len() >= theirs.answers.len());
    for (answer, record) in ours.answers().zip(&theirs.answers) {
        prop_assert_eq!(answer.name, presentation(record.name.iter()));
        prop_assert_eq!(answer.rtype, u16::from(record.record_type()));
        // Hickory raises a payload size in the class field to 512 (RFC 6891 §6.2.3).
        if record.record_type() != RecordType::OPT {
            prop_assert_eq!(answer.class, u16::from(record.dns_class));
        }
        prop_assert_eq!(answer.ttl, record.ttl);
        // Hickory reads a type alike in all classes; we do so only where an RFC defines it.
        if let (Some(rdata), 1, false) = (text_of(&record.data), answer.class, excused(record)) {
            prop_assert_eq!(answer.rdata.replace(' ', ""), rdata.replace(' ', ""));
        }
    }
    // If it finds no error, there is none; in later sections we only check OPT.
    if theirs.whole {
        let answers_excused = theirs.answers.iter().any(excused);
        let updates_excused = ours.opcode == 5 && theirs.rest.iter().any(excused);
        let has_edns = theirs.rest.iter().any(|record| record.record_type() == RecordType::OPT);
        match ours.parse_status {
            ParseStatus::Ok | ParseStatus::TrailingBytes => {}
            ParseStatus::MalformedAnswer => prop_assert!(answers_excused),
            // Hickory accepts any number of OPT records, and cookies of any length.
            ParseStatus::MalformedRest => prop_assert!(has_edns || updates_excused),
            ParseStatus::MalformedQuestion => prop_assert!(false, "no flaw in the question"),
            ParseStatus::NotDns => prop_assert!(counts.queries == 0 && theirs.questions.is_empty()),
            ParseStatus::WorkLimit => prop_assert!(false, "names that are this short cost little"),
        }
    }
    Ok(())
}

/// Labels that end with the root or a pointer: to the first question, or anywhere.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![8 => b'a'..=b'z', 2 => b'A'..=b'Z', 1 => any::<u8>()];
    let label = vec(octet, 1..8);
    let end = prop_oneof![
        3 => Just(vec![0]),
        3 => Just(vec![0xc0, 12]),
        1 => (0_u8..120).prop_map(|target| vec![0xc0, target]),
    ];
    (vec(label, 0..4), end).prop_map(|(labels, end)| {
        let mut name = Vec::new();
        for label in labels {
            name.push(u8::try_from(label.len()).unwrap());
            name.extend(label);
        }
        name.extend(end);
        name
    })
}

fn strings(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(vec(any::<u8>(), 0..12), count).prop_map(|strings| {
        let framed = |s: Vec<u8>| [vec![u8::try_from(s.len()).unwrap()], s].concat();
        strings.into_iter().flat_map(framed).collect()
    })
}

fn octets(count: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), count)
}

/// `before` bytes, followed by those of `behind`.
fn prefixed(
    before: usize,
    behind: impl Strategy<Value = Vec<u8>>,
) -> impl Strategy<Value = Vec<u8>> {
    (octets(before), behind).prop_map(|parts| [parts.0, parts.1].concat())
}

fn typed_rdata() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let names = |count: usize| vec(name(), count).prop_map(|names| names.concat());
    let caa = (any::<u8>(), "[a-z0-9]{1,15}", octets(9)).prop_map(|(flags, tag, value)| {
        [&[flags, u8::try_from(tag.len()).unwrap()], tag.as_bytes(), &value].concat()
    });
    let naptr =
        (octets(4), strings(3..4), name()).prop_map(|parts| [parts.0, parts.1, parts.2].concat());
    prop_oneof![
        4 => (Just(1), octets(4)),
        4 => (Just(28), octets(16)),
        4 => (select(vec![2, 5, 12]), names(1)),
        1 => (Just(6), (names(2), octets(20)).prop_map(|parts| [parts.0, parts.1].concat())),
        1 => (Just(13), strings(2..3)),
        1 => (Just(15), prefixed(2, name())),
        2 => (Just(16), strings(0..4)),
        1 => (Just(33), prefixed(6, name())),
        1 => (Just(35), naptr),
        1 => (Just(44), prefixed(2, octets(20))),
        1 => (Just(52), prefixed(3, octets(32))),
        1 => (Just(257), caa),
        2 => (prop_oneof![0_u16..70, 249_u16..264, any::<u16>()], vec(any::<u8>(), 0..40)),
    ]
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    let class = prop_oneof![9 => Just(1), 1 => any::<u16>()];
    (name(), typed_rdata(), class, any::<u32>()).prop_map(|(owner, (rtype, rdata), class, ttl)| {
        let length = u16::try_from(rdata.len()).unwrap().to_be_bytes();
        let codes = [rtype.to_be_bytes(), class.to_be_bytes()].concat();
        [&owner[..], &codes, &ttl.to_be_bytes(), &length, &rdata].concat()
    })
}

fn opt() -> impl Strategy<Value = Vec<u8>> {
    let option = (prop_oneof![0_u16..20, any::<u16>()], vec(any::<u8>(), 0..12));
    (any::<[u8; 6]>(), vec(option, 0..4)).prop_map(|(class_and_ttl, options)| {
        let mut rdata = Vec::new();
        for (code, data) in options {
            rdata.extend(code.to_be_bytes());
            rdata.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            rdata.extend(data);
        }
        let length = u16::try_from(rdata.len()).unwrap().to_be_bytes();
        [&[0, 0, 41][..], &class_and_ttl, &length, &rdata].concat()
    })
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let question = (name(), any::<u16>(), any::<u16>()).prop_map(|(name, qtype, qclass)| {
        [&name[..], &qtype.to_be_bytes(), &qclass.to_be_bytes()].concat()
    });
    let sections = (
        vec(question, 0..3),
        vec(record(), 0..5),
        vec(record(), 0..3),
        vec(prop_oneof![record(), opt()], 0..3),
    );
    (any::<[u8; 4]>(), sections).prop_map(
        |(start, (questions, answers, authorities, additionals))| {
            let sections = [questions, answers, authorities, additionals];
            let counts = sections.each_ref().map(|s| u16::try_from(s.len()).unwrap().to_be_bytes());
            [start.to_vec(), counts.concat(), sections.concat().concat()].concat()
        },
    )
}

#[test]
fn names_whose_pointers_lead_into_themselves_are_found() {
    let header = [0; 12];
    let message = |name: &[u8]| [&header[..], name].concat();
    // To the second octet of the pointer at 12, at once and by way of another label.
    assert!(overlaps(&message(&[0xc0, 9, 0, 0xc0, 13])));
    assert!(overlaps(&message(&[1, b'a', 0xc0, 9, 2, b'b', b'b', 0xc0, 12, 0xc0, 15])));
    // To a whole name, and to a name that ends in a pointer.
    assert!(!overlaps(&message(&[1, b'a', 0, 0xc0, 12])));
    assert!(!overlaps(&message(&[1, b'a', 0, 1, b'b', 0xc0, 12, 0xc0, 15])));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn whole_messages_read_the_same(wire in message()) {
        same(&wire)?;
    }

    #[test]
    fn broken_messages_read_the_same(
        mut wire in message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        for (place, octet) in changes {
            let place = place.index(wire.len());
            wire[place] = octet;
        }
        if cut {
            wire.truncate(length.index(wire.len()));
        }
        same(&wire)?;
    }

    #[test]
    fn noise_reads_the_same(wire in vec(any::<u8>(), 0..200)) {
        same(&wire)?;
    }
}
