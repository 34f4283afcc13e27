//! Opens a capture file: a path or standard input, plain or compressed, detected by its first bytes.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, ErrorKind, Read, stdin},
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::Error;

/// Size of a read from the file, in bytes.
const READ_BYTES: usize = 64 << 10;

/// Timeout of a read.
const WAIT: Duration = Duration::from_millis(50);

/// Memory limit for decompressing xz, in KiB: more than the 65 MiB of `xz -9`.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// The name of standard input.
pub const STANDARD_INPUT: &str = "-";

/// Compression of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Compression {
    /// Returns the name for messages.
    pub(super) const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Xz => Some("xz"),
        }
    }
}

/// The decompressed bytes of a file, and its compression.
pub(super) struct Input {
    pub(super) bytes: Box<dyn Read + Send>,
    pub(super) compression: Compression,
}

/// Opens `path`. `read_bytes` counts the bytes that are read from the file, before decompression.
/// Nothing more is read after `stop` is set.
pub(super) fn open(
    path: &Path,
    stop: &Arc<AtomicBool>,
    read_bytes: &Arc<AtomicU64>,
) -> Result<Input, Error> {
    let cannot_open = |cause| Error::Open { file: path.to_owned(), cause };
    let file = if path == Path::new(STANDARD_INPUT) {
        stdin().as_fd().try_clone_to_owned().map(File::from).map_err(cannot_open)?
    } else {
        File::open(path).map_err(cannot_open)?
    };
    if file.metadata().map_err(cannot_open)?.is_dir() {
        return Err(cannot_open(ErrorKind::IsADirectory.into()));
    }
    let mut raw =
        Raw { file, stop: stop.clone(), read_bytes: read_bytes.clone(), may_refuse: false };
    let first = first_bytes(&mut raw).map_err(|cause| Error::Read {
        file: path.to_owned(),
        offset: 0,
        cause,
    })?;
    let compression = match first[..] {
        // RFC 1952 §2.3.1, with the only method.
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        // RFC 8878 §3.1.1, and skippable frames, §3.1.2.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        // The .xz file format, 1.2.1, §2.1.1.1; the decoder checks the rest of the magic.
        [0xfd, b'7', b'z', b'X', ..] => Compression::Xz,
        _ => Compression::None,
    };
    // Its decoder does not continue after `WouldBlock`.
    raw.may_refuse = compression != Compression::Xz;
    let bytes = Cursor::new(first).chain(raw);
    let buffered = |bytes| BufReader::with_capacity(READ_BYTES, bytes);
    let bytes: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(bytes),
        Compression::Gzip => Box::new(MultiGzDecoder::new(buffered(bytes))),
        // Windows of up to 128 MiB, zstd's own limit.
        Compression::Zstd => {
            let decoder = zstd::Decoder::with_buffer(buffered(bytes));
            Box::new(decoder.map_err(cannot_open)?)
        }
        Compression::Xz => Box::new(XzReader::new_mem_limit(buffered(bytes), true, XZ_MEMORY_KIB)),
    };
    Ok(Input { bytes, compression })
}

/// Reads enough bytes to detect the compression.
fn first_bytes(raw: &mut Raw) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(4);
    raw.take(4).read_to_end(&mut first)?;
    Ok(first)
}

/// A file whose reads end after [`WAIT`], so that the reader of a pipe can do something else meanwhile,
/// and can be stopped.
struct Raw {
    file: File,
    stop: Arc<AtomicBool>,
    read_bytes: Arc<AtomicU64>,
    /// Set if a read may end with [`ErrorKind::WouldBlock`].
    may_refuse: bool,
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.load(Ordering::Acquire) {
                return Err(io::Error::other("stopped"));
            }
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(WAIT).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, timeout) {
                Ok(0) if self.may_refuse => return Err(ErrorKind::WouldBlock.into()),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let read = self.file.read(buffer)?;
        self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
