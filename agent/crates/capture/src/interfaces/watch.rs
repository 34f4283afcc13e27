//! Interfaces as they come, change and go, told by rtnetlink.
//!
//! - An interface that moves to another namespace is gone from here (RTM_DELLINK), and one that
//!   comes from another is new. Programs stay on it through the move, so whoever attached them has
//!   to take them off.
//! - Changes come in the order in which they happened and are not joined: a number that is gone and
//!   there again within a moment is another interface.
//! - A bridge tells of its ports by messages of its own family, where "deleted" means that the port
//!   left the bridge; they say nothing about the interface and are left out.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::{
    Error, Interface,
    netlink::{Message, Socket, read_u32},
    parse,
};

/// What happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, new or changed.
    Present(Interface),
    /// There is none of this number any more.
    Gone(u32),
    /// Messages were lost: only a list tells what there is.
    Lost,
}

/// A subscription; readable as a descriptor when something happened.
#[derive(Debug)]
pub struct Watch(Socket);

impl Watch {
    /// Subscribes in this thread's network namespace. List the interfaces after it, or what happens
    /// in between goes unnoticed.
    ///
    /// # Errors
    /// When there can be no socket.
    pub fn open() -> Result<Self, Error> {
        Socket::open_for_links().map(Self)
    }

    /// What happened since the last call, oldest first; empty if nothing.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn changes(&mut self) -> Result<Vec<Change>, Error> {
        let told = self.0.told()?;
        let lost = || vec![Change::Lost];
        Ok(told.map_or_else(lost, |messages| messages.iter().filter_map(change).collect()))
    }
}

fn change(message: &Message) -> Option<Change> {
    let family = *message.payload.first()?;
    if i32::from(family) != libc::AF_UNSPEC {
        return None;
    }
    match message.message_type {
        libc::RTM_NEWLINK => parse(&message.payload).map(Change::Present),
        libc::RTM_DELLINK => read_u32(&message.payload, 4).map(Change::Gone),
        _ => None,
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(message_type: u16, family: u8) -> Message {
        let mut payload = vec![0; 16];
        payload[0] = family;
        payload[4..8].copy_from_slice(&7u32.to_ne_bytes());
        // IFLA_IFNAME, "a".
        payload.extend_from_slice(&[6, 0, 3, 0, b'a', 0, 0, 0]);
        Message { message_type, payload }
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        assert_eq!(change(&message(libc::RTM_DELLINK, 0)), Some(Change::Gone(7)));
        let bridge = u8::try_from(libc::AF_BRIDGE).unwrap();
        assert_eq!(change(&message(libc::RTM_DELLINK, bridge)), None);
        assert_eq!(change(&message(libc::RTM_NEWLINK, bridge)), None);
        let present = change(&message(libc::RTM_NEWLINK, 0));
        assert!(matches!(present, Some(Change::Present(found)) if found.name == "a"));
        assert_eq!(change(&Message { message_type: libc::RTM_DELLINK, payload: vec![] }), None);
    }

    #[test]
    fn nothing_is_told_of_a_namespace_in_which_nothing_happens() {
        // The namespace of the test is others' too: only that it does not wait is certain.
        assert!(Watch::open().unwrap().changes().is_ok());
    }
}
