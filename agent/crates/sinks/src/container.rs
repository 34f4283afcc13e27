//! An Avro object container file (Avro 1.12, "Object Container Files").
//!
//! ```text
//!  header: "Obj" 1, metadata (schema, codec), sync marker
//!  block:  record count, byte count, records, sync marker        one for each batch
//! ```
//!
//! apache-avro writes the header. The blocks are framed here, because the records come encoded and
//! apache-avro's writer takes only values.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use apache_avro::{Codec, Writer};
use tap53_records::encode::{self, Profile};

/// Length of a sync marker, bytes.
const MARKER: usize = 16;

/// A file under its temporary name.
pub(super) struct Container {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    codec: Codec,
    marker: [u8; MARKER],
    /// Bytes up to the end of the last whole block.
    length: u64,
    block: Vec<u8>,
}

impl Container {
    /// Creates `<path>.partial` with a mode, and writes the header.
    pub(super) fn create(
        path: PathBuf,
        profile: Profile,
        codec: Codec,
        node: &str,
        mode: u32,
    ) -> io::Result<Self> {
        let header = header(profile, codec, Some(node)).map_err(io::Error::other)?;
        // The header ends with the marker.
        let marker = *header.last_chunk().ok_or_else(|| io::Error::other("no sync marker"))?;
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if path.exists() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        // O_EXCL follows no link and opens nothing that is there.
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&partial)?;
        // Independent of the umask.
        let begun = file.set_permissions(Permissions::from_mode(mode));
        if let Err(error) = begun.and_then(|()| file.write_all(&header)) {
            // On a full disk every batch would leave another such file.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        let length = header.len() as u64;
        Ok(Self { file, partial, path, codec, marker, length, block: Vec::new() })
    }

    /// False if its temporary name no longer names it.
    pub(super) fn is_in_place(&self) -> bool {
        let named = fs::metadata(&self.partial).map(|named| (named.dev(), named.ino()));
        let open = self.file.metadata().map(|open| (open.dev(), open.ino()));
        matches!((named, open), (Ok(named), Ok(open)) if named == open)
    }

    /// Bytes of whole blocks and the header.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Appends a block, or leaves the file as it was.
    pub(super) fn append(&mut self, records: u64, bytes: &[u8]) -> io::Result<()> {
        self.block.clear();
        push_count(&mut self.block, records);
        if self.codec == Codec::Null {
            push_count(&mut self.block, bytes.len() as u64);
            self.block.extend_from_slice(bytes);
        } else {
            let mut compressed = bytes.to_vec();
            self.codec.compress(&mut compressed).map_err(io::Error::other)?;
            push_count(&mut self.block, compressed.len() as u64);
            self.block.extend_from_slice(&compressed);
        }
        self.block.extend_from_slice(&self.marker);
        if let Err(error) = self.file.write_all(&self.block) {
            // On a full disk, a part of the block may be written: truncate it, so that the file always
            // ends with a whole block.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += self.block.len() as u64;
        Ok(())
    }

    /// Closes the file under its temporary name, which it returns. Its blocks are whole.
    pub(super) fn leave(self) -> PathBuf {
        self.partial
    }

    /// Makes the file durable and gives it its final name.
    pub(super) fn finish(self) -> io::Result<PathBuf> {
        if !self.is_in_place() {
            return Err(io::Error::new(ErrorKind::NotFound, "it was removed or moved"));
        }
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        if let Some(directory) = self.path.parent() {
            sync_directory(directory)?;
        }
        Ok(self.path)
    }
}

/// A container that is written to any output. The caller syncs and renames it, if that is needed.
pub struct AvroFile<W> {
    out: W,
    marker: [u8; MARKER],
    records: u64,
    block: Vec<u8>,
}

impl<W: Write> AvroFile<W> {
    /// Bytes of records from which on a block is written.
    const BLOCK_BYTES: usize = 1 << 20;

