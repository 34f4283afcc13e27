//! Captures the DNS packets of an interface by this crate alone, and prints a line for each: direction, IP
//! protocol, and the payload of UDP or TCP in hexadecimal. Ends with SIGTERM or Ctrl-C. As root:
//!
//! ```text
//! cargo run -p tap53-capture --example packets -- eth0 tc
//! ```
//!
//! The second argument is a value of `capture.hook`; it may be left out.

use std::{env, error::Error, fmt::Write as _};

use clap::ValueEnum as _;
use tap53_base::settings::Section;
use tap53_capture::{
    capture::{
        Capture,
        config::{CaptureConfig, HookChoice},
    },
    interfaces::{self, config::Directions},
    ring::{Drain, Waker},
};
use tap53_ebpf::{record::RecordHeader, settings::Direction};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().ok_or("name an interface")?;
    let hook = arguments.next().map(|hook| HookChoice::from_str(&hook, false)).transpose()?;
    let interface = interfaces::list()?
        .into_iter()
        .find(|interface| interface.name == name)
        .ok_or_else(|| format!("there is no interface {name}"))?;

    // One worker, and the defaults of all else.
    let defaults =
        Section::root(None, &mut Vec::new(), |section| CaptureConfig::read(section, hook));
    let mut capture = Capture::load(&CaptureConfig { workers: 1, ..defaults })?;
    let ring = capture.take_rings().pop().ok_or("no ring")?;
    let mut drain = Drain::new(ring.buffer, capture.doorbells().of(ring.index), Waker::new());

    let attachment = capture.attach(&interface, Directions::Both)?;
    let [ingress, egress] =
        [Direction::Ingress, Direction::Egress].map(|at| attachment.describe(at));
    println!("attached ingress={ingress} egress={egress}");
    loop {
        drain.batch(print);
        drain.wait(true)?;
    }
}

/// Prints a ring item.
fn print(item: &[u8]) {
    let Some((header, packet)) = RecordHeader::split(item) else {
        println!("an item of {} bytes, which is too short", item.len());
        return;
    };
    let payload = packet.get(usize::from(header.payload_offset)..).unwrap_or_default();
    let mut text = String::new();
    for byte in payload {
        let _ = write!(text, "{byte:02x}");
    }
    let direction = if header.direction == Direction::Egress as u8 { "egress" } else { "ingress" };
    println!("packet {direction} {} {text}", header.transport);
}
