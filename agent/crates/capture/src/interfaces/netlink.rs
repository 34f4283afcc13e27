//! A small rtnetlink client: dumps of links, qdiscs and filters, and acknowledged requests.
//!
//! Attributes are parsed leniently: unknown ones are skipped whatever they contain, so that a newer
//! kernel cannot break the listing of interfaces. (netlink-packet-route parses every attribute of a
//! message and refuses the message if one has grown.)
//!
//! ```text
//!  nlmsghdr 16 B   length u32 · type u16 · flags u16 · sequence u32 · port u32
//!  family header   ifinfomsg 16 B or tcmsg 20 B
//!  attributes      length u16 · type u16 · value · padding to 4 B, one after the other
//! ```
//!
//! A socket belongs to the network namespace of the thread that opened it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
        setsockopt, socket, sockopt::RcvBuf,
    },
};

const HEADER_BYTES: usize = 16;
const ALIGNMENT: usize = 4;

/// Mask of an attribute's type without the flags "nested" and "network byte order".
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// `NLMSGERR_ATTR_MSG`, linux/netlink.h: the kernel's explanation of an error.
const ERROR_MESSAGE: u16 = 1;

/// The kernel fills buffers of up to 32 KiB in a dump (`NETLINK_MAX_RECVMSG_SIZE`).
const RECEIVE_BYTES: usize = 64 << 10;

/// Maximum number of attempts of a dump that changes interrupt.
const DUMP_ATTEMPTS: usize = 10;

/// Requested size of the receive buffer for notifications, in bytes.
const LINKS_BYTES: usize = 1 << 20;

/// Bits of `nlmsghdr.nlmsg_flags`, linux/netlink.h (libc has them as `c_int`).
pub(crate) mod flag {
    pub(super) const REQUEST: u16 = 0x001;
    pub(super) const ACK: u16 = 0x004;
    pub(super) const DUMP_INTERRUPTED: u16 = 0x010;
    pub(super) const DUMP: u16 = 0x300;
    /// Respond with the created object.
    pub(crate) const ECHO: u16 = 0x008;
    /// Fail if it exists.
    pub(crate) const EXCLUSIVE: u16 = 0x200;
    /// Create it if it does not exist.
    pub(crate) const CREATE: u16 = 0x400;
}

/// Flag of an attribute's type: it contains attributes.
const NESTED: u16 = 1 << 15;

/// Errors of a request. The message contains the cause, so `source()` does not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("netlink: {0}")]
    Socket(io::Error),
    /// The kernel refused the request.
    #[error("{cause}{}", explanation.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The error number.
        cause: io::Error,
        /// The kernel's explanation.
        explanation: Option<String>,
    },
    /// The response is truncated.
    #[error("netlink: malformed answer")]
    Malformed,
    /// Every dump was interrupted by a change.
    #[error("netlink: interfaces change faster than they can be listed")]
    Interrupted,
}

impl Error {
    /// Returns the error number in the kernel's response.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Refused { cause, .. } => cause.raw_os_error(),
            _ => None,
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Socket(errno.into())
    }
}

/// A request under construction.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Creates a request of `message_type` with its family header, `ifinfomsg` or `tcmsg`.
    pub(crate) fn new(message_type: u16, flags: u16, family_header: &[u8]) -> Self {
        let flags = flags | flag::REQUEST;
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&message_type.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(family_header);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(crate) fn attribute(mut self, attribute_type: u16, value: &[u8]) -> Self {
        let begin = self.begin_attribute(attribute_type);
        self.bytes.extend_from_slice(value);
        self.end_attribute(begin);
        self
    }

    /// Adds a nested attribute that contains the attributes that `fill` adds.
    pub(crate) fn nested(mut self, attribute_type: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let begin = self.begin_attribute(attribute_type | NESTED);
        self = fill(self);
        self.end_attribute(begin);
        self
    }

    fn begin_attribute(&mut self, attribute_type: u16) -> usize {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&attribute_type.to_ne_bytes());
        begin
    }

    fn end_attribute(&mut self, begin: usize) {
        let length = self.bytes.len() - begin;
        let length = u16::try_from(length).expect("requests are a few hundred bytes");
        self.bytes[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).expect("requests are a few hundred bytes");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

/// One message of a response, without its `nlmsghdr`.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// `RTM_…`.
    pub(crate) message_type: u16,
    /// Family header and attributes.
    pub(crate) payload: Vec<u8>,
}

