//! Having the kernel wake a worker with the next record.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use aya::maps::{Array, MapData};
use tap53_ebpf::record::WAKE_WITH_NEXT;

/// The doorbells of all rings: the map in which the kernel programs count the bytes that were written
/// to each, to know when to wake its worker. Cheap to clone.
#[derive(Clone)]
pub struct Doorbells(Arc<Written>);

struct Written {
    map: Mutex<Array<MapData, u64>>,
    /// Whether setting it failed, which is logged once.
    failed: AtomicBool,
}

/// The doorbell of one ring. Its worker sets the bytes written so that the next record passes the
/// threshold.
pub struct Doorbell {
    written: Arc<Written>,
    ring: u32,
}

impl Doorbells {
    /// Takes the map over.
    #[must_use]
    pub fn new(map: Array<MapData, u64>) -> Self {
        Self(Arc::new(Written { map: Mutex::new(map), failed: AtomicBool::new(false) }))
    }

    /// The doorbell of the ring with this number.
    #[must_use]
    pub fn of(&self, ring: u32) -> Doorbell {
        Doorbell { written: self.0.clone(), ring }
    }
}

impl Doorbell {
    /// Has the kernel wake this ring's worker with the next record; false if it will not. One system
    /// call. Once only: what comes after that record wakes by the threshold again.
    #[must_use]
    pub fn arm(&self) -> bool {
        let Written { map, failed } = &*self.written;
        if failed.load(Ordering::Relaxed) {
            return false;
        }
        let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
        // What other CPUs add at this moment may be lost by it, which moves the next multiple of the
        // threshold and nothing else.
        let set = map.set(self.ring, WAKE_WITH_NEXT, 0);
        if let Err(error) = &set
            && !failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                event = "ring_doorbell_failed",
                %error,
                "cannot have the kernel wake workers: they poll their rings 50 times a second"
            );
        }
        set.is_ok()
    }
}
