//! No record exceeds its limit, whatever its messages contain, and omitted entries are counted.

use apache_avro::{types::Value as AvroValue, writer::datum::GenericDatumWriter};
use proptest::{collection::vec, prelude::*, sample::select};
use tap53_dns::{Kept, Message};
use tap53_transactions::{
    pair::{Exchange, Observation, Transaction},
    privacy::{
        Policy,
        config::{AddressRule, PrivacyConfig},
    },
};

use super::{decoded, encoded, random};
use crate::encode::{
    DEFAULT_MAX_BYTES, Encode, JsonLine, LEAST_MAX_BYTES, MessageLine, Portion, Profile, Record,
    Text, TextOptions, samples, schema,
};

/// A name of 255 octets, all of them `octet` except for the lengths and the root.
fn long_name(octet: u8) -> Vec<u8> {
    let label = |length: u8| [vec![length], vec![octet; length.into()]].concat();
    [label(63), label(63), label(63), label(61), vec![0]].concat()
}

/// The same in wire format with `in-addr.arpa` at its end, so that a rule must process it.
fn long_reverse_name() -> Vec<u8> {
    let label = |length: u8| [vec![length], vec![b'1'; length.into()]].concat();
    [label(63), label(63), label(63), label(47), b"\x07in-addr\x04arpa\0".to_vec()].concat()
}

/// A repeated entry of a message.
#[derive(Clone, Debug)]
enum Part {
    /// An entry whose owner points to the first question's name, with its type and RDATA.
    Pointing(u16, Vec<u8>),
    /// An entry of the root.
    Root(u16, Vec<u8>),
}

impl Part {
    fn wire(&self) -> Vec<u8> {
        let (owner, rtype, rdata) = match self {
            Self::Pointing(rtype, rdata) => (&[0xc0, 12][..], rtype, rdata),
            Self::Root(rtype, rdata) => (&[0][..], rtype, rdata),
        };
        let length = u16::try_from(rdata.len()).unwrap().to_be_bytes();
        [owner, &rtype.to_be_bytes(), b"\0\x01\0\0\x00\x3c", &length, rdata].concat()
    }
}

/// RDATA that is short on the wire and long in text, or long in both.
fn part() -> impl Strategy<Value = Part> {
    const TO_NAME: [u8; 2] = [0xc0, 12];
    let text = |octet: u8, strings: usize| [vec![255], vec![octet; 255]].concat().repeat(strings);
    let rdata = prop_oneof![
        4 => Just((1, vec![192, 0, 2, 1])),
        2 => Just((5, TO_NAME.to_vec())),
        2 => Just((14, TO_NAME.repeat(2))),
        1 => (1..500usize).prop_map(|servers| (55, [&[0; 4][..], &TO_NAME.repeat(servers)].concat())),
        2 => (any::<u8>(), 1..200usize).prop_map(move |(octet, strings)| (16, text(octet, strings))),
        1 => (60_000..60_010u16, vec(any::<u8>(), 0..400)),
        1 => Just((60_000, Vec::new())),
    ];
    (rdata, any::<bool>()).prop_map(|((rtype, rdata), pointing)| {
        if pointing { Part::Pointing(rtype, rdata) } else { Part::Root(rtype, rdata) }
    })
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        4 => (any::<u16>(), Just(0usize)),
        2 => (select(vec![3u16, 15, 10, 8, 12, 65_001]), select(vec![0usize, 2, 8, 3_000, 60_000])),
        1 => (any::<u16>(), 0..500usize),
    ];
    vec((option, any::<u8>(), 1..4_000usize), 0..4).prop_map(|options| {
        let mut wire = Vec::new();
        for ((code, length), octet, times) in options {
            let header = [code.to_be_bytes(), u16::try_from(length).unwrap().to_be_bytes()];
            let option = [header.concat(), vec![octet; length]].concat();
            let room = 65_000usize.saturating_sub(wire.len()) / option.len();
            wire.extend(option.repeat(times.min(room)));
        }
        wire
    })
}

