//! Mnemonics as field values.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use tap53_dns::{
    class_mnemonic, class_name, opcode_mnemonic, opcode_name, rcode_mnemonic, rcode_name,
    type_mnemonic, type_name,
};

use super::{
    binary::{Binary, Buffer},
    fields::Value,
};

/// Encodes the first codes into a table.
macro_rules! table {
    ($size:literal, $encode:ident) => {{
        let mut table = [Encoded([0; 16]); $size];
        let mut code = 0;
        while code < $size {
            table[code as usize] = Encoded::$encode(code);
            code += 1;
        }
        table
    }};
}

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
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        self.encoded().push(out);
    }
}

impl Mnemonic {
    /// Returns its encoded text.
    #[inline(always)]
    pub(super) fn encoded(self) -> Encoded {
        let encoded = match self {
            Self::Opcode(code) => OPCODES.get(usize::from(code)),
            Self::Rcode(code) => RCODES.get(usize::from(code)),
            Self::Type(code) => TYPES.get(usize::from(code)),
            Self::Class(code) => CLASSES.get(usize::from(code)),
        };
        match encoded {
            Some(encoded) => *encoded,
            None => self.encode(),
        }
    }

    /// Encodes a code that is not in the tables.
    #[cold]
    const fn encode(self) -> Encoded {
        match self {
            Self::Opcode(code) => Encoded::opcode(code as u16),
            Self::Rcode(code) => Encoded::rcode(code),
            Self::Type(code) => Encoded::rr_type(code),
            Self::Class(code) => Encoded::class(code),
        }
    }
}

/// A mnemonic as an Avro string: its length, then at most 15 bytes. The longest ones, such as
/// NSEC3PARAM and CLASS65535, have ten.
#[derive(Clone, Copy)]
pub(super) struct Encoded([u8; 16]);

/// Frequent codes, encoded at compile time.
static OPCODES: [Encoded; 16] = table!(16, opcode);
static RCODES: [Encoded; 24] = table!(24, rcode);
static TYPES: [Encoded; 272] = table!(272, rr_type);
static CLASSES: [Encoded; 256] = table!(256, class);

impl Encoded {
    const fn opcode(code: u16) -> Self {
        // Opcodes have four bits.
        Self::new(opcode_mnemonic(code.to_le_bytes()[0]), "OPCODE", code)
    }

    const fn rcode(code: u16) -> Self {
        Self::new(rcode_mnemonic(code), "RCODE", code)
    }

    const fn rr_type(code: u16) -> Self {
        Self::new(type_mnemonic(code), "TYPE", code)
    }

    const fn class(code: u16) -> Self {
        Self::new(class_mnemonic(code), "CLASS", code)
    }

    /// Creates the mnemonic, or the prefix and the code in decimal.
    const fn new(mnemonic: Option<&str>, prefix: &str, code: u16) -> Self {
        let encoded = Self([0; 16]);
        let Some(mnemonic) = mnemonic else {
            let mut encoded = encoded.with(prefix.as_bytes());
            let mut divisor = 10_000;
            while divisor > 0 {
                if code >= divisor || divisor == 1 {
                    let digit = code / divisor % 10;
                    encoded = encoded.with(&[b'0' + digit.to_le_bytes()[0]]);
                }
                divisor /= 10;
            }
            return encoded;
        };
        encoded.with(mnemonic.as_bytes())
    }

    /// Appends `text`. The first byte is the length, doubled like every non-negative number.
    const fn with(mut self, text: &[u8]) -> Self {
        let mut position = 0;
        while position < text.len() && self.0[0] < 30 {
            self.0[1 + self.0[0] as usize / 2] = text[position];
            self.0[0] += 2;
            position += 1;
        }
        self
    }

    #[inline(always)]
    pub(super) fn text(&self) -> &[u8] {
        self.0.get(1..1 + usize::from(self.0[0] / 2)).unwrap_or_default()
    }

    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block(self.0, 1 + usize::from(self.0[0] / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::binary::encoded_value;

    #[test]
    fn every_code_is_written_whole() {
        for code in 0..=u16::MAX {
            let opcode = Mnemonic::Opcode(code.to_le_bytes()[0]);
            for mnemonic in
                [opcode, Mnemonic::Rcode(code), Mnemonic::Type(code), Mnemonic::Class(code)]
            {
                let out = encoded_value(mnemonic);
                let (length, text) = out.split_first().unwrap();
                assert_eq!(usize::from(*length), 2 * text.len());
                assert_eq!(text, mnemonic.text().as_bytes());
            }
        }
    }
}
