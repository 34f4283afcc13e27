//! Avro's binary encoding, written without looking at the schema.
//!
//! The bytes of a record are its fields' bytes one behind the other (Avro 1.12, "Binary
//! Encoding"), so with the schema's order in [`Record`](super::Record) nothing needs looking up.
//! What is the same in many records is encoded once: node and interface, the owner of an address,
//! mnemonics. Nothing here allocates once the buffer has grown to a batch's size.
//!
//! | value | encoding |
//! |---|---|
//! | int, long | zig-zag, then seven bits a byte, lowest first |
//! | string, bytes | length, then the bytes |
//! | fixed | the bytes |
//! | enum | position of the symbol |
//! | optional | branch 0; or branch 1, then the value |
//! | array, map | one block: count, items; then count 0 |
//!
//! A copy whose size is known when compiling costs a fraction of one whose size is not. Short texts
//! therefore go out in a block of constant size, and what is too much of it is cut off again.

use std::convert::Infallible;

use super::fields::{Fields, Value};

/// Writes fields one behind the other.
pub(super) struct Binary<'a>(pub(super) &'a mut Vec<u8>);

impl Fields for Binary<'_> {
    type Error = Infallible;

    #[inline]
    fn field(&mut self, _name: &'static str, value: impl Value) -> Result<(), Infallible> {
        value.push(self.0);
        Ok(())
    }

    #[inline]
    fn known(
        &mut self,
        encoded: &[u8],
        _each: impl FnOnce(&mut Self) -> Result<(), Infallible>,
    ) -> Result<(), Infallible> {
        self.0.extend_from_slice(encoded);
        Ok(())
    }
}

/// Appends an Avro int or long.
#[inline]
pub(crate) fn push_long(out: &mut Vec<u8>, value: i64) {
    let zigzag = (value << 1 ^ value >> 63).cast_unsigned();
    match zigzag {
        0..0x80 => out.push(zigzag.to_le_bytes()[0]),
        0x80..0x4000 => {
            let [low, high] = [zigzag & 0x7f | 0x80, zigzag >> 7].map(|part| part.to_le_bytes()[0]);
            out.extend_from_slice(&[low, high]);
        }
        _ => push_varint(out, zigzag),
    }
}

fn push_varint(out: &mut Vec<u8>, mut rest: u64) {
    // 64 bits take at most ten times seven.
    let mut bytes = [0; 10];
    let mut length = 0;
    for place in &mut bytes {
        length += 1;
        let lowest = rest.to_le_bytes()[0];
        rest >>= 7;
        if rest == 0 {
            *place = lowest;
            break;
        }
        *place = lowest | 0x80;
    }
    push_part(out, &bytes, length);
}

/// Appends the first `length` bytes of a block.
#[inline]
pub(super) fn push_part<const N: usize>(out: &mut Vec<u8>, block: &[u8; N], length: usize) {
    let end = out.len() + length;
    out.extend_from_slice(block);
    out.truncate(end);
}

/// Appends the count of a block's items, or a length.
#[inline]
pub(super) fn push_length(out: &mut Vec<u8>, length: usize) {
    // No slice is longer than isize::MAX.
    push_long(out, i64::try_from(length).unwrap_or(i64::MAX));
}

/// Appends an Avro string or bytes.
#[inline]
pub(super) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends an array or a map: in one block, or none where there is nothing.
#[inline]
pub(super) fn push_items<T>(
    out: &mut Vec<u8>,
    count: usize,
    items: impl Iterator<Item = T>,
    mut push: impl FnMut(&mut Vec<u8>, T),
) {
    if count > 0 {
        push_length(out, count);
        for item in items {
            push(out, item);
        }
    }
    out.push(0);
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(impl Value for $integer {
            #[inline]
            fn push(&self, out: &mut Vec<u8>) {
                push_long(out, i64::from(*self));
            }
        })*
    };
}

integers!(u8, u16, u32, i32, i64);

impl Value for bool {
    #[inline]
    fn push(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Value for &str {
    #[inline]
    fn push(&self, out: &mut Vec<u8>) {
        push_bytes(out, self.as_bytes());
    }
}

impl<V: Value> Value for Option<V> {
    #[inline]
    fn push(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(2);
                value.push(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_are_zig_zag_varints() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (64, &[0x80, 1]),
            (8_191, &[0xfe, 0x7f]),
            (8_192, &[0x80, 0x80, 1]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            push_long(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn an_array_without_items_is_its_end_alone() {
        let mut out = Vec::new();
        push_items(&mut out, 0, [].iter(), |out, item: &u8| item.push(out));
        assert_eq!(out, [0]);
        push_items(&mut out, 2, [1u8, 2].iter(), |out, item| item.push(out));
        assert_eq!(out, [0, 4, 2, 4, 0]);
    }
}
