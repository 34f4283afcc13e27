//! Captures that we make ourselves, and DNS messages as others read them.
//!
//! ```text
//!  seed ─▶ make_captures.py ─┬▶ capture files ─┬▶ tap53 replay
//!          (scapy, dnspython)│                 └▶ read_tshark.py
//!                            └▶ manifest: each message's frame, endpoints, bytes ─▶ read_dnspython.py
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{python::json_lines, scratch};

/// Captures of one seed; dropping them removes the files.
pub struct Captures {
    directory: TempDir,
    /// The created files, in order.
    pub files: Vec<Capture>,
}

/// A capture file.
#[derive(Debug)]
pub struct Capture {
    /// Path of the file.
    pub path: PathBuf,
    /// Frames in it.
    pub frames: u64,
    /// False where tshark reads something else, for a reason that `make_captures.py` states.
    pub by_tshark: bool,
    /// The messages in it.
    pub messages: Vec<MadeMessage>,
}

/// A message that was put into a capture.
#[derive(Clone, Debug)]
pub struct MadeMessage {
    /// Name of its special feature.
    pub name: String,
    /// Its bytes.
    pub wire: Vec<u8>,
    /// The frame with which it is complete, from 1.
    pub frame: u64,
    /// False if it need not be found, such as after a gap; the frame is zero then.
    pub certain: bool,
    /// The manifest's line: transport, addresses and ports, in replay's terms.
    pub line: Value,
}

impl Captures {
    /// Makes the captures of `seed`: the same ones each time.
    ///
    /// # Errors
    /// When scapy or dnspython cannot make them.
    pub fn make(seed: u64) -> Result<Self> {
        let directory = scratch::directory("captures")?;
        let seed = seed.to_string();
        json_lines("make_captures.py", [seed.as_ref(), directory.path().as_os_str()], &[])?;
        let manifest = fs::read_to_string(directory.path().join("manifest.jsonl"))?;
        let files = manifest.lines().map(|line| capture(directory.path(), line));
        Ok(Self { files: files.collect::<Result<_>>()?, directory })
    }

    /// Returns the directory of the files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn capture(directory: &Path, line: &str) -> Result<Capture> {
    let line: Value = serde_json::from_str(line)?;
    let name = line["file"].as_str().context("a file name")?;
    let messages = line["messages"].as_array().context("messages")?;
    Ok(Capture {
        path: directory.join(name),
        frames: line["frames"].as_u64().context("a number of frames")?,
        by_tshark: line["by_tshark"] == true,
        messages: messages.iter().map(made_message).collect::<Result<_>>()?,
    })
}

fn made_message(line: &Value) -> Result<MadeMessage> {
    let text = |field: &str| line[field].as_str().with_context(|| format!("no {field}: {line}"));
    Ok(MadeMessage {
        name: text("name")?.to_owned(),
        wire: from_hex(text("wire")?).context("hex")?,
        frame: line["frame"].as_u64().context("a frame number")?,
        certain: line["certain"] == true,
        line: line.clone(),
    })
}

/// The bytes of hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    });
    pairs.collect()
}

/// The messages of a capture file as tshark reads them, in order.
///
/// # Errors
/// When tshark fails.
pub fn read_by_tshark(capture: &Path) -> Result<Vec<Value>> {
    json_lines("read_tshark.py", [capture], &[])
}

/// Messages as dnspython reads them: a line for each.
///
/// # Errors
/// When the script fails.
pub fn read_by_dnspython<'a>(wires: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Value>> {
    let mut lines = String::new();
    for wire in wires {
        lines.extend(wire.iter().map(|byte| format!("{byte:02x}")));
        lines.push('\n');
    }
    let nothing: [&str; 0] = [];
    json_lines("read_dnspython.py", nothing, lines.as_bytes())
}
