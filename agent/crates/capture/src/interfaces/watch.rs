//! Follows changes of interfaces by rtnetlink notifications.
//!
//! - An interface that moves to another namespace is removed here (RTM_DELLINK), and one that comes
//!   from another is new. Programs stay attached through the move, so the agent that attached them
//!   must detach them.
//! - Changes arrive in order and are not merged: an ifindex that disappears and returns within a
//!   moment is another interface.
//! - A bridge reports its ports in messages of its own family, where "deleted" means that the port
//!   left the bridge. They say nothing about the interface and are skipped.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::{
    Error, Interface,
    netlink::{Message, Socket, read_u32},
    parse,
};

/// A change of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The interface exists; it is new or has changed.
    Present(Interface),
    /// No interface has this ifindex any more.
    Gone(u32),
    /// Messages were lost: the interfaces must be listed again.
    Lost,
}

/// A subscription; readable as a descriptor when there is a change.
#[derive(Debug)]
pub struct Watch(Socket);

impl Watch {
    /// Subscribes in this thread's network namespace. List the interfaces after it, or changes in
    /// between are missed.
    ///
    /// # Errors
    /// Fails if the socket cannot be created.
    pub fn open() -> Result<Self, Error> {
        Socket::open_for_links().map(Self)
    }

    /// Returns the changes since the last call, oldest first.
    ///
    /// # Errors
    /// Fails if the socket fails.
    pub fn changes(&mut self) -> Result<Vec<Change>, Error> {
        let notifications = self.0.notifications()?;
        let lost = || vec![Change::Lost];
        Ok(notifications.map_or_else(lost, |messages| messages.iter().filter_map(change).collect()))
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
    fn a_port_that_leaves_its_bridge_is_not_removed() {
        assert_eq!(change(&message(libc::RTM_DELLINK, 0)), Some(Change::Gone(7)));
        let bridge = u8::try_from(libc::AF_BRIDGE).unwrap();
        assert_eq!(change(&message(libc::RTM_DELLINK, bridge)), None);
        assert_eq!(change(&message(libc::RTM_NEWLINK, bridge)), None);
        let present = change(&message(libc::RTM_NEWLINK, 0));
        assert!(matches!(present, Some(Change::Present(found)) if found.name == "a"));
        assert_eq!(change(&Message { message_type: libc::RTM_DELLINK, payload: vec![] }), None);
    }

    #[test]
    fn a_quiet_namespace_reports_no_change() {
        // Other tests use the namespace too: it is only certain that the call does not block.
        assert!(Watch::open().unwrap().changes().is_ok());
    }
}
