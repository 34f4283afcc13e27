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
//! next field begins. Whether the room was enough is asked once, at the end, and of a record that
//! it was not enough for, the work is done again in larger room: a question at each of a hundred
//! fields is a quarter of all instructions. And everything here is inlined into one function, so that
//! the position stays in a register; a [`Binary`] that is handed to a function of its own costs half
//! as much again.

use std::convert::Infallible;

use super::fields::{Fields, Value};

/// Bytes of room for a record of usual size: a power of two.
const USUAL: usize = 4 * 1_024;

/// Bytes of the largest block.
const LARGEST_BLOCK: usize = 16;

/// Bytes of room that are kept for the next record that is larger.
const KEPT_ROOM: usize = 64 * 1_024;

/// A position that is beyond every buffer, whatever is added to it.
const OVERFLOW: usize = usize::MAX / 2;

/// A destination for encoded fields, which is bounded or grows.
pub(super) trait Buffer {
    /// The place of a block, where there is room for one.
    fn block<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]>;

    /// Copies `bytes` to their place, where there is room for them.
    fn copy(&mut self, at: usize, bytes: &[u8]) -> Option<()>;
}

/// A buffer whose size is known when compiling. A block always has a place, and none is looked for: what
/// goes beyond the end is written to the beginning, and the position says so at last.
pub(super) struct FixedBuffer([u8; USUAL + LARGEST_BLOCK]);

impl Buffer for FixedBuffer {
    #[inline(always)]
    fn block<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        self.0[at % USUAL..].first_chunk_mut()
    }

    #[inline(always)]
    fn copy(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        self.0.get_mut(at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(())
    }
}

impl Buffer for [u8] {
    #[inline(always)]
    fn block<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        self.get_mut(at..)?.first_chunk_mut()
    }

    #[inline(always)]
    fn copy(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        self.get_mut(at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(())
    }
}

/// A buffer that takes anything and keeps nothing: only the position after it is of interest.
struct Measure([u8; LARGEST_BLOCK]);

impl Buffer for Measure {
    #[inline(always)]
    fn block<const N: usize>(&mut self, _at: usize) -> Option<&mut [u8; N]> {
        self.0.first_chunk_mut()
    }

    #[inline(always)]
    fn copy(&mut self, _at: usize, _bytes: &[u8]) -> Option<()> {
        Some(())
    }
}

/// Bytes that `record` takes.
pub(super) fn measured(record: &impl Written) -> usize {
    let mut nothing = Measure([0; LARGEST_BLOCK]);
    let mut binary = Binary::new(&mut nothing);
    record.write(&mut binary);
    binary.at
}

/// Writes fields one behind the other. What does not fit is not written, or not where it belongs.
pub(super) struct Binary<'a, R: Buffer + ?Sized> {
    /// Zeros from `at` on.
    room: &'a mut R,
    at: usize,
}

impl<'a, R: Buffer + ?Sized> Binary<'a, R> {
    /// Writes from the beginning of the room.
    #[inline(always)]
    const fn new(room: &'a mut R) -> Self {
        Self { room, at: 0 }
    }
}

/// What can be written into any room: a record.
pub(super) trait Written {
    /// Writes all fields.
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>);
}

/// Where records are written before they are appended to others. All zeros between two of them.
pub(super) struct Rooms {
    usual: Box<FixedBuffer>,
    large: Vec<u8>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { usual: Box::new(FixedBuffer([0; USUAL + LARGEST_BLOCK])), large: Vec::new() }
    }
}

impl Rooms {
    /// Appends a record to `out`.
    #[inline(always)]
    pub(super) fn append(&mut self, record: &impl Written, out: &mut Vec<u8>) {
        let mut binary = Binary::new(&mut *self.usual);
        record.write(&mut binary);
        let end = binary.at;
        if let Some(written) = self.usual.0.get_mut(..end).filter(|_| end <= USUAL) {
            out.extend_from_slice(written);
            written.fill(0);
        } else {
            self.usual.0.fill(0);
            self.append_large(record, out);
        }
    }

    #[cold]
    fn append_large(&mut self, record: &impl Written, out: &mut Vec<u8>) {
        let mut size = self.large.len().max(2 * USUAL);
        loop {
            self.large.clear();
            self.large.resize(size, 0);
            let mut binary = Binary::new(&mut self.large[..]);
            record.write(&mut binary);
            let end = binary.at;
            if let Some(written) = self.large.get(..end) {
                out.extend_from_slice(written);
                break;
            }
            size *= 2;
        }
        if size > KEPT_ROOM {
            self.large = Vec::new();
        }
    }
}