/// A message of at most 64 KiB that unfolds to the maximum.
pub(super) fn hostile(response: bool) -> impl Strategy<Value = Vec<u8>> {
    let names = vec![
        long_name(0),
        long_name(b'"'),
        long_name(b'\\'),
        long_name(b'a'),
        long_reverse_name(),
        vec![0],
    ];
    let questions = prop_oneof![3 => Just(0usize), 1 => 1..10_000usize];
    let parts = || vec((part(), 1..6_000usize), 0..3);
    let opcode = prop_oneof![2 => Just(0u8), 1 => Just(5u8)];
    (select(names), questions, parts(), parts(), options(), opcode).prop_map(
        move |(name, questions, answers, updates, options, opcode)| {
            let mut wire = vec![0x12, 0x34, opcode << 3 | u8::from(response) << 7, 0];
            wire.extend([0; 8]);
            wire.extend(&name);
            wire.extend([0, 1, 0, 1]);
            let mut counts = [1u16, 0, 0, 0];
            let room = |wire: &Vec<u8>, each: usize| 65_500usize.saturating_sub(wire.len()) / each;
            let opt = if options.len() < 60_000 || questions == 0 { 11 + options.len() } else { 0 };
            let mut add = |wire: &mut Vec<u8>, section: usize, entry: &[u8], times: usize| {
                let times =
                    times.min(room(wire, entry.len()).saturating_sub(opt / entry.len() + 1));
                wire.extend(entry.repeat(times));
                counts[section] += u16::try_from(times).unwrap();
            };
            add(&mut wire, 0, &[0xc0, 12, 0, 1, 0, 1], questions);
            for (section, parts) in [(1, answers), (2, updates)] {
                for (part, times) in parts {
                    add(&mut wire, section, &part.wire(), times);
                }
            }
            if opt > 0 && wire.len() + opt <= 65_535 {
                wire.extend(b"\0\0\x29\x04\xd0\0\0\0\0");
                wire.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
                wire.extend(options);
                counts[3] = 1;
            }
            for (section, count) in counts.into_iter().enumerate() {
                wire[4 + 2 * section..6 + 2 * section].copy_from_slice(&count.to_be_bytes());
            }
            assert!(wire.len() <= 65_535);
            wire
        },
    )
}

pub(super) fn observation(wire: &[u8], kept: bool) -> Observation {
    Observation {
        message: Message::parse_keeping(wire, Kept::All).unwrap(),
        wire: if kept { wire.to_vec() } else { Vec::new() },
        ..Default::default()
    }
}

