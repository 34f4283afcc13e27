//! Lookups by the C library's own resolver, with a pod's `resolv.conf`.

use std::{fs, net::Ipv4Addr, process::Command};

use anyhow::{Context, Result};

use super::Pod;
use crate::{process::run, scratch};

/// The search list of a pod of the namespace `default`.
const SEARCH: &str = "default.svc.cluster.local svc.cluster.local cluster.local";

/// The content of a pod's `resolv.conf`.
#[derive(Clone, Copy, Debug)]
pub struct Resolver {
    /// The server.
    pub server: Ipv4Addr,
    /// Names with fewer dots are looked up in the search list first; 5 in pods.
    pub ndots: u8,
}

impl Pod {
    /// Looks up the IPv4 addresses of `names`, one after the other, whether or not they exist.
    ///
    /// # Errors
    /// When the program cannot run.
    pub fn look_up(&self, resolver: Resolver, names: &[String]) -> Result<()> {
        let directory = scratch::directory("lookup")?;
        let Resolver { server, ndots } = resolver;
        // In a mount namespace of its own, the file takes the place of the machine's. getent exits with
        // an error where it finds a name in no source.
        const SCRIPT: &str = "mount --bind \"$0/resolv.conf\" /etc/resolv.conf && \
                              mount --bind \"$0/nsswitch.conf\" /etc/nsswitch.conf || exit 1\n\
                              getent ahostsv4 \"$@\" >/dev/null || [ $? = 2 ]";
        for (name, text) in [
            (
                "resolv.conf",
                format!("nameserver {server}\nsearch {SEARCH}\noptions ndots:{ndots}\n"),
            ),
            ("nsswitch.conf", "hosts: dns\n".to_owned()),
        ] {
            fs::write(directory.path().join(name), text)?;
        }
        let mut command: Command = self.namespace.command("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT]).arg(directory.path()).args(names);
        run(&mut command).context("look names up by getent")?;
        Ok(())
    }
}
