//! Reads summaries and records from files: Avro object containers, and lines of JSON objects.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use apache_avro::{Reader, Schema, types::Value as AvroValue};
use serde_json::{Map, Value};

use super::{Error, Kind, Verifier};

/// First bytes of an Avro object container.
const MAGIC: &[u8] = b"Obj\x01";

/// A field that summaries have and records do not.
const OF_SUMMARIES: &str = "window_number";

/// The part of a file that one pass reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Summaries,
    Records,
}

/// Reads all summaries in `paths`, then all records; `-` is standard input, which is read once, for
/// records.
///
/// # Errors
/// When a file cannot be opened, or when there are no summaries.
pub fn read_files(verifier: &mut Verifier, paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths.iter().filter(|path| !is_stdin(path)) {
        read(verifier, path, Part::Summaries)?;
    }
    verifier.begin_records()?;
    paths.iter().try_for_each(|path| read(verifier, path, Part::Records))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn read(verifier: &mut Verifier, path: &Path, part: Part) -> Result<(), Error> {
    let failed =
        |error: io::Error| Error::File { path: path.display().to_string(), why: error.to_string() };
    let mut input: Box<dyn BufRead> = match is_stdin(path) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(path).map_err(failed)?)),
    };
    let is_container = input.fill_buf().map_err(failed)?.starts_with(MAGIC);
    match is_container {
        true => read_container(verifier, input, path, part),
        false => read_lines(verifier, input, part).map_err(failed),
    }
}

fn read_container(
    verifier: &mut Verifier,
    input: impl BufRead,
    path: &Path,
    part: Part,
) -> Result<(), Error> {
    let broken = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let reader = Reader::new(input).map_err(|error| Error::File {
        path: path.display().to_string(),
        why: error.to_string(),
    })?;
    let has_summaries = match reader.writer_schema() {
        Schema::Record(record) => record.fields.iter().any(|field| field.name == OF_SUMMARIES),
        _ => false,
    };
    if has_summaries != (part == Part::Summaries) {
        return Ok(());
    }
    let kind = match part {
        Part::Summaries => Kind::SummaryUnreadable,
        Part::Records => Kind::RecordsUnreadable,
    };
    for value in reader {
        // After a damaged block the start of the next one is unknown.
        match value
            .map_err(|error| broken(&error))
            .and_then(|value| to_json(value).map_err(|why| broken(&why)))
        {
            Err(why) => {
                verifier.unreadable(kind, &why);
                break;
            }
            Ok(value) if part == Part::Summaries => verifier.add_summary(&value),
            Ok(value) => verifier.add_record(&value),
        }
    }
    Ok(())
}

fn read_lines(verifier: &mut Verifier, mut input: impl BufRead, part: Part) -> io::Result<()> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        add_line(verifier, line.trim_ascii(), part);
        line.clear();
    }
    Ok(())
}

fn add_line(verifier: &mut Verifier, line: &[u8], part: Part) {
    if line.is_empty() {
        return;
    }
    match (serde_json::from_slice::<Value>(line), part) {
        (Ok(value), Part::Summaries) if value.get(OF_SUMMARIES).is_some() => {
            verifier.add_summary(&value);
        }
        (Ok(value), Part::Records) if value.get(OF_SUMMARIES).is_none() => {
            verifier.add_record(&value);
        }
        (Ok(_), _) => {}
        // Reported once, although files are read twice.
        (Err(error), Part::Records) => {
            verifier.unreadable(Kind::RecordsUnreadable, &format!("invalid JSON: {error}"));
        }
        (Err(_), Part::Summaries) => {}
    }
}

/// Converts a value to JSON: bytes to hexadecimal, times to the numbers that Avro has.
pub(super) fn to_json(value: AvroValue) -> Result<Value, String> {
    let hexadecimal = |bytes: &[u8]| Value::from(data_encoding::HEXLOWER.encode(bytes));
    Ok(match value {
        AvroValue::Null => Value::Null,
        AvroValue::Union(_, value) => to_json(*value)?,
        AvroValue::Boolean(value) => value.into(),
        AvroValue::Int(value) => value.into(),
        AvroValue::Long(value)
        | AvroValue::TimestampMicros(value)
        | AvroValue::TimestampMillis(value) => value.into(),
        AvroValue::String(text) | AvroValue::Enum(_, text) => text.into(),
        AvroValue::Bytes(bytes) | AvroValue::Fixed(_, bytes) => hexadecimal(&bytes),
        AvroValue::Array(values) => {
            values.into_iter().map(to_json).collect::<Result<Vec<_>, _>>()?.into()
        }
        AvroValue::Map(values) => object(values)?,
        AvroValue::Record(fields) => object(fields)?,
        other => return Err(format!("{other:?} is of no type that records have")),
    })
}

fn object(fields: impl IntoIterator<Item = (String, AvroValue)>) -> Result<Value, String> {
    let fields = fields.into_iter().map(|(name, value)| Ok((name, to_json(value)?)));
    Ok(fields.collect::<Result<Map<_, _>, String>>()?.into())
}
