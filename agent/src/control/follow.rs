//! Writes the lines of a follower's queue to its connection.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{sleep, timeout},
};

use super::protocol::{NOTE, Note};
use crate::tail::{TAKE_INTERVAL, Tail};

/// A follower that reads nothing for this time is disconnected.
const STALL_LIMIT: Duration = Duration::from_secs(600);

/// Writes the records until the client disconnects or the agent ends.
pub(super) async fn follow(stream: UnixStream, tail: Tail, mut stop: watch::Receiver<bool>) {
    let (mut read, mut write) = stream.into_split();
    let mut lines = Vec::new();
    loop {
        let ended = tokio::select! {
            () = tail.filled() => false,
            _ = stop.wait_for(|stop| *stop) => true,
            () = gone(&mut read) => return,
        };
        let lost = tail.take(&mut lines);
        if lost > 0 {
            note(&mut lines, &Note::Lost(lost));
        }
        if ended {
            note(&mut lines, &Note::End("the agent has stopped".to_owned()));
        }
        let written = tokio::select! {
            written = write_all(&mut write, &lines) => written,
            () = gone(&mut read) => return,
        };
        if ended || !written {
            return;
        }
        // Collects lines in between: fewer wake-ups, and a bound on the records that are encoded.
        sleep(TAKE_INTERVAL).await;
    }
}

async fn write_all(write: &mut OwnedWriteHalf, lines: &[u8]) -> bool {
    matches!(timeout(STALL_LIMIT, write.write_all(lines)).await, Ok(Ok(())))
}

/// Waits until the other end is closed, or sends anything, which the protocol does not allow.
async fn gone(read: &mut OwnedReadHalf) {
    let _ = read.read(&mut [0]).await;
}

fn note(lines: &mut Vec<u8>, note: &Note) {
    lines.push(NOTE);
    // Cannot fail: numbers and strings are valid JSON.
    lines.extend(serde_json::to_vec(note).unwrap_or_default());
    lines.push(b'\n');
}
