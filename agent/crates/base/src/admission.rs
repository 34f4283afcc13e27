//! Admits connections up to a limit, and evicts an idle one where a new one needs its slot.
//!
//! Anybody who reaches a port with a fixed number of slots can fill it. So a new connection takes
//! the slot of the oldest idle one, and one peer gets fewer slots than there are in total:
//!
//! | stage of a connection | closed for a newer one |
//! |---|---|
//! | reading: its request is not complete | first, the oldest before the others |
//! | writing: its peer has yet to read the answer | while its peer does not read |
//! | working: its request is being answered | never |
//!
//! A peer at its own limit evicts one of its own connections, so that a flood from one peer costs
//! others nothing. A peer that sends its request at once is answered, however many connections
//! idle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Limits on the number of open connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of all peers together.
    pub total: usize,
    /// Connections of one peer.
    pub per_peer: usize,
}

/// The stage that a connection has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its request is not complete.
    Reading,
    /// Its request is being answered.
    Working,
    /// Its answer is on its way.
    Writing,
}

/// The open connections of a server, each with its peer.
#[derive(Debug)]
pub struct ConnectionLimiter<P> {
    limits: Limits,
    slots: Arc<Mutex<Slots<P>>>,
}

#[derive(Debug)]
struct Slots<P> {
    /// Oldest first.
    open: Vec<Slot<P>>,
    next_id: u64,
}

#[derive(Debug)]
struct Slot<P> {
    id: u64,
    peer: P,
    stage: Stage,
    closed: Arc<Notify>,
}

/// A connection's slot. Dropping it frees the slot.
#[derive(Debug)]
pub struct Connection<P> {
    id: u64,
    slots: Arc<Mutex<Slots<P>>>,
    closed: Arc<Notify>,
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Admission<P> {
    /// The connection; its slot is free again when this is dropped.
    pub connection: Connection<P>,
    /// The stage of the connection that was evicted for it, if one was.
    pub evicted: Option<Stage>,
}

impl<P: Copy + Eq> ConnectionLimiter<P> {
    /// Creates a limiter without connections.
    pub fn new(limits: Limits) -> Self {
        let slots = Slots { open: Vec::with_capacity(limits.total), next_id: 0 };
        Self { limits, slots: Arc::new(Mutex::new(slots)) }
    }

    /// Admits a connection. Returns `None` if no connection may be evicted for it: all are being
    /// answered.
    pub fn admit(&self, peer: P) -> Option<Admission<P>> {
        let mut slots = lock(&self.slots);
        let of_peer = slots.open.iter().filter(|slot| slot.peer == peer).count();
        let evicted = if of_peer >= self.limits.per_peer {
            Some(slots.evict(|slot| slot.peer == peer)?)
        } else if slots.open.len() >= self.limits.total {
            Some(slots.evict(|_| true)?)
        } else {
            None
        };
        let connection = self.open(&mut slots, peer, Stage::Reading);
        Some(Admission { connection, evicted })
    }

    fn open(&self, slots: &mut Slots<P>, peer: P, stage: Stage) -> Connection<P> {
        let (id, closed) = (slots.next_id, Arc::new(Notify::new()));
        slots.next_id += 1;
        slots.open.push(Slot { id, peer, stage, closed: closed.clone() });
        Connection { id, slots: self.slots.clone(), closed }
    }
}

impl<P> Slots<P> {
    /// Evicts the first candidate among the connections that `may_go`, and returns the stage it was
    /// in.
    fn evict(&mut self, may_go: impl Fn(&Slot<P>) -> bool) -> Option<Stage> {
        let first = |stage| {
            let mut open = self.open.iter();
            open.position(|slot| slot.stage == stage && may_go(slot))
        };
        let slot = self.open.remove(first(Stage::Reading).or_else(|| first(Stage::Writing))?);
        slot.closed.notify_one();
        Some(slot.stage)
    }
}

impl<P> Connection<P> {
    /// Records the stage that the connection has reached.
    pub fn enter(&self, stage: Stage) {
        if let Some(slot) = lock(&self.slots).open.iter_mut().find(|slot| slot.id == self.id) {
            slot.stage = stage;
        }
    }

    /// Waits until the connection is evicted.
    pub async fn evicted(&self) {
        self.closed.notified().await;
    }
}

impl<P> Drop for Connection<P> {
    fn drop(&mut self) {
        lock(&self.slots).open.retain(|slot| slot.id != self.id);
    }
}

fn lock<P>(slots: &Mutex<Slots<P>>) -> MutexGuard<'_, Slots<P>> {
    // A panic cannot leave the list half changed: each slot is added and removed in one step.
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total: 4, per_peer: 2 };

    fn is_evicted(connection: &Connection<u8>) -> bool {
        lock(&connection.slots).open.iter().all(|slot| slot.id != connection.id)
    }

    #[test]
    fn the_oldest_reading_connection_is_evicted() {
        let admission = ConnectionLimiter::new(LIMITS);
        let admit = |peer| admission.admit(peer).unwrap();
        let held: Vec<_> = (0..4).map(|peer| admit(peer).connection).collect();
        held[0].enter(Stage::Working);
        let newest = admit(9);
        assert_eq!(newest.evicted, Some(Stage::Reading));
        assert_eq!(held.iter().map(is_evicted).collect::<Vec<_>>(), [false, true, false, false]);
        // The slot now belongs to the new connection; dropping the evicted one must not free it.
        drop(held);
        assert_eq!(lock(&admission.slots).open.len(), 1);
        drop(newest);
        assert_eq!(lock(&admission.slots).open.len(), 0);
    }

    #[test]
    fn a_peer_at_its_limit_evicts_its_own_connections() {
        let admission = ConnectionLimiter::new(LIMITS);
        let other = admission.admit(1).unwrap().connection;
        let own: Vec<_> = (0..2).map(|_| admission.admit(2).unwrap().connection).collect();
        let evicted = admission.admit(2).unwrap();
        assert_eq!(evicted.evicted, Some(Stage::Reading));
        assert!(!is_evicted(&other) && is_evicted(&own[0]) && !is_evicted(&own[1]));
        // A flood from one peer leaves the others their slots.
        for _ in 0..1_000 {
            drop(admission.admit(2).unwrap());
        }
        assert!(!is_evicted(&other));
    }

    #[test]
    fn writing_connections_are_evicted_after_reading_ones_and_working_ones_never() {
        let admission = ConnectionLimiter::new(LIMITS);
        let held: Vec<_> = (0..4).map(|peer| admission.admit(peer).unwrap().connection).collect();
        held[0].enter(Stage::Writing);
        (1..4).for_each(|at| held[at].enter(Stage::Working));
        let admitted = admission.admit(5).unwrap();
        assert_eq!(admitted.evicted, Some(Stage::Writing));
        assert!(is_evicted(&held[0]));
        admitted.connection.enter(Stage::Working);
        assert!(admission.admit(6).is_none(), "all are being answered");
        drop(admitted);
        assert!(admission.admit(6).is_some_and(|admitted| admitted.evicted.is_none()));
    }

    #[test]
    fn an_evicted_connection_is_notified() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let admission = ConnectionLimiter::new(Limits { total: 1, per_peer: 1 });
        let first = admission.admit(1).unwrap().connection;
        let second = admission.admit(2).unwrap().connection;
        // The notification also reaches a caller that starts to wait later.
        runtime.block_on(first.evicted());
        assert!(!is_evicted(&second));
    }
}
