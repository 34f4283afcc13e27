//! The stream: queries and their answers at a steady rate, each exchange with its number.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use tap53_harness::{
    dns,
    frames::{FrameSocket, udp_to_port_53},
    namespace::Namespace,
};

/// Between two exchanges: 400 a second.
const INTERVAL: Duration = Duration::from_micros(2_500);

/// Offsets of addresses and ports in an Ethernet frame with IPv4 without options.
const MACS: (usize, usize, usize) = (0, 6, 6);
const ADDRESSES: (usize, usize, usize) = (26, 30, 4);
const PORTS: (usize, usize, usize) = (34, 36, 2);
/// Offset of the DNS message in bytes.
const MESSAGE: usize = 42;

/// A running stream; dropping it ends it.
pub(super) struct Stream {
    ending: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Stream {
    /// Queries leave `c0` of the client, and answers `s0` of the server.
    pub(super) fn start(client: &Namespace, server: &Namespace) -> Result<Self> {
        let sockets = (FrameSocket::open(client, "c0")?, FrameSocket::open(server, "s0")?);
        let (ending, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (end, count) = (Arc::clone(&ending), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let began = Instant::now();
            for number in 0.. {
                let due = began + INTERVAL * number;
                while let Some(left) = due.checked_duration_since(Instant::now()) {
                    thread::park_timeout(left);
                }
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let (query, answer) = exchange(number);
                sockets.0.send(&query)?;
                sockets.1.send(&answer)?;
                count.store(number + 1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { ending, sent, thread: Some(thread) })
    }

    /// Exchanges sent so far.
    pub(super) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; how many exchanges it had.
    pub(super) fn end(mut self) -> Result<u32> {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the stream panicked"))??;
        }
        Ok(self.sent())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The frames of a query and of its answer.
fn exchange(number: u32) -> (Vec<u8>, Vec<u8>) {
    let id = (number & 0xffff) as u16;
    let port = 10_000 + (number >> 16) as u16;
    let query = udp_to_port_53(port, &dns::query(id, &format!("q{number}.tap53.test"), "A"));
    let mut answer = query.clone();
    // The checksum of the header is the same, and there is none of the datagram.
    for (one, other, length) in [MACS, ADDRESSES, PORTS] {
        for offset in 0..length {
            answer.swap(one + offset, other + offset);
        }
    }
    answer[MESSAGE + 2] |= 0x80;
    (query, answer)
}
