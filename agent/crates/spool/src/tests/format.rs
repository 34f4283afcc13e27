//! The format on disk: every version must read what an earlier one wrote.

use super::{
    super::segment::{Header, Name, Position, encode_frame, push_entry},
    *,
};

const GOLDEN: &str = include_str!("golden_v1.hex");
const NAME: &str = "0000000000000005-01020304.seg";

/// Decodes a text of hexadecimal digits; `#` starts a comment.
fn golden() -> Vec<u8> {
    let digits: String = GOLDEN
        .lines()
        .flat_map(|line| line.split('#').next())
        .flat_map(str::chars)
        .filter(|character| !character.is_whitespace())
        .collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

const RECORDS: [Record<'static>; 2] = [
    Record { timestamp_ms: 1_700_000_000_123, messages: 2, key: b"", value: b"value" },
    Record { timestamp_ms: -1, messages: 1, key: b"key", value: b"" },
];

#[test]
fn version_1_is_written_as_it_was() {
    let header =
        Header { first: Position { id: 5, messages: 9 }, created_at_ms: NOW_MS, schema_version: 2 };
    let name = Name::parse(NAME).unwrap();
    let mut bytes = header.encode().to_vec();
    push_entry(&mut bytes, name.seed(), Position { id: 5, messages: 9 }, NOW_MS, &RECORDS[0]);
    push_entry(&mut bytes, name.seed(), Position { id: 6, messages: 11 }, NOW_MS + 1, &RECORDS[1]);
    assert_eq!(data_encoding::HEXLOWER.encode(&bytes), data_encoding::HEXLOWER.encode(&golden()));
}

#[test]
fn version_1_is_read() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(NAME), golden()).unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    assert_eq!(spool.held(), Amount { records: 2, messages: 3 });
    for (number, record) in RECORDS.into_iter().enumerate() {
        let entry = Entry {
            id: 5 + number as u64,
            appended_at_ms: NOW_MS + number as i64,
            schema_version: 2,
            record,
        };
        assert_eq!(spool.peek(), Some(entry));
        spool.mark_sent();
    }
    assert!(spool.is_read());
}

#[test]
fn another_version_is_refused_and_left_as_it_is() {
    let (magic, fields) = (*b"tap53spl", [0; 32]);
    let mut newer = encode_frame(magic, &fields).to_vec();
    newer[8] = 2;
    newer[10] = 56;
    newer.extend([7; 8]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    for name in [NAME, "acknowledged"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        if name == "acknowledged" {
            newer[0..8].copy_from_slice(b"tap53ack");
            let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..]);
            newer[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(&path, &newer).unwrap();
        let error = Spool::open(&config(directory.path())).err().unwrap();
        let said = error.to_string();
        assert!(matches!(error, Error::Version { version: 2, .. }), "{said}");
        assert!(said.contains(name) && said.contains("version 2"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), newer);
        // An invalid checksum means damage, and not another version.
        let mut damaged = newer.clone();
        damaged[20] ^= 1;
        fs::write(&path, &damaged).unwrap();
        Spool::open(&config(directory.path())).unwrap();
    }
}

#[test]
fn only_names_of_segments_are_taken_for_segments() {
    assert_eq!(Name::parse(NAME).unwrap(), Name { first_id: 5, salt: 0x0102_0304 });
    assert_eq!(Name { first_id: 5, salt: 0x0102_0304 }.to_string(), NAME);
    for other in [
        "5-01020304.seg",
        "0000000000000005-0102030.seg",
        "0000000000000005-0102030G.seg",
        "0000000000000005-+1020304.seg",
        "0000000000000005-01020304.seg.bak",
        "000000000000000A-01020304.seg",
        "lock",
    ] {
        assert_eq!(Name::parse(other), None, "{other}");
    }
}
