//! The work for a message is bounded by its length, whatever its content.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    hostile::{self, Named},
    *,
};
use crate::{steps::steps_of, text::Text};

/// Maximum steps for any message, as a multiple of those of a benign message of its length.
const FACTOR: usize = 16;

/// Additional steps for any message: the constant part of the work limit, and the entry that
/// reaches the limit.
const CONSTANT: usize = 2_048 + LAST_ENTRY;

/// Maximum work beyond the limit for the entry that reaches it.
const LAST_ENTRY: usize = 6 * 1_024;

/// Reads `wire`; returns the message, and its number of steps.
fn read(wire: &[u8]) -> (Message, usize) {
    read_keeping(wire, Kept::Answers)
}

fn read_keeping(wire: &[u8], kept: Kept) -> (Message, usize) {
    let mut message = Message::default();
    let steps = steps_of(|| assert!(message.read(wire, kept)));
    (message, steps)
}

fn allowed(length: usize) -> usize {
    FACTOR * read(&hostile::benign(length)).1 + CONSTANT
}

fn require_bounded(what: &str, wire: &[u8]) -> Message {
    require_bounded_keeping(what, wire, Kept::All);
    require_bounded_keeping(what, wire, Kept::Answers)
}

fn require_bounded_keeping(what: &str, wire: &[u8], kept: Kept) -> Message {
    let (message, steps) = read_keeping(wire, kept);
    let (length, work) = (wire.len(), message.work() as usize);
    assert!(steps <= allowed(length), "{what}: {steps} steps for {length} bytes");
    let limit = Message::work_limit(length) + LAST_ENTRY;
    assert!(work <= limit, "{what}: work {work} for {length} bytes");
    assert!(message.text.len() <= limit.min(Text::LIMIT + 3 * length), "{what}");
    message
}

/// A generous measure would bound nothing.
#[test]
fn a_benign_message_takes_less_than_a_step_for_each_byte() {
    for length in [512, 1_232, 4_096, 65_535] {
        let wire = hostile::benign(length);
        let (message, steps) = read(&wire);
        assert_eq!(message.parse_status, ParseStatus::Ok);
        assert!(message.answers().len() > wire.len() / 20);
        assert!(steps > wire.len() / 2 && steps < wire.len(), "{steps} for {length} bytes");
    }
}

#[test]
fn hostile_messages_of_every_length_are_bounded() {
    for (what, make) in hostile::ALL {
        for length in [300, 512, 1_232, 4_096, 16_384, 40_000, 65_535] {
            let wire = make(length);
            assert!(wire.len() <= length && wire.len() + 5_000 > length.min(4_096), "{what}");
            require_bounded(what, &wire);
        }
    }
}

/// This message of 65 KB once took a fifth of a second.
#[test]
fn a_compression_chain_ends_with_a_flaw_and_not_with_a_search() {
    let wire = hostile::compression_chain(64_990);
    // The chain is read as RDATA of an opaque type; the names that point into it are malformed.
    let message = require_bounded("chain", &wire);
    assert_eq!(message.parse_status, ParseStatus::MalformedAnswer);
    assert_eq!((message.counts[1], message.answers().len()), (3_473, 1));
}

#[test]
fn past_the_work_limit_answers_are_omitted_and_edns_is_read() {
    let opt = b"\0\0\x29\x04\xd0\x01\0\0\0\0\0";
    for (what, make) in [
        ("broken names", hostile::broken_names as fn(usize) -> Vec<u8>),
        ("short chains", hostile::short_chains),
        ("broken lists", hostile::broken_lists),
        ("broken bitmaps", hostile::broken_bitmaps),
        ("many labels", hostile::many_labels),
    ] {
        let mut wire = make(5_000);
        wire.extend(opt);
        wire[11] = 1;
        let message = require_bounded(what, &wire);
        assert_eq!(message.parse_status, ParseStatus::WorkLimit, "{what}");
        assert!(message.answers_omitted > 0, "{what}");
        let answers = message.answers().len() + message.answers_omitted as usize;
        assert_eq!(answers, usize::from(message.counts[1]), "{what}");
        assert_eq!((message.edns().is_some(), message.rcode), (true, 0x10), "{what}");
    }
}

