//! Schema ids on disk, for the next run.
//!
//! JSON: `{"version": 1, "ids": [{"registry", "subject", "fingerprint", "id"}, …]}`, replaced by
//! rename, so it is complete after a crash. A file that cannot be read is ignored: the registry will
//! be queried.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tap53_base::files::read_own;
use tap53_records::encode::Fingerprint;

const VERSION: u32 = 1;

/// Each entry has some 200 bytes.
const MAX_BYTES: u64 = 256 << 10;

/// The most entries; the oldest are dropped.
const MAX_IDS: usize = 256;

/// The file, and the registry whose ids are read from it.
pub(super) struct SchemaIdCache {
    pub(super) path: PathBuf,
    registry: String,
}

#[derive(Default, Deserialize, Serialize)]
struct Contents {
    version: u32,
    ids: Vec<Entry>,
}

#[derive(Clone, Deserialize, PartialEq, Serialize)]
struct Entry {
    registry: String,
    subject: String,
    fingerprint: String,
    id: u32,
}

impl SchemaIdCache {
    /// `urls` name the registry, in whatever order.
    pub(super) fn new(path: &Path, urls: &[String]) -> Self {
        let mut urls = urls.to_vec();
        urls.sort();
        Self { path: path.to_owned(), registry: urls.join(",") }
    }

    /// Returns this registry's ids for a subject.
    pub(super) fn ids(&self, subject: &str) -> Vec<(Fingerprint, u32)> {
        let contents = self.read().unwrap_or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                let path = self.path.display();
                tracing::warn!(event = "schema_id_cache_unusable", %error, %path, "cannot use the schema ids of an earlier run");
            }
            Contents::default()
        });
        let ours = contents.ids.into_iter().filter(|entry| self.has(entry, subject));
        ours.filter_map(|entry| Some((parse(&entry.fingerprint)?, entry.id))).collect()
    }

    fn has(&self, entry: &Entry, subject: &str) -> bool {
        entry.registry == self.registry && entry.subject == subject
    }

    /// Writes an id, unless the file has it.
    pub(super) fn store(&self, subject: &str, fingerprint: Fingerprint, id: u32) -> io::Result<()> {
        /// Sinks may share a file.
        static WRITING: Mutex<()> = Mutex::new(());
        let _alone = WRITING.lock();
        let mut contents = self.read().unwrap_or_default();
        let entry = Entry {
            registry: self.registry.clone(),
            subject: subject.to_owned(),
            fingerprint: HEXLOWER.encode(&fingerprint),
            id,
        };
        if contents.ids.contains(&entry) {
            return Ok(());
        }
        contents.version = VERSION;
        contents
            .ids
            .retain(|old| !(self.has(old, subject) && old.fingerprint == entry.fingerprint));
        contents.ids.push(entry);
        let surplus = contents.ids.len().saturating_sub(MAX_IDS);
        contents.ids.drain(..surplus);
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(&contents)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(directory)?.sync_all()
    }

    fn read(&self) -> io::Result<Contents> {
        let mut bytes = Vec::new();
        read_own(&self.path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let contents: Contents = serde_json::from_slice(&bytes)?;
        if contents.version != VERSION {
            return Err(io::Error::other(format!("is of version {}", contents.version)));
        }
        Ok(contents)
    }
}

fn parse(fingerprint: &str) -> Option<Fingerprint> {
    HEXLOWER.decode(fingerprint.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLS: [&str; 2] = ["http://b:1", "http://a:1"];

    fn cache(path: &Path) -> SchemaIdCache {
        SchemaIdCache::new(path, &URLS.map(str::to_owned))
    }

    #[test]
    fn ids_are_those_of_one_registry_and_subject() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/ids.json");
        let cache_now = cache(&path);
        assert_eq!(cache_now.ids("dns-value"), []);
        cache_now.store("dns-value", [1; 8], 7).unwrap();
        cache_now.store("dns-value", [2; 8], 8).unwrap();
        cache_now.store("other-value", [1; 8], 9).unwrap();
        SchemaIdCache::new(&path, &["http://c:1".to_owned()])
            .store("dns-value", [1; 8], 10)
            .unwrap();
        cache_now.store("dns-value", [1; 8], 11).unwrap();
        let mut urls = URLS.map(str::to_owned);
        urls.reverse();
        assert_eq!(SchemaIdCache::new(&path, &urls).ids("dns-value"), [([2; 8], 8), ([1; 8], 11)]);
        assert_eq!(SchemaIdCache::new(&path, &urls[..1]).ids("dns-value"), []);
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    }

    #[test]
    fn a_damaged_file_is_as_none_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ids.json");
        for damaged in ["", "{", "[]", "{\"version\": 2, \"ids\": []}", "{\"version\": 1}", "\0\0"]
        {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache(&path).ids("dns-value"), [], "{damaged:?}");
            cache(&path).store("dns-value", [1; 8], 7).unwrap();
            assert_eq!(cache(&path).ids("dns-value"), [([1; 8], 7)]);
        }
        fs::write(&path, vec![b' '; 1 << 20]).unwrap();
        assert_eq!(cache(&path).ids("dns-value"), [], "too long");
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ids.json");
        for number in 0..300_u64 {
            cache(&path).store("dns-value", number.to_le_bytes(), 7).unwrap();
        }
        let ids = cache(&path).ids("dns-value");
        assert_eq!((ids.len(), ids[0].0), (MAX_IDS, 44_u64.to_le_bytes()));
        assert!(fs::metadata(&path).unwrap().len() < MAX_BYTES / 2);
    }
}
