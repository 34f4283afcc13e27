//! A queue of records on disk, for the time that a broker is away.
//!
//! Constraints:
//! - What was appended is there after the process was killed, and after the node lost its power as
//!   far as [`Fsync`] says.
//! - A record leaves the queue when it is acknowledged; when the queue is full, or the record too
//!   old, with a count. Whatever became unreadable is counted, to the record and the message.
//! - Opening it takes time and memory for the number of segments and for one segment's bytes, not
//!   for all that waits in it.
//! - One writer: the directory is locked. Readers such as `tap53 spool ls` need no lock.
//! - Nothing here waits for anything but the disk, and nothing reads a clock: `now_ms` is an
//!   argument.
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
//! A version that knows no second part of a checkpoint reads the first and leaves the second out;
//! one that finds none begins to count there.
//!
//! Since ids have no gaps and each entry says how many messages came before it, what lies between
//! two entries that can be read is known exactly, readable or not. The salt is in the file's name
//! and not in its bytes: the text of a record, which strangers on the network choose, cannot pass
//! for an entry, and a segment whose header went bad is read all the same.
//!
//! Crash recovery, at the next start:
//! - The end of the last segment may be torn. It is cut after its last whole entry: the append that
//!   wrote it had not returned. A new segment is begun; an old one is never written to again.
//! - An entry with a bad checksum in the middle is skipped, by its length where its header is
//!   whole, else by looking for the next header byte by byte.
//! - The checkpoint is replaced by rename, and before segments are removed. A crash between leaves
//!   segments that all entries have left, which are removed now. A lost or bad checkpoint means that
//!   records are sent again, never that one is left out.
//! - What was lost is written down once all before it has left the queue, in one file with what has
//!   left, and before a segment is dropped. What lies between the checkpoint and the first segment
//!   was dropped by a process that was killed, and is counted. So every record that ever was in the
//!   queue waits, has arrived, or is in exactly one count of what was lost, whoever was killed.
//! - If the checkpoint knows of more records than the segments hold (power loss without fsync, a
//!   damaged file system), those are counted as unreadable.
//! - A segment or checkpoint of a version that is not known is refused, untouched.

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
