//! Waits for a time, or for the kernel's or the waker's wake-up, whatever waits in the ring.

use std::os::fd::AsFd;

use aya::maps::{MapData, RingBuf};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use super::Waker;

/// The wake-ups of one worker. poll(2) returns at once if the ring has items, and under load it always has
/// some; an edge-triggered epoll(7) returns when the kernel programs force a wake-up.
pub(super) struct Wakeups(Option<Epoll>);

impl Wakeups {
    /// Registers the ring and the waker. If the kernel refuses that, the worker polls more often.
    pub(super) fn of(ring: &RingBuf<MapData>, waker: &Waker) -> Self {
        let registered = Self::register(ring, waker);
        if let Err(error) = &registered {
            tracing::warn!(
                event = "ring_wakeups_failed",
                %error,
                "cannot wait for wake-ups by epoll: a worker under load reads its ring without a pause"
            );
        }
        Self(registered.ok())
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
    pub(super) fn wait(&self, ring: &RingBuf<MapData>, wait_ms: u32) -> Result<(), Errno> {
        // At most 20.
        let wait_ms = u16::try_from(wait_ms).unwrap_or(u16::MAX);
        match &self.0 {
            Some(epoll) => {
                epoll.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::from(wait_ms)).map(drop)
            }
            None => {
                let ring = PollFd::new(ring.as_fd(), PollFlags::POLLIN);
                poll(&mut [ring], PollTimeout::from(wait_ms)).map(drop)
            }
        }
    }
}
