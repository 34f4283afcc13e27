//! XDP: packets as the driver passes them on, before the kernel has created an skb.

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_md,
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use tap53_ebpf::{
    record::{MAX_CAPTURED_LENGTH, Sender, hook},
    settings::Direction,
};

use crate::{capture::Packet, emit::launder};

/// Maximum number of bytes that one call of `bpf_xdp_load_bytes` copies (`bpf_xdp_pointer`).
const MAX_LOAD: u64 = 0xffff;

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
            // SAFETY: the context belongs to this run of the program (kernel 5.18).
            unsafe { bpf_xdp_get_buff_len(self.md()) as u32 }
        } else {
            (self.ctx.data_end() - self.ctx.data()) as u32
        }
    }

    #[inline(always)]
    fn first_buffer(&self) -> (usize, usize) {
        (self.ctx.data(), self.ctx.data_end())
    }

    /// Devices merge segments after XDP, or in hardware without indication.
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }

    /// A tag that the device stripped is in its descriptor, out of reach.
    #[inline(always)]
    fn offloaded_tci(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn sees_every_tag(&self) -> bool {
        false
    }

    /// There is no skb yet, which would name its socket.
    #[inline(always)]
    fn sender(&self) -> Sender {
        Sender::UNKNOWN
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        let length = u64::from(length);
        if length <= MAX_LOAD {
            // SAFETY: the caller guarantees it (kernel 5.18).
            return unsafe { bpf_xdp_load_bytes(self.md(), offset, to.cast(), length as u32) == 0 };
        }
        let below = launder(length - MAX_LOAD - 1);
        if below >= u64::from(MAX_CAPTURED_LENGTH) - MAX_LOAD {
            return false;
        }
        let rest = launder(below) + 1;
        // SAFETY: the caller's `length` bytes are MAX_LOAD and `rest`, which is not zero.
        unsafe {
            bpf_xdp_load_bytes(self.md(), offset, to.cast(), MAX_LOAD as u32) == 0
                && bpf_xdp_load_bytes(
                    self.md(),
                    offset + MAX_LOAD as u32,
                    to.add(MAX_LOAD as usize).cast(),
                    rest as u32,
                ) == 0
        }
    }
}
