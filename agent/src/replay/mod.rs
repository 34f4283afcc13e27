//! Replays capture files through the same stages as captured packets.
//!
//! ```text
//!  file │ stdin ─▶ input: plain, gzip, zstd, xz ─▶ window ─▶ pcap │ pcapng ─▶ frame
//!  frame ─▶ link: start of the network packet ─▶ hook: RecordHeader, counted ─▶ worker::Stages
//! ```
//!
//! Contract: whatever a file contains, nothing panics and memory stays bounded. If a file is damaged or
//! cut, every frame before the damage is replayed, and the [`Error`] has its position and kind. A
//! frame's number is tshark's `frame.number`.
//!
//! The two formats are parsed here rather than by a library. pcap-parser (0.17) needs a whole block in
//! memory to skip it, does not support obsolete packet blocks, time resolutions in powers of two or time
//! offsets, and cannot start on a pipe that gives less than a section header at first; pcap-file (3.0)
//! loops on malformed packets. Neither reports the position of damage.

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

use crate::tail::Refusal;

pub use file::{CaptureFile, Step};
pub use hook::FileHook;
pub use input::STANDARD_INPUT;
pub use link::Link;
pub use pace::Speed;
pub use session::{Ending, Outcome, Plan, Replay, StartError};

/// An error of reading a file. Each message includes its cause, so `source()` does not return it again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("{}: cannot be opened: {cause}", name(file))]
    Open {
        /// The file.
        file: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The file cannot be read.
    #[error("{}: cannot be read after byte {offset}: {cause}", name(file))]
    Read {
        /// The file.
        file: PathBuf,
        /// Number of bytes read before.
        offset: u64,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The file is no capture file, or of an unsupported kind.
    #[error("{}: {what}", name(file))]
    Refused {
        /// The file.
        file: PathBuf,
        /// Description of the file.
        what: String,
    },
    /// The file is damaged or cut.
    #[error("{}: damaged at byte {offset}{}: {what} ({})", name(file), of_stream(*compression), after(*frames))]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Offset in bytes, in the decompressed capture.
        offset: u64,
        /// Compression of the file.
        compression: Option<&'static str>,
        /// Number of frames before the damage.
        frames: u64,
        /// Description of the damage.
        what: String,
    },
    /// No interface of the files is selected.
    #[error(transparent)]
    Selection(#[from] Refusal),
}

/// Returns the name of a file for messages.
fn name(file: &std::path::Path) -> String {
    match file.to_str() {
        Some(STANDARD_INPUT) => "standard input".to_owned(),
        _ => file.display().to_string(),
    }
}

/// Returns the last part of a path, which is the file's name in records and in the ledger.
fn file_name(file: &std::path::Path) -> String {
    match file.to_str() {
        Some(STANDARD_INPUT) => "standard input".to_owned(),
        _ => file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(),
    }
}

fn of_stream(compression: Option<&'static str>) -> String {
    compression.map_or_else(String::new, |name| format!(" of the stream that {name} decompressed"))
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
    /// Number in the file, from 1, as tshark's `frame.number`.
    pub number: u64,
    /// Capture time in nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Length on the wire in bytes.
    pub original_length: u32,
    /// Captured bytes.
    pub bytes: &'a [u8],
    /// Link type, a number of the registry "LINKTYPE" (draft-ietf-opsawg-pcaplinktype).
    pub link_type: u32,
    /// Interface at which the frame was captured.
    pub interface: InterfaceOf<'a>,
    /// Direction at that interface, if the file has it.
    pub direction: Option<Direction>,
}

/// An interface of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceOf<'a> {
    /// Section of the file, each of which has its own numbers; 0 in a format without sections.
    pub section: u64,
    /// Number in the section.
    pub number: usize,
    /// Name, if the file has it.
    pub name: Option<&'a str>,
}

/// An error of a format's reader.
#[derive(Debug)]
enum Fault {
    /// Reading failed.
    Read(io::Error),
    /// The bytes at this offset are invalid.
    Damaged { offset: u64, what: String },
    /// The version or variant is not supported.
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

/// Returns true if a read should be tried again later.
fn must_wait(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
