//! Capture files through the same stages as captured packets.
//!
//! ```text
//!  file │ stdin ─▶ input: plain, gzip, zstd, xz ─▶ window ─▶ pcap │ pcapng ─▶ frame
//!  frame ─▶ link: what network packet, where? ─▶ hook: RecordHeader, counted ─▶ worker::Stages
//! ```
//!
//! Contract: whatever a file holds, nothing panics and memory stays bounded. Of a
//! file that is damaged or cut, every frame before the damage is replayed, and the [`Error`] says
//! where it is and what. A frame's number is tshark's `frame.number`.
//!
//! The two formats are read here rather than by a library. pcap-parser (0.17) needs a whole block
//! in memory to skip it, knows no obsolete packet blocks, no time resolutions in powers of two, and
//! byte order nothing of time offsets, and cannot start on a pipe that gives less than a section
//! header at first; pcap-file (3.0) loops on malformed packets. Neither tells where a file is
//! damaged.

mod bytes;
mod file;
mod hook;
mod input;
mod interfaces;
mod link;
mod order;
mod pace;
mod pcap;
mod pcapng;
mod player;
mod session;
#[cfg(test)]
mod tests;
mod window;

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
};

use tap53_ebpf::settings::Direction;

pub use file::{CaptureFile, Step};
pub use hook::FileHook;
pub use input::STANDARD_INPUT;
pub use link::Link;
pub use pace::Speed;
pub use session::{Outcome, Plan, Replay, StartError};

/// Why a file cannot be replayed, or not to its end. Each message holds its cause, so none is a
/// `source()`, which printing a chain would repeat.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened.
    #[error("{}: cannot be opened: {cause}", name(file))]
    Open {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// It cannot be read on.
    #[error("{}: cannot be read after byte {offset}: {cause}", name(file))]
    Read {
        /// The file.
        file: PathBuf,
        /// Bytes read before.
        offset: u64,
        /// What the operating system said.
        cause: io::Error,
    },
    /// It is not a capture file, or of a kind that is not read.
    #[error("{}: {what}", name(file))]
    Refused {
        /// The file.
        file: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// It is damaged or cut.
    #[error("{}: damaged at byte {offset}{}: {what} ({})", name(file), of_stream(*compression), after(*frames))]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where, in the capture, which is compressed in the file where `compression` is given.
        offset: u64,
        /// How the file is compressed.
        compression: Option<&'static str>,
        /// Frames before the damage.
        frames: u64,
        /// What is wrong.
        what: String,
    },
}

/// How a file is called in messages.
fn name(file: &std::path::Path) -> String {
    match file.to_str() {
        Some(STANDARD_INPUT) => "standard input".to_owned(),
        _ => file.display().to_string(),
    }
}

/// The last part of a path, which a file is called by in records and in the ledger.
fn file_name(file: &std::path::Path) -> String {
    match file.to_str() {
        Some(STANDARD_INPUT) => "standard input".to_owned(),
        _ => file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(),
    }
}

fn of_stream(compression: Option<&'static str>) -> String {
    compression.map_or_else(String::new, |name| format!(" of what {name} has compressed"))
}

fn after(frames: u64) -> String {
    match frames {
        0 => "no frame before it".to_owned(),
        1 => "the frame before it was replayed".to_owned(),
        _ => format!("the {frames} frames before it were replayed"),
    }
}

/// A frame of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its number in the file, from 1, as tshark's `frame.number`.
    pub number: u64,
    /// When it was captured, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Its length on the wire, bytes.
    pub original_length: u32,
    /// The bytes of it that the file holds.
    pub bytes: &'a [u8],
    /// What its first bytes are, a number of the registry
    /// "LINKTYPE" (draft-ietf-opsawg-pcaplinktype).
    pub link_type: u32,
    /// The interface that saw it.
    pub interface: InterfaceOf<'a>,
    /// Its direction at that interface, where the file tells.
    pub direction: Option<Direction>,
}

/// An interface as a file tells of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceOf<'a> {
    /// Section of the file: interfaces are numbered anew in each. 0 where there are none.
    pub section: u64,
    /// Its number in the section.
    pub number: usize,
    /// Its name, where the file tells.
    pub name: Option<&'a str>,
}

/// What a reader of a format meets.
#[derive(Debug)]
enum Fault {
    /// The bytes do not come, for whatever reason.
    Read(io::Error),
    /// The bytes are wrong, from this offset on.
    Damaged { offset: u64, what: String },
    /// A version or variant that is not known.
    Refused(String),
}

impl Fault {
    fn damaged(offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { offset, what: what.into() }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// True where a read should be tried again later.
fn must_wait(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
