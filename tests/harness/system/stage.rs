//! Two namespaces, addresses for several servers, and a file of questions.

use std::{fmt::Write as _, fs, net::Ipv4Addr, path::Path};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    scratch,
};

/// Parent of all names in queries.
pub(super) const ZONE: &str = "bench.test";
/// Number of distinct names, queried in turn.
const NAMES: usize = 2_000;
const SERVICES: [&str; 8] =
    ["orders", "payments", "search", "session-store", "metrics", "cdn", "mail", "authentication"];

pub(super) struct Stage {
    pub(super) client: Namespace,
    pub(super) server: Namespace,
    directory: TempDir,
}

impl Stage {
    /// Sets it, with so many addresses of servers.
    pub(super) fn new(servers: usize) -> Result<Self> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        join((&client, CLIENT_END), (&server, SERVER_END), 1_500)?;
        let via = SERVER_END.ipv4.to_string();
        client.ip(&["route", "add", "203.0.113.0/24", "via", &via])?;
        for number in 0..servers {
            let address = format!("{}/32", Self::address(number));
            server.ip(&["address", "add", &address, "dev", "lo"])?;
        }
        let directory = scratch::directory("system")?;
        fs::write(directory.path().join("questions"), questions())?;
        Ok(Self { client, server, directory })
    }

    /// Returns the address of a server, from a documentation range (RFC 5737), routed through `s0`.
    pub(super) fn address(number: usize) -> Ipv4Addr {
        let host = u8::try_from(number).expect("some ten servers");
        Ipv4Addr::new(203, 0, 113, 100 + host)
    }

    /// A directory for what belongs to no part.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The questions, in dnsperf's format.
    pub(super) fn questions(&self) -> std::path::PathBuf {
        self.directory().join("questions")
    }

    /// Queries that have come in at the server's interface.
    pub(super) fn received(&self) -> Result<u64> {
        Ok(self.server.packets(SERVER_END.interface)?.received)
    }
}

fn questions() -> String {
    let mut text = String::new();
    for number in 0..NAMES {
        let service = SERVICES[number % SERVICES.len()];
        let _ = writeln!(text, "{service}-{number}.zone-{}.{ZONE} A", number % 7);
    }
    text
}
