//! Two framings of a datum, and the conversion between them.
//!
//! ```text
//!  single object (Avro 1.12)    C3 01 │ fingerprint of the schema, 8 bytes, little-endian │ datum
//!  Confluent                    00    │ id of the schema, 4 bytes, big-endian             │ datum
//! ```
//!
//! Encoders write single objects, which identify their schema without a registry, so that a record
//! of an earlier version may wait for years. When a record is sent, an id replaces the fingerprint.

/// CRC-64-AVRO of a schema's canonical form, little-endian.
pub type Fingerprint = [u8; 8];

/// Size of the header of a single object in bytes.
const SINGLE_OBJECT_BYTES: usize = 10;
const SINGLE_OBJECT_MARKER: [u8; 2] = [0xc3, 0x01];

/// Size of the header with a schema id in bytes.
const CONFLUENT_BYTES: usize = 5;
const CONFLUENT_MARKER: u8 = 0;

/// Returns the header of a datum whose schema has this fingerprint.
#[must_use]
pub fn single_object_header(fingerprint: Fingerprint) -> [u8; SINGLE_OBJECT_BYTES] {
    let mut header = [0; SINGLE_OBJECT_BYTES];
    header[..2].copy_from_slice(&SINGLE_OBJECT_MARKER);
    header[2..].copy_from_slice(&fingerprint);
    header
}

/// Splits a single object into fingerprint and datum.
#[must_use]
pub fn read_single_object(value: &[u8]) -> Option<(Fingerprint, &[u8])> {
    let rest = value.strip_prefix(&SINGLE_OBJECT_MARKER)?;
    let (fingerprint, datum) = rest.split_first_chunk()?;
    Some((*fingerprint, datum))
}

/// Replaces the content of `out` by the schema id and a datum.
pub fn frame(id: u32, datum: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(CONFLUENT_MARKER);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(datum);
}

/// Returns the datum after the id of its schema.
#[must_use]
pub fn unframe(value: &[u8]) -> Option<&[u8]> {
    let (header, datum) = value.split_first_chunk::<CONFLUENT_BYTES>()?;
    (header[0] == CONFLUENT_MARKER).then_some(datum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Confluent, "Wire format": magic byte 0, then the id in network byte order.
    #[test]
    fn an_id_takes_the_place_of_the_fingerprint() {
        let single = [&[0xc3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8][..], b"datum"].concat();
        let (fingerprint, datum) = read_single_object(&single).unwrap();
        assert_eq!((fingerprint, datum), ([1, 2, 3, 4, 5, 6, 7, 8], &b"datum"[..]));
        let mut framed = b"what was there".to_vec();
        frame(0x0102_0304, datum, &mut framed);
        assert_eq!(framed, b"\0\x01\x02\x03\x04datum");
        assert_eq!(unframe(&framed), Some(&b"datum"[..]));
        assert_eq!([&single_object_header(fingerprint)[..], datum].concat(), single);
    }

    #[test]
    fn other_framings_are_refused() {
        for value in [&b""[..], b"\xc3", b"\xc3\x01\0\0\0\0\0\0\0", b"\0\0\0\0\x01datum12345"] {
            assert_eq!(read_single_object(value), None, "{value:?}");
        }
        for value in [&b""[..], b"\0\0\0\0", b"\xc3\x01\0\0\0\0\0\0\0\0datum"] {
            assert_eq!(unframe(value), None, "{value:?}");
        }
        assert_eq!(unframe(b"\0\0\0\0\x01"), Some(&b""[..]), "a record without fields");
    }
}