/// Genuine messages come nowhere near the limit.
#[test]
fn genuine_messages_with_long_names_are_read_whole() {
    // A zone transfer of an IPv6 reverse zone: labels of one digit, names of 72 characters.
    let zone = b"\x01b\x01d\x010\x011\x010\x010\x012\x03ip6\x04arpa\0";
    let mut wire = vec![0, 1, 0x84, 0, 0, 1, 1, 0, 0, 0, 0, 0];
    wire.extend(zone);
    wire.extend([0, 252, 0, 1]);
    for host in 0..=255_u8 {
        let digits = [host & 15, host >> 4].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        wire.extend([1, digits[0], 1, digits[1]]);
        wire.extend(b"\x010\x010".repeat(11));
        wire.extend(
            b"\xc0\x0c\0\x0c\0\x01\0\0\x0e\x10\0\x1b\x04host\x07example\x09test-zone\x02de\0",
        );
    }
    let message = require_bounded("reverse zone", &wire);
    assert_eq!((message.parse_status, message.answers().len()), (ParseStatus::Ok, 256));
    assert!(message.work() as usize * 2 < Message::work_limit(wire.len()));
    // A service whose instances have spaces in their names.
    let mut wire = vec![0, 0, 0x84, 0, 0, 0, 0, 20, 0, 0, 0, 0];
    let service = b"\x08_airplay\x04_tcp\x05local\0";
    wire.extend(service);
    for number in 0..20 {
        if number > 0 {
            wire.extend(b"\xc0\x0c");
        }
        wire.extend(b"\0\x0c\0\x01\0\0\x11\x94\0\x22\x1fLiving Room of Somebody No. 000\xc0\x0c");
    }
    let message = require_bounded("services", &wire);
    assert_eq!((message.parse_status, message.answers().len()), (ParseStatus::Ok, 20));
    assert!(message.work() as usize * 2 < Message::work_limit(wire.len()));
}

#[test]
fn a_name_has_at_most_127_pointers() {
    // In RDATA: the root, and pointers after it, each to the previous one.
    let message_of = |pointers: u16| {
        let mut rdata = vec![0];
        for number in 0..pointers {
            let target = 28 + number.saturating_sub(1) * 2 + u16::from(number > 0);
            rdata.extend((0xc000 | target).to_be_bytes());
        }
        let last = 28 + rdata.len() - 2;
        let mut wire =
            b"\0\0\x81\x80\0\x01\0\x02\0\0\0\0\0\0\x01\0\x01\0\0\x0a\0\x01\0\0\0\0".to_vec();
        wire.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
        wire.extend(rdata);
        // A name that is only the last of them.
        wire.extend(b"\0\0\x02\0\x01\0\0\0\0\0\x02\xc0");
        wire.push(u8::try_from(last & 0xff).unwrap());
        let at = wire.len() - 2;
        wire[at] |= u8::try_from(last >> 8).unwrap();
        Message::parse(&wire).unwrap()
    };
    // The pointer to the chain counts too.
    let longest = message_of(126);
    assert_eq!(longest.parse_status, ParseStatus::Ok);
    assert_eq!(longest.answers().nth(1).unwrap().rdata, ".");
    let longer = message_of(127);
    assert_eq!(longer.parse_status, ParseStatus::MalformedAnswer);
    assert!(longer.answers().nth(1).unwrap().rdata.starts_with("\\# 2 "));
}

/// A record: its number of repetitions, the targets of its owner and of the names in it, its type,
/// its tail.
type Piece = (u16, Index, Index, u16, Vec<u8>);

/// Types with names, lists, bitmaps, strings and parameters, and any others.
fn rtype() -> impl Strategy<Value = u16> {
    let known = [2, 5, 6, 10, 11, 12, 13, 15, 16, 17, 24, 26, 30, 33, 35, 38, 42, 45, 46, 47, 50];
    let others = [55, 58, 62, 64, 65, 99, 107, 249, 250, 257, 260];
    prop_oneof![
        6 => proptest::sample::select([&known[..], &others].concat()),
        1 => any::<u16>(),
    ]
}

