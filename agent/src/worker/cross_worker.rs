//! The queue of datagrams and messages between workers.
//!
//! - Only the first fragment of a datagram has ports, so the kernel programs choose the ring of a
//!   fragment by header fields that all fragments share. The worker that has reassembled a datagram
//!   sends it to the worker whose ring has the datagram's messages.
//! - Segments of UDP GSO may have several messages in one packet, which went to the ring of the
//!   first. Each message of another worker is sent there.
//! - A response with a wrong identifier is sent to the worker of the query that it pretends to
//!   answer.
//!
//! All of them are rare.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use tap53_capture::ring::Waker;
use tap53_dns::{Flow, Origin, Transport};
use tap53_ebpf::headers::{Endpoint, message_hash, ring_index, tcp_hash};

/// Maximum number of datagrams queued for one worker; at up to 64 KiB each, 16 MiB.
pub(crate) const QUEUED: usize = 256;

/// Interval at which an ending worker, which waits for workers that still empty their rings, checks
/// whether it has been released from waiting.
const RELEASE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Bit in a worker's number of queued datagrams that marks its queue as closed.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A datagram reassembled from its fragments; `bytes` begin with the UDP or TCP header.
pub(super) struct Reassembled {
    pub(super) origin: Origin,
    pub(super) protocol: u8,
    pub(super) bytes: Vec<u8>,
}

/// A message that belongs to another worker; `wire` are its bytes.
pub(super) struct ForeignMessage {
    pub(super) origin: Origin,
    /// The flow from its sender to its receiver.
    pub(super) sent: Flow,
    pub(super) wire: Vec<u8>,
    /// Number of bytes after them that were not captured.
    pub(super) missing: usize,
}

/// An item of the queue.
pub(super) enum Handover {
    Datagram(Reassembled),
    Message(ForeignMessage),
}

/// One worker's queues to and from the other workers.
pub struct CrossWorkerQueue {
    number: usize,
    /// Senders to the workers, by number; empty when this worker ends.
    to: Vec<SyncSender<Handover>>,
    from: Receiver<Handover>,
    /// Numbers of datagrams queued for the workers, by number; with [`CLOSED`] after the worker has
    /// ended.
    waiting: Arc<[AtomicUsize]>,
    /// Set when this worker must not wait for the others any more.
    released: Arc<AtomicBool>,
    /// Wakers of the workers, by number.
    wakers: Arc<[Waker]>,
}

/// A view of the number of datagrams that are queued for a worker.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    number: usize,
    waiting: Arc<[AtomicUsize]>,
}

impl Waiting {
    pub(crate) fn datagrams(&self) -> usize {
        let waiting = self.waiting.get(self.number);
        waiting.map_or(0, |waiting| waiting.load(Ordering::Relaxed) & !CLOSED)
    }
}

impl CrossWorkerQueue {
    /// Creates the queues between `workers`, in the order of their numbers. After `released` is set, a
    /// worker that ends does not wait for the others.
    #[must_use]
    pub fn between(workers: usize, released: &Arc<AtomicBool>) -> Vec<Self> {
        let (to, from): (Vec<_>, Vec<_>) = (0..workers).map(|_| sync_channel(QUEUED)).unzip();
        let waiting: Arc<[_]> = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        let wakers: Arc<[_]> = (0..workers).map(|_| Waker::new()).collect();
        let ends = from.into_iter().enumerate();
        let end = |(number, from)| Self {
            number,
            to: to.clone(),
            from,
            waiting: waiting.clone(),
            released: released.clone(),
            wakers: wakers.clone(),
        };
        ends.map(end).collect()
    }

    /// Creates the queue of the only worker.
    #[must_use]
    pub fn single_worker() -> Self {
        Self {
            number: 0,
            to: Vec::new(),
            from: sync_channel(0).1,
            waiting: Arc::new([]),
            released: Arc::default(),
            wakers: Arc::new([]),
        }
    }

    /// Returns the waker of this worker.
    pub(crate) fn waker(&self) -> Waker {
        self.wakers.get(self.number).cloned().unwrap_or_default()
    }

    /// Returns a view of the number of datagrams that are queued for this worker.
    pub(super) fn waiting(&self) -> Waiting {
        Waiting { number: self.number, waiting: self.waiting.clone() }
    }

    /// Returns true if there is only one worker, which owns everything.
    #[inline]
    pub(super) fn is_single(&self) -> bool {
        self.to.len() < 2
    }

