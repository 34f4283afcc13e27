//! Seeds for fuzzing: generated inputs that reach far into each target.

use std::{fs, io, path::Path};

#[path = "../../../agent/crates/dns/src/message/hostile.rs"]
mod hostile;

/// A DNS message: header, a question for `www.example.test`, and `records` of the answer section.
fn message(response: bool, records: &[&[u8]]) -> Vec<u8> {
    let flags = if response { [0x81, 0x80] } else { [0x01, 0x00] };
    let count = u8::try_from(records.len()).unwrap_or(u8::MAX);
    let mut wire = vec![0x12, 0x34, flags[0], flags[1], 0, 1, 0, count, 0, 0, 0, 1];
    wire.extend(b"\x03WWW\x07example\x04test\0\0\x01\0\x01");
    for record in records {
        wire.extend(*record);
    }
    // OPT: a client subnet, a cookie and an extended error.
    wire.extend(b"\0\0\x29\x04\xd0\0\0\x80\0\0\x22");
    wire.extend(b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02");
    wire.extend(b"\0\x0a\0\x08cookie42");
    wire.extend(b"\0\x0f\0\x07\0\x12stale");
    wire
}

/// Messages: a query, and a response of many types.
#[must_use]
pub fn messages() -> Vec<Vec<u8>> {
    let records: [&[u8]; 9] = [
        b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x08\x05other\xc0\x10",
        b"\xc0\x2e\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01",
        b"\xc0\x10\0\x0f\0\x01\0\0\0\x3c\0\x09\0\x0a\x04mail\xc0\x10",
        b"\xc0\x10\0\x10\0\x01\0\0\0\x3c\0\x09\x03a\\\"\x04\0\xff b",
        b"\xc0\x10\0\x21\0\x01\0\0\0\x3c\0\x08\0\x01\0\x02\0\x35\xc0\x0c",
        b"\xc0\x0c\0\x41\0\x01\0\0\0\x3c\0\x12\0\x01\0\0\x01\0\x03\x02h2\0\x04\0\x04\xc0\0\x02\x01",
        b"\xc0\x0c\0\x2f\0\x01\0\0\0\x3c\0\x09\xc0\x10\0\x05\x40\0\0\0\x01",
        b"\xc0\x0c\0\x1d\0\x01\0\0\0\x3c\0\x10\0\x12\x16\x13\x80\0\0\0\x80\0\0\0\0\x98\x96\x80",
        b"\xc0\x0c\xff\x00\0\x01\0\0\0\x3c\0\x02\x01\x02",
    ];
    vec![message(false, &[]), message(true, &records), message(true, &[])]
}

/// A message of 64 KiB that repeats a name of 1,004 characters, which is 5 MB of text.
#[must_use]
pub fn long_owner_names() -> Vec<u8> {
    const RECORD: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    const RECORDS: u16 = 4_000;
    let mut wire = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    wire[6..8].copy_from_slice(&RECORDS.to_be_bytes());
    for length in [63, 63, 63, 61] {
        wire.push(length);
        wire.extend(vec![0; length.into()]);
    }
    wire.extend(b"\0\0\x01\0\x01");
    wire.extend(RECORD.repeat(RECORDS.into()));
    wire
}

/// Messages that were made to cost as much as they can, long enough to reach the limit of work, and
/// one that costs little.
#[must_use]
pub fn hostile() -> Vec<Vec<u8>> {
    let benign: fn(usize) -> Vec<u8> = hostile::benign;
    let makers = hostile::ALL.into_iter().map(|(_, make)| make).chain([benign]);
    makers.flat_map(|make| [make(1_232), make(8_000)]).chain([long_questions()]).collect()
}

/// A message whose questions have more text than a message keeps, and which is long enough that reading
/// it stays within its limit of work.
fn long_questions() -> Vec<u8> {
    const COUNT: u16 = 801;
    let name = [&[63; 64].repeat(3)[..], &[0, 0, 1, 0, 1]].concat();
    // Two of its ends in turn: questions share the text of the first and of the latest name.
    let pointers = [[0xc0, 12 + 64, 0, 1, 0, 1], [0xc0, 12 + 128, 0, 1, 0, 1]].concat();
    // An authority record is skipped.
    let padding = [&[0, 0, 10, 0, 1, 0, 0, 0, 0, 0x20, 0][..], &[0; 0x2000]].concat();
    let header = [[0; 2], [0x81, 0x80], COUNT.to_be_bytes(), [0; 2], [0, 1], [0; 2]].concat();
    [header, name, pointers.repeat(usize::from(COUNT / 2)), padding].concat()
}

/// An Ethernet frame with IPv4 and UDP between 192.0.2.1:4000 and 192.0.2.2:53, or back.
fn frame(payload: &[u8], back: bool) -> Vec<u8> {
    let (client, server) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend((length + 28).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(if back { [server, client] } else { [client, server] }.concat());
    let ports = if back { [53u16, 4_000] } else { [4_000, 53] };
    frame.extend(ports.iter().chain(&[length + 8, 0]).flat_map(|word| word.to_be_bytes()));
    frame.extend(payload);
    frame
}

/// Frames, each after its length: a query and its response, and a query without one.
#[must_use]
pub fn frames() -> Vec<Vec<u8>> {
    let [query, response, _] = <[Vec<u8>; 3]>::try_from(messages()).expect("three messages");
    let with_length = |frame: Vec<u8>| {
        let length = u16::try_from(frame.len()).unwrap_or(u16::MAX);
        [length.to_be_bytes().to_vec(), frame].concat()
    };
    let (there, back) = (with_length(frame(&query, false)), with_length(frame(&response, true)));
    vec![there.clone(), [there, back].concat()]
}

/// Capture files: pcap of Ethernet and of raw IP, and pcapng.
#[must_use]
pub fn files() -> Vec<Vec<u8>> {
    let query = frame(&messages()[0], false);
    let pcap = |link_type: u32, frame: &[u8]| {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let words =
            [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x4_0000, link_type, 1_767_225_600, 1, length, length];
        [words.map(u32::to_le_bytes).concat(), frame.to_vec()].concat()
    };
    let block = |kind: u32, body: &[u8]| {
        let padding = body.len().next_multiple_of(4) - body.len();
        let length = u32::try_from(body.len() + padding + 12).unwrap_or(u32::MAX).to_le_bytes();
        [&kind.to_le_bytes(), &length, body, &[0; 3][..padding], &length].concat()
    };
    let length = u32::try_from(query.len()).unwrap_or(u32::MAX);
    let packet =
        [[0u32, 0x0006_0000, 0, length, length].map(u32::to_le_bytes).concat(), query.clone()];
    let section = [0x1a2b_3c4d_u32, 1, u32::MAX, u32::MAX].map(u32::to_le_bytes).concat();
    let pcapng = [
        block(0x0a0d_0d0a, &section),
        block(1, &[1u32, 0x4_0000].map(u32::to_le_bytes).concat()),
        block(6, &packet.concat()),
    ];
    vec![pcap(1, &query), pcap(101, &query[14..]), pcapng.concat()]
}

/// Choices for the targets that make segments and fragments: some of each kind.
#[must_use]
pub fn choices() -> Vec<Vec<u8>> {
    let numbers = |kind: u8, step: u8| {
        (0..=255).map(|at: u8| if at == 0 { kind } else { at.wrapping_mul(step) }).collect()
    };
    (0..3).flat_map(|kind| [1, 37, 101].map(|step| numbers(kind, step))).collect()
}

/// Writes seeds into the directory that `TAP53_FUZZ_SEEDS` names, for libFuzzer to begin with.
///
/// # Errors
/// When they cannot be written.
pub fn write(seeds: &[Vec<u8>]) -> io::Result<()> {
    let Some(directory) = std::env::var_os("TAP53_FUZZ_SEEDS") else { return Ok(()) };
    fs::create_dir_all(&directory)?;
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(Path::new(&directory).join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
