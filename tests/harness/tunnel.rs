//! Real tunnels through DNS: iodine and dns2tcp of Debian, each with its server in one namespace and its
//! client in another, and traffic of ours through them.
//!
//! ```text
//!  client's namespace                              server's namespace
//!  ┌──────────────────────────────────┐            ┌─────────────────────────────────┐
//!  │ payload ─▶ iodine, dns2tcpc      │ c0 ──── s0 │ iodined, dns2tcpd ─▶ echo       │
//!  └──────────────────────────────────┘  ▲      ▲  └─────────────────────────────────┘
//!                                   dumpcap    what the caller starts there: tap53 run
//! ```

mod packets;
mod payload;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    cache, debian,
    lookups::Lookup,
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    process::Process,
    scratch,
};

pub use payload::Pace;

/// Probing for sizes that get through takes some seconds, more where the machine is loaded.
const DEADLINE: Duration = Duration::from_secs(90);
const PASSWORD: &str = "tap53-tests";

/// A program that tunnels, with the type of its queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    /// IP through DNS.
    Iodine(&'static str),
    /// The same with names of at most 100 bytes (`-M 100`), which are less conspicuous.
    ShortIodine(&'static str),
    /// TCP connections through DNS.
    Dns2tcp(&'static str),
}

impl Tool {
    /// Every type of query that iodine can use, as its option has them.
    pub const IODINE: [Self; 7] = [
        Self::Iodine("NULL"),
        Self::Iodine("PRIVATE"),
        Self::Iodine("TXT"),
        Self::Iodine("SRV"),
        Self::Iodine("MX"),
        Self::Iodine("CNAME"),
        Self::Iodine("A"),
    ];
    /// iodine with short names, by the type of each family: plain, text and alias.
    pub const SHORT_IODINE: [Self; 3] =
        [Self::ShortIodine("TXT"), Self::ShortIodine("CNAME"), Self::ShortIodine("A")];
    /// Every type of query that dns2tcp can use.
    pub const DNS2TCP: [Self; 2] = [Self::Dns2tcp("TXT"), Self::Dns2tcp("KEY")];

    /// Returns the name of the program and the type.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Iodine(qtype) => ("iodine", qtype),
            Self::ShortIodine(qtype) => ("iodine -M 100", qtype),
            Self::Dns2tcp(qtype) => ("dns2tcp", qtype),
        }
    }
}

/// Returns the directory with the programs' files, fetched if they are not in the cache yet. They are not
/// installed: their packages would start services.
fn programs() -> Result<PathBuf> {
    cache::filled("tunnels-1", |directory| {
        debian::unpack("iodine", directory)?;
        debian::unpack("dns2tcp", directory)
    })
}

/// Two namespaces for one tunnel.
pub struct Stage {
    // Fields drop in this order: the programs before their namespaces.
    programs: Vec<Process>,
    capture: Option<Process>,
    /// Namespace of the tunnel's client; its interface is `c0`.
    pub client: Namespace,
    /// Namespace of the tunnel's server; its interface is `s0`.
    pub server: Namespace,
    directory: TempDir,
    domain: String,
    tool: Tool,
}

