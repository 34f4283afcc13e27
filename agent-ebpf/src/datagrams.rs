//! The memory of fragmented datagrams, in maps.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tap53_ebpf::fragments::{DatagramKey, Memory, SPECULATIVE_PER_SECOND};

use crate::maps::{DATAGRAMS, SPECULATION};

/// The memory that all CPUs share.
pub(crate) struct Datagrams;

impl Memory for Datagrams {
    #[inline(always)]
    fn remember(&mut self, datagram: &DatagramKey, content: u32) {
        // Refused only when every entry is being replaced by other CPUs; then later fragments are of
        // an unknown datagram.
        let _ = DATAGRAMS.insert(datagram, &content, 0);
    }

    #[inline(always)]
    fn recall(&mut self, datagram: &DatagramKey) -> Option<u32> {
        // SAFETY: the value is a u32, copied at once. Were the entry given to another datagram
        // within these few nanoseconds, the fragment would be treated as one of that.
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
