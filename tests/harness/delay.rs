//! A TCP proxy whose server takes its time to answer.
//!
//! The bytes of a client pass at once; each piece of an answer passes a while after it came, in its
//! order, and does not hold up the pieces after it: a long line, not a narrow one. Messages both ways
//! that begin with their length in four bytes, as Kafka's do, are counted.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{namespace::Namespace, wait};

const DEADLINE: Duration = Duration::from_secs(60);

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// A proxy; dropping it closes its connections.
pub struct DelayingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    server: OnceLock<SocketAddr>,
    delay_us: AtomicU64,
    stop: AtomicBool,
    connections: Mutex<Vec<Connection>>,
    most_unanswered: AtomicI64,
}

struct Connection {
    ends: [TcpStream; 2],
    unanswered: Arc<AtomicI64>,
}

impl DelayingProxy {
    /// Listens on loopback of `namespace`. Until it has a [`server`](Self::forward_to), it takes
    /// connections and closes them.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn listen(namespace: &Namespace) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        // The thread stays in the namespace that it is started in.
        let (address, accepting) = namespace.enter(move || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
            let address = listener.local_addr()?;
            Ok((address, thread::spawn(move || of_thread.accept(&listener))))
        })?;
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    /// Returns the address for clients.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the server, once.
    pub fn forward_to(&self, server: SocketAddr) {
        // A second one is a mistake of the test, which will notice.
        let _ = self.shared.server.set(server);
    }

    /// Sets the delay of answers from now on.
    pub fn set_delay(&self, delay: Duration) {
        let us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay_us.store(us, Ordering::Relaxed);
    }

    /// The most messages of a connection that the server had without the client having the answer,
    /// since this was last asked.
    #[must_use]
    pub fn take_most_unanswered(&self) -> i64 {
        self.shared.most_unanswered.swap(0, Ordering::Relaxed)
    }
}

impl DelayingProxy {
    /// Waits until the server has so many messages of one connection without the client having the
    /// answer.
    ///
    /// # Errors
    /// When it never does.
    pub fn wait_for_unanswered(&self, messages: i64) -> Result<()> {
        wait::until("messages without an answer", DEADLINE, || {
            let connections = self.shared.lock();
            let unanswered = |it: &Connection| it.unanswered.load(Ordering::Relaxed) >= messages;
            Ok(connections.iter().any(unanswered).then_some(()))
        })
    }

    /// Closes all connections, whatever is on its way. Clients may connect again.
    pub fn break_connections(&self) {
        self.shared.close_all();
    }
}

impl Drop for DelayingProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.close_all();
        // The thread that accepts ends by itself within a look.
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    /// Interval at which the accepting thread checks whether it should end.
    const LOOK: Duration = Duration::from_millis(5);

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_all(&self) {
        for end in self.lock().drain(..).flat_map(|connection| connection.ends) {
            // It may be closed already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        if listener.set_nonblocking(true).is_err() {
            return;
        }
        while !self.stop.load(Ordering::Acquire) {
            match listener.accept() {
                // If the connection to the server fails, the client's one is closed.
                Ok((client, _)) => drop(self.clone().connect(client)),
                Err(_) => thread::park_timeout(Self::LOOK),
            }
        }
    }

    fn connect(self: Arc<Self>, client: TcpStream) -> Result<()> {
        let server = TcpStream::connect(self.server.get().context("no server yet")?)?;
        client.set_nonblocking(false)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let unanswered = Arc::new(AtomicI64::new(0));
        let ends = [client.try_clone()?, server.try_clone()?];
        self.lock().push(Connection { ends, unanswered: unanswered.clone() });
        let (late, pieces) = channel();
        let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
        let (shared, of_requests) = (self.clone(), unanswered.clone());
        thread::spawn(move || shared.pass_requests(from_client, to_server, &of_requests));
        let shared = self.clone();
        thread::spawn(move || shared.take_answers(server, &late));
        thread::spawn(move || self.pass_answers(client, &pieces, &unanswered));
        Ok(())
    }

    fn pass_requests(&self, mut client: TcpStream, mut server: TcpStream, unanswered: &AtomicI64) {
        let (mut piece, mut messages) = (vec![0; PIECE], Messages::default());
        while let Ok(length @ 1..) = client.read(&mut piece) {
            let begun = messages.count(&piece[..length]);
            let now = unanswered.fetch_add(begun, Ordering::Relaxed) + begun;
            self.most_unanswered.fetch_max(now, Ordering::Relaxed);
            if server.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }

    fn take_answers(&self, mut server: TcpStream, late: &Sender<(Instant, Vec<u8>)>) {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = server.read(&mut piece) {
            let delay = Duration::from_micros(self.delay_us.load(Ordering::Relaxed));
            if late.send((Instant::now() + delay, piece[..length].to_vec())).is_err() {
                break;
            }
        }
    }

    fn pass_answers(
        &self,
        mut client: TcpStream,
        pieces: &Receiver<(Instant, Vec<u8>)>,
        unanswered: &AtomicI64,
    ) {
        let mut messages = Messages::default();
        for (due, piece) in pieces {
            while Instant::now() < due && !self.stop.load(Ordering::Acquire) {
                thread::park_timeout(due.saturating_duration_since(Instant::now()));
            }
            unanswered.fetch_sub(messages.count(&piece), Ordering::Relaxed);
            if client.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// Finds the ends of messages in a stream of bytes.
#[derive(Default)]
struct Messages {
    /// The bytes of the current length so far.
    length: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Messages {
    /// Returns how many messages end in the next bytes of the stream.
    fn count(&mut self, mut bytes: &[u8]) -> i64 {
        let mut ended = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = &bytes[taken..];
                ended += i64::from(self.left == 0);
                continue;
            }
            self.length.push(*first);
            bytes = rest;
            if let Ok(length) = <[u8; 4]>::try_from(self.length.as_slice()) {
                self.left = u32::from_be_bytes(length) as usize;
                self.length.clear();
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let stream = b"\0\0\0\x03abc\0\0\0\x01d\0\0\0\x02ef";
        for piece in 1..=stream.len() {
            let mut messages = Messages::default();
            let ended: i64 = stream.chunks(piece).map(|bytes| messages.count(bytes)).sum();
            assert_eq!(ended, 3, "pieces of {piece}");
        }
    }
}
