//! A capture file of either format.

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
    /// Frames so far.
    frames: u64,
}

enum Format {
    /// Too few bytes so far to tell.
    Unknown,
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// What came of looking for the next frame.
#[derive(Debug)]
pub enum Step<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// None yet: whoever writes the file, or the pipe, takes his time. Try again.
    Waiting,
    /// None any more.
    End,
}

impl CaptureFile {
    /// Opens `path`, or standard input for `-`. The bytes read are added to `read_bytes`, as they
    /// are in the file; reading fails once `stop` is set.
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

    /// Work so far: blocks and options looked at, and bytes moved to read them. At most
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

    /// The most that [`steps`](Self::steps) may be by now, whatever the file holds: three for each
    /// byte that was taken or is there, decompressed, and one for each of a buffer of 64 KiB.
    #[must_use]
    pub fn most_steps(&self) -> u64 {
        3 * (self.window.offset() + self.window.bytes().len() as u64) + (64 << 10)
    }

    /// The next frame.
    ///
    /// # Errors
    /// All but [`Error::Open`]. Nothing more can be read after one.
    pub fn step(&mut self) -> Result<Step<'_>, Error> {
        let frames = self.frames;
        // The borrow of a frame that is returned would last in the other arms too.
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

/// Tells the format by the first bytes, and reads a pcap file's header.
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
                "holds frames of link type {}, which is not read; {READ_LINK_TYPES} are",
                link::describe(pcap.link_type())
            )));
        }
        return Ok(Format::Pcap(pcap));
    }
    Err(Fault::Refused(foreign(magic)))
}

/// What a file is that is neither pcap nor pcapng.
fn foreign(magic: [u8; 4]) -> String {
    if let Some(variant) = Pcap::recognise_variant(magic) {
        return format!("is {variant}, which is not read; `editcap -F pcap` converts it");
    }
    let known = match magic {
        [b'B', b'Z', b'h', _] => Some("bzip2"),
        [0x04, 0x22, 0x4d, 0x18] => Some("lz4"),
        [b'P', b'K', 3, 4] => Some("zip"),
        _ => None,
    };
    if let Some(compression) = known {
        return format!("is compressed by {compression}, which is not read; gzip, zstd and xz are");
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
        // The operating system did not say this, so whoever decompresses did.
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
