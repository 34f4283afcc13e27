//! Avro read by fastavro: an implementation that shares nothing with the agent's.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::Value;

use crate::python::json_lines;

const SCRIPT: &str = "decode_avro.py";

/// The records of Avro object container files, in order.
///
/// # Errors
/// When fastavro cannot read them; with its message.
pub fn read_containers(paths: &[PathBuf]) -> Result<Vec<Value>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let arguments = [OsStr::new("container")].into_iter().chain(paths.iter().map(AsRef::as_ref));
    json_lines(SCRIPT, arguments, &[])
}

/// The records of messages in single-object encoding, whose fingerprint must be that of the schema
/// in the file `schema`.
///
/// # Errors
/// When fastavro cannot read one, or a fingerprint differs.
pub fn read_single_objects<'a>(
    schema: &Path,
    messages: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Value>> {
    resolve_single_objects(schema, None, messages)
}

/// Does the same as [`read_single_objects`], resolved to the schema in the file `reader`.
///
/// # Errors
/// Also when the schemas do not fit.
pub fn resolve_single_objects<'a>(
    schema: &Path,
    reader: Option<&Path>,
    messages: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Value>> {
    let arguments = [OsStr::new("single-object"), schema.as_os_str()].into_iter();
    json_lines(SCRIPT, arguments.chain(reader.map(Path::as_os_str)), &lines_of_hex(messages)?)
}

/// Does the same as [`read_single_objects`], of each record only the fields `names`: for a great many.
///
/// # Errors
/// Also when there is no such field.
pub fn read_fields<'a>(
    schema: &Path,
    names: &[&str],
    messages: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Value>> {
    let names = names.join(",");
    let arguments = [OsStr::new("fields"), schema.as_os_str(), OsStr::new(&names)];
    json_lines(SCRIPT, arguments, &lines_of_hex(messages)?)
}

fn lines_of_hex<'a>(messages: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for message in messages {
        for byte in message {
            write!(lines, "{byte:02x}")?;
        }
        lines.push(b'\n');
    }
    Ok(lines)
}
