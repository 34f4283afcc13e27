//! Identifiers of records.

use data_encoding::HEXLOWER;
use serde::{Serialize, Serializer};

/// Identifies a record uniquely, so that consumers can deduplicate; see the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId(pub [u8; 16]);

impl RecordId {
    /// Creates an identifier from the random prefix of the run, the worker and its sequence number.
    #[must_use]
    pub fn new(run: [u8; 8], worker: u16, sequence: u64) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&run);
        // 48 bits of sequence suffice for nine years at a million records per second.
        let number = u64::from(worker) << 48 | sequence & 0xffff_ffff_ffff;
        id[8..].copy_from_slice(&number.to_be_bytes());
        Self(id)
    }
}

/// Serializes as bytes in Avro, and as hexadecimal in JSON.
impl Serialize for RecordId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&HEXLOWER.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

/// Assigns the identifiers of one worker.
#[derive(Clone, Copy, Debug)]
pub struct RecordIds {
    run: [u8; 8],
    worker: u16,
    last: u64,
}

impl RecordIds {
    /// Creates the identifiers of a worker in the run with this random prefix.
    #[must_use]
    pub const fn new(run: [u8; 8], worker: u16) -> Self {
        Self { run, worker, last: 0 }
    }

    /// Returns the random prefix of the run.
    #[must_use]
    pub const fn run(&self) -> [u8; 8] {
        self.run
    }

    /// Returns the worker's number.
    #[must_use]
    pub const fn worker(&self) -> u16 {
        self.worker
    }

    /// Returns the next sequence number.
    pub(super) const fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Returns the identifier for an assigned sequence number.
    pub(super) fn of(&self, sequence: u64) -> RecordId {
        RecordId::new(self.run, self.worker, sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_ids_differ_by_worker_and_sequence() {
        let mut ids = RecordIds::new([1; 8], 2);
        ids.next();
        let second = ids.next();
        assert_eq!(ids.of(second).0, [1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 0, 0, 0, 0, 0, 2]);
    }
}
