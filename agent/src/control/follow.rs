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
use crate::tail::{FOLLOWERS, TAKE_INTERVAL, Tail};

/// A follower that reads nothing for this time is disconnected.
const STALL_LIMIT: Duration = Duration::from_secs(600);

/// Time for a displaced follower to read what is being written. A command whose terminal is gone reads
/// nothing.
const DISPLACED_LIMIT: Duration = Duration::from_secs(1);

/// Writes the records until the client disconnects, a newer follower displaces it, or the agent ends.
pub(super) async fn follow(stream: UnixStream, mut tail: Tail, mut stop: watch::Receiver<bool>) {
    let (mut read, mut write) = stream.into_split();
    let mut displacement = tail.displacement();
    let is_written = tokio::select! {
        is_written = write_past(&mut write, &mut tail) => is_written,
        _ = stop.wait_for(|stop| *stop) => true,
        () = displaced_long(&mut displacement) => return,
        () = gone(&mut read) => return,
    };
    if !is_written {
        return;
    }
    let mut lines = Vec::new();
    loop {
        let end = tokio::select! {
            biased;
            _ = displacement.wait_for(|is| *is) => Some(Note::Displaced(displaced())),
            _ = stop.wait_for(|stop| *stop) => Some(Note::End("the agent has stopped".to_owned())),
            () = tail.filled() => None,
            () = gone(&mut read) => return,
        };
        let lost = tail.take(&mut lines);
        if lost > 0 {
            note(&mut lines, &Note::Lost(lost));
        }
        if let Some(end) = &end {
            note(&mut lines, end);
        }
        let written = tokio::select! {
            written = write_all(&mut write, &lines) => written,
            () = displaced_long(&mut displacement) => return,
            () = gone(&mut read) => return,
        };
        if end.is_some() || !written {
            return;
        }
        // Collects lines in between: fewer wake-ups, and a bound on the records that are encoded.
        sleep(TAKE_INTERVAL).await;
    }
}

/// Writes the records of the past that the follower wants; returns false if it does not read them.
async fn write_past(write: &mut OwnedWriteHalf, tail: &mut Tail) -> bool {
    let Some(mut past) = tail.past().await else { return true };
    let (records, complete) = (past.len() as u64, past.is_complete());
    loop {
        // Decoding takes a while, in which others want an answer.
        let decoded = tokio::task::spawn_blocking(move || {
            let lines = past.next_lines();
            (past, lines)
        });
        let Ok((rest, lines)) = decoded.await else { return false };
        past = rest;
        match lines {
            None => break,
            Some(lines) => {
                if !write_all(write, &lines).await {
                    return false;
                }
            }
        }
    }
    let mut lines = Vec::new();
    note(&mut lines, &Note::Past { records, complete });
    write_all(write, &lines).await
}

/// Waits until a newer follower has displaced this one, and [`DISPLACED_LIMIT`] after that.
async fn displaced_long(displacement: &mut watch::Receiver<bool>) {
    // An error means that the follower is gone, too.
    let _ = displacement.wait_for(|is_displaced| *is_displaced).await;
    sleep(DISPLACED_LIMIT).await;
}

/// Returns the reason that a displaced follower gets.
fn displaced() -> String {
    format!("ended: a newer follower took this place, of which there are {FOLLOWERS}")
}

async fn write_all(write: &mut OwnedWriteHalf, lines: &[u8]) -> bool {
    matches!(timeout(STALL_LIMIT, write.write_all(lines)).await, Ok(Ok(())))
}

/// Waits until the other end is closed, or sends anything, which the protocol does not allow.
async fn gone(read: &mut OwnedReadHalf) {
    let _ = read.read(&mut [0]).await;
}

pub(super) fn note(lines: &mut Vec<u8>, note: &Note) {
    lines.push(NOTE);
    // Cannot fail: numbers and strings are valid JSON.
    lines.extend(serde_json::to_vec(note).unwrap_or_default());
    lines.push(b'\n');
}
