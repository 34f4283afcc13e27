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
//! What costs time is not a byte but a step that waits for the one before, and a copy whose size is
//! not known when compiling. So a record is written into room that is all zeros: what is absent,
//! false or empty is stepped over. Short texts go out in a block of constant size, behind which the
//! next field begins. Whether the room was enough is asked once, at the end. And everything here is
//! inlined into one function, so that the position stays in a register; a [`Binary`] that is handed
//! to a function of its own costs half as much again.

use std::convert::Infallible;

use super::fields::{Fields, Value};

/// Bytes of room at first: what a record takes as a rule.
const FIRST_ROOM: usize = 1_024;

/// Bytes of room that are kept for the next record.
const KEPT_ROOM: usize = 64 * 1_024;

/// A position that is in no room, whatever is added to it.
const BEYOND: usize = usize::MAX / 2;

/// Writes fields one behind the other. What does not fit is not written.
pub(super) struct Binary<'a> {
    /// Zeros from `at` on.
    room: &'a mut [u8],
    at: usize,
}

/// Where records are written before they are appended to others. All zeros between two of them.
#[derive(Debug, Default)]
pub(super) struct Room(Vec<u8>);

impl Room {
    /// Writes from the beginning of the room. Again, where [`take`](Self::take) says so.
    #[inline(always)]
    pub(super) fn binary(&mut self) -> Binary<'_> {
        Binary { room: &mut self.0, at: 0 }
    }

    /// Appends what was written up to `end` to `out`; false, and more room, if it did not fit.
    #[inline(always)]
    pub(super) fn take(&mut self, end: usize, out: &mut Vec<u8>) -> bool {
        let Some(written) = self.0.get_mut(..end) else {
            self.grow();
            return false;
        };
        out.extend_from_slice(written);
        written.fill(0);
        if self.0.len() > KEPT_ROOM {
            self.0 = Vec::new();
        }
        true
    }

    #[cold]
    fn grow(&mut self) {
        let size = (2 * self.0.len()).max(FIRST_ROOM);
        self.0.clear();
        self.0.resize(size, 0);
    }
}

/// What `write` writes.
pub(super) fn encoded(write: impl Fn(&mut Binary<'_>)) -> Vec<u8> {
    let (mut room, mut out) = (Room::default(), Vec::new());
    loop {
        let mut binary = room.binary();
        write(&mut binary);
        let end = binary.end();
        if room.take(end, &mut out) {
            return out;
        }
    }
}

impl Fields for Binary<'_> {
    type Error = Infallible;

    #[inline(always)]
    fn field(&mut self, _name: &'static str, value: impl Value) -> Result<(), Infallible> {
        value.push(self);
        Ok(())
    }

    #[inline(always)]
    fn known(
        &mut self,
        encoded: &[u8],
        _each: impl FnOnce(&mut Self) -> Result<(), Infallible>,
    ) -> Result<(), Infallible> {
        self.raw(encoded);
        Ok(())
    }
}

