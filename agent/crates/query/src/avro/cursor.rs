//! Reads the primitive types of Avro's binary encoding.

/// The data does not fit its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data do not fit the schema: {0}")]
pub struct Damaged(pub &'static str);

/// The rest of a block of data.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the bytes that were not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the next `length` bytes.
    ///
    /// # Errors
    /// When there are fewer.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Damaged("they are cut"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads an int or long: zigzag, 7 bits in a byte, the lowest first.
    ///
    /// # Errors
    /// When it is cut or longer than 64 bits.
    #[inline]
    pub fn long(&mut self) -> Result<i64, Damaged> {
        // Most are indexes of unions and symbols, and lengths.
        if let [byte @ 0..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(zigzag(u64::from(*byte)));
        }
        self.long_of_many()
    }

    fn long_of_many(&mut self) -> Result<i64, Damaged> {
        let mut value = 0u64;
        for (number, byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if number == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * number);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[number + 1..];
                return Ok(zigzag(value));
            }
        }
        Err(Damaged("a number is cut or too long"))
    }

    /// Reads a length or an index.
    ///
    /// # Errors
    /// When it is negative, or not a number.
    #[inline]
    pub fn length(&mut self) -> Result<usize, Damaged> {
        usize::try_from(self.long()?).map_err(|_| Damaged("a length is negative"))
    }

    /// Reads bytes after their length.
    ///
    /// # Errors
    /// When they are cut.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.length()?;
        self.take(length)
    }

    /// Reads a string.
    ///
    /// # Errors
    /// When it is cut or not UTF-8.
    #[inline]
    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        str::from_utf8(self.bytes()?).map_err(|_| Damaged("a string is not UTF-8"))
    }

    /// Reads a boolean.
    ///
    /// # Errors
    /// When it is cut, or neither 0 nor 1.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool, Damaged> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Damaged("a boolean is neither 0 nor 1")),
        }
    }

    /// Reads the header of a part of an array or map: the number of its items, 0 at the end.
    ///
    /// # Errors
    /// When there cannot be as many items in the rest of the data.
    #[inline]
    pub fn items(&mut self) -> Result<usize, Damaged> {
        let mut count = self.long()?;
        if count < 0 {
            // The size of the part follows, so that readers can skip it.
            self.long()?;
            count = count.checked_neg().ok_or(Damaged("a number of items is too large"))?;
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        // An item has a byte at least: schemas with others are refused.
        if count > self.rest.len() {
            return Err(Damaged("a number of items is larger than the rest of the data"));
        }
        Ok(count)
    }
}

#[inline]
const fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