    /// Writes the header, for records in this profile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(mut out: W, profile: Profile) -> io::Result<Self> {
        let header = header(profile, Codec::Null, None).map_err(io::Error::other)?;
        let marker = *header.last_chunk().ok_or_else(|| io::Error::other("no sync marker"))?;
        out.write_all(&header)?;
        Ok(Self { out, marker, records: 0, block: Vec::new() })
    }

    /// Appends a record: an Avro datum of this program's schema of that profile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, datum: &[u8]) -> io::Result<()> {
        self.block.extend_from_slice(datum);
        self.records += 1;
        if self.block.len() >= Self::BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Writes the rest, and returns the output.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if self.records > 0 {
            self.end_block()?;
        }
        Ok(self.out)
    }

    fn end_block(&mut self) -> io::Result<()> {
        let mut counts = Vec::new();
        push_count(&mut counts, self.records);
        push_count(&mut counts, self.block.len() as u64);
        self.out.write_all(&counts)?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&self.marker)?;
        self.records = 0;
        self.block.clear();
        Ok(())
    }
}

/// Syncs the directory, which makes a rename in it durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn header(
    profile: Profile,
    codec: Codec,
    node: Option<&str>,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut writer = Writer::with_codec(profile.schema()?, Vec::new(), codec)?;
    if let Some(node) = node {
        writer.add_user_metadata("tap53.node".to_owned(), node)?;
    }
    writer.flush()?;
    Ok(writer.into_inner()?)
}

/// A count or size: Avro longs, and far below what a long holds.
fn push_count(out: &mut Vec<u8>, count: u64) {
    encode::push_long(out, i64::try_from(count).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use apache_avro::{DeflateSettings, Reader, types::Value};

    use super::*;
    use tap53_records::encode::{Batch, Datum, FlatDatum, samples};

    fn batch() -> Batch {
        let (mut batch, mut datum) = (Batch::default(), Datum::default());
        for name in samples::NAMES {
            samples::with_record(name, |record| batch.push(&mut datum, record).unwrap());
        }
        batch
    }

    #[test]
    fn a_file_has_the_schema_of_the_profile_that_its_records_are_in() {
        let (mut batch, mut datum) = (Batch::default(), FlatDatum::default());
        samples::with_record("matched", |record| batch.push(&mut datum, record).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.avro");
        let (profile, codec) = (Profile::Flat, Codec::Null);
        let mut container =
            Container::create(path.clone(), profile, codec, "node-1", 0o600).unwrap();
        container.append(batch.records(), batch.bytes()).unwrap();
        container.finish().unwrap();
        let mut file = AvroFile::begin(Vec::new(), profile).unwrap();
        file.push(batch.bytes()).unwrap();
        let files = [fs::read(path).unwrap(), file.finish().unwrap()];
        for file in files {
            let reader = Reader::new(&file[..]).unwrap();
            assert_eq!(reader.writer_schema(), profile.schema().unwrap());
            let values: Vec<Value> = reader.collect::<Result<_, _>>().unwrap();
            let [Value::Record(fields)] = &values[..] else { panic!("{values:?}") };
            let event_time = Value::TimestampMillis(1_700_000_000_001);
            assert_eq!(fields[0], ("event_time".to_owned(), event_time));
        }
    }

    #[test]
    fn what_is_appended_reads_back_with_either_codec() {
        for codec in [Codec::Null, Codec::Deflate(DeflateSettings::default())] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.avro");
            let mut container =
                Container::create(path.clone(), Profile::Full, codec, "node-1", 0o600).unwrap();
            for _ in 0..2 {
                container.append(batch().records(), batch().bytes()).unwrap();
            }
            assert!(!path.exists(), "no final name before it is whole");
            assert_eq!(container.finish().unwrap(), path);
            let reader = Reader::new(File::open(&path).unwrap()).unwrap();
            assert_eq!(reader.user_metadata()["tap53.node"], b"node-1");
            let values: Vec<Value> = reader.collect::<Result<_, _>>().unwrap();
            assert_eq!(values.len(), 6);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }
}
