//! Memory that will be read soon, fetched into the processor's cache meanwhile.

/// Fetches the cache line at `place` without waiting for it; does nothing on processors for which
/// no instruction is known here.
#[inline]
pub fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint that reads nothing and faults nowhere, whatever the address; every x86-64
        // has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
