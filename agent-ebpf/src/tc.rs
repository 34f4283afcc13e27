//! TC: packets as skbs, arriving after XDP or departing.

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::{bpf_get_socket_cookie, bpf_get_socket_uid, bpf_skb_cgroup_id, bpf_skb_load_bytes},
    programs::TcContext,
};
use tap53_ebpf::{
    record::{Sender, hook},
    settings::Direction,
};

use crate::capture::Packet;

/// A packet in an skb, which may be a GSO segment of up to 64 KiB or more. `FETCHES` is
/// [`Packet::FETCHES`].
pub(crate) struct Skb<'a, const FETCHES: bool> {
    ctx: &'a TcContext,
    direction: Direction,
}

impl<'a, const FETCHES: bool> Skb<'a, FETCHES> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'a TcContext, direction: Direction) -> Self {
        Self { ctx, direction }
    }

    #[inline(always)]
    fn skb(&self) -> *const __sk_buff {
        self.ctx.as_ptr().cast()
    }
}

impl<const FETCHES: bool> Packet for Skb<'_, FETCHES> {
    const FETCHES: bool = FETCHES;

    #[inline(always)]
    fn direction(&self) -> Direction {
        self.direction
    }

    #[inline(always)]
    fn hook(&self) -> u8 {
        match self.direction {
            Direction::Ingress => hook::TC_INGRESS,
            Direction::Egress => hook::TC_EGRESS,
        }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context belongs to this run of the program.
        unsafe { (*self.skb()).ifindex }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.ctx.len()
    }

    #[inline(always)]
    fn first_buffer(&self) -> (usize, usize) {
        (self.ctx.data(), self.ctx.data_end())
    }

    /// It takes kernel 5.7. In a tunnel, the segments are those of the inner packet.
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: the context belongs to this run of the program.
        unsafe { (*self.skb()).gso_size }
    }

    /// On ingress the kernel has removed the outer tag from the packet; on egress a device inserts
    /// it later.
    #[inline(always)]
    fn offloaded_tci(&self) -> Option<u16> {
        // SAFETY: the context belongs to this run of the program.
        unsafe { ((*self.skb()).vlan_present != 0).then(|| (*self.skb()).vlan_tci as u16) }
    }

    #[inline(always)]
    fn sees_every_tag(&self) -> bool {
        true
    }

    /// A packet keeps its socket from where it is sent to where IP receives or forwards it
    /// (`skb_orphan` in `ip_rcv_core`). On its way it crosses network namespaces (kernel 4.20), so the
    /// host's end of a pod's veth still sees it. Kernels: cookie and uid 4.12, cgroup 4.18.
    #[inline(always)]
    fn sender(&self) -> Sender {
        let skb = self.skb().cast_mut();
        // Most packets that arrive have no socket: the field (kernel 5.1) says so without a call.
        // SAFETY: the context belongs to this run of the program.
        if unsafe { (*skb).__bindgen_anon_2.sk }.is_null() {
            return Sender::UNKNOWN;
        }
        // SAFETY: the context is the program's own.
        unsafe {
            Sender {
                socket: bpf_get_socket_cookie(skb.cast()),
                cgroup: bpf_skb_cgroup_id(skb),
                uid: bpf_get_socket_uid(skb),
            }
        }
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller guarantees it.
        unsafe { bpf_skb_load_bytes(self.ctx.as_ptr(), offset, to.cast(), length) == 0 }
    }
}