/// Passes a record of these messages, within `max_bytes`, to `each`.
fn with_record<T>(
    query: Option<&Observation>,
    response: Option<&Observation>,
    policy: &Policy,
    max_bytes: usize,
    each: impl FnOnce(&Record<'_>) -> T,
) -> T {
    with_record_as(Profile::Full, query, response, policy, max_bytes, each)
}

/// The same in a profile.
pub(super) fn with_record_as<T>(
    profile: Profile,
    query: Option<&Observation>,
    response: Option<&Observation>,
    policy: &Policy,
    max_bytes: usize,
    each: impl FnOnce(&Record<'_>) -> T,
) -> T {
    samples::with_record("matched", |record| {
        let exchange = match (query, response) {
            (Some(query), Some(response)) => Exchange::Matched(query, response),
            (Some(query), None) => Exchange::Query(query),
            (None, Some(response)) => Exchange::Response(response),
            (None, None) => panic!("no message"),
        };
        let transaction = Transaction { exchange, ..*record.transaction };
        let mut portion = None;
        let record = Record { transaction: &transaction, policy, ..*record };
        each(&record.within_as(profile, max_bytes, &mut portion))
    })
}

/// The fields of a record, to read numbers and lengths from.
struct Read(Vec<(String, AvroValue)>);

impl Read {
    fn of(record: &Record<'_>) -> Self {
        Self(decoded(&encoded(record)))
    }

    fn field(&self, name: &str) -> &AvroValue {
        match &self.0.iter().find(|(of, _)| of == name).unwrap().1 {
            AvroValue::Union(_, value) => value,
            value => value,
        }
    }

    fn number(&self, name: &str) -> usize {
        match self.field(name) {
            AvroValue::Int(number) => usize::try_from(*number).unwrap(),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn length(&self, name: &str) -> usize {
        match self.field(name) {
            AvroValue::Array(items) => items.len(),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn is_null(&self, name: &str) -> bool {
        matches!(self.field(name), AvroValue::Null)
    }
}

pub(super) fn policies() -> Vec<Policy> {
    let hidden = PrivacyConfig { reverse_names: AddressRule::Drop, ..Default::default() };
    vec![Policy::default(), Policy::new(&hidden)]
}

fn options_of(seen: Option<&Observation>, policy: &Policy) -> usize {
    let edns = seen.and_then(|seen| seen.message.edns());
    edns.map_or(0, |edns| edns.options().filter(|(code, _)| policy.shows_option(*code)).count())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_record_is_within_its_limit_and_counts_omitted_entries(
        query in proptest::option::of(hostile(false)),
        response in hostile(true),
        has_response in any::<bool>(),
        kept in any::<bool>(),
        policy in select(policies()),
        max_bytes in select(vec![LEAST_MAX_BYTES, 100_001, DEFAULT_MAX_BYTES, 900_000]),
    ) {
        let query = query.map(|wire| observation(&wire, kept));
        let response = (has_response || query.is_none()).then(|| observation(&response, kept));
        let (query, response) = (query.as_ref(), response.as_ref());
        let on_wire: usize = [query, response].into_iter().flatten().map(|it| it.message.size as usize).sum();
        with_record(query, response, &policy, max_bytes, |record| {
            let datum = encoded(record);
            prop_assert!(datum.len() <= max_bytes, "{} bytes of {max_bytes}", datum.len());
            // Every encoding has the same entries.
            let writer = GenericDatumWriter::builder(schema().unwrap()).human_readable(false);
            let expected = writer.build().unwrap().write_ser_to_vec(record).unwrap();
            prop_assert!(datum == expected, "not as apache-avro writes it");
            // Escapes at most double a text, and an entry has some 50 bytes of field names.
            let as_json = 2 * max_bytes + 8 * on_wire + (16 << 10);
            for mut encoder in [Box::new(JsonLine) as Box<dyn Encode>, Box::new(MessageLine)] {
                let mut line = Vec::new();
                encoder.encode(record, &mut line).unwrap();
                prop_assert!(line.len() <= as_json, "{} bytes of JSON, {as_json}", line.len());
            }
            let mut line = Vec::new();
            Text::new(TextOptions { color: true, ..Default::default() }).encode(record, &mut line).unwrap();
            prop_assert!(line.len() <= 4 << 10, "{} bytes of text", line.len());

            let read = Read::of(record);
            let answers = response.map_or(0, |seen| seen.message.answers().len());
            let of_update =
                |seen: &Observation| seen.message.prerequisites().len() + seen.message.updates().len();
            let updates = query.map_or(0, of_update);
            let of_others =
                |seen: &Observation| seen.message.authorities().len() + seen.message.additionals().len();
            let others = response.map_or(0, of_others);
            let unread: u32 = [query, response].into_iter().flatten().map(|it| it.message.answers_omitted).sum();
            prop_assert_eq!(
                read.length("answers") + read.length("authorities") + read.length("additionals")
                    + read.length("prerequisites") + read.length("updates") + read.number("answers_omitted"),
                answers + others + updates + unread as usize
            );
            let first = record.transaction.first();
            prop_assert_eq!(
                read.length("more_questions") + read.number("questions_omitted"),
                first.message.more_questions().len() + first.message.questions_omitted as usize
            );
            let single = [query, response].into_iter().zip(["query", "response"]).map(|(seen, side)| {
                let edns = seen.and_then(|seen| seen.message.edns());
                let error = edns.and_then(|it| it.extended_error).and_then(|it| policy.error_text(it.text));
                let nsid = edns.and_then(|it| it.nsid);
                usize::from(error.is_some() && read.is_null(&format!("{side}_extended_error_text")))
                    + usize::from(nsid.is_some() && read.is_null(&format!("{side}_nsid")))
            });
            prop_assert_eq!(
                read.length("query_edns_options") + read.length("response_edns_options")
                    + single.sum::<usize>() + options_of(query, &policy) + options_of(response, &policy),
                2 * (read.length("query_edns_options") + read.length("response_edns_options"))
                    + read.number("edns_options_omitted")
            );
            let wires = [query, response].into_iter().flatten().filter(|it| !it.wire.is_empty()).count();
            let shown = ["query_wire", "response_wire"].into_iter().filter(|it| !read.is_null(it)).count();
            prop_assert_eq!(shown + read.number("wire_omitted"), wires);
            Ok(())
        })?;
    }

    #[test]
    fn a_record_is_never_longer_than_its_lengths_say(
        query in hostile(false),
        response in hostile(true),
        kept in any::<bool>(),
        policy in select(policies()),
    ) {
        let (query, response) = (observation(&query, kept), observation(&response, kept));
        with_record(Some(&query), Some(&response), &policy, usize::MAX, |record| {
            prop_assert_eq!(record.portion, &Portion::ALL);
            prop_assert!(encoded(record).len() <= record.most_bytes(Profile::Full));
            Ok(())
        })?;
    }
}

proptest! {
    #[test]
    fn nor_is_one_of_any_other_messages(parts in random::parts()) {
        parts.with_record(|record| {
            prop_assert!(encoded(record).len() <= record.most_bytes(Profile::Full));
            let mut portion = None;
            let datum = encoded(&record.within(LEAST_MAX_BYTES, &mut portion));
            prop_assert!(datum == encoded(record), "a record of usual size is whole");
            Ok(())
        })?;
    }
}

/// The greatest expansion in these tests: 5,000 addresses of one name of 1,004 characters.
fn long_owner_names() -> Vec<u8> {
    let mut wire = b"\x12\x34\x80\0\0\x01\0\0\0\0\0\0".to_vec();
    wire.extend(long_name(0));
    wire.extend([0, 1, 0, 1]);
    let answer = Part::Pointing(1, vec![192, 0, 2, 1]).wire();
    let times = (65_535 - wire.len()) / answer.len();
    wire.extend(answer.repeat(times));
    wire[6..8].copy_from_slice(&u16::try_from(times).unwrap().to_be_bytes());
    wire
}

#[test]
fn a_response_that_repeats_a_long_name_is_recorded_partially() {
    let response = observation(&long_owner_names(), false);
    let answers = response.message.answers().len();
    assert!(answers > 4_000);
    with_record(None, Some(&response), &Policy::default(), usize::MAX, |record| {
        assert!(encoded(record).len() > 4_000_000, "this is what it would be");
    });
    with_record(None, Some(&response), &Policy::default(), DEFAULT_MAX_BYTES, |record| {
        let (datum, read) = (encoded(record), Read::of(record));
        let shown = read.length("answers");
        assert!((DEFAULT_MAX_BYTES - 2_000..=DEFAULT_MAX_BYTES).contains(&datum.len()));
        assert_eq!(shown + read.number("answers_omitted"), answers);
        assert_eq!(read.number("answer_count"), answers);
    });
}

#[test]
fn an_ordinary_response_of_64_kib_is_whole() {
    let mut wire =
        b"\x12\x34\x80\0\0\x01\0\0\0\0\0\0\x03www\x07example\x04test\0\0\x01\0\x01".to_vec();
    let answer = Part::Pointing(1, vec![192, 0, 2, 100]).wire();
    let times = (65_535 - wire.len()) / answer.len();
    wire.extend(answer.repeat(times));
    wire[6..8].copy_from_slice(&u16::try_from(times).unwrap().to_be_bytes());
    let response = observation(&wire, false);
    with_record(None, Some(&response), &Policy::default(), DEFAULT_MAX_BYTES, |record| {
        assert_eq!(Read::of(record).length("answers"), times);
    });
}

#[test]
fn a_server_does_not_displace_the_query_of_its_client() {
    // 2,000 options of one byte.
    let mut query =
        b"\x12\x34\0\0\0\x01\0\0\0\0\0\x01\x01a\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0".to_vec();
    query.extend(10_000u16.to_be_bytes());
    query.extend(b"\xfd\xe9\0\x01x".repeat(2_000));
    let (query, response) = (observation(&query, false), observation(&long_owner_names(), false));
    with_record(Some(&query), Some(&response), &Policy::default(), LEAST_MAX_BYTES, |record| {
        let read = Read::of(record);
        assert_eq!(read.length("query_edns_options"), 2_000);
        assert_eq!(read.number("edns_options_omitted"), 0);
        assert!(read.length("answers") > 10);
        assert!(encoded(record).len() > LEAST_MAX_BYTES - 2_000, "the rest is the server's");
    });
}
