//! Two framings of a datum, and the way from one to the other.
//!
//! ```text
//!  single object (Avro 1.12)    C3 01 │ fingerprint of the schema, 8 bytes, little-endian │ datum
//!  Confluent                    00    │ id of the schema, 4 bytes, big-endian             │ datum
//! ```
//!
//! Encoders write single objects: these say what they are without a registry, so that a record of an
//! earlier version may wait for years. An id takes the fingerprint's place when a record leaves.

/// CRC-64-AVRO of a schema's canonical form, little-endian.
pub type Fingerprint = [u8; 8];

/// Bytes of a single object before its datum.
const SINGLE_OBJECT_BYTES: usize = 10;
const SINGLE_OBJECT_MARKER: [u8; 2] = [0xc3, 0x01];

/// Bytes before a datum with an id.
const CONFLUENT_BYTES: usize = 5;
const CONFLUENT_MARKER: u8 = 0;

/// What stands before a datum whose schema has such a fingerprint.
#[must_use]
pub fn single_object_header(fingerprint: Fingerprint) -> [u8; SINGLE_OBJECT_BYTES] {
    let mut header = [0; SINGLE_OBJECT_BYTES];
    header[..2].copy_from_slice(&SINGLE_OBJECT_MARKER);
    header[2..].copy_from_slice(&fingerprint);
    header
}

/// Fingerprint and datum of a single object.
#[must_use]
pub fn read_single_object(value: &[u8]) -> Option<(Fingerprint, &[u8])> {
    let rest = value.strip_prefix(&SINGLE_OBJECT_MARKER)?;
    let (fingerprint, datum) = rest.split_first_chunk()?;
    Some((*fingerprint, datum))
}

/// Writes a datum behind the id of its schema into `out`, in place of what was there.
pub fn frame(id: u32, datum: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(CONFLUENT_MARKER);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(datum);
}

/// The datum behind the id of a schema.
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
    fn what_is_framed_otherwise_is_told_apart() {
        for value in [&b""[..], b"\xc3", b"\xc3\x01\0\0\0\0\0\0\0", b"\0\0\0\0\x01datum12345"] {
            assert_eq!(read_single_object(value), None, "{value:?}");
        }
        for value in [&b""[..], b"\0\0\0\0", b"\xc3\x01\0\0\0\0\0\0\0\0datum"] {
            assert_eq!(unframe(value), None, "{value:?}");
        }
        assert_eq!(unframe(b"\0\0\0\0\x01"), Some(&b""[..]), "a record without fields");
    }
}
