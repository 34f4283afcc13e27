//! DNS messages as the test's client writes and reads them, sharing no code with the agent.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Bytes of a DNS header (RFC 1035 §4.1.1).
pub const HEADER_SIZE: usize = 12;

const CLASS_IN: u16 = 1;
const RECURSION_DESIRED: u16 = 0x0100;

/// Mnemonics of the types in the tests' queries (RFC 1035 §3.2.2 and later).
const TYPES: [(&str, u16); 11] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("CAA", 257),
    ("TYPE65280", 65_280),
];

/// Mnemonics of response codes, by number (RFC 1035 §4.1.1).
const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// A query for `name` (without the trailing dot) with one question of class IN.
///
/// # Panics
/// When `qtype` is not one of the types above, or a label is longer than 63 bytes: a mistake in the
/// test.
#[must_use]
pub fn query(id: u16, name: &str, qtype: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_SIZE + name.len() + 6);
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    push_name(&mut message, name);
    message.extend(type_number(qtype).to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message
}

/// Appends `name` in wire format, uncompressed.
///
/// # Panics
/// When a label is longer than 63 bytes.
pub fn push_name(message: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| *length < 64);
        message.push(length.unwrap_or_else(|| panic!("label {label:?} is longer than 63 bytes")));
        message.extend(label.as_bytes());
    }
    message.push(0);
}

fn type_number(mnemonic: &str) -> u16 {
    let found = TYPES.iter().find(|(known, _)| *known == mnemonic);
    found.unwrap_or_else(|| panic!("add type {mnemonic} to the harness")).1
}

fn type_mnemonic(number: u16) -> String {
    let found = TYPES.iter().find(|(_, known)| *known == number);
    found.map_or_else(|| format!("TYPE{number}"), |(mnemonic, _)| (*mnemonic).to_owned())
}

/// The fields of a response that tests compare.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Transaction identifier.
    pub id: u16,
    /// Response code by name.
    pub rcode: String,
    /// Answer section: objects with `name`, `type`, `class`, `ttl`, `rdata`, as the record has them.
    pub answers: Vec<Value>,
}

impl Response {
    /// Reads a response.
    ///
    /// # Errors
    /// When it is not a well-formed response.
    pub fn parse(message: &[u8]) -> Result<Self> {
        let mut reader = Reader { message, at: 0 };
        let id = reader.u16()?;
        let bits = reader.u16()?;
        if bits & 0x8000 == 0 {
            bail!("not a response");
        }
        let questions = reader.u16()?;
        let answers = reader.u16()?;
        reader.at = HEADER_SIZE;
        for _ in 0..questions {
            reader.name()?;
            reader.bytes(4)?;
        }
        let rcode = usize::from(bits & 0x000f);
        Ok(Self {
            id,
            rcode: (*RCODES.get(rcode).context("an rcode above 5")?).to_owned(),
            answers: (0..answers).map(|_| reader.record()).collect::<Result<_>>()?,
        })
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let bytes = self.message.get(self.at..self.at + count);
        self.at += count;
        bytes.with_context(|| format!("the message ends before byte {}", self.at))
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// A name without its trailing dot; the root is ".".
    fn name(&mut self) -> Result<String> {
        let mut labels = Vec::new();
        let mut resume_at = None;
        loop {
            let length = self.u8()?;
            if length >= 0xc0 {
                let target = usize::from(length & 0x3f) << 8 | usize::from(self.u8()?);
                // Pointers lead backwards (RFC 1035 §4.1.4), so this ends.
                if target >= self.at - 2 {
                    bail!("a compression pointer that does not lead backwards");
                }
                resume_at.get_or_insert(self.at);
                self.at = target;
            } else if length == 0 {
                break;
            } else {
                let label = self.bytes(usize::from(length))?;
                labels.push(String::from_utf8(label.to_ascii_lowercase())?);
            }
        }
        if let Some(at) = resume_at {
            self.at = at;
        }
        Ok(if labels.is_empty() { ".".to_owned() } else { labels.join(".") })
    }

    fn record(&mut self) -> Result<Value> {
        let name = self.name()?;
        let rtype = type_mnemonic(self.u16()?);
        let class = self.u16()?;
        let ttl_s = self.u32()?;
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        let rdata = self.rdata(&rtype, end)?;
        if self.at != end {
            bail!("{rtype} RDATA of {length} bytes ends elsewhere");
        }
        if class != CLASS_IN {
            bail!("class {class}, asked for IN");
        }
        Ok(json!({ "name": name, "type": rtype, "class": "IN", "ttl": ttl_s, "rdata": rdata }))
    }

    fn rdata(&mut self, rtype: &str, end: usize) -> Result<String> {
        Ok(match rtype {
            "A" => Ipv4Addr::from(<[u8; 4]>::try_from(self.bytes(4)?)?).to_string(),
            "AAAA" => Ipv6Addr::from(<[u8; 16]>::try_from(self.bytes(16)?)?).to_string(),
            "CNAME" | "PTR" | "NS" => self.name()?,
            "MX" => format!("{} {}", self.u16()?, self.name()?),
            "SRV" => format!("{} {} {} {}", self.u16()?, self.u16()?, self.u16()?, self.name()?),
            "TXT" => {
                let mut strings = Vec::new();
                while self.at < end {
                    let length = usize::from(self.u8()?);
                    strings.push(quoted(self.bytes(length)?)?);
                }
                strings.join(" ")
            }
            "CAA" => {
                let flags = self.u8()?;
                let length = usize::from(self.u8()?);
                let tag = String::from_utf8(self.bytes(length)?.to_vec())?;
                let value = quoted(self.bytes(end.saturating_sub(self.at))?)?;
                format!("{flags} {tag} {value}")
            }
            other => bail!("add RDATA of type {other} to the harness"),
        })
    }
}

/// A character string in presentation format (RFC 1035 §5.1). The test zone is printable ASCII.
fn quoted(string: &[u8]) -> Result<String> {
    let text = String::from_utf8(string.to_vec())?;
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_with_its_compressed_names() {
        let mut message = query(7, "www.tap53.test", "A");
        message[2] |= 0x80;
        message[7] = 1;
        // Owner: a pointer to the question's name, at offset 12.
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, 10]);
        let response = Response::parse(&message).expect("well-formed");
        assert_eq!((response.id, response.rcode.as_str()), (7, "NOERROR"));
        assert_eq!(
            response.answers,
            [json!({ "name": "www.tap53.test", "type": "A", "class": "IN", "ttl": 300,
                     "rdata": "203.0.113.10" })]
        );
    }

    #[test]
    fn a_cut_response_is_refused() {
        let mut message = query(7, "www.tap53.test", "A");
        message[2] |= 0x80;
        message[7] = 1;
        assert!(Response::parse(&message).is_err());
    }
}
