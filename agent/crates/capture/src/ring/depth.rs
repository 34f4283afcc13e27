//! How full a ring is, seen by a thread that does not drain it.

use std::{
    ffi::c_void,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    unistd::{SysconfVar, sysconf},
};

/// Bytes that wait in a ring: what the kernel calls `BPF_RB_AVAIL_DATA`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Depth {
    positions: Arc<Positions>,
    size_bytes: u32,
}

/// The first two pages of a ring's mapping, which hold the consumer's position and the producer's
/// (kernel/bpf/ringbuf.c). Both only grow.
#[derive(Debug)]
struct Positions {
    pages: NonNull<c_void>,
    page_bytes: usize,
}

// SAFETY: the mapping is read-only and stays until it is dropped; both words are read as atomics.
unsafe impl Send for Positions {}
// SAFETY: as above.
unsafe impl Sync for Positions {}

impl Depth {
    /// Of the ring with this descriptor and size.
    ///
    /// # Errors
    /// When the kernel does not map it.
    pub fn new(ring: impl AsFd, size_bytes: u32) -> Result<Self, Errno> {
        let page = sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or(4_096);
        let page_bytes = usize::try_from(page).map_err(|_| Errno::EINVAL)?;
        let length = NonZeroUsize::new(2 * page_bytes).ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping, wherever the kernel puts it, that nothing else knows of.
        let pages =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, ring, 0) }?;
        Ok(Self { positions: Arc::new(Positions { pages, page_bytes }), size_bytes })
    }

    /// Bytes that were written and not yet drained, with what the kernel writes around records.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // The consumer's first: it does not pass what was the producer's later.
        let consumed = self.positions.read(0);
        let produced = self.positions.read(1);
        (produced.wrapping_sub(consumed) as u64).min(self.size_bytes.into())
    }

    /// Bytes that it can hold.
    #[must_use]
    pub const fn size_bytes(&self) -> u32 {
        self.size_bytes
    }
}

impl Positions {
    fn read(&self, page: usize) -> usize {
        // SAFETY: each page begins with an aligned unsigned long, which lives as long as the
        // mapping, and which kernel and the draining thread write atomically.
        unsafe {
            let word = self.pages.byte_add(page * self.page_bytes).cast::<AtomicUsize>();
            word.as_ref().load(Ordering::Acquire)
        }
    }
}

impl Drop for Positions {
    fn drop(&mut self) {
        // SAFETY: our mapping, which nobody reads any more.
        let _ = unsafe { munmap(self.pages, 2 * self.page_bytes) };
    }
}
