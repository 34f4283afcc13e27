//! Reads Avro object container files, block by block, without decoding the data in them.

use std::io::{self, ErrorKind, Read};

use flate2::read::DeflateDecoder;

use super::{Cursor, Shape, ShapeError};

/// First bytes of a file.
pub const MAGIC: &[u8; 4] = b"Obj\x01";

/// Maximum size of a block in bytes, compressed and decompressed. Sinks write blocks of about 1 MiB.
pub const MAX_BLOCK_BYTES: usize = 256 << 20;

/// Maximum size of the metadata in bytes, of which the schema is the largest part.
const MAX_METADATA_BYTES: usize = 16 << 20;

/// Size of the marker at the end of each block.
const MARKER: usize = 16;

/// The reason why a file cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The file ends inside of its header or of a block.
    #[error("cut at byte {0}: its writer was stopped, or the copy is incomplete")]
    Cut(u64),
    /// The file is damaged.
    #[error("damaged before byte {at}: {what}")]
    Damaged {
        /// Position in bytes.
        at: u64,
        /// Description.
        what: String,
    },
    /// The codec is not supported.
    #[error("is compressed with {0}, which is not supported; null, deflate and zstandard are")]
    Codec(String),
    /// The schema is not supported.
    #[error(transparent)]
    Schema(#[from] ShapeError),
}

#[derive(Clone, Copy, Debug)]
enum Codec {
    Null,
    Deflate,
    Zstandard,
}

/// An open file.
#[derive(Debug)]
pub struct Container<R> {
    input: R,
    offset: u64,
    name: String,
    shape: Shape,
    codec: Codec,
    marker: [u8; MARKER],
    compressed: Vec<u8>,
}

impl<R: Read> Container<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(input: R) -> Result<Self, Error> {
        let mut bytes = Bytes { input, offset: 0 };
        if bytes.array::<4>()? != *MAGIC {
            return Err(bytes.damaged("it is no Avro object container"));
        }
        let (schema, codec) = metadata(&mut bytes)?;
        let marker = bytes.array()?;
        let (name, shape) = Shape::parse(&schema)?;
        let Bytes { input, offset } = bytes;
        Ok(Self { input, offset, name, shape, codec, marker, compressed: Vec::new() })
    }

    /// Returns the full name of the records.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the shape of the records.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Reads the next block into `block`; returns the number of its records, or `None` at the end of the
    /// file.
    ///
    /// # Errors
    /// See [`Error`]. The blocks before are whole.
    pub fn next_block(&mut self, block: &mut Vec<u8>) -> Result<Option<u64>, Error> {
        let mut bytes = Bytes { input: &mut self.input, offset: self.offset };
        let Some(records) = bytes.long_or_end()? else { return Ok(None) };
        let length = bytes.long()?;
        let records = u64::try_from(records).ok();
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_BLOCK_BYTES);
        let (Some(records), Some(length)) = (records, length) else {
            return Err(
                bytes.damaged("the header of a block is invalid, or the block is too large")
            );
        };
        bytes.fill(&mut self.compressed, length)?;
        if bytes.array()? != self.marker {
            return Err(bytes.damaged("a block does not end with the file's marker"));
        }
        block.clear();
        if let Err(error) = self.codec.decompress(&mut self.compressed, block) {
            return Err(bytes.damaged(&format!("a block cannot be decompressed: {error}")));
        }
        // A record has a byte at least, so the count costs no time that the file has no bytes for.
        if records > block.len() as u64 {
            return Err(bytes.damaged("a block has fewer bytes than records"));
        }
        self.offset = bytes.offset;
        Ok(Some(records))
    }
}

impl Codec {
    fn of(name: &[u8]) -> Result<Self, Error> {
        match name {
            b"null" | b"" => Ok(Self::Null),
            b"deflate" => Ok(Self::Deflate),
            b"zstandard" => Ok(Self::Zstandard),
            _ => Err(Error::Codec(String::from_utf8_lossy(name).into_owned())),
        }
    }

    /// Decompresses; takes the bytes as they are if they are not compressed.
    fn decompress(self, compressed: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        let limit = MAX_BLOCK_BYTES as u64 + 1;
        match self {
            Self::Null => std::mem::swap(compressed, out),
            Self::Deflate => {
                DeflateDecoder::new(&compressed[..]).take(limit).read_to_end(out)?;
            }
            Self::Zstandard => {
                zstd::Decoder::new(&compressed[..])?.take(limit).read_to_end(out)?;
            }
        }
        match out.len() > MAX_BLOCK_BYTES {
            true => Err(io::Error::other("it is too large")),
            false => Ok(()),
        }
    }
}

/// Reads the metadata; returns the schema and the codec.
fn metadata<R: Read>(bytes: &mut Bytes<R>) -> Result<(String, Codec), Error> {
    let (mut schema, mut codec) = (None, Codec::Null);
    let mut size = 0;
    loop {
        let mut count = bytes.long()?;
        if count == 0 {
            break;
        }
        if count < 0 {
            bytes.long()?;
            count = count.saturating_neg();
        }
        for _ in 0..count {
            let (key, value) = (bytes.metadatum(&mut size)?, bytes.metadatum(&mut size)?);
            match key.as_slice() {
                b"avro.schema" => schema = Some(value),
                b"avro.codec" => codec = Codec::of(&value)?,
                _ => {}
            }
        }
    }
    let schema = schema.and_then(|schema| String::from_utf8(schema).ok());
    let schema = schema.ok_or_else(|| bytes.damaged("its header has no schema"))?;
    Ok((schema, codec))
}

/// Input with its position.
struct Bytes<R> {
    input: R,
    offset: u64,
}

impl<R: Read> Bytes<R> {
    fn damaged(&self, what: &str) -> Error {
        Error::Damaged { at: self.offset, what: what.to_owned() }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        match self.input.read_exact(&mut array) {
            Ok(()) => self.offset += N as u64,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(Error::Cut(self.offset));
            }
            Err(error) => return Err(Error::Read(error)),
        }
        Ok(array)
    }

    /// Reads `length` bytes; memory grows only with bytes that exist.
    fn fill(&mut self, out: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        out.clear();
        let read = (&mut self.input).take(length as u64).read_to_end(out);
        self.offset += read.map_err(Error::Read)? as u64;
        match out.len() == length {
            true => Ok(()),
            false => Err(Error::Cut(self.offset)),
        }
    }

    fn metadatum(&mut self, size: &mut usize) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(self.long()?).unwrap_or(usize::MAX);
        // Also entries without content end at some time.
        *size = size.saturating_add(length).saturating_add(1);
        if *size > MAX_METADATA_BYTES {
            return Err(self.damaged("its header is too large"));
        }
        let mut datum = Vec::new();
        self.fill(&mut datum, length)?;
        Ok(datum)
    }

    fn long(&mut self) -> Result<i64, Error> {
        self.long_or_end()?.ok_or(Error::Cut(self.offset))
    }

    /// Reads a long, or returns `None` at the end of the file.
    fn long_or_end(&mut self) -> Result<Option<i64>, Error> {
        let (mut number, mut length) = ([0; 10], 0);
        loop {
            match self.array::<1>() {
                Ok([byte]) => number[length] = byte,
                Err(Error::Cut(_)) if length == 0 => return Ok(None),
                Err(error) => return Err(error),
            }
            length += 1;
            if number[length - 1] & 0x80 == 0 || length == number.len() {
                break;
            }
        }
        match Cursor::new(&number[..length]).long() {
            Ok(number) => Ok(Some(number)),
            Err(error) => Err(self.damaged(error.0)),
        }
    }
}
