//! Reads a capture file of either format.

use std::{
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use super::{
    Error, Fault, Frame,
    input::{self, Compression},
    link::{self, LinkType, READ_LINK_TYPES},
    must_wait,
    pcap::Pcap,
    pcapng::{self, PcapNg},
    window::Window,
};

/// An open capture file.
pub struct CaptureFile {
    path: PathBuf,
    window: Window<Box<dyn Read + Send>>,
    compression: Compression,
    format: Format,
    /// Number of frames so far.
    frames: u64,
}

enum Format {
    /// Too few bytes so far to detect the format.
    Unknown,
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// Result of reading the next frame.
#[derive(Debug)]
pub enum Step<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// No frame yet: the writer of the file or pipe has not written one. Try again.
    Waiting,
    /// The end of the file.
    End,
}

impl CaptureFile {
    /// Opens `path`, or standard input for `-`. `read_bytes` counts the bytes that are read, in the
    /// form that they have in the file. Reading fails after `stop` is set.
    ///
    /// # Errors
    /// [`Error::Open`] and [`Error::Read`].
    pub fn open(
        path: &Path,
        stop: &Arc<AtomicBool>,
        read_bytes: &Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        let input = input::open(path, stop, read_bytes)?;
        Ok(Self {
            path: path.to_owned(),
            window: Window::new(input.bytes),
            compression: input.compression,
            format: Format::Unknown,
            frames: 0,
        })
    }

    /// Returns the work so far: blocks and options parsed, and bytes moved to read them. At most
    /// [`most_steps`](Self::most_steps).
    #[must_use]
    pub fn steps(&self) -> u64 {
        let steps = match &self.format {
            Format::PcapNg(pcapng) => pcapng.steps(),
            Format::Pcap(_) => self.frames,
            Format::Unknown => 0,
        };
        steps + self.window.moved()
    }

    /// Returns the maximum of [`steps`](Self::steps) by now, whatever the file contains: three for each
    /// decompressed byte that was taken or is buffered, and one for each byte of a buffer of 64 KiB.
    #[must_use]
    pub fn most_steps(&self) -> u64 {
        3 * (self.window.offset() + self.window.bytes().len() as u64) + (64 << 10)
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// All but [`Error::Open`]. Nothing can be read after an error.
    pub fn step(&mut self) -> Result<Step<'_>, Error> {
        let frames = self.frames;
        // The borrow of a returned frame would extend to the other arms.
        let (path, compression) = (&self.path, self.compression);
        let offset = self.window.offset();
        let step = advance(&mut self.format, &mut self.window);
        match step {
            Ok(Some(frame)) => {
                self.frames = frame.number;
                Ok(Step::Frame(frame))
            }
            Ok(None) => Ok(Step::End),
            Err(Fault::Read(error)) if must_wait(&error) => Ok(Step::Waiting),
            Err(fault) => Err(error(path, compression, frames, offset, fault)),
        }
    }
}

type Bytes = Window<Box<dyn Read + Send>>;

fn advance<'a>(format: &'a mut Format, window: &'a mut Bytes) -> Result<Option<Frame<'a>>, Fault> {
    if matches!(format, Format::Unknown) {
        *format = recognise(window)?;
    }
    match format {
        Format::Pcap(pcap) => pcap.next(window),
        Format::PcapNg(pcapng) => pcapng.next(window),
        Format::Unknown => Ok(None),
    }
}

/// Detects the format from the first bytes, and reads the header of a pcap file.
fn recognise(window: &mut Bytes) -> Result<Format, Fault> {
    if !window.fill(4)? {
        return Err(Fault::Refused(match window.bytes().len() {
            0 => "is empty".to_owned(),
            length => format!("is too short for a capture file: {length} bytes"),
        }));
    }
    let magic = window.bytes().first_chunk::<4>().copied().unwrap_or_default();
    if magic == pcapng::SECTION_HEADER {
        return Ok(Format::PcapNg(PcapNg::new()));
    }
    if Pcap::recognise(magic).is_some() {
        let pcap = Pcap::open(window)?;
        if LinkType::of(pcap.link_type()).is_none() {
            return Err(Fault::Refused(format!(
                "holds frames of link type {}, which is not supported; {READ_LINK_TYPES} are",
                link::describe(pcap.link_type())
            )));
        }
        return Ok(Format::Pcap(pcap));
    }
    Err(Fault::Refused(foreign(magic)))
}

/// Describes a file that is neither pcap nor pcapng.
fn foreign(magic: [u8; 4]) -> String {
    if let Some(variant) = Pcap::recognise_variant(magic) {
        return format!("is {variant}, which is not supported; `editcap -F pcap` converts it");
    }
    let known = match magic {
        [b'B', b'Z', b'h', _] => Some("bzip2"),
        [0x04, 0x22, 0x4d, 0x18] => Some("lz4"),
        [b'P', b'K', 3, 4] => Some("zip"),
        _ => None,
    };
    if let Some(compression) = known {
        return format!(
            "is compressed with {compression}, which is not supported; gzip, zstd and xz are"
        );
    }
    let bytes = magic.map(|byte| format!("{byte:02x}")).join(" ");
    format!("is neither pcap nor pcapng: it begins with {bytes} ({})", magic.escape_ascii())
}

fn error(path: &Path, compression: Compression, frames: u64, offset: u64, fault: Fault) -> Error {
    let file = path.to_owned();
    let compression = compression.name();
    match fault {
        Fault::Refused(what) => Error::Refused { file, what },
        Fault::Damaged { offset, what } => {
            Error::Damaged { file, offset, compression, frames, what }
        }
        // An error without an error number comes from the decompressor.
        Fault::Read(cause) if compression.is_some() && cause.raw_os_error().is_none() => {
            let what = match cause.kind() {
                ErrorKind::UnexpectedEof => "the compressed stream is cut".to_owned(),
                _ => format!("the compressed stream cannot be read: {cause}"),
            };
            Error::Damaged { file, offset, compression, frames, what }
        }
        Fault::Read(cause) => Error::Read { file, offset, cause },
    }
}