/// Bytes of names, bitmaps and strings, and others.
fn tail() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        3 => Just(0_u8), 3 => Just(0xff), 2 => Just(1), 2 => Just(32), 2 => Just(63),
        3 => Just(0xc0), 3 => Just(0x0c), 1 => any::<u8>(),
    ];
    prop_oneof![
        vec(octet, 0..60),
        (1_usize..200).prop_map(|count| b"\xc0\x0c".repeat(count)),
        (0_u8..100, 1_u8..30).prop_map(|(first, count)| {
            (first..first + count).flat_map(|w| [&[w, 32][..], &[0xff; 32]].concat()).collect()
        }),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (1_u8..64, any::<u8>()).prop_map(|(label, octet)| {
            let label = [&[label][..], &vec![octet; label.into()]].concat();
            [&label.repeat(254 / label.len())[..], &[0]].concat()
        }),
        Just(b"\x03www\x04test\0".to_vec()),
    ]
}

/// A message of up to 65,535 bytes that consists of such records, in one of its sections.
fn any_hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece =
        (prop_oneof![1_u16..4, 1_u16..6_000], any::<Index>(), any::<Index>(), rtype(), tail());
    let pieces = vec(piece, 1..6);
    let chain = prop_oneof![Just(0_usize), 1_usize..300, 1_usize..8_180];
    (name(), chain, pieces, 300_usize..65_536, any::<bool>(), any::<bool>()).prop_map(
        |(name, chain, pieces, length, update, in_updates)| {
            let mut wire = vec![0, 0, if update { 0x28 } else { 0x81 }, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            wire.extend(&name);
            wire.extend([0, 1, 0, 1]);
            // Possible offsets of names: each octet of the question and of the chain.
            let mut targets: Vec<usize> = (12..wire.len() - 4).collect();
            let mut count = 0_u16;
            if chain > 0 {
                let start = wire.len() + 11;
                wire.extend(b"\0\0\x0a\0\x01\0\0\0\0");
                wire.extend(u16::try_from(2 * chain).unwrap().to_be_bytes());
                for number in 0..chain {
                    let target = if number == 0 { 12 } else { start + 2 * (number - 1) };
                    wire.extend((0xc000 | u16::try_from(target).unwrap()).to_be_bytes());
                    targets.push(start + 2 * number);
                }
                count += 1;
            }
            let reachable = targets.iter().filter(|target| **target < 1 << 14).count();
            append(&mut wire, &mut count, length, &pieces, &targets[..reachable]);
            let section = if in_updates { 8 } else { 6 };
            wire[section..section + 2].copy_from_slice(&count.to_be_bytes());
            wire
        },
    )
}

/// Appends the pieces with their repetitions, as long as they fit.
fn append(wire: &mut Vec<u8>, count: &mut u16, length: usize, pieces: &[Piece], targets: &[usize]) {
    for (times, owner, target, rtype, tail) in pieces {
        for _ in 0..*times {
            let points = |index: &Index| {
                (0xc000 | u16::try_from(*index.get(targets)).unwrap()).to_be_bytes()
            };
            let rdata = [&points(target)[..], tail].concat();
            if wire.len() + 12 + rdata.len() > length {
                return;
            }
            wire.extend(points(owner));
            wire.extend(rtype.to_be_bytes());
            wire.extend(b"\0\x01\0\0\0\0");
            wire.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
            wire.extend(rdata);
            *count += 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_hostile_message_is_bounded(wire in any_hostile()) {
        require_bounded("generated", &wire);
    }

    #[test]
    fn any_altered_message_is_bounded(
        which in 0..hostile::ALL.len(),
        length in 300_usize..65_536,
        changes in vec((any::<Index>(), any::<u8>()), 0..40),
    ) {
        let (what, make): Named = hostile::ALL[which];
        let mut wire = make(length);
        for (place, octet) in changes {
            let place = place.index(wire.len());
            wire[place] = octet;
        }
        require_bounded(what, &wire);
    }
}
