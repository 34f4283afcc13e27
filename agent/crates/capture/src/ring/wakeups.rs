//! Waits for a time, or for the kernel's or the waker's wake-up, whatever waits in the ring.

use std::os::fd::AsFd;

use aya::maps::{MapData, RingBuf};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use super::Waker;

/// The wake-ups of one worker. poll(2) returns at once if the ring has items, and under load it always has
/// some; an edge-triggered epoll(7) returns when the kernel programs force a wake-up.
pub(super) struct Wakeups(Epoll);

impl Wakeups {
    /// Registers the ring and the waker; returns `None` if the kernel refuses that.
    pub(super) fn of(ring: &RingBuf<MapData>, waker: &Waker) -> Option<Self> {
        let registered = Self::register(ring, waker).inspect_err(|error| {
            tracing::warn!(
                event = "ring_wakeups_failed",
                %error,
                "cannot wait for wake-ups by epoll: a worker under load reads its ring without a pause"
            );
        });
        registered.ok().map(Self)
    }

    fn register(ring: &RingBuf<MapData>, waker: &Waker) -> Result<Epoll, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(ring.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        if let Some(waker) = waker.descriptor() {
            epoll.add(waker, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(epoll)
    }

    /// Waits for a wake-up for at most `wait_ms` milliseconds.
    pub(super) fn wait(&self, wait_ms: u16) -> Result<(), Errno> {
        self.0.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::from(wait_ms)).map(drop)
    }
}
