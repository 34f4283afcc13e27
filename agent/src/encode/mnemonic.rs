//! Mnemonics as field values.

use std::{borrow::Cow, sync::LazyLock};

use serde::{Serialize, Serializer};

use super::{binary::push_part, fields::Value};
use crate::decode::{class_name, opcode_name, rcode_name, type_mnemonic, type_name};

/// A code that is written as its mnemonic.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mnemonic {
    Opcode(u8),
    Rcode(u16),
    Type(u16),
    Class(u16),
}

impl Mnemonic {
    fn text(self) -> Cow<'static, str> {
        match self {
            Self::Opcode(code) => opcode_name(code),
            Self::Rcode(code) => rcode_name(code),
            Self::Type(code) => type_name(code),
            Self::Class(code) => class_name(code),
        }
    }
}

impl Serialize for Mnemonic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl Value for Mnemonic {
    #[inline]
    fn push(&self, out: &mut Vec<u8>) {
        let encoded = match *self {
            Self::Opcode(code) => ENCODED.opcodes.get(usize::from(code)),
            Self::Rcode(code) => ENCODED.rcodes.get(usize::from(code)),
            Self::Type(code) => ENCODED.types.get(usize::from(code)),
            Self::Class(code) => ENCODED.classes.get(usize::from(code)),
        };
        match encoded {
            Some(encoded) => encoded.push(out),
            None => self.encode_rare().push(out),
        }
    }
}

impl Mnemonic {
    /// Encodes a code that is in none of the tables.
    fn encode_rare(self) -> Encoded {
        match self {
            Self::Opcode(code) => Encoded::numbered("OPCODE", code.into()),
            Self::Rcode(code) => Encoded::numbered("RCODE", code),
            Self::Type(code) => match type_mnemonic(code) {
                Some(mnemonic) => Encoded::new(mnemonic),
                None => Encoded::numbered("TYPE", code),
            },
            Self::Class(code) => Encoded::numbered("CLASS", code),
        }
    }
}

/// A mnemonic as an Avro string: its length, then at most 15 bytes. The longest ones, such as
/// NSEC3PARAM and CLASS65535, have ten.
#[derive(Clone, Copy)]
struct Encoded([u8; 16]);

impl Encoded {
    fn new(text: &str) -> Self {
        Self::of(text.bytes())
    }

    fn numbered(prefix: &str, code: u16) -> Self {
        Self::of(prefix.bytes().chain(itoa::Buffer::new().format(code).bytes()))
    }

    fn of(text: impl Iterator<Item = u8>) -> Self {
        let mut encoded = [0; 16];
        let mut length = 0;
        for (place, byte) in encoded[1..].iter_mut().zip(text) {
            *place = byte;
            length += 1;
        }
        // Doubled, as every number that is not negative.
        encoded[0] = 2 * length;
        Self(encoded)
    }

    #[inline]
    fn push(&self, out: &mut Vec<u8>) {
        push_part(out, &self.0, 1 + usize::from(self.0[0] / 2));
    }
}

/// The mnemonics of the codes that occur, encoded once.
struct Mnemonics {
    opcodes: [Encoded; 16],
    rcodes: [Encoded; 24],
    types: [Encoded; 272],
    classes: [Encoded; 256],
}

static ENCODED: LazyLock<Mnemonics> = LazyLock::new(|| Mnemonics {
    opcodes: table(|code| opcode_name(code.to_le_bytes()[0])),
    rcodes: table(rcode_name),
    types: table(type_name),
    classes: table(class_name),
});

fn table<const N: usize>(name: impl Fn(u16) -> Cow<'static, str>) -> [Encoded; N] {
    // Every table has fewer than 65,536 entries.
    std::array::from_fn(|code| Encoded::new(&name(u16::try_from(code).unwrap_or(u16::MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_whole() {
        for code in 0..=u16::MAX {
            let opcode = Mnemonic::Opcode(code.to_le_bytes()[0]);
            for mnemonic in
                [opcode, Mnemonic::Rcode(code), Mnemonic::Type(code), Mnemonic::Class(code)]
            {
                let mut out = Vec::new();
                mnemonic.push(&mut out);
                let (length, text) = out.split_first().unwrap();
                assert_eq!(usize::from(*length), 2 * text.len());
                assert_eq!(text, mnemonic.text().as_bytes());
            }
        }
    }
}