impl Binary<'_> {
    /// Where the next field would begin.
    #[inline(always)]
    pub(super) const fn end(&self) -> usize {
        self.at
    }

    /// A zero: branch 0 of an optional, the end of an array, an empty text.
    #[inline(always)]
    pub(super) const fn zero(&mut self) {
        self.at += 1;
    }

    /// The first `length` bytes of a block; those behind them are zeros.
    #[inline(always)]
    pub(super) fn block<const N: usize>(&mut self, block: [u8; N], length: usize) {
        match self.room.get_mut(self.at..).and_then(<[u8]>::first_chunk_mut) {
            Some(place) => {
                *place = block;
                self.at += length;
            }
            None => self.at = BEYOND,
        }
    }

    /// Bytes as they are.
    #[inline(always)]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        match self.room.get_mut(self.at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            None => self.at = BEYOND,
        }
    }

    /// An Avro int or long.
    #[inline(always)]
    pub(super) fn long(&mut self, value: i64) {
        let zigzag = zigzag(value);
        if zigzag < 0x80 {
            self.block([zigzag.to_le_bytes()[0]], 1);
        } else if zigzag < 0x4000 {
            let [low, high] = [zigzag & 0x7f | 0x80, zigzag >> 7].map(|part| part.to_le_bytes()[0]);
            self.block([low, high], 2);
        } else if zigzag < 1 << 56 {
            let (groups, length) = groups_of_seven(zigzag);
            self.block(groups.to_le_bytes(), length);
        } else {
            let (bytes, length) = varint(zigzag);
            self.block(bytes, length);
        }
    }

    /// The count of a block's items, or a length.
    #[inline(always)]
    pub(super) fn length(&mut self, length: usize) {
        // No slice is longer than isize::MAX.
        self.long(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// An Avro string or bytes.
    #[inline(always)]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }
}

/// Appends an Avro long.
pub(crate) fn push_long(out: &mut Vec<u8>, value: i64) {
    let (bytes, length) = varint(zigzag(value));
    out.extend(bytes.iter().take(length));
}

const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// The varint of a number below 2⁵⁶ and its length: all its groups of seven bits are moved to their
/// bytes at once, by halves, quarters and eighths.
#[inline(always)]
const fn groups_of_seven(number: u64) -> (u64, usize) {
    let halves = number & 0x0fff_ffff | (number & 0x00ff_ffff_f000_0000) << 4;
    let quarters = halves & 0x0000_3fff_0000_3fff | (halves & 0x0fff_c000_0fff_c000) << 2;
    let eighths = quarters & 0x007f_007f_007f_007f | (quarters & 0x3f80_3f80_3f80_3f80) << 1;
    let behind_first = (number | 1).ilog2() / 7;
    let goes_on = 0x8080_8080_8080_8080 & ((1 << (8 * behind_first)) - 1);
    (eighths | goes_on, behind_first as usize + 1)
}

/// The varint of any number, and its length: 64 bits take at most ten times seven.
#[cold]
fn varint(number: u64) -> ([u8; 10], usize) {
    let (mut rest, mut bytes, mut length) = (number, [0; 10], 0);
    for place in &mut bytes {
        length += 1;
        let lowest = rest.to_le_bytes()[0] & 0x7f;
        rest >>= 7;
        if rest == 0 {
            *place = lowest;
            break;
        }
        *place = lowest | 0x80;
    }
    (bytes, length)
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(impl Value for $integer {
            #[inline(always)]
            fn push(&self, out: &mut Binary<'_>) {
                out.long(i64::from(*self));
            }
        })*
    };
}

integers!(u8, u16, u32, i32, i64);

impl Value for bool {
    #[inline(always)]
    fn push(&self, out: &mut Binary<'_>) {
        out.block([u8::from(*self)], 1);
    }
}

impl Value for &str {
    #[inline(always)]
    fn push(&self, out: &mut Binary<'_>) {
        out.bytes(self.as_bytes());
    }
}

impl<V: Value> Value for Option<V> {
    #[inline(always)]
    fn push(&self, out: &mut Binary<'_>) {
        match self {
            None => out.zero(),
            Some(value) => {
                out.block([2], 1);
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
            assert_eq!(encoded(|out| value.push(out)), bytes);
        }
    }

    #[test]
    fn every_length_of_a_long_is_written_as_group_after_group() {
        for bits in 0..64 {
            for number in [1_u64 << bits, (1 << bits) - 1, 0x5555_5555_5555_5555 >> bits] {
                let value = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
                let mut bytes = Vec::new();
                push_long(&mut bytes, value);
                assert_eq!(encoded(|out| out.long(value)), bytes, "{value}");
            }
        }
    }

    #[test]
    fn room_grows_to_what_is_written_and_is_zero_again_after_it() {
        let mut room = Room::default();
        for length in [0, 1, FIRST_ROOM - 2, FIRST_ROOM - 1, FIRST_ROOM, 5 * KEPT_ROOM, 3] {
            let text = vec![b'x'; length];
            let (mut out, mut expected) = (vec![9], vec![9]);
            loop {
                let mut binary = room.binary();
                binary.bytes(&text);
                binary.zero();
                let end = binary.end();
                if room.take(end, &mut out) {
                    break;
                }
            }
            push_long(&mut expected, i64::try_from(length).unwrap());
            expected.extend(text);
            expected.push(0);
            assert!(out == expected, "{length}");
            assert!(room.0.iter().all(|byte| *byte == 0) && room.0.len() <= KEPT_ROOM);
        }
    }
}
