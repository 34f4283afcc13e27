//! A buffer over a stream of bytes that contains one block of a capture file at a time.

use std::io::{self, ErrorKind, Read};

/// Initial size of the buffer in bytes: many usual frames.
const INITIAL_BYTES: usize = 64 << 10;

/// Maximum size of a block in bytes, which limits the buffer; Wireshark has the same limit for a pcapng
/// block. Blocks that are not parsed are skipped, whatever their length.
pub(super) const MAX_RECORD_BYTES: usize = 16 << 20;

/// A stream and the buffered part of it.
///
/// The buffer grows with the bytes that exist, never to a length that a file only claims. An error loses
/// nothing: after [`ErrorKind::WouldBlock`] the same call continues.
pub(super) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset of `start` in the stream.
    offset: u64,
    /// Number of bytes still to be skipped.
    to_skip: u64,
    /// Number of bytes that were moved within the buffer, or with it.
    moved: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; INITIAL_BYTES],
            start: 0,
            end: 0,
            offset: 0,
            to_skip: 0,
            moved: 0,
        }
    }

    /// Returns the offset in the stream of the next byte.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the number of bytes that were moved so far, each at most twice.
    pub(super) const fn moved(&self) -> u64 {
        self.moved
    }

    /// Reads until `length` bytes are buffered, at most [`MAX_RECORD_BYTES`]; returns false if the stream
    /// ends before.
    pub(super) fn fill(&mut self, length: usize) -> io::Result<bool> {
        debug_assert!(length <= MAX_RECORD_BYTES);
        loop {
            self.drop_skipped();
            if self.to_skip == 0 && self.end - self.start >= length {
                return Ok(true);
            }
            if self.end == self.buffer.len() {
                self.make_room();
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the buffered bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes `length` of the buffered bytes.
    pub(super) fn take(&mut self, length: usize) -> &[u8] {
        let taken = self.start..(self.start + length).min(self.end);
        self.offset += taken.len() as u64;
        self.start = taken.end;
        &self.buffer[taken]
    }

    /// Skips the next `length` bytes, buffered or not.
    pub(super) fn skip(&mut self, length: u64) {
        self.to_skip += length;
        self.drop_skipped();
    }

    /// Returns true while bytes to be skipped have not arrived yet.
    pub(super) const fn is_skipping(&self) -> bool {
        self.to_skip > 0
    }

    fn drop_skipped(&mut self) {
        let there = self.end - self.start;
        let dropped = usize::try_from(self.to_skip).map_or(there, |wanted| wanted.min(there));
        self.take(dropped);
        self.to_skip -= dropped as u64;
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.moved += (self.end - self.start) as u64;
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else {
            // Full of one block that is not complete yet.
            self.moved += self.buffer.len() as u64;
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte for each call, and `WouldBlock` for every other call.
    struct Trickle<'a> {
        bytes: &'a [u8],
        refuse: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.refuse = !self.refuse;
            if self.refuse {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.bytes.read(&mut buffer[..1])
        }
    }

    fn until_there<R: Read>(window: &mut Window<R>, length: usize) -> bool {
        loop {
            match window.fill(length) {
                Ok(there) => return there,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }

    #[test]
    fn a_stream_that_would_block_loses_nothing() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut window = Window::new(Trickle { bytes: &bytes, refuse: false });
        assert!(until_there(&mut window, 3));
        assert_eq!(window.take(3), [0, 1, 2]);
        window.skip(200);
        assert!(until_there(&mut window, 1));
        assert_eq!((window.offset(), window.take(1)), (203, &[203][..]));
        assert!(until_there(&mut window, 52));
        assert!(!until_there(&mut window, 53));
        assert_eq!(window.take(52).last(), Some(&255));
        assert_eq!(window.offset(), 256);
    }

    #[test]
    fn memory_grows_with_existing_bytes_and_not_with_claimed_lengths() {
        let mut window = Window::new(&[7u8; 1000][..]);
        assert!(!window.fill(MAX_RECORD_BYTES).unwrap());
        assert_eq!(window.buffer.len(), INITIAL_BYTES);
        window.skip(u64::MAX / 2);
        assert!(!window.fill(1).unwrap());
        assert_eq!(window.buffer.len(), INITIAL_BYTES);
    }

    #[test]
    fn a_block_longer_than_the_buffer_is_complete() {
        let bytes = vec![9; INITIAL_BYTES * 3];
        let mut window = Window::new(&bytes[..]);
        window.fill(10).unwrap();
        window.take(10);
        assert!(window.fill(INITIAL_BYTES * 2).unwrap());
        assert_eq!(window.take(INITIAL_BYTES * 2).len(), INITIAL_BYTES * 2);
    }
}
