//! The Kubernetes API: a real kube-apiserver on a real etcd, as two processes.
//!
//! No controller, scheduler or kubelet runs: an object is what a test says it is. Pods come into
//! being with `kubectl`, on nodes that need not exist, and change phase and addresses when the test
//! writes their status. Service accounts are not made by themselves and pods are not given one, so
//! that admission plugin is off; authorization is RBAC, as on a cluster.
//!
//! ```text
//!  directory/  etcd/          what was stored; outlives kill() and restart()
//!              certificates/  of the server, made by itself; its certificate is also the CA file
//!              accounts/      a kubeconfig and a token file for each account
//!              audit.log      who asked for what, one JSON object a line
//! ```

mod account;
mod audit;
mod chart;
mod programs;

use std::{
    ffi::OsStr,
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{sys::signal::Signal, unistd::Pid};
use tempfile::TempDir;

use crate::{
    namespace::Namespace,
    process::{Process, run},
    scratch, wait,
};

pub use account::Account;
pub use audit::Request;
pub use chart::{RELEASE, chart, helm, manifests, render, rendered_manifests};
pub use programs::{Programs, are_built, go, programs};

/// Four seconds on a machine with nothing else to do.
const START_DEADLINE: Duration = Duration::from_secs(90);
const KUBECTL_DEADLINE: Duration = Duration::from_secs(60);
/// Answers end before this even where the server was told to hang.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

const AUDIT_POLICY: &str = include_str!("audit-policy.yaml");

/// An API server on 127.0.0.1; dropping it kills it and its etcd, and removes their files.
pub struct KubeApi<'a> {
    namespace: Option<&'a Namespace>,
    programs: Programs,
    address: SocketAddr,
    arguments: Vec<String>,
    server: Option<Process>,
    // In this order: the directory goes when nobody writes there any more.
    _etcd: Process,
    directory: TempDir,
}

impl<'a> KubeApi<'a> {
    /// Starts an empty API server on the loopback of a namespace.
    ///
    /// # Errors
    /// When the programs cannot be built, or do not start; the message ends with the log.
    pub fn start(namespace: &'a Namespace) -> Result<Self> {
        Self::start_with(Some(namespace), &[])
    }

    /// Starts one with more arguments for kube-apiserver (`--min-request-timeout=5`), on the
    /// loopback of a namespace or of this process.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_with(namespace: Option<&'a Namespace>, arguments: &[&str]) -> Result<Self> {
        let programs = programs()?;
        let directory = scratch::directory("kube")?;
        let [server, client, peer] = free_addresses(namespace)?;
        let etcd =
            start_etcd(command_in(namespace, programs.path("etcd")), &directory, client, peer)?;
        prepare(directory.path(), server)?;
        let mut all = arguments_of(directory.path(), server, client);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let mut api = Self {
            namespace,
            programs,
            address: server,
            arguments: all,
            server: None,
            _etcd: etcd,
            directory,
        };
        api.restart()?;
        Ok(api)
    }

    /// `https://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// The API server's process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<Pid> {
        Ok(self.server.as_ref().context("no API server runs")?.pid())
    }

    /// Environment by which clients in pods find the API server.
    #[must_use]
    pub fn pod_environment(&self) -> [(&'static str, String); 2] {
        [
            ("KUBERNETES_SERVICE_HOST", self.address.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", self.address.port().to_string()),
        ]
    }

    /// The certificate authority's file (PEM).
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        ca(self.directory.path())
    }

    /// A kubeconfig file that may do everything.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        admin_kubeconfig(self.directory.path())
    }

    /// Runs kubectl as administrator and returns what it prints.
    ///
    /// # Errors
    /// When kubectl fails; with its message.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_as(&self.admin_kubeconfig(), arguments)
    }

    /// Runs kubectl with a kubeconfig file.
    ///
    /// # Errors
    /// See [`kubectl`](Self::kubectl).
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
        // Nobody ends what kubectl waits for by itself: a pod that is deleted stays until its kubelet
        // says that it has ended, and there is none. `--grace-period=0 --force` deletes at once.
        let mut command = self.command("timeout");
        command.arg(KUBECTL_DEADLINE.as_secs().to_string()).arg(self.programs.path("kubectl"));
        command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
        // Where it keeps what it learns of the server, which is another one in the next test.
        command.env("HOME", self.directory.path());
        run(&mut command)
    }

    /// Creates or changes objects as written in `yaml`, validated by the server, and fails on
    /// fields that it does not know.
    ///
    /// # Errors
    /// When the server refuses any.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = self.directory.path().join(format!("apply-{number}.yaml"));
        fs::write(&file, yaml).with_context(|| format!("write {}", file.display()))?;
        let file = file.to_str().context("a temporary path in UTF-8")?;
        let arguments = ["apply", "--server-side", "--force-conflicts", "--validate=strict", "-f"];
        self.kubectl(&[&arguments[..], &[file]].concat())
    }

    /// Ends the API server with SIGKILL. What it stored stays.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts the API server again on what it stored, at the same address.
    ///
    /// # Errors
    /// When it is not ready before the deadline.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = self.command(self.programs.path("kube-apiserver"));
        command.args(&self.arguments);
        let mut process = Process::spawn("kube-apiserver", command)?;
        self.wait_until_ready(&mut process)
            .with_context(|| format!("its log ends:\n{}", process.stderr().tail()))?;
        self.server = Some(process);
        Ok(())
    }

    /// Sends a signal to the API server: SIGSTOP lets it hang, SIGCONT go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.server.as_ref().context("the API server was killed")?.signal(signal)
    }

    /// A command that will run where the API server can be reached.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        command_in(self.namespace, program)
    }

    fn wait_until_ready(&self, process: &mut Process) -> Result<()> {
        // Connecting costs nothing, each kubectl takes a tenth of a second of CPU.
        wait::until("the API server to listen", START_DEADLINE, || {
            if !process.is_running()? {
                bail!("it has exited");
            }
            Ok(self.connects().then_some(()))
        })?;
        wait::until("the API server to be ready", START_DEADLINE, || {
            if !process.is_running()? {
                bail!("it has exited");
            }
            Ok(self.kubectl(&["get", "--raw", "/readyz"]).ok().map(drop))
        })
    }

    fn connects(&self) -> bool {
        let connect = || Ok(TcpStream::connect_timeout(&self.address, CONNECT_DEADLINE)?);
        match self.namespace {
            Some(namespace) => namespace.enter(connect),
            None => connect(),
        }
        .is_ok()
    }
}