/// What `record` writes.
pub(super) fn encoded(record: &impl Written) -> Vec<u8> {
    let mut out = Vec::new();
    Rooms::default().append(record, &mut out);
    out
}

impl<R: Buffer + ?Sized> Fields for Binary<'_, R> {
    type Error = Infallible;

    #[inline(always)]
    fn field(&mut self, _name: &'static str, value: impl Value) -> Result<(), Infallible> {
        value.push(self);
        Ok(())
    }

    #[inline(always)]
    fn known(&mut self, encoded: &[u8]) -> bool {
        self.raw(encoded);
        true
    }
}

impl<R: Buffer + ?Sized> Binary<'_, R> {
    /// A zero: branch 0 of an optional, the end of an array, an empty text.
    #[inline(always)]
    pub(super) const fn zero(&mut self) {
        self.at += 1;
    }

    /// The first `length` bytes of a block; those behind them are zeros.
    #[inline(always)]
    pub(super) fn block<const N: usize>(&mut self, block: [u8; N], length: usize) {
        match self.room.block(self.at) {
            Some(place) => {
                *place = block;
                self.at += length;
            }
            None => self.at = OVERFLOW,
        }
    }

    /// Bytes as they are.
    #[inline(always)]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        match self.room.copy(self.at, bytes) {
            Some(()) => self.at += bytes.len(),
            None => self.at = OVERFLOW,
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
pub fn push_long(out: &mut Vec<u8>, value: i64) {
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
            fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
                out.long(i64::from(*self));
            }
        })*
    };
}

integers!(u8, u16, u32, i32, i64);

impl Value for bool {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block([u8::from(*self)], 1);
    }
}

impl Value for &str {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.bytes(self.as_bytes());
    }
}

impl<V: Value> Value for Option<V> {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        match self {
            None => out.zero(),
            Some(value) => {
                out.block([2], 1);
                value.push(out);
            }
        }
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        V::flat_option(self, name, f)
    }
}

/// What a value writes.
#[cfg(test)]
pub(super) fn encoded_value(value: impl Value) -> Vec<u8> {
    struct Alone<V>(V);

    impl<V: Value> Written for Alone<V> {
        fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
            self.0.push(out);
        }
    }

    encoded(&Alone(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text and a zero behind it.
    struct Text<'a>(&'a [u8]);

    impl Written for Text<'_> {
        fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
            out.bytes(self.0);
            out.zero();
        }
    }

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
            assert_eq!(encoded_value(value), bytes);
        }
    }

    #[test]
    fn every_length_of_a_long_is_written_as_group_after_group() {
        for bits in 0..64 {
            for number in [1_u64 << bits, (1 << bits) - 1, 0x5555_5555_5555_5555 >> bits] {
                let value = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
                let mut bytes = Vec::new();
                push_long(&mut bytes, value);
                assert_eq!(encoded_value(value), bytes, "{value}");
            }
        }
    }

    #[test]
    fn room_grows_to_what_is_written_and_is_zero_again_after_it() {
        let mut rooms = Rooms::default();
        let around_usual = USUAL - 5..USUAL + LARGEST_BLOCK + 5;
        for length in [0, 1].into_iter().chain(around_usual).chain([5 * KEPT_ROOM, 3]) {
            let text = vec![b'x'; length];
            let (mut out, mut expected) = (vec![9], vec![9]);
            rooms.append(&Text(&text), &mut out);
            push_long(&mut expected, i64::try_from(length).unwrap());
            expected.extend(text);
            expected.push(0);
            assert!(out == expected, "{length}");
            assert!(rooms.usual.0.iter().all(|byte| *byte == 0), "{length}");
            assert!(rooms.large.len() <= KEPT_ROOM);
        }
    }

    #[test]
    fn blocks_beyond_the_usual_room_are_where_they_belong() {
        /// So many blocks of numbers.
        struct Blocks(usize);

        impl Written for Blocks {
            fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
                for number in 0..self.0 {
                    out.block(number.to_le_bytes(), 7);
                }
            }
        }

        let mut rooms = Rooms::default();
        for blocks in (USUAL / 7 - 2..USUAL / 7 + 5).chain([20 * USUAL, 3]) {
            let expected = (0..blocks).flat_map(|number| number.to_le_bytes().into_iter().take(7));
            let (expected, mut out) = (expected.collect::<Vec<_>>(), Vec::new());
            rooms.append(&Blocks(blocks), &mut out);
            assert!(out == expected, "{blocks}");
            assert!(rooms.usual.0.iter().all(|byte| *byte == 0), "{blocks}");
        }
    }
}
