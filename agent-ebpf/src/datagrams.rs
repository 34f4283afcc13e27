//! Stores the content of fragmented datagrams, in maps.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tap53_ebpf::fragments::{DatagramContents, DatagramKey, SPECULATIVE_PER_SECOND};

use crate::maps::{DATAGRAMS, SPECULATION};

/// The store, which all CPUs share.
pub(crate) struct Datagrams;

impl DatagramContents for Datagrams {
    #[inline(always)]
    fn store(&mut self, datagram: &DatagramKey, content: u32) {
        // It is refused only if other CPUs are replacing every entry; then the datagram of later
        // fragments is unknown.
        let _ = DATAGRAMS.insert(datagram, &content, 0);
    }

    #[inline(always)]
    fn load(&mut self, datagram: &DatagramKey) -> Option<u32> {
        // SAFETY: the value is a u32, which is copied at once. If the entry was given to another
        // datagram within these few nanoseconds, the fragment would be treated as one of that.
        unsafe { DATAGRAMS.get(datagram) }.copied()
    }

    #[inline(always)]
    fn may_speculate(&mut self) -> bool {
        const SECOND_NS: u64 = 1_000_000_000;
        let Some(speculation) = SPECULATION.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: a helper without arguments.
        let second = unsafe { bpf_ktime_get_ns() } / SECOND_NS;
        // SAFETY: the map value is a Speculation of this CPU, valid while the program runs. XDP and
        // TC do not interrupt each other.
        unsafe {
            if (*speculation).second != second {
                (*speculation).second = second;
                (*speculation).count = 0;
            }
            if (*speculation).count >= u64::from(SPECULATIVE_PER_SECOND) {
                return false;
            }
            (*speculation).count += 1;
        }
        true
    }
}