fn command_in(namespace: Option<&Namespace>, program: impl AsRef<OsStr>) -> Command {
    match namespace {
        Some(namespace) => namespace.command(program),
        None => Command::new(program),
    }
}

fn start_etcd(
    mut command: Command,
    directory: &TempDir,
    client: SocketAddr,
    peer: SocketAddr,
) -> Result<Process> {
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    command.arg("--data-dir").arg(directory.path().join("etcd"));
    #[rustfmt::skip]
    command.args([
        "--unsafe-no-fsync",
        "--listen-client-urls", &client, "--advertise-client-urls", &client,
        "--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer,
        "--initial-cluster", &format!("default={peer}"),
    ]);
    let process = Process::spawn("etcd", command)?;
    process.wait_for_line("ready to serve client requests", 0, START_DEADLINE)?;
    Ok(process)
}

/// Writes the files that the API server is started with.
fn prepare(directory: &Path, address: SocketAddr) -> Result<()> {
    for name in ["certificates", "accounts"] {
        fs::create_dir(directory.join(name)).with_context(|| format!("make {name}"))?;
    }
    let token = random_token()?;
    fs::write(directory.join("tokens.csv"), format!("{token},admin,admin,\"system:masters\"\n"))?;
    fs::write(directory.join("audit-policy.yaml"), AUDIT_POLICY)?;
    account::make_signing_key(directory)?;
    let user = format!("{{token: {token}}}");
    fs::write(
        admin_kubeconfig(directory),
        account::kubeconfig(&url(address), &ca(directory), "default", &user),
    )?;
    Ok(())
}

fn arguments_of(directory: &Path, server: SocketAddr, etcd: SocketAddr) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let key = file(account::SIGNING_KEY);
    vec![
        format!("--etcd-servers=http://{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // It would publish that address, which no object may hold.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={}", server.port()),
        format!("--cert-dir={}", file("certificates")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        format!("--service-account-issuer={}", account::ISSUER),
        format!("--service-account-key-file={key}"),
        format!("--service-account-signing-key-file={key}"),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        format!("--audit-policy-file={}", file("audit-policy.yaml")),
        // An answered request is in the file.
        "--audit-log-mode=blocking-strict".to_owned(),
        format!("--audit-log-path={}", file(audit::LOG)),
    ]
}

fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// The server's own certificate comes with that of the authority which it made for it.
fn ca(directory: &Path) -> PathBuf {
    directory.join("certificates/apiserver.crt")
}

fn admin_kubeconfig(directory: &Path) -> PathBuf {
    directory.join("admin.kubeconfig")
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes).context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Addresses of the loopback where nothing listens.
fn free_addresses(namespace: Option<&Namespace>) -> Result<[SocketAddr; 3]> {
    let bind = || {
        // All are open before any is closed, so they differ.
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listeners = [listener()?, listener()?, listener()?];
        let [first, second, third] = &listeners;
        Ok([first.local_addr()?, second.local_addr()?, third.local_addr()?])
    };
    match namespace {
        Some(namespace) => namespace.enter(bind),
        None => bind(),
    }
}
