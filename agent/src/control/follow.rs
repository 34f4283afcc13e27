//! From a follower's queue to its connection.

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

/// A follower who reads nothing for so long has been forgotten, and gives way to others.
const STALL_LIMIT: Duration = Duration::from_secs(600);

/// Writes what is followed until the reader goes away or the agent ends.
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
        // Gathers what comes meanwhile: fewer wake-ups, and a bound on what is encoded.
        sleep(TAKE_INTERVAL).await;
    }
}

async fn write_all(write: &mut OwnedWriteHalf, lines: &[u8]) -> bool {
    matches!(timeout(STALL_LIMIT, write.write_all(lines)).await, Ok(Ok(())))
}

/// Until the other end is closed, or says what it has no business to say.
async fn gone(read: &mut OwnedReadHalf) {
    let _ = read.read(&mut [0]).await;
}

fn note(lines: &mut Vec<u8>, note: &Note) {
    lines.push(NOTE);
    // Numbers and texts can be written.
    lines.extend(serde_json::to_vec(note).unwrap_or_default());
    lines.push(b'\n');
}
