//! The resolver: unbound with local data only. It never queries another server.

use std::{fs, net::IpAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{namespace::Namespace, process::Process, scratch, wait};

const START_DEADLINE: Duration = Duration::from_secs(20);

/// Logged once its sockets are bound and its threads run.
const READY: &str = "start of service";

/// Parent of every name below.
pub const ZONE: &str = "tap53.test";
/// Names under it are answered with NXDOMAIN.
pub const NXDOMAIN_ZONE: &str = "absent.test";
/// Queries for names under it are dropped: the client hears nothing.
pub const SILENT_ZONE: &str = "silent.test";

/// Records of [`ZONE`], in zone-file format.
pub const RECORDS: [&str; 13] = [
    "www.tap53.test. 300 IN A 203.0.113.10",
    "www.tap53.test. 300 IN A 203.0.113.11",
    "www.tap53.test. 300 IN A 203.0.113.12",
    "www.tap53.test. 300 IN AAAA 2001:db8:53::10",
    "mail.tap53.test. 600 IN A 203.0.113.25",
    "mail.tap53.test. 600 IN AAAA 2001:db8:53::25",
    "tap53.test. 3600 IN MX 10 mail.tap53.test.",
    "tap53.test. 3600 IN TXT \"v=spf1 -all\"",
    "text.tap53.test. 60 IN TXT \"first string\" \"second; with \\\"quotes\\\"\"",
    "alias.tap53.test. 120 IN CNAME www.tap53.test.",
    "_dns._udp.tap53.test. 900 IN SRV 5 10 53 www.tap53.test.",
    "10.113.0.203.in-addr.arpa. 300 IN PTR www.tap53.test.",
    "_8080.tap53.test. 30 IN CAA 0 issue \"ca.tap53.test\"",
];

/// A running unbound; dropping it ends it.
pub struct Unbound {
    process: Process,
    _directory: TempDir,
}

impl Unbound {
    /// Starts unbound on port 53 of `addresses`, which must exist in `namespace`, and waits until it
    /// serves.
    ///
    /// # Errors
    /// When unbound is not installed or does not start; the message ends with its log.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr]) -> Result<Self> {
        Self::start_with(namespace, addresses, &Extra::default())
    }

    /// Does the same as [`start`](Self::start), with more configuration.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_with(namespace: &Namespace, addresses: &[IpAddr], extra: &Extra) -> Result<Self> {
        let unbound =
            Self::launch(namespace, &configuration(addresses, extra), &[], |command| command)?;
        match &extra.log_file {
            None => unbound.wait_until_ready()?,
            Some(log) => wait::until("unbound to serve", START_DEADLINE, || {
                let text = fs::read_to_string(log).unwrap_or_default();
                Ok(text.contains(READY).then_some(()))
            })?,
        }
        Ok(unbound)
    }

    /// Starts unbound with a configuration of its own, in which `$DIR` stands for a directory that has
    /// these files, and waits until it serves. `prepare` may change the command.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_configured(
        namespace: &Namespace,
        configuration: &str,
        files: &[(&str, &str)],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let unbound = Self::launch(namespace, configuration, files, |mut command| {
            prepare(&mut command);
            command
        })?;
        unbound.wait_until_ready()?;
        Ok(unbound)
    }

    fn launch(
        namespace: &Namespace,
        configuration: &str,
        files: &[(&str, &str)],
        prepare: impl FnOnce(Command) -> Command,
    ) -> Result<Self> {
        let directory = scratch::directory("unbound")?;
        let configuration = configuration.replace("$DIR", &directory.path().display().to_string());
        for (name, text) in [("unbound.conf", configuration.as_str())].iter().chain(files) {
            let path = directory.path().join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        let mut command = namespace.command("unbound");
        // -d: stay in the foreground. -p: no pid file.
        command.args(["-d", "-p", "-c"]).arg(directory.path().join("unbound.conf"));
        let process = Process::spawn("unbound", prepare(command))?;
        Ok(Self { process, _directory: directory })
    }

    fn wait_until_ready(&self) -> Result<()> {
        self.process.wait_for_line(READY, 0, START_DEADLINE).map(drop)
    }

    /// Its log so far, unless the configuration has a log file.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.process.stderr().lines()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }
}

/// Configuration beside the usual one.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Lines of the section `server`, each indented.
    pub server: String,
    /// Further sections.
    pub sections: String,
    /// Log file; `None` for standard error.
    pub log_file: Option<PathBuf>,
}

fn configuration(addresses: &[IpAddr], extra: &Extra) -> String {
    let Extra { server, sections, log_file } = extra;
    let log_file = log_file.as_ref().map_or(String::new(), |path| path.display().to_string());
    let interfaces: String =
        addresses.iter().map(|address| format!("  interface: {address}\n")).collect();
    // Zone-file strings hold double quotes, so the configuration quotes them with single ones.
    let records: String =
        RECORDS.iter().map(|record| format!("  local-data: '{record}'\n")).collect();
    // The zone "." refuses whatever the zones below do not answer, so that nothing is ever looked
    // up elsewhere; with the iterator alone there is no trust anchor to be refreshed either.
    format!(
        r#"server:
  verbosity: 1
  use-syslog: no
  logfile: "{log_file}"
  username: ""
  chroot: ""
  num-threads: 1
  module-config: "iterator"
  do-not-query-localhost: yes
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  edns-tcp-keepalive: no
{interfaces}  local-zone: "." always_refuse
  local-zone: "{ZONE}." static
  local-zone: "113.0.203.in-addr.arpa." static
  local-zone: "{NXDOMAIN_ZONE}." always_nxdomain
  local-zone: "{SILENT_ZONE}." always_deny
{records}{server}remote-control:
  control-enable: no
{sections}"#
    )
}
