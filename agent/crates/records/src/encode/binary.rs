//! Writes Avro's binary encoding without a schema.
//!
//! The bytes of a record are those of its fields in sequence (Avro 1.12, "Binary Encoding").
//! [`Record`](super::Record) lists the fields in the schema's order, so no lookup is needed. Values
//! that many records share are encoded once: node and interface, the owner of an address,
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
//! The cost is not in bytes but in steps that wait for the previous one, and in copies whose size
//! is unknown at compile time. So a record is written into a buffer of zeros: absent, false or
//! empty values are skipped. Short texts are written as a block of constant size, and the next
//! field overwrites its end. Overflow is checked once, at the end, and a record that did not fit is
//! written again to a larger buffer: a check at each of a hundred fields would be a quarter of all
//! instructions. Everything here is inlined into one function, so that the position stays in a
//! register; passing a [`Binary`] to a separate function costs half as much again.

use std::convert::Infallible;

use super::fields::{Fields, Value};

/// Size of the buffer for a record of usual size in bytes: a power of two.
const USUAL_SIZE: usize = 4 * 1_024;

/// Size of the largest block in bytes.
const LARGEST_BLOCK: usize = 16;

/// Maximum size in bytes of the large buffer that is kept for the next large record.
const MAX_KEPT_BUFFER: usize = 64 * 1_024;

/// Branch 1 of an optional, as an Avro long.
pub(super) const SOME: u8 = 2;

/// A position beyond every buffer, whatever is added to it.
const OVERFLOW: usize = usize::MAX / 2;

/// A destination for encoded fields, which is bounded or grows.
pub(super) trait Buffer {
    /// Returns the destination of a block, if it fits.
    fn block<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]>;

    /// Copies `bytes` to their destination, if they fit.
    fn copy(&mut self, at: usize, bytes: &[u8]) -> Option<()>;
}

/// A buffer of constant size. A block always has a destination without a check: a block beyond the
/// end is written to the start, and the final position reveals it.
pub(super) struct FixedBuffer([u8; USUAL_SIZE + LARGEST_BLOCK]);

impl Buffer for FixedBuffer {
    #[inline(always)]
    fn block<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        self.0[at % USUAL_SIZE..].first_chunk_mut()
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

/// A buffer that accepts everything and stores nothing: only the final position matters.
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

/// Returns the encoded size of `record` in bytes.
pub(super) fn encoded_size(record: &impl Encodable) -> usize {
    let mut nothing = Measure([0; LARGEST_BLOCK]);
    let mut binary = Binary::new(&mut nothing);
    record.write(&mut binary);
    binary.at
}

/// Writes fields in sequence. A field that does not fit is not written, or to another place.
pub(super) struct Binary<'a, R: Buffer + ?Sized> {
    /// Zeros from `at` on.
    buffer: &'a mut R,
    at: usize,
}

impl<'a, R: Buffer + ?Sized> Binary<'a, R> {
    /// Creates a writer at the start of a buffer.
    #[inline(always)]
    const fn new(buffer: &'a mut R) -> Self {
        Self { buffer, at: 0 }
    }
}

/// A value that can be written to any buffer, such as a record.
pub(super) trait Encodable {
    /// Writes all fields.
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>);
}

/// The buffers that records are written to before they are appended to a batch. They contain only
/// zeros between two records.
pub(super) struct RecordBuffers {
    usual: Box<FixedBuffer>,
    large: Vec<u8>,
}

impl Default for RecordBuffers {
    fn default() -> Self {
        Self { usual: Box::new(FixedBuffer([0; USUAL_SIZE + LARGEST_BLOCK])), large: Vec::new() }
    }
}

impl RecordBuffers {
    /// Appends a record to `out`.
    #[inline(always)]
    pub(super) fn append(&mut self, record: &impl Encodable, out: &mut Vec<u8>) {
        let mut binary = Binary::new(&mut *self.usual);
        record.write(&mut binary);
        let end = binary.at;
        if let Some(written) = self.usual.0.get_mut(..end).filter(|_| end <= USUAL_SIZE) {
            out.extend_from_slice(written);
            written.fill(0);
        } else {
            self.usual.0.fill(0);
            self.append_large(record, out);
        }
    }

    #[cold]
    fn append_large(&mut self, record: &impl Encodable, out: &mut Vec<u8>) {
        let mut size = self.large.len().max(2 * USUAL_SIZE);
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
        if size > MAX_KEPT_BUFFER {
            self.large = Vec::new();
        }
    }
}

