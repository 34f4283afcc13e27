//! BPF entry points.
//!
//! The verdict never depends on the packet: XDP returns `XDP_PASS` and TC returns `TC_ACT_UNSPEC`,
//! which runs the next program of the chain, whatever the result of the capture. `TC_ACT_OK` would
//! end the chain and keep the packet from a CNI's programs after ours. Programs at a cgroup let every
//! system call proceed; the agent loads them only if records are to name processes.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// For the inline assembly in emit.rs; the build sets RUSTC_BOOTSTRAP=1.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod capture;
#[cfg(target_arch = "bpf")]
mod datagrams;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod processes;
#[cfg(target_arch = "bpf")]
mod tc;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
        macros::{cgroup_sock_addr, classifier, xdp},
        programs::{SockAddrContext, TcContext, XdpContext},
    };
    use tap53_ebpf::settings::Direction;

    use crate::{
        capture::capture,
        processes::remember,
        tc::Skb,
        xdp::{Buffers, OneBuffer, OneBufferByAddress, XdpBuffer},
    };

    /// Verdict of a program at a cgroup: the system call proceeds. 0 would fail it.
    const PROCEED: i32 = 1;

    /// XDP for devices that may pass packets in several buffers (kernel 5.18).
    #[xdp(frags)]
    #[inline(always)]
    fn tap53_xdp_frags(ctx: XdpContext) -> u32 {
        capture(&XdpBuffer::<Buffers>::new(&ctx));
        XDP_PASS
    }

    /// XDP for drivers that refuse programs with frags.
    #[xdp]
    #[inline(always)]
    fn tap53_xdp(ctx: XdpContext) -> u32 {
        capture(&XdpBuffer::<OneBuffer>::new(&ctx));
        XDP_PASS
    }

    /// XDP for kernels before 5.18.
    #[xdp]
    #[inline(always)]
    fn tap53_xdp_old(ctx: XdpContext) -> u32 {
        capture(&XdpBuffer::<OneBufferByAddress>::new(&ctx));
        XDP_PASS
    }

    /// TC ingress, where XDP is not possible.
    #[classifier]
    #[inline(always)]
    fn tap53_tc_ingress(ctx: TcContext) -> i32 {
        capture(&Skb::<true>::new(&ctx, Direction::Ingress));
        TC_ACT_UNSPEC
    }

    /// TC egress, which XDP never sees.
    #[classifier]
    #[inline(always)]
    fn tap53_tc_egress(ctx: TcContext) -> i32 {
        capture(&Skb::<true>::new(&ctx, Direction::Egress));
        TC_ACT_UNSPEC
    }

    /// TC ingress for kernels before 5.12.
    #[classifier]
    #[inline(always)]
    fn tap53_tc_ingress_old(ctx: TcContext) -> i32 {
        capture(&Skb::<false>::new(&ctx, Direction::Ingress));
        TC_ACT_UNSPEC
    }

    /// TC egress for kernels before 5.12.
    #[classifier]
    #[inline(always)]
    fn tap53_tc_egress_old(ctx: TcContext) -> i32 {
        capture(&Skb::<false>::new(&ctx, Direction::Egress));
        TC_ACT_UNSPEC
    }

    /// `connect` to an IPv4 address, over UDP or TCP.
    #[cgroup_sock_addr(connect4)]
    #[inline(always)]
    fn tap53_connect4(ctx: SockAddrContext) -> i32 {
        // SAFETY: the context is the program's own.
        unsafe { remember(ctx.sock_addr) };
        PROCEED
    }

    /// `connect` to an IPv6 address, over UDP or TCP.
    #[cgroup_sock_addr(connect6)]
    #[inline(always)]
    fn tap53_connect6(ctx: SockAddrContext) -> i32 {
        // SAFETY: as above.
        unsafe { remember(ctx.sock_addr) };
        PROCEED
    }

    /// `sendto`, `sendmsg` or `sendmmsg` over UDP to an IPv4 address that the call names.
    #[cgroup_sock_addr(sendmsg4)]
    #[inline(always)]
    fn tap53_sendmsg4(ctx: SockAddrContext) -> i32 {
        // SAFETY: as above.
        unsafe { remember(ctx.sock_addr) };
        PROCEED
    }

    /// The same to an IPv6 address.
    #[cgroup_sock_addr(sendmsg6)]
    #[inline(always)]
    fn tap53_sendmsg6(ctx: SockAddrContext) -> i32 {
        // SAFETY: as above.
        unsafe { remember(ctx.sock_addr) };
        PROCEED
    }

    /// The helpers that write rings and read the clock require a GPL-compatible program.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 4] = *b"GPL\0";

    /// The agent refuses an object that was built from another version of the interface.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "interface")]
    static INTERFACE: [u8; 8] = tap53_ebpf::INTERFACE.to_le_bytes();

    /// Nothing here panics: the linker drops this function; otherwise the verifier refuses its
    /// loop.
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

/// The crate is checked on the host; `cargo xtask build-ebpf` builds the programs.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("tap53-ebpf runs in the kernel: build it with `cargo xtask build-ebpf`");
}