impl Stage {
    /// Creates the namespaces for a tunnel below `domain`, and captures what passes between them.
    ///
    /// # Errors
    /// Without root, or when dumpcap does not start.
    pub fn new(tool: Tool, domain: &str) -> Result<Self> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        join((&client, CLIENT_END), (&server, SERVER_END), 1_500)?;
        let directory = scratch::directory("tunnel")?;
        let mut stage = Self {
            programs: Vec::new(),
            capture: None,
            client,
            server,
            directory,
            domain: domain.to_owned(),
            tool,
        };
        stage.start_capture()?;
        Ok(stage)
    }

    /// Starts the tunnel and sends `count` packets of payload through it at a pace, then ends it.
    ///
    /// # Errors
    /// When a program does not start, or the payload does not arrive.
    pub fn run(&mut self, pace: Pace) -> Result<()> {
        match self.tool {
            Tool::Iodine(qtype) => self.iodine(qtype, &[], pace)?,
            Tool::ShortIodine(qtype) => self.iodine(qtype, &["-M", "100"], pace)?,
            Tool::Dns2tcp(qtype) => self.dns2tcp(qtype, pace)?,
        }
        self.programs.clear();
        Ok(())
    }

    /// Ends the capture, and returns the lookups in it in the order of time.
    ///
    /// # Errors
    /// When dumpcap fails, or the file has packets that are not understood.
    pub fn captured(&mut self) -> Result<Vec<Lookup>> {
        let mut capture = self.capture.take().context("captured once")?;
        capture.signal(Signal::SIGINT)?;
        let status = capture.wait(DEADLINE)?;
        ensure!(status.success(), "dumpcap: {status}: {}", capture.stderr().text());
        packets::lookups(&fs::read(self.capture_file())?)
    }

    /// The file of the capture (pcapng).
    #[must_use]
    pub fn capture_file(&self) -> PathBuf {
        self.directory.path().join("tunnel.pcapng")
    }

    fn start_capture(&mut self) -> Result<()> {
        let mut command = self.client.command("dumpcap");
        command.args(["-q", "-B", "8", "-i", CLIENT_END.interface, "-f", "udp port 53", "-w"]);
        command.arg(self.capture_file());
        let process = Process::spawn("dumpcap", command)?;
        process.wait_for_line("File:", 0, DEADLINE)?;
        self.capture = Some(process);
        Ok(())
    }

    fn iodine(&mut self, qtype: &str, options: &[&str], pace: Pace) -> Result<()> {
        let programs = programs()?;
        let mut server = self.server.command(programs.join("usr/sbin/iodined"));
        server.args(["-f", "-c", "-P", PASSWORD, payload::IODINE_NETWORK, &self.domain]);
        self.start("iodined", server, "Listening to dns")?;
        let mut client = self.client.command(programs.join("usr/sbin/iodine"));
        client.args(["-f", "-r", "-P", PASSWORD, "-T", qtype]);
        client.args(options).args([&SERVER_END.ipv4.to_string(), &self.domain]);
        self.start("iodine", client, "Connection setup complete")?;
        payload::through_ip(&self.client, &self.server, pace)
    }

    fn dns2tcp(&mut self, qtype: &str, pace: Pace) -> Result<()> {
        let programs = programs()?;
        let echo = payload::Echo::start(&self.server)?;
        let (domain, port) = (&self.domain, echo.port());
        let configuration = self.write(
            "dns2tcpd.conf",
            &format!(
                "listen = {}\nport = 53\nuser = nobody\nchroot = /tmp\ndomain = {domain}\n\
                 key = {PASSWORD}\nresources = echo:127.0.0.1:{port}\n",
                SERVER_END.ipv4
            ),
        )?;
        let mut server = self.server.command(programs.join("usr/bin/dns2tcpd"));
        server.args(["-F", "-d", "1", "-f"]).arg(configuration);
        self.start("dns2tcpd", server, "Listening on")?;
        let nothing = self.write("dns2tcprc", "")?;
        let mut client = self.client.command(programs.join("usr/bin/dns2tcpc"));
        client.args(["-d", "1", "-T", qtype, "-k", PASSWORD, "-z", &self.domain, "-r", "echo"]);
        client.args(["-l", &payload::LOCAL_PORT.to_string(), "-f"]).arg(nothing);
        client.arg(SERVER_END.ipv4.to_string());
        self.start("dns2tcpc", client, "Listening on port")?;
        payload::through_tcp(&self.client, pace)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn start(&mut self, name: &str, command: Command, ready: &str) -> Result<()> {
        let process = Process::spawn(name, command)?;
        process.wait_for_line(ready, 0, DEADLINE)?;
        self.programs.push(process);
        Ok(())
    }
}

/// Reads the lookups of a capture file (pcapng) of Ethernet frames.
///
/// # Errors
/// When it cannot be read.
pub fn read_capture(path: &Path) -> Result<Vec<Lookup>> {
    packets::lookups(&fs::read(path).with_context(|| format!("read {}", path.display()))?)
}