/// Returns the encoding of `record`.
pub(super) fn encoded(record: &impl Encodable) -> Vec<u8> {
    let mut out = Vec::new();
    RecordBuffers::default().append(record, &mut out);
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
    fn nulls(&mut self, names: &[&'static str]) -> Result<(), Infallible> {
        self.at += names.len();
        Ok(())
    }

    #[inline(always)]
    fn accept_encoded(&mut self, encoded: &[u8]) -> bool {
        self.raw(encoded);
        true
    }
}

impl<R: Buffer + ?Sized> Binary<'_, R> {
    /// Writes a zero: branch 0 of an optional, the end of an array, an empty text.
    #[inline(always)]
    pub(super) const fn zero(&mut self) {
        self.at += 1;
    }

    /// Writes branch 1 of an optional.
    #[inline(always)]
    pub(super) fn some(&mut self) {
        self.block([SOME], 1);
    }

    /// Writes the first `length` bytes of a block; its other bytes must be zeros.
    #[inline(always)]
    pub(super) fn block<const N: usize>(&mut self, block: [u8; N], length: usize) {
        match self.buffer.block(self.at) {
            Some(place) => {
                *place = block;
                self.at += length;
            }
            None => self.at = OVERFLOW,
        }
    }

    /// Writes bytes unchanged.
    #[inline(always)]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        match self.buffer.copy(self.at, bytes) {
            Some(()) => self.at += bytes.len(),
            None => self.at = OVERFLOW,
        }
    }

    /// Writes an Avro int or long.
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

    /// Writes the number of a block's items, or a length.
    #[inline(always)]
    pub(super) fn length(&mut self, length: usize) {
        // No slice is longer than isize::MAX.
        self.long(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// Writes an array of less than 64 items, which `write_items` writes and counts. Their number precedes
    /// them, and is written last: so they are not counted first, which takes as long as to find them.
    #[inline(always)]
    pub(super) fn items(&mut self, write_items: impl FnOnce(&mut Self) -> u8) {
        let count_at = self.at;
        self.zero();
        let count = write_items(self);
        if count > 0 {
            if let Some(place) = self.buffer.block(count_at) {
                *place = [count << 1];
            }
            self.zero();
        }
    }

    /// Writes an Avro string or bytes.
    #[inline(always)]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        // Names and addresses, mostly.
        match bytes.len() {
            4..=7 => self.halves::<4>(bytes),
            8..=16 => self.halves::<8>(bytes),
            17..=32 => self.halves::<16>(bytes),
            length => {
                self.length(length);
                self.raw(bytes);
            }
        }
    }

    /// Writes `N` to `2 * N` bytes and their number, as two blocks that may overlap: a copy of unknown size
    /// takes longer.
    #[inline(always)]
    fn halves<const N: usize>(&mut self, bytes: &[u8]) {
        let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
            return;
        };
        // A number below 64 takes one byte.
        self.block([bytes.len().to_le_bytes()[0] << 1], 1);
        self.block(*first, bytes.len() - N);
        self.block(*last, N);
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

/// Returns the varint of a number below 2⁵⁶ and its length: all groups of seven bits are moved to
/// their bytes at once, by halves, quarters and eighths.
#[inline(always)]
const fn groups_of_seven(number: u64) -> (u64, usize) {
    let halves = number & 0x0fff_ffff | (number & 0x00ff_ffff_f000_0000) << 4;
    let quarters = halves & 0x0000_3fff_0000_3fff | (halves & 0x0fff_c000_0fff_c000) << 2;
    let eighths = quarters & 0x007f_007f_007f_007f | (quarters & 0x3f80_3f80_3f80_3f80) << 1;
    let behind_first = (number | 1).ilog2() / 7;
    let goes_on = 0x8080_8080_8080_8080 & ((1 << (8 * behind_first)) - 1);
    (eighths | goes_on, behind_first as usize + 1)
}

/// Returns the varint of any number, and its length: 64 bits take at most ten groups of seven.
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

    #[inline(always)]
    fn push_some<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block([SOME, u8::from(*self)], 2);
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
            Some(value) => value.push_some(out),
        }
    }

    fn is_absent(&self) -> bool {
        self.as_ref().is_none_or(V::is_absent)
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        V::flat_option(self, name, f)
    }
}

/// Returns the encoding of a value.
#[cfg(test)]
pub(super) fn encoded_value(value: impl Value) -> Vec<u8> {
    struct SingleItem<V>(V);

    impl<V: Value> Encodable for SingleItem<V> {
        fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
            self.0.push(out);
        }
    }

    encoded(&SingleItem(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text and a zero after it.
    struct Text<'a>(&'a [u8]);

    impl Encodable for Text<'_> {
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
    fn texts_of_every_length_are_their_length_and_their_bytes() {
        for length in 0_u8..100 {
            let text: Vec<u8> = (1..=length).collect();
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            RecordBuffers::default().append(&Text(&text), &mut out);
            push_long(&mut expected, length.into());
            expected.extend(&text);
            expected.push(0);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn buffers_grow_as_needed_and_are_zero_afterwards() {
        let mut buffers = RecordBuffers::default();
        let around_usual = USUAL_SIZE - 5..USUAL_SIZE + LARGEST_BLOCK + 5;
        for length in [0, 1].into_iter().chain(around_usual).chain([5 * MAX_KEPT_BUFFER, 3]) {
            let text = vec![b'x'; length];
            let (mut out, mut expected) = (vec![9], vec![9]);
            buffers.append(&Text(&text), &mut out);
            push_long(&mut expected, i64::try_from(length).unwrap());
            expected.extend(text);
            expected.push(0);
            assert!(out == expected, "{length}");
            assert!(buffers.usual.0.iter().all(|byte| *byte == 0), "{length}");
            assert!(buffers.large.len() <= MAX_KEPT_BUFFER);
        }
    }

    #[test]
    fn blocks_beyond_the_usual_buffer_are_in_place() {
        /// A number of blocks of numbers.
        struct Blocks(usize);

        impl Encodable for Blocks {
            fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
                for number in 0..self.0 {
                    out.block(number.to_le_bytes(), 7);
                }
            }
        }

        let mut buffers = RecordBuffers::default();
        for blocks in (USUAL_SIZE / 7 - 2..USUAL_SIZE / 7 + 5).chain([20 * USUAL_SIZE, 3]) {
            let expected = (0..blocks).flat_map(|number| number.to_le_bytes().into_iter().take(7));
            let (expected, mut out) = (expected.collect::<Vec<_>>(), Vec::new());
            buffers.append(&Blocks(blocks), &mut out);
            assert!(out == expected, "{blocks}");
            assert!(buffers.usual.0.iter().all(|byte| *byte == 0), "{blocks}");
        }
    }
}