/// A `NETLINK_ROUTE` socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the network namespace of this thread.
    pub(crate) fn open() -> Result<Self, Error> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        // Request error explanations (kernel 4.12), and errors without a copy of the request (4.3).
        enable(&fd, libc::NETLINK_EXT_ACK)?;
        enable(&fd, libc::NETLINK_CAP_ACK)?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Opens a socket that receives notifications of changes to interfaces. Its buffer is bounded;
    /// if it overruns, messages are lost, and [`Self::notifications`] reports it.
    pub(crate) fn open_for_links() -> Result<Self, Error> {
        let socket = Self::open()?;
        // The kernel uses port 0 itself, and does not notify it of its own messages.
        bind(socket.fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let group = libc::RTNLGRP_LINK;
        // SAFETY: the kernel reads the 4 bytes of `group`, which lives through the call.
        let result = unsafe {
            libc::setsockopt(
                socket.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                (&raw const group).cast(),
                4,
            )
        };
        Errno::result(result)?;
        // Limited by net.core.rmem_max; a node that starts a hundred pods sends a few hundred
        // kilobytes.
        let _ = setsockopt(&socket.fd, RcvBuf, &LINKS_BYTES);
        Ok(socket)
    }

    /// Returns the notifications that have arrived, without blocking; `None` if some were lost.
    pub(crate) fn notifications(&mut self) -> Result<Option<Vec<Message>>, Error> {
        let mut messages = Vec::new();
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => break,
                Err(Errno::ENOBUFS) => return Ok(None),
                other => other?,
            };
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let (header, payload, after) = split_message(rest).ok_or(Error::Malformed)?;
                rest = after;
                messages
                    .push(Message { message_type: header.message_type, payload: payload.to_vec() });
            }
        }
        Ok(Some(messages))
    }

    /// Sends a request and waits for its acknowledgement; returns the messages before it.
    pub(crate) fn execute(&mut self, mut request: Request) -> Result<Vec<Message>, Error> {
        add_flags(&mut request, flag::ACK);
        Ok(self.exchange(&mut request)?.unwrap_or_default())
    }

    /// Sends a request for a dump and collects the response.
    pub(crate) fn dump(&mut self, mut request: Request) -> Result<Vec<Message>, Error> {
        add_flags(&mut request, flag::DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(messages) = self.exchange(&mut request)? {
                return Ok(messages);
            }
        }
        Err(Error::Interrupted)
    }

    /// Returns `None` if a change interrupted the dump, which may be inconsistent then.
    fn exchange(&mut self, request: &mut Request) -> Result<Option<Vec<Message>>, Error> {
        self.sequence += 1;
        send(self.fd.as_raw_fd(), request.finish(self.sequence), MsgFlags::empty())?;
        let mut messages = Vec::new();
        let mut interrupted = false;
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let (header, payload, after) = split_message(rest).ok_or(Error::Malformed)?;
                rest = after;
                if header.sequence != self.sequence {
                    continue; // the rest of a response that an error cut short
                }
                interrupted |= header.flags & flag::DUMP_INTERRUPTED != 0;
                match i32::from(header.message_type) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        check_status(payload)?;
                        return Ok((!interrupted).then_some(messages));
                    }
                    libc::NLMSG_NOOP => {}
                    _ => messages.push(Message {
                        message_type: header.message_type,
                        payload: payload.to_vec(),
                    }),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sets an option of level `SOL_NETLINK`, for which nix has no names.
fn enable(fd: &OwnedFd, option: libc::c_int) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads the 4 bytes of `on`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), 4)
    };
    Errno::result(result).map(drop)
}

fn add_flags(request: &mut Request, flags: u16) {
    let present = u16::from_ne_bytes([request.bytes[6], request.bytes[7]]);
    request.bytes[6..8].copy_from_slice(&(present | flags).to_ne_bytes());
}

struct Header {
    message_type: u16,
    flags: u16,
    sequence: u32,
}

/// Splits off the first message: returns its header, its payload, and the remaining bytes.
fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = usize::try_from(read_u32(bytes, 0)?).ok()?;
    let header = Header {
        message_type: read_u16(bytes, 4)?,
        flags: read_u16(bytes, 6)?,
        sequence: read_u32(bytes, 8)?,
    };
    let payload = bytes.get(HEADER_BYTES..length)?;
    let after = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    Some((header, payload, after))
}

/// Checks the status in an `NLMSG_ERROR` or `NLMSG_DONE`: zero or a negative error number.
fn check_status(payload: &[u8]) -> Result<(), Error> {
    let status = read_u32(payload, 0).unwrap_or(0).cast_signed();
    if status == 0 {
        return Ok(());
    }
    // nlmsgerr: the status, then the header of the request, then attributes.
    let explanation = attributes(payload.get(4 + HEADER_BYTES..).unwrap_or_default())
        .find(|(attribute_type, _)| *attribute_type == ERROR_MESSAGE)
        .map(|(_, value)| text(value));
    Err(Error::Refused { cause: io::Error::from_raw_os_error(-status), explanation })
}

/// Iterates over the attributes in `bytes`; ends at the first invalid one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let attribute_type = read_u16(bytes, 2)? & ATTRIBUTE_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((attribute_type, value))
    })
}

/// Reads an integer at `offset` in host byte order; `None` past the end.
pub(crate) fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*field))
}

/// Reads an integer at `offset` in host byte order; `None` past the end.
pub(crate) fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

/// Reads an integer at `offset` in host byte order; `None` past the end.
pub(crate) fn read_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*field))
}

/// Decodes a C string attribute, with or without its NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_read_back() {
        let request = Request::new(1, 0, &[9; 16])
            .attribute(1, b"abc")
            .nested(2, |request| request.attribute(7, &5u32.to_ne_bytes()));
        let payload = &request.bytes[HEADER_BYTES + 16..];
        let found: Vec<_> = attributes(payload).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], (1, &b"abc"[..]));
        let inner: Vec<_> = attributes(found[1].1).collect();
        assert_eq!(inner, [(7, &5u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn attributes_that_lie_about_their_length_end_the_walk() {
        for bytes in
            [&[][..], &[4], &[3, 0, 1, 0], &[0, 0, 1, 0, 0, 0, 0, 0], &[9, 0, 1, 0, 1, 2, 3, 4]]
        {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn an_error_carries_the_kernels_explanation() {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER_BYTES]);
        payload.extend_from_slice(&[12, 0]);
        payload.extend_from_slice(&ERROR_MESSAGE.to_ne_bytes());
        payload.extend_from_slice(b"taken\0\0\0");
        let error = check_status(&payload).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        assert_eq!(error.to_string(), "File exists (os error 17) (taken)");
    }

    #[test]
    fn a_request_for_an_interface_that_is_not_there_is_refused() {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        let request = Request::new(libc::RTM_GETLINK, 0, &header);
        let error = Socket::open().unwrap().execute(request).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
