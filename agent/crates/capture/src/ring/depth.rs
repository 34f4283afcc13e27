//! Measures how full a ring is, from a thread that does not drain it.

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

/// Measures the bytes that wait in a ring, the kernel's `BPF_RB_AVAIL_DATA`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Depth {
    positions: Arc<Positions>,
    size_bytes: u32,
}

/// The first two pages of a ring's mapping, which contain the consumer's position and the
/// producer's (kernel/bpf/ringbuf.c). Both only increase.
#[derive(Debug)]
struct Positions {
    pages: NonNull<c_void>,
    page_bytes: usize,
}

// SAFETY: the mapping is read-only and exists until it is dropped; both words are read atomically.
unsafe impl Send for Positions {}
// SAFETY: as above.
unsafe impl Sync for Positions {}

impl Depth {
    /// Maps the ring with this descriptor and size.
    ///
    /// # Errors
    /// Fails if the kernel does not map it.
    pub fn new(ring: impl AsFd, size_bytes: u32) -> Result<Self, Errno> {
        let page = sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or(4_096);
        let page_bytes = usize::try_from(page).map_err(|_| Errno::EINVAL)?;
        let length = NonZeroUsize::new(2 * page_bytes).ok_or(Errno::EINVAL)?;
        // SAFETY: it creates a new mapping at an address that the kernel chooses, to which nothing
        // refers.
        let pages =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, ring, 0) }?;
        Ok(Self { positions: Arc::new(Positions { pages, page_bytes }), size_bytes })
    }

    /// Returns the bytes that are written and not yet drained, including the headers of ring items.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // Read the consumer's position first: it never exceeds a later position of the producer.
        let consumed = self.positions.read(0);
        let produced = self.positions.read(1);
        (produced.wrapping_sub(consumed) as u64).min(self.size_bytes.into())
    }

    /// Returns the capacity in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> u32 {
        self.size_bytes
    }
}

impl Positions {
    fn read(&self, page: usize) -> usize {
        // SAFETY: each page begins with an aligned unsigned long, which lives as long as the
        // mapping, and which the kernel and the draining thread write atomically.
        unsafe {
            let word = self.pages.byte_add(page * self.page_bytes).cast::<AtomicUsize>();
            word.as_ref().load(Ordering::Acquire)
        }
    }
}

impl Drop for Positions {
    fn drop(&mut self) {
        // SAFETY: this is our mapping, which no reader uses any more.
        let _ = unsafe { munmap(self.pages, 2 * self.page_bytes) };
    }
}