    /// Returns the number of the worker that owns a datagram with this payload, or a message with
    /// these bytes, if it is another one.
    pub(super) fn other_owner_of(&self, flow: &Flow, payload: &[u8]) -> Option<usize> {
        if self.is_single() {
            return None;
        }
        let workers = u32::try_from(self.to.len()).unwrap_or(u32::MAX);
        let ends = [endpoint(flow.client), endpoint(flow.server)];
        let hash = match flow.transport {
            Transport::Udp => {
                let id = payload.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
                message_hash(&ends[0], &ends[1], id)
            }
            Transport::Tcp => tcp_hash(&ends[0], &ends[1]),
        };
        let owner = ring_index(hash, workers) as usize;
        (owner != self.number).then_some(owner)
    }

    /// Sends an item to another worker; returns false if its queue is full or closed.
    pub(super) fn send(&self, worker: usize, item: Handover) -> bool {
        let (Some(to), Some(waiting)) = (self.to.get(worker), self.waiting.get(worker)) else {
            return false;
        };
        // Counted first: it may be received before `try_send` returns, and a worker that closes its
        // queue from here on waits for it.
        let is_open = waiting.fetch_add(1, Ordering::Relaxed) & CLOSED == 0;
        let is_sent = is_open && to.try_send(item).is_ok();
        if is_sent {
            self.wakers.get(worker).into_iter().for_each(Waker::wake);
        } else {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        is_sent
    }

    /// Receives an item from another worker, without blocking.
    pub(super) fn receive(&self) -> Option<Handover> {
        // An error means that the queue is empty, or the others have ended.
        let item = self.from.try_recv().ok()?;
        self.count_received();
        Some(item)
    }

    fn count_received(&self) {
        if let Some(waiting) = self.waiting.get(self.number) {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Passes the datagrams that the other workers still send to `each`, until they have ended too or
    /// this worker is released.
    ///
    /// No datagram is lost uncounted: a sender counts its datagram as queued before it sends it, and
    /// this worker marks that count as closed before it ends. Both change one atomic, so they have an
    /// order. A datagram that was counted before the mark is waited for; a sender that counts one after
    /// it sees the mark, and counts its datagram as not handed over. The wait is short, since a sender
    /// does not block in between.
    pub(super) fn end(mut self, mut each: impl FnMut(Handover)) {
        self.to.clear();
        loop {
            // Read first: datagrams that were sent before it was set are received.
            let is_released = self.released.load(Ordering::Acquire);
            match self.from.recv_timeout(RELEASE_POLL_INTERVAL) {
                Ok(item) => {
                    self.count_received();
                    each(item);
                }
                Err(RecvTimeoutError::Timeout) if !is_released => {}
                Err(RecvTimeoutError::Timeout) if self.close() == 0 => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// Closes this worker's queue; returns how many datagrams are still queued.
    fn close(&self) -> usize {
        let waiting = self.waiting.get(self.number);
        waiting.map_or(0, |waiting| waiting.fetch_or(CLOSED, Ordering::Relaxed) & !CLOSED)
    }
}

/// Returns an endpoint of a flow in the form that the kernel programs hash.
fn endpoint(address: SocketAddr) -> Endpoint {
    let words = match address.ip() {
        IpAddr::V4(address) => [0, address.to_bits().into()],
        IpAddr::V6(address) => {
            let [high @ .., _, _, _, _, _, _, _, _] = address.octets();
            let [_, _, _, _, _, _, _, _, low @ ..] = address.octets();
            [u64::from_be_bytes(high), u64::from_be_bytes(low)]
        }
    };
    Endpoint { address: words, port: address.port() }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tap53_ebpf::headers;

    use super::*;
    use tap53_dns::{Transport, build};

    fn flow(port: u16, v6: bool) -> Flow {
        let address = |last: u8| -> IpAddr {
            if v6 {
                [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last].into()
            } else {
                [192, 0, 2, last].into()
            }
        };
        Flow {
            transport: Transport::Udp,
            client: (address(1), port).into(),
            server: (address(2), 53).into(),
            tunnel: None,
            ifindex: 0,
        }
    }

    fn reassembled(number: u8) -> Handover {
        let origin = build::origin(0, 1, [192, 0, 2, 1], [192, 0, 2, 2]);
        Handover::Datagram(Reassembled { origin, protocol: headers::UDP, bytes: vec![number] })
    }

    fn bytes(item: Handover) -> Vec<u8> {
        match item {
            Handover::Datagram(datagram) => datagram.bytes,
            Handover::Message(message) => message.wire,
        }
    }

    #[test]
    fn query_and_response_have_one_owner_before_and_after_translation() {
        let queues = CrossWorkerQueue::between(4, &Arc::default());
        let mut counts = [[0; 4]; 2];
        for number in 1..1_000_u16 {
            for v6 in [false, true] {
                for transport in [Transport::Udp, Transport::Tcp] {
                    let there = Flow { transport, ..flow(20_000 + number, v6) };
                    let back = Flow { client: there.server, server: there.client, ..there };
                    let backend: SocketAddr = ([10, 1, 1, 1], 5_353).into();
                    let translated = Flow { server: backend, ..there };
                    let wire = number.to_be_bytes();
                    let owner = queues[0].other_owner_of(&there, &wire);
                    for flow in [back, translated] {
                        assert_eq!(queues[0].other_owner_of(&flow, &wire), owner);
                    }
                    counts[transport as usize][owner.unwrap_or(0)] += 1;
                    let owner = &queues[owner.unwrap_or(0)];
                    assert!(owner.other_owner_of(&there, &wire).is_none());
                }
            }
        }
        assert!(counts.iter().flatten().all(|count| *count > 300), "{counts:?}");
        let single = CrossWorkerQueue::single_worker();
        assert!(single.other_owner_of(&flow(1, false), b"id").is_none());
    }

    #[test]
    fn sent_datagrams_are_received_before_the_end() {
        let released = Arc::new(AtomicBool::new(true));
        let [one, other] =
            <[CrossWorkerQueue; 2]>::try_from(CrossWorkerQueue::between(2, &released))
                .ok()
                .unwrap();
        assert!(one.send(1, reassembled(1)));
        assert_eq!(other.receive().map(bytes), Some(vec![1]));
        assert!(other.receive().is_none());
        assert!(one.send(1, reassembled(2)));
        one.end(|_| panic!("nothing was sent here"));
        // `one` has ended, so its queue refuses.
        assert!(!other.send(0, reassembled(3)));
        let mut last = Vec::new();
        other.end(|reassembled| last.push(bytes(reassembled)));
        assert_eq!(last, [vec![2]]);
    }

    #[test]
    fn a_worker_that_ends_waits_for_the_others_until_it_is_released() {
        let released = Arc::new(AtomicBool::new(false));
        let [one, other] =
            <[CrossWorkerQueue; 2]>::try_from(CrossWorkerQueue::between(2, &released))
                .ok()
                .unwrap();
        assert!(other.send(0, reassembled(1)));
        let (to, from) = sync_channel(2);
        let ending = std::thread::spawn(move || {
            one.end(|reassembled| to.send(bytes(reassembled)).unwrap());
        });
        assert_eq!(from.recv().unwrap(), [1]);
        assert!(other.send(0, reassembled(2)));
        assert_eq!(from.recv().unwrap(), [2]);
        assert!(!ending.is_finished());
        // `other` neither ends nor sends anything more.
        released.store(true, Ordering::Release);
        ending.join().unwrap();
        assert!(!other.send(0, reassembled(3)));
    }

    #[test]
    fn a_datagram_that_is_being_sent_when_its_worker_ends_is_received() {
        let released = Arc::new(AtomicBool::new(true));
        let [one, other] =
            <[CrossWorkerQueue; 2]>::try_from(CrossWorkerQueue::between(2, &released))
                .ok()
                .unwrap();
        // The first half of `send`.
        other.waiting[0].fetch_add(1, Ordering::Relaxed);
        let ending = std::thread::spawn(move || {
            let mut received = Vec::new();
            one.end(|reassembled| received.push(bytes(reassembled)));
            received
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while other.waiting[0].load(Ordering::Relaxed) & CLOSED == 0 {
            assert!(!ending.is_finished(), "it ended without the datagram");
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
        assert!(!other.send(0, reassembled(2)), "it is closed");
        // The second half.
        assert!(other.to[0].try_send(reassembled(1)).is_ok(), "it is waited for");
        assert_eq!(ending.join().unwrap(), [[1]]);
        assert_eq!(Waiting { number: 0, waiting: other.waiting.clone() }.datagrams(), 0);
    }

    #[test]
    fn a_full_queue_refuses_instead_of_blocking() {
        let queues = CrossWorkerQueue::between(2, &Arc::default());
        let sent = (0..=QUEUED).filter(|_| queues[0].send(1, reassembled(0))).count();
        assert_eq!(sent, QUEUED);
        assert_eq!(queues[1].waiting().datagrams(), QUEUED);
        assert!(queues[1].receive().is_some());
        assert_eq!(queues[1].waiting().datagrams(), QUEUED - 1);
        assert_eq!(queues[0].waiting().datagrams(), 0);
    }
}
