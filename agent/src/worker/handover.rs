//! The queue of reassembled datagrams between workers.
//!
//! Later fragments carry no ports, so the kernel programs choose the ring of a fragment by what all
//! fragments of a datagram share. The worker that reassembled them sends the datagram to the
//! worker whose ring has the datagram's flow. Workers share nothing else, and this is rare.

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
use tap53_dns::{Flow, Origin};
use tap53_ebpf::headers::{Endpoint, flow_hash, ring_index};

/// Datagrams on their way to one worker at most; at up to 64 KiB each, 16 MiB.
pub(crate) const QUEUED: usize = 256;

/// How often an ending worker, which waits for those that still empty their rings, looks whether it
/// is to go on without them.
const RELEASE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Marks a worker in the numbers of datagrams on their way, once it takes nothing more in.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A datagram reassembled from its fragments; `bytes` begin with the UDP or TCP header.
pub(super) struct Reassembled {
    pub(super) origin: Origin,
    pub(super) protocol: u8,
    pub(super) bytes: Vec<u8>,
}

/// One worker's queues to and from the other workers.
pub struct CrossWorkerQueue {
    number: usize,
    /// To each worker by its number; empty once this one ends.
    to: Vec<SyncSender<Reassembled>>,
    from: Receiver<Reassembled>,
    /// On their way to each worker, by its number; with [`CLOSED`] once the worker has ended.
    waiting: Arc<[AtomicUsize]>,
    /// Set once the others are not to be waited for any more.
    released: Arc<AtomicBool>,
    /// What wakes each worker, by its number.
    wakers: Arc<[Waker]>,
}

