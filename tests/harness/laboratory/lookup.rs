//! Lookups by the resolvers of C libraries, with a pod's `resolv.conf`.
//!
//! Both send the queries for A and AAAA of a name from one socket, and go through the search list one name
//! after the other. glibc asks one server, and the next one if that does not answer. musl asks all servers
//! at once, and takes the first answer; it ends a search at a name that exists without addresses.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::Pod;
use crate::{cache, debian, process::run, scratch};

/// The content of a pod's `resolv.conf`.
#[derive(Clone, Copy, Debug)]
pub struct Resolver {
    /// The server.
    pub server: Ipv4Addr,
    /// Names with fewer dots are looked up in the search list first; 5 in pods.
    pub ndots: u8,
}

/// A C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The GNU C library.
    Glibc,
    /// musl, which Alpine Linux has.
    Musl,
}

/// A lookup that was not started yet.
pub(super) struct Lookup {
    pub(super) command: Command,
    // The files that the command reads.
    _directory: TempDir,
}

impl Pod {
    /// Looks up the IPv4 addresses of `names`, one after the other, whether or not they exist. The pod is
    /// one of the namespace `default`.
    ///
    /// # Errors
    /// When the program cannot run.
    pub fn look_up(&self, resolver: Resolver, names: &[String]) -> Result<()> {
        let file = configuration(&[resolver.server.into()], "default", resolver.ndots);
        self.lookup(&file, "getent ahostsv4", names)?.run()
    }

    /// Looks up IPv4 and IPv6 addresses of `names` as an application does whose C library is `library`,
    /// with these servers and `ndots:5`.
    ///
    /// # Errors
    /// When the program cannot run, or musl cannot be downloaded.
    pub fn look_up_both(
        &self,
        library: Library,
        servers: &[IpAddr],
        names: &[String],
    ) -> Result<()> {
        let program = match library {
            Library::Glibc => "getent ahosts".to_owned(),
            Library::Musl => musl_program()?.display().to_string(),
        };
        self.lookup(&configuration(servers, "default", 5), &program, names)?.run()
    }

    /// A lookup by a program, with the text of `resolv.conf`.
    pub(super) fn lookup(&self, file: &str, program: &str, names: &[String]) -> Result<Lookup> {
        let directory = scratch::directory("lookup")?;
        // In a mount namespace of its own, the file takes the place of the machine's. getent exits with
        // an error where it finds a name in no source.
        let script = format!(
            "mount --bind \"$0/resolv.conf\" /etc/resolv.conf && \
             mount --bind \"$0/nsswitch.conf\" /etc/nsswitch.conf || exit 1\n\
             {program} \"$@\" >/dev/null || [ $? = 2 ]"
        );
        for (name, text) in [("resolv.conf", file), ("nsswitch.conf", "hosts: dns\n")] {
            fs::write(directory.path().join(name), text)?;
        }
        let mut command: Command = self.namespace.command("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(directory.path()).args(names);
        Ok(Lookup { command, _directory: directory })
    }
}

/// The text of `resolv.conf` in a pod of a namespace of the cluster.
pub(super) fn configuration(servers: &[IpAddr], namespace: &str, ndots: u8) -> String {
    let servers: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    format!(
        "{servers}search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n\
         options ndots:{ndots}\n"
    )
}

/// A program that looks names up by musl; compiled now if it is not in the cache yet. musl is not
/// installed for it: with its loader in /lib, snappy-java takes the machine for one of musl, and Spark
/// reads no Parquet.
fn musl_program() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/laboratory/programs/lookup.c");
    let directory = cache::filled("musl-lookup-2", |target| {
        let musl = scratch::directory("musl")?;
        debian::unpack("musl-dev", musl.path())?;
        let triplet = format!("{}-linux-musl", env::consts::ARCH);
        let library = musl.path().join("usr/lib").join(&triplet);
        let mut compiler = Command::new("cc");
        compiler
            .args(["-static", "-no-pie", "-fno-pie", "-nostdinc", "-nostdlib", "-O2", "-Wall"])
            .arg("-isystem")
            .arg(musl.path().join("usr/include").join(&triplet))
            .args(["crt1.o", "crti.o"].map(|object| library.join(object)))
            .arg(&source)
            .arg("-L")
            .arg(&library)
            .args(["-lc", "-lgcc"])
            .arg(library.join("crtn.o"))
            .arg("-o")
            .arg(target.join("lookup"));
        run(&mut compiler).context("compile with musl")?;
        Ok(())
    })?;
    Ok(directory.join("lookup"))
}

impl Lookup {
    pub(super) fn run(mut self) -> Result<()> {
        run(&mut self.command).context("look names up")?;
        Ok(())
    }
}
