//! A queue of records on disk, for the time that a broker is unreachable.
//!
//! Constraints:
//! - Appended records survive when the process is killed, and when the node loses its power as far
//!   as [`Fsync`] guarantees it.
//! - A record leaves the queue when it is acknowledged. It is dropped and counted when the queue is
//!   full or the record too old. Unreadable records are counted, to the record and the message.
//! - Opening it takes time and memory for the number of segments and for the bytes of one segment,
//!   not for all waiting records.
//! - One writer: the directory is locked. Readers such as `tap53 spool ls` need no lock.
//! - No function blocks on anything but the disk, and none reads a clock: `now_ms` is an argument.
//!
//! ```text
//!  <directory>/
//!    lock                                 flock(2), exclusive
//!    acknowledged                         checkpoint: all entries below this id have left
//!    <first id>-<salt>.seg                in hexadecimal, 16 and 8 digits; oldest first by name
//!
//!  segment, little-endian
//!    0  "tap53spl"                        8
//!    8  version 1                         2
//!   10  length of this header, 48         2
//!   12  CRC32C of bytes 0–12, 16–48       4
//!   16  id of the first record            8
//!   24  messages before it                8    of all records that ever were in the queue
//!   32  created, ms since 1970 UTC        8
//!   40  version of the records' schema    4
//!   44  zero                              4
//!   48  entries, back to back
//!
//!  entry
//!    0  length of key and value           4
//!    4  length of key                     4
//!    8  id                                8    one more than the entry's before
//!   16  messages before it                8
//!   24  appended, ms since 1970 UTC       8
//!   32  Kafka timestamp, ms               8
//!   40  messages that it stands for       4
//!   44  CRC32C of key and value           4
//!   48  CRC32C of the salt, bytes 0–48    4
//!   52  key, value
//!
//!  checkpoint
//!    0  "tap53ack"                        8
//!    8  version 1                         2
//!   10  length, 48                        2
//!   12  CRC32C of bytes 0–12, 16–48       4
//!   16  id below which all have left   8
//!   24  messages before it                8
//!   32  id of the next record             8    when this was written
//!   40  messages before it                8
//!   48  "tap53his"                        8    of all records before 16
//!   56  version 1                         2
//!   58  length of this part, 96           2
//!   60  CRC32C of bytes 0–60, 64–144      4
//!   64  id from which on it is known      8
//!   72  messages before it                8
//!   80  records and messages lost      4×16    dropped_oldest, too_old, unreadable, rejected
//! ```
//!
//! A version that does not know the second part of a checkpoint reads only the first; one that
//! finds no second part starts a new history there.
//!
//! Since ids have no gaps and each entry states how many messages came before it, the amount
//! between two readable entries is known exactly, readable or not. The salt is in the file's name
//! and not in its bytes: the text of a record, which strangers on the network choose, cannot be
//! mistaken for an entry, and a segment with a damaged header is still readable.
//!
//! Crash recovery, at the next start:
//! - The end of the last segment may be torn. It is truncated after its last whole entry: the
//!   append that wrote the rest had not returned. A new segment is created; an old one is never
//!   written to again.
//! - An entry with a bad checksum in the middle is skipped, by its length if its header is valid,
//!   otherwise by searching for the next header byte by byte.
//! - The checkpoint is replaced by rename, before segments are removed. A crash in between leaves
//!   segments without waiting entries, which the start removes. If a checkpoint is lost or damaged,
//!   records are sent again, and none is left out.
//! - A loss is written down once all records before it have left the queue, in one file with the
//!   acknowledged id, and before a segment is dropped. The records between the checkpoint and the
//!   first segment were dropped by a process that was killed, and are counted. So every record that
//!   ever was in the queue waits, has been delivered, or is in exactly one loss counter, in
//!   whatever way processes ended.
//! - If the checkpoint covers more records than the segments contain (power loss without fsync, a
//!   damaged file system), the difference is counted as unreadable.
//! - A segment or checkpoint of an unknown version is refused and left unchanged.

#![forbid(unsafe_code)]

mod ages;
mod checkpoint;
mod config;
mod directory;
mod error;
mod inspect;
mod loss;
mod queue;
mod reader;
mod segment;
mod unsynced;
mod window;

#[cfg(test)]
mod tests;

pub use config::{Config, Fsync};
pub use error::{AppendError, Error};
pub use inspect::{Contents, Listed, Reading, contents};
pub use loss::{Loss, Losses, Totals};
pub use queue::Spool;
pub use segment::{Entry, Record};
pub use unsynced::Unsynced;
