//! Prefetches memory that will be read soon into the processor's cache.

/// Fetches the cache line at `place` without waiting for it. Does nothing on processors for which
/// this crate has no instruction.
#[inline]
pub fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that reads nothing and cannot fault, whatever the address;
        // every x86-64 processor has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
