//! Decodes ring items to DNS messages.
//!
//! ```text
//!  ring item ─▶ packet: addresses, ports, content
//!                │
//!                ├─ fragment ─▶ fragments: reassembled ──────┐
//!                ├─ UDP ◀────────────────────────────────────┤
//!                │   └─────────────────────▶ message         │
//!                └─ TCP ◀────────────────────────────────────┘
//!                    └─▶ stream: reassembled ─▶ messages
//! ```
//!
//! No function here panics, allocates without bound or drops anything silently. A packet yields
//! messages or one [`PacketLoss`] reason; a message with a malformed body contains the part that
//! could be read, and [`ParseStatus`] states what is wrong.

#![forbid(unsafe_code)]

mod aged;
#[cfg(any(test, feature = "testing"))]
pub mod build;
mod code;
mod cursor;
pub mod domain;
mod dotted;
mod flow;
pub mod fragments;
mod label;
mod message;
mod name;
mod packet;
pub mod private_address;
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
    Answer, ClientSubnet, Edns, ExtendedError, Flags, Kept, Message, ParseStatus, Question,
};
pub use name::presentation;
pub use packet::{Content, Datagram, Origin, Packet, PacketLoss, Part, TransportHeader, frames};
