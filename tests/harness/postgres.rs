//! The warehouse: a real PostgreSQL, as Debian packages it.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    namespace::Namespace,
    process::{Process, run},
    scratch,
};

/// Directory in which Debian installs the programs, with a directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";
const START_DEADLINE: Duration = Duration::from_secs(60);
/// PostgreSQL refuses to run as root.
const USER: &str = "nobody";

/// The directory with the newest version's programs.
///
/// # Errors
/// When PostgreSQL is not installed.
pub fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let numbered = versions.filter_map(|entry| {
        let path = entry.path().join("bin");
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        path.join("initdb").exists().then_some((number, path))
    });
    let newest = numbered.max().map(|(_, path)| path);
    newest.with_context(|| format!("no PostgreSQL in {VERSIONS}: install the package postgresql"))
}

/// A server on 127.0.0.1 of a namespace; dropping it kills it and removes its files.
pub struct Postgres<'a> {
    namespace: &'a Namespace,
    programs: PathBuf,
    address: SocketAddr,
    process: Process,
    _directory: TempDir,
}

impl<'a> Postgres<'a> {
    /// Creates an empty database, starts the server and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not start; the message ends with its log.
    pub fn start(namespace: &'a Namespace) -> Result<Self> {
        let programs = programs()?;
        open_null_device()?;
        let directory = scratch::directory("postgres")?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
        let data = directory.path().join("data");
        let mut initdb = unprivileged(namespace, &programs.join("initdb"));
        initdb.args(["--auth=trust", "--username=tap53", "--encoding=UTF8", "--locale=C.UTF-8"]);
        run(initdb.arg("--no-sync").arg("--pgdata").arg(&data))?;
        let address = namespace.enter(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            Ok(listener.local_addr()?)
        })?;
        let mut server = unprivileged(namespace, &programs.join("postgres"));
        server.arg("-D").arg(&data).args(["-p", &address.port().to_string()]);
        let sockets = format!("unix_socket_directories={}", directory.path().display());
        // No test cuts the power, and all processes may be killed without it.
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", &sockets] {
            server.args(["-c", setting]);
        }
        let process = Process::spawn("PostgreSQL", server)?;
        process.wait_for_line("ready to accept connections", 0, START_DEADLINE)?;
        Ok(Self { namespace, programs, address, process, _directory: directory })
    }

    /// The connection string.
    #[must_use]
    pub fn conninfo(&self) -> String {
        let port = self.address.port();
        format!("host=127.0.0.1 port={port} user=tap53 dbname=postgres")
    }

    /// The server's process.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Runs statements.
    ///
    /// # Errors
    /// When one fails.
    pub fn execute(&self, statements: &str) -> Result<()> {
        run(self.psql().args(["-c", statements])).map(drop)
    }

    /// Runs the statements of a file.
    ///
    /// # Errors
    /// When one fails.
    pub fn execute_file(&self, path: &Path) -> Result<()> {
        run(self.psql().arg("-f").arg(path)).map(drop)
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// When it fails.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let query = format!("SELECT coalesce(json_agg(answer), '[]') FROM ({query}) AS answer");
        let text = run(self.psql().args(["-c", &query]))?;
        serde_json::from_str(&text).with_context(|| format!("{query}: {text}"))
    }

    /// The one number that a query answers.
    ///
    /// # Errors
    /// When it fails, or answers anything else.
    pub fn number(&self, query: &str) -> Result<i64> {
        let text = run(self.psql().args(["-c", query]))?;
        text.trim().parse().with_context(|| format!("{query}: {text}"))
    }

    fn psql(&self) -> Command {
        let mut command = self.namespace.command(self.programs.join("psql"));
        command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", &self.conninfo()]);
        command.env("PGTZ", "UTC");
        command
    }
}

/// Lets every user write to /dev/null, without which initdb fails. On every machine they may, but one was
/// seen on which root had changed the mode: this reports it, with the time of the change.
fn open_null_device() -> Result<()> {
    const PATH: &str = "/dev/null";
    const EVERYBODY: u32 = 0o666;
    let found = fs::metadata(PATH)?;
    let mode = found.permissions().mode() & 0o777;
    if found.file_type().is_char_device() && mode != EVERYBODY {
        let seconds = found.ctime();
        // Shown also if the test passes, unlike what `eprintln!` writes.
        writeln!(
            io::stderr(),
            "{PATH} had mode {mode:o} since {seconds} s after 1970: it is {EVERYBODY:o} now"
        )?;
        fs::set_permissions(PATH, fs::Permissions::from_mode(EVERYBODY))?;
    }
    Ok(())
}

fn unprivileged(namespace: &Namespace, program: &Path) -> Command {
    let mut command = namespace.command("setpriv");
    command.args(["--reuid", USER, "--regid", "nogroup", "--clear-groups", "--pdeathsig", "KILL"]);
    command.args([OsStr::new("--"), program.as_os_str()]);
    command.current_dir("/");
    command
}
