//! From a ring record to DNS messages.
//!
//! ```text
//!  record ─▶ packet: addresses, ports, what it carries
//!                │
//!                ├─ fragment ─▶ fragments: datagrams joined ─┐
//!                ├─ UDP ◀────────────────────────────────────┤
//!                │   └─────────────────────▶ message         │
//!                └─ TCP ◀────────────────────────────────────┘
//!                    └─▶ stream: segments joined ─▶ messages
//! ```
//!
//! Contract: nothing here panics, allocates without bound or drops anything silently. A packet
//! yields messages or one [`PacketLoss`] reason; a message whose body does not parse keeps what
//! could be read and says so in [`ParseStatus`].

#![forbid(unsafe_code)]

mod aged;
#[cfg(any(test, feature = "testing"))]
pub mod build;
mod code;
mod cursor;
mod dotted;
mod flow;
pub mod fragments;
mod label;
mod message;
mod name;
mod packet;
mod rdata;
mod steps;
pub mod stream;
mod text;

pub use code::{
    class_mnemonic, class_name, opcode_mnemonic, opcode_name, rcode_mnemonic, rcode_name,
    type_mnemonic, type_name,
};
pub use dotted::dotted;
pub use flow::{Flow, Transport, Tunnel, TunnelKind};
pub use label::{below, labels_from_the_right, parent};
pub use message::{
    Answer, ClientSubnet, Edns, ExtendedError, Flags, Message, ParseStatus, Question,
};
pub use name::presentation;
pub use packet::{Content, Datagram, Origin, Packet, PacketLoss, Part, TransportHeader, frames};
