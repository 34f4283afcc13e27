//! Lines of records in Avro.

use data_encoding::BASE64;
use tap53_records::encode::{Datum, Encode, Error, Record};

/// Encodes a record as a line of its Avro datum in base64.
#[derive(Default)]
pub(super) struct Base64Datum {
    encoder: Datum,
    datum: Vec<u8>,
}

impl Encode for Base64Datum {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.datum.clear();
        self.encoder.encode(record, &mut self.datum)?;
        push_line(&self.datum, out);
        Ok(())
    }
}

/// Appends the line of a datum.
pub(super) fn push_line(datum: &[u8], lines: &mut Vec<u8>) {
    let start = lines.len();
    lines.resize(start + BASE64.encode_len(datum.len()), 0);
    if let Some(space) = lines.get_mut(start..) {
        BASE64.encode_mut(datum, space);
    }
    lines.push(b'\n');
}

/// Returns the datum of a line, with or without its line feed; `None` if it is damaged.
#[must_use]
pub fn datum_of_line(line: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(line.strip_suffix(b"\n").unwrap_or(line)).ok()
}
