//! XDP: packets as the driver passes them on, before the kernel has created an skb.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_md,
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes, generated::bpf_probe_read_kernel},
    programs::XdpContext,
};
use tap53_ebpf::{
    headers::MAX_OFFSET,
    record::{MAX_CAPTURED_LENGTH, Sender, hook},
    settings::Direction,
};

use crate::{capture::Packet, emit::launder};

/// Maximum number of bytes that one call of `bpf_xdp_load_bytes` copies (`bpf_xdp_pointer`).
const MAX_LOAD: u64 = 0xffff;

/// A way to read packets, which depends on the kernel and on the driver.
pub(crate) trait Access {
    /// See [`Packet::FETCHES`].
    const FETCHES: bool = true;

    /// Returns the length over all buffers, in bytes.
    #[inline(always)]
    fn length(ctx: &XdpContext) -> u32 {
        first_buffer_length(ctx)
    }

    /// Copies `length` bytes from `offset` on.
    ///
    /// # Safety
    /// As [`Packet::copy`].
    #[inline(always)]
    unsafe fn copy(ctx: &XdpContext, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller guarantees it.
        unsafe { load(ctx, offset, to, length) }
    }
}

/// One buffer or more (kernel 5.18).
pub(crate) struct Buffers;

impl Access for Buffers {
    #[inline(always)]
    fn length(ctx: &XdpContext) -> u32 {
        // SAFETY: the context belongs to this run of the program (kernel 5.18).
        unsafe { bpf_xdp_get_buff_len(md(ctx)) as u32 }
    }
}

/// One buffer (kernel 5.18).
pub(crate) struct OneBuffer;

impl Access for OneBuffer {}

/// One buffer, on kernels before 5.18. They have no helper that copies from an XDP packet, but one
/// that copies from any address in the kernel, which takes CAP_PERFMON (kernel 5.9).
pub(crate) struct OneBufferByAddress;

impl Access for OneBufferByAddress {
    const FETCHES: bool = false;

    #[inline(always)]
    unsafe fn copy(ctx: &XdpContext, offset: u32, to: *mut u8, length: u32) -> bool {
        if u64::from(offset) + u64::from(length) > u64::from(first_buffer_length(ctx)) {
            return false;
        }
        // No offset is greater; the verifier wants the bound before it adds to a packet pointer.
        let offset = launder(u64::from(offset)) & u64::from(MAX_OFFSET);
        let from = (ctx.data() + offset as usize) as *const c_void;
        // SAFETY: all bytes are in the buffer, as checked above; the caller guarantees the rest.
        unsafe { bpf_probe_read_kernel(to.cast(), length, from) == 0 }
    }
}

#[inline(always)]
fn md(ctx: &XdpContext) -> *mut xdp_md {
    ctx.as_ptr().cast()
}

#[inline(always)]
fn first_buffer_length(ctx: &XdpContext) -> u32 {
    (ctx.data_end() - ctx.data()) as u32
}

/// Copies by the helper for packets.
///
/// # Safety
/// As [`Packet::copy`].
#[inline(always)]
unsafe fn load(ctx: &XdpContext, offset: u32, to: *mut u8, length: u32) -> bool {
    let length = u64::from(length);
    if length <= MAX_LOAD {
        // SAFETY: the caller guarantees it (kernel 5.18).
        return unsafe { bpf_xdp_load_bytes(md(ctx), offset, to.cast(), length as u32) == 0 };
    }
    let below = launder(length - MAX_LOAD - 1);
    if below >= u64::from(MAX_CAPTURED_LENGTH) - MAX_LOAD {
        return false;
    }
    let rest = launder(below) + 1;
    // SAFETY: the caller's `length` bytes are MAX_LOAD and `rest`, which is not zero.
    unsafe {
        bpf_xdp_load_bytes(md(ctx), offset, to.cast(), MAX_LOAD as u32) == 0
            && bpf_xdp_load_bytes(
                md(ctx),
                offset + MAX_LOAD as u32,
                to.add(MAX_LOAD as usize).cast(),
                rest as u32,
            ) == 0
    }
}

/// A packet in XDP buffers.
pub(crate) struct XdpBuffer<'a, A> {
    ctx: &'a XdpContext,
    access: PhantomData<A>,
}

impl<'a, A> XdpBuffer<'a, A> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx, access: PhantomData }
    }
}

impl<A: Access> Packet for XdpBuffer<'_, A> {
    const FETCHES: bool = A::FETCHES;

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
        A::length(self.ctx)
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
        // SAFETY: the caller guarantees it.
        unsafe { A::copy(self.ctx, offset, to, length) }
    }
}
