//! Messages of maximum cost, for tests, benchmarks and fuzzing, and one benign message. Each is at
//! most `length` bytes long, and nearly as long.

/// RR types whose RDATA is a name, opaque, type bitmaps, a list of names, or parameters.
const NS: u16 = 2;
const NULL: u16 = 10;
const NSEC: u16 = 47;
const HIP: u16 = 55;
const SVCB: u16 = 64;

/// Size of a header in bytes, after which the question's name begins.
const HEADER: u8 = 12;

/// A message under construction: a response with one question, and answers.
struct Response {
    wire: Vec<u8>,
    length: usize,
    answers: u16,
}

impl Response {
    /// Creates a response whose question is for `name`, at offset 12.
    fn new(length: usize, name: &[u8]) -> Self {
        let mut wire = vec![0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        wire.extend(name);
        wire.extend([0, 1, 0, 1]);
        Self { wire, length, answers: 0 }
    }

    /// Appends a record of class IN if it fits.
    fn answer(&mut self, owner: &[u8], rtype: u16, rdata: &[u8]) -> bool {
        let Ok(rdata_length) = u16::try_from(rdata.len()) else { return false };
        let room = self.wire.len() + owner.len() + 10 + rdata.len() <= self.length;
        if room {
            self.wire.extend(owner);
            self.wire.extend(rtype.to_be_bytes());
            self.wire.extend([0, 1, 0, 0, 0, 1]);
            self.wire.extend(rdata_length.to_be_bytes());
            self.wire.extend(rdata);
            self.answers += 1;
        }
        room
    }

    /// Appends copies of a record until the message is full.
    fn fill(mut self, owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
        while self.answer(owner, rtype, rdata) {}
        self.finish()
    }

    fn finish(mut self) -> Vec<u8> {
        self.wire[6..8].copy_from_slice(&self.answers.to_be_bytes());
        self.wire
    }
}

fn pointer(target: usize) -> [u8; 2] {
    let target = u16::try_from(target).unwrap_or(u16::MAX);
    (0xc000 | target).to_be_bytes()
}

/// The owner of most records: the question's name.
const QUESTION: [u8; 2] = [0xc0, HEADER];

/// Returns a name of up to 255 octets, in labels of this length.
fn name_of(label: u8, octet: u8) -> Vec<u8> {
    let mut name = Vec::new();
    while name.len() + 1 + usize::from(label) < 255 {
        name.push(label);
        name.resize(name.len() + usize::from(label), octet);
    }
    name.push(0);
    name
}

/// Returns the same with octets that are escaped by four characters each.
fn escaped_name(label: u8) -> Vec<u8> {
    name_of(label, 0xff)
}

/// A usual message: addresses of the question's name.
pub(crate) fn benign(length: usize) -> Vec<u8> {
    Response::new(length, b"\x03www\x07example\x04test\0").fill(&QUESTION, 1, &[192, 0, 2, 1])
}

/// Up to 8,176 pointers in opaque RDATA, each to the one before it, and records whose owner and
/// RDATA point to the last ones in turn.
pub(crate) fn compression_chain(length: usize) -> Vec<u8> {
    // A third of the message, limited by the range of a pointer's 14 bits.
    chain(length, (length / 3).clamp(4, 16_354) & !1)
}

/// The same with no more pointers than a name may have.
pub(crate) fn short_chains(length: usize) -> Vec<u8> {
    chain(length, 2 * 127)
}

/// Returns a message with a chain of `size` bytes.
fn chain(length: usize, size: usize) -> Vec<u8> {
    let mut message = Response::new(length, &[0]);
    let start = message.wire.len() + 11;
    // The root, and the pointers to it.
    let mut chain = vec![0, 0];
    for target in (start..).step_by(2).take(size / 2 - 1) {
        chain.extend(pointer(target));
    }
    message.answer(&[0], NULL, &chain);
    let last = start + size - 2;
    // Alternate, since a reader may cache the name that it read last or first.
    let near_end = |back: usize| pointer(last - (2 * back) % (size / 2));
    let mut back = 0;
    while message.answer(&near_end(back), NS, &near_end(back + 3)) {
        back = (back + 1) % 7;
    }
    message.finish()
}

/// Records whose RDATA is a pointer to the longest possible name.
pub(crate) fn long_names(length: usize) -> Vec<u8> {
    Response::new(length, &escaped_name(63)).fill(&QUESTION, NS, &QUESTION)
}

/// The same with a name of the maximum number of labels.
pub(crate) fn many_labels(length: usize) -> Vec<u8> {
    Response::new(length, &escaped_name(1)).fill(&QUESTION, NS, &QUESTION)
}

/// Names with trailing bytes, so that they are malformed RDATA: each is written and discarded.
pub(crate) fn broken_names(length: usize) -> Vec<u8> {
    Response::new(length, &escaped_name(1)).fill(&QUESTION, NS, &[0xc0, HEADER, 0])
}

/// The same with characters that need no escapes.
pub(crate) fn broken_labels(length: usize) -> Vec<u8> {
    Response::new(length, &name_of(1, b'a')).fill(&QUESTION, NS, &[0xc0, HEADER, 0])
}

/// Lists of names that are malformed after the last name.
pub(crate) fn broken_lists(length: usize) -> Vec<u8> {
    let list = [&[0, 1, 0, 0][..], &QUESTION.repeat(60), &[0x40]].concat();
    Response::new(length, &escaped_name(63)).fill(&QUESTION, HIP, &list)
}

/// Bitmaps with every type set, which are malformed after the last window.
pub(crate) fn broken_bitmaps(length: usize) -> Vec<u8> {
    let windows = (100..124).flat_map(|window| [&[window, 32][..], &[0xff; 32]].concat());
    let rdata: Vec<u8> = [0].into_iter().chain(windows).chain([0]).collect();
    Response::new(length, &[0]).fill(&QUESTION, NSEC, &rdata)
}

/// Parameters with an escaped value, and a last one whose key is too low.
pub(crate) fn broken_parameters(length: usize) -> Vec<u8> {
    let mut rdata = vec![0, 1, 0, 0xff, 0, 0x10, 0];
    rdata.resize(rdata.len() + 4_096, 0xff);
    rdata.extend([0, 0, 0, 0]);
    Response::new(length, &[0]).fill(&QUESTION, SVCB, &rdata)
}

/// The shortest possible records.
pub(crate) fn tiny_records(length: usize) -> Vec<u8> {
    Response::new(length, &[0]).fill(&[0], NULL, &[])
}

/// Only questions.
pub(crate) fn questions(length: usize) -> Vec<u8> {
    let mut wire = Response::new(length, &escaped_name(63)).finish();
    let mut count = 1_u16;
    // The name, and the name after its first label, in turn: never the one that was read last.
    for at in [HEADER, HEADER + 64].into_iter().cycle() {
        if wire.len() + 6 > length {
            break;
        }
        wire.extend([0xc0, at, 0, 1, 0, 1]);
        count += 1;
    }
    wire[4..6].copy_from_slice(&count.to_be_bytes());
    wire
}

/// An OPT record with only empty options.
pub(crate) fn options(length: usize) -> Vec<u8> {
    let mut wire = vec![0, 0, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 1];
    let rdata = length.saturating_sub(usize::from(HEADER) + 11) & !3;
    wire.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    wire.extend(u16::try_from(rdata).unwrap_or(u16::MAX).to_be_bytes());
    wire.resize(wire.len() + rdata, 0);
    wire
}

/// A message, and its name.
pub(crate) type Named = (&'static str, fn(usize) -> Vec<u8>);

/// All hostile messages.
pub(crate) const ALL: [Named; 12] = [
    ("compression chain", compression_chain),
    ("short chains", short_chains),
    ("broken labels", broken_labels),
    ("long names", long_names),
    ("many labels", many_labels),
    ("broken names", broken_names),
    ("broken lists", broken_lists),
    ("broken bitmaps", broken_bitmaps),
    ("broken parameters", broken_parameters),
    ("tiny records", tiny_records),
    ("questions", questions),
    ("options", options),
];
