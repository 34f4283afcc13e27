//! XDP: packets as the driver hands them over, before the kernel has made an skb of them.

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_md,
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use tap53_ebpf::{record::hook, settings::Direction};

use crate::capture::Packet;

/// Bytes that one call of `bpf_xdp_load_bytes` copies at most (`bpf_xdp_pointer`).
const MAX_LOAD: u32 = 0xffff;

/// A packet in one XDP buffer, or with `FRAGS` in one or more.
pub(crate) struct XdpBuffer<'a, const FRAGS: bool> {
    ctx: &'a XdpContext,
}

impl<'a, const FRAGS: bool> XdpBuffer<'a, FRAGS> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn md(&self) -> *mut xdp_md {
        self.ctx.as_ptr().cast()
    }
}

impl<const FRAGS: bool> Packet for XdpBuffer<'_, FRAGS> {
    #[inline(always)]
    fn direction(&self) -> Direction {
        Direction::Ingress
    }

    #[inline(always)]
    fn hook(&self) -> u8 {
        hook::XDP
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        if FRAGS {
            // SAFETY: the context is the program's own (kernel 5.18).
            unsafe { bpf_xdp_get_buff_len(self.md()) as u32 }
        } else {
            (self.ctx.data_end() - self.ctx.data()) as u32
        }
    }

    #[inline(always)]
    fn first_buffer(&self) -> (usize, usize) {
        (self.ctx.data(), self.ctx.data_end())
    }

    /// What the device stripped is in its descriptor, out of reach.
    #[inline(always)]
    fn offloaded_tci(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn sees_every_tag(&self) -> bool {
        false
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        let first = length.min(MAX_LOAD);
        // SAFETY: `first` is not zero, and no more than the caller's `length` (kernel 5.18).
        let mut copied = unsafe { bpf_xdp_load_bytes(self.md(), offset, to.cast(), first) == 0 };
        if copied && length > MAX_LOAD {
            // SAFETY: the caller's `length` bytes go on behind the first MAX_LOAD.
            copied = unsafe {
                let rest = to.add(MAX_LOAD as usize);
                let rest_length = length - MAX_LOAD;
                bpf_xdp_load_bytes(self.md(), offset + MAX_LOAD, rest.cast(), rest_length) == 0
            };
        }
        copied
    }
}
