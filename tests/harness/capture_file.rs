//! Capture files: written by Wireshark's dumpcap while packets pass, or here.

use std::{
    fs,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::{dns, namespace::Namespace, process::Process, wait};

const DEADLINE: Duration = Duration::from_secs(30);

/// A running dumpcap.
pub struct Dumpcap {
    process: Process,
    path: PathBuf,
}

impl Dumpcap {
    /// Captures what passes `interface` into a pcapng file at `path`, and waits until it does.
    /// `link_type` is one of those that the interface offers, by its name.
    ///
    /// # Errors
    /// When dumpcap is not installed or does not start.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        link_type: &str,
        path: &Path,
    ) -> Result<Self> {
        let mut command = namespace.command("dumpcap");
        // -B: room for what passes while dumpcap is not scheduled, MiB.
        command.args(["-q", "-B", "8", "-i", interface, "-y", link_type, "-w"]).arg(path);
        let process = Process::spawn("dumpcap", command)?;
        // Said once the interface is open and captured from.
        process.wait_for_line("File:", 0, DEADLINE)?;
        Ok(Self { process, path: path.to_owned() })
    }

    /// Waits until the file holds the response to a query for `name`, the last that was asked, and
    /// ends dumpcap.
    ///
    /// # Errors
    /// When it does not come.
    pub fn stop_after(mut self, name: &str) -> Result<()> {
        let mut wire = Vec::new();
        dns::push_name(&mut wire, name);
        wait::until("the last response in the file", DEADLINE, || {
            let file = fs::read(&self.path)?;
            let found = file.windows(wire.len()).filter(|window| *window == wire).count();
            Ok((found >= 2).then_some(()))
        })?;
        self.process.signal(Signal::SIGINT)?;
        let status = self.process.wait(DEADLINE)?;
        ensure!(status.success(), "dumpcap: {status}: {}", self.process.stderr().text());
        Ok(())
    }
}

/// A pcap file of raw IP packets, in the byte order of this machine, with nanoseconds.
pub struct Pcap(Vec<u8>);

impl Pcap {
    /// A file without packets.
    #[must_use]
    pub fn new() -> Self {
        Self::of_link_type(101)
    }

    /// As [`new`](Self::new), of another link type, by its number.
    #[must_use]
    pub fn of_link_type(link_type: u32) -> Self {
        let words = [0xa1b2_3c4d, 0x0004_0002, 0, 0, 262_144, link_type];
        Self(words.into_iter().flat_map(u32::to_ne_bytes).collect())
    }

    /// Adds a UDP datagram over IPv4, sent at `at_ns` since 1970 UTC.
    ///
    /// # Panics
    /// When the payload does not fit into a datagram, or the time into a file.
    #[must_use]
    pub fn datagram(
        mut self,
        at_ns: u64,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        payload: &[u8],
    ) -> Self {
        let udp_length = u16::try_from(8 + payload.len()).expect("fits into a datagram");
        let mut packet = vec![0x45, 0];
        packet.extend((20 + udp_length).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        packet.extend(source.ip().octets());
        packet.extend(destination.ip().octets());
        packet.extend(source.port().to_be_bytes());
        packet.extend(destination.port().to_be_bytes());
        packet.extend(udp_length.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(payload);
        let seconds = u32::try_from(at_ns / 1_000_000_000).expect("before 2106");
        let fraction = u32::try_from(at_ns % 1_000_000_000).expect("below 10^9");
        let length = u32::from(20 + udp_length);
        self.0.extend([seconds, fraction, length, length].into_iter().flat_map(u32::to_ne_bytes));
        self.0.extend(packet);
        self
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, &self.0).with_context(|| format!("write {}", path.display()))
    }
}

impl Default for Pcap {
    fn default() -> Self {
        Self::new()
    }
}
