//! Requests that the kernel wakes a worker with the next ring item.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use aya::maps::{Array, MapData};
use tap53_ebpf::record::WAKE_WITH_NEXT;

/// The doorbells of all rings: the map in which the kernel programs count the bytes written to each
/// ring, to decide when to wake its worker. Cheap to clone.
#[derive(Clone)]
pub struct Doorbells(Arc<WrittenBytes>);

struct WrittenBytes {
    map: Mutex<Array<MapData, u64>>,
    /// True if a request has failed, which is logged once.
    failed: AtomicBool,
}

/// The doorbell of one ring. Its worker sets the count of written bytes so that the next item
/// passes the threshold.
pub struct Doorbell {
    written: Arc<WrittenBytes>,
    ring: u32,
}

impl Doorbells {
    /// Wraps the map.
    #[must_use]
    pub fn new(map: Array<MapData, u64>) -> Self {
        Self(Arc::new(WrittenBytes { map: Mutex::new(map), failed: AtomicBool::new(false) }))
    }

    /// Returns the doorbell of a ring.
    #[must_use]
    pub fn of(&self, ring: u32) -> Doorbell {
        Doorbell { written: self.0.clone(), ring }
    }
}

impl Doorbell {
    /// Requests that the kernel wakes this ring's worker with the next item; returns false if the
    /// request fails. It takes one system call and is valid once: later items wake by the threshold
    /// again.
    #[must_use]
    pub fn arm(&self) -> bool {
        let WrittenBytes { map, failed } = &*self.written;
        if failed.load(Ordering::Relaxed) {
            return false;
        }
        let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
        // This may overwrite what other CPUs add at the same moment, which only moves the next
        // multiple of the threshold.
        let set = map.set(self.ring, WAKE_WITH_NEXT, 0);
        if let Err(error) = &set
            && !failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                event = "ring_doorbell_failed",
                %error,
                "cannot have the kernel wake workers: they poll their rings 20 times a second"
            );
        }
        set.is_ok()
    }
}
