//! BPF entry points.
//!
//! The verdict never depends on the packet: XDP returns `XDP_PASS` and TC returns `TC_ACT_UNSPEC`,
//! which lets the next program of the chain run, whatever the capture came to. `TC_ACT_OK` would
//! end the chain and take the packet away from a CNI's programs behind ours.
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
mod tc;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use tap53_ebpf::settings::Direction;

    use crate::{capture::capture, tc::Skb, xdp::XdpBuffer};

    /// XDP for devices that may hand over packets in several buffers (kernel 5.18).
    #[xdp(frags)]
    #[inline(always)]
    fn tap53_xdp_frags(ctx: XdpContext) -> u32 {
        capture(&XdpBuffer::<true>::new(&ctx));
        XDP_PASS
    }

    /// The same for drivers that refuse programs with frags.
    #[xdp]
    #[inline(always)]
    fn tap53_xdp(ctx: XdpContext) -> u32 {
        capture(&XdpBuffer::<false>::new(&ctx));
        XDP_PASS
    }

    /// TC ingress, where XDP cannot be.
    #[classifier]
    #[inline(always)]
    fn tap53_tc_ingress(ctx: TcContext) -> i32 {
        capture(&Skb::new(&ctx, Direction::Ingress));
        TC_ACT_UNSPEC
    }

    /// TC egress: what XDP never sees.
    #[classifier]
    #[inline(always)]
    fn tap53_tc_egress(ctx: TcContext) -> i32 {
        capture(&Skb::new(&ctx, Direction::Egress));
        TC_ACT_UNSPEC
    }

    /// The helpers that write rings and read the clock are for GPL-compatible programs only.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 4] = *b"GPL\0";

    /// Nothing here panics: the linker drops this, and the verifier refuses the loop if it does not.
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

/// The crate checks on the host; the programs are built by `cargo xtask build-ebpf`.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("tap53-ebpf runs in the kernel: build it with `cargo xtask build-ebpf`");
}