/// How many datagrams are on their way to a worker.
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
    /// The ways between `workers`, in the order of their numbers. Once `released` is set, one that ends
    /// waits for no other.
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

    /// For a worker that is the only one.
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

    /// What wakes this worker.
    pub(crate) fn waker(&self) -> Waker {
        self.wakers.get(self.number).cloned().unwrap_or_default()
    }

    /// How many datagrams are on their way here.
    pub(super) fn waiting(&self) -> Waiting {
        Waiting { number: self.number, waiting: self.waiting.clone() }
    }

    /// The worker of a flow, if it is another one.
    pub(super) fn elsewhere(&self, flow: &Flow) -> Option<usize> {
        let workers = u32::try_from(self.to.len()).unwrap_or(u32::MAX);
        if workers < 2 {
            return None;
        }
        let hash = flow_hash(&endpoint(flow.client), &endpoint(flow.server));
        let home = ring_index(hash, workers) as usize;
        (home != self.number).then_some(home)
    }

    /// Sends a datagram to another worker; false if that has too many to take in, or is gone.
    pub(super) fn send(&self, worker: usize, joined: Reassembled) -> bool {
        let (Some(to), Some(waiting)) = (self.to.get(worker), self.waiting.get(worker)) else {
            return false;
        };
        // First: it may be taken in before the sending returns, and a worker that closes from here on
        // waits for it.
        let is_open = waiting.fetch_add(1, Ordering::Relaxed) & CLOSED == 0;
        let is_sent = is_open && to.try_send(joined).is_ok();
        if is_sent {
            self.wakers.get(worker).into_iter().for_each(Waker::wake);
        } else {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        is_sent
    }

    /// A datagram from another worker, if there is one now.
    pub(super) fn receive(&self) -> Option<Reassembled> {
        // Empty, or the others have ended.
        let joined = self.from.try_recv().ok()?;
        self.count_received();
        Some(joined)
    }

    fn count_received(&self) {
        if let Some(waiting) = self.waiting.get(self.number) {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Hands what the other workers still send to `each`, until they have ended too or are not to be
    /// waited for any more.
    ///
    /// None is lost uncounted: a sender adds its datagram to the number on their way before it sends,
    /// and this worker marks that number as closed before it leaves. Both are changes of one atomic, so
    /// they have an order. A datagram that was added before the mark is waited for; a sender that adds
    /// one after it sees the mark, and counts its datagram as not handed over. The wait is short, since
    /// a sender does not block between the two.
    pub(super) fn end(mut self, mut each: impl FnMut(Reassembled)) {
        self.to.clear();
        loop {
            // First: what was sent before that is taken in.
            let is_released = self.released.load(Ordering::Acquire);
            match self.from.recv_timeout(RELEASE_POLL_INTERVAL) {
                Ok(joined) => {
                    self.count_received();
                    each(joined);
                }
                Err(RecvTimeoutError::Timeout) if !is_released => {}
                Err(RecvTimeoutError::Timeout) if self.close() == 0 => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// Has all other workers refused from now on; how many datagrams are still on their way here.
    fn close(&self) -> usize {
        let waiting = self.waiting.get(self.number);
        waiting.map_or(0, |waiting| waiting.fetch_or(CLOSED, Ordering::Relaxed) & !CLOSED)
    }
}

/// An end of a flow as the kernel programs hash it.
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

    fn joined(number: u8) -> Reassembled {
        let origin = build::origin(0, 1, [192, 0, 2, 1], [192, 0, 2, 2]);
        Reassembled { origin, protocol: headers::UDP, bytes: vec![number] }
    }

    #[test]
    fn both_directions_of_a_flow_have_one_home_and_it_is_the_kernels() {
        let ways = CrossWorkerQueue::between(4, &Arc::default());
        let mut homes = [0; 4];
        for port in 1..1_000 {
            for v6 in [false, true] {
                let there = flow(port, v6);
                let back = Flow { client: there.server, server: there.client, ..there };
                let home = ways[0].elsewhere(&there);
                assert_eq!(home, ways[0].elsewhere(&back));
                homes[home.unwrap_or(0)] += 1;
                assert!(ways[home.unwrap_or(0)].elsewhere(&there).is_none());
            }
        }
        assert!(homes.iter().all(|count| *count > 300), "{homes:?}");
        assert!(CrossWorkerQueue::single_worker().elsewhere(&flow(1, false)).is_none());
    }

    #[test]
    fn what_was_sent_arrives_before_the_end() {
        let released = Arc::new(AtomicBool::new(true));
        let [one, other] =
            <[CrossWorkerQueue; 2]>::try_from(CrossWorkerQueue::between(2, &released))
                .ok()
                .unwrap();
        assert!(one.send(1, joined(1)));
        assert_eq!(other.receive().map(|joined| joined.bytes), Some(vec![1]));
        assert!(other.receive().is_none());
        assert!(one.send(1, joined(2)));
        one.end(|_| panic!("nothing was sent here"));
        // `other` can still send to nobody: its reader has ended.
        assert!(!other.send(0, joined(3)));
        let mut last = Vec::new();
        other.end(|joined| last.push(joined.bytes));
        assert_eq!(last, [vec![2]]);
    }

    #[test]
    fn a_worker_that_ends_waits_for_the_others_until_it_is_released() {
        let released = Arc::new(AtomicBool::new(false));
        let [one, other] =
            <[CrossWorkerQueue; 2]>::try_from(CrossWorkerQueue::between(2, &released))
                .ok()
                .unwrap();
        assert!(other.send(0, joined(1)));
        let (to, from) = sync_channel(2);
        let ending = std::thread::spawn(move || {
            one.end(|joined| to.send(joined.bytes).unwrap());
        });
        assert_eq!(from.recv().unwrap(), [1]);
        assert!(other.send(0, joined(2)));
        assert_eq!(from.recv().unwrap(), [2]);
        assert!(!ending.is_finished());
        // `other` neither ends nor sends anything more.
        released.store(true, Ordering::Release);
        ending.join().unwrap();
        assert!(!other.send(0, joined(3)));
    }

    #[test]
    fn a_datagram_that_is_being_sent_when_its_worker_ends_is_taken_in() {
        let released = Arc::new(AtomicBool::new(true));
        let [one, other] =
            <[CrossWorkerQueue; 2]>::try_from(CrossWorkerQueue::between(2, &released))
                .ok()
                .unwrap();
        // The first half of `send`.
        other.waiting[0].fetch_add(1, Ordering::Relaxed);
        let ending = std::thread::spawn(move || {
            let mut received = Vec::new();
            one.end(|joined| received.push(joined.bytes));
            received
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while other.waiting[0].load(Ordering::Relaxed) & CLOSED == 0 {
            assert!(!ending.is_finished(), "it ended without the datagram");
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
        assert!(!other.send(0, joined(2)), "it is closed");
        // The second half.
        assert!(other.to[0].try_send(joined(1)).is_ok(), "it is waited for");
        assert_eq!(ending.join().unwrap(), [[1]]);
        assert_eq!(Waiting { number: 0, waiting: other.waiting.clone() }.datagrams(), 0);
    }

    #[test]
    fn a_worker_that_takes_nothing_in_is_not_waited_for() {
        let ways = CrossWorkerQueue::between(2, &Arc::default());
        let sent = (0..=QUEUED).filter(|_| ways[0].send(1, joined(0))).count();
        assert_eq!(sent, QUEUED);
        assert_eq!(ways[1].waiting().datagrams(), QUEUED);
        assert!(ways[1].receive().is_some());
        assert_eq!(ways[1].waiting().datagrams(), QUEUED - 1);
        assert_eq!(ways[0].waiting().datagrams(), 0);
    }
}
