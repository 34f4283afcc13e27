//! `cargo xtask cluster`: a Kubernetes cluster of two nodes on this machine, with tap53 as users install it.
//!
//! ```text
//!  up ─▶ build ─▶ serve, in the background, as root: the cluster of the tests' harness, helm install
//!  down ─▶ SIGTERM to serve, which removes everything; the same happens if serve is killed
//! ```
//!
//! The state of a running cluster is in `target/cluster`: `pid`, `log`, `kubectl`, and `ready` once it is.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tap53_harness::{
    cluster::{self, Cluster, Network, Plan, ProxyMode, Release},
    namespace::Namespace,
    require_root, wait,
};

use crate::{
    build_ebpf, demo,
    setup::{self, Purpose},
    test,
    workspace::{Workspace, as_root, run as run_command},
};

const START_DEADLINE: Duration = Duration::from_secs(600);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Records go to a file on each node.
const SINKS: &str = r#"config.sinks=[{"type": "file", "directory": "/var/lib/tap53"}]"#;

/// Arguments of `cluster`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster, and install tap53 in it
    Up(Options),
    /// Remove the cluster, and what a killed one has left
    Down,
    /// Run the tests in clusters, also the long ones
    Test,
    /// Hold the cluster until SIGTERM. `up` starts this as root
    #[command(hide = true)]
    Serve(Options),
}

/// Options of a cluster.
#[derive(clap::Args)]
struct Options {
    /// Use kube-proxy with nftables instead of iptables
    #[arg(long)]
    nftables: bool,
    /// Send packets between the pods of different nodes through VXLAN
    #[arg(long)]
    overlay: bool,
    /// Run a DNS cache on each node, which pods query
    #[arg(long)]
    node_cache: bool,
    /// Do not install tap53
    #[arg(long)]
    bare: bool,
    /// Install the image and the chart that `cargo xtask dist` wrote to this directory
    #[arg(long, value_name = "DIRECTORY")]
    files: Option<PathBuf>,
}

impl Options {
    fn plan(&self) -> Plan {
        let proxy = if self.nftables { ProxyMode::Nftables } else { ProxyMode::Iptables };
        Plan { proxy: [proxy; 2], overlay: self.overlay, node_cache: self.node_cache }
    }

    /// The options as arguments.
    fn words(&self) -> impl Iterator<Item = &OsStr> {
        let files = self.files.iter().flat_map(|files| [OsStr::new("--files"), files.as_os_str()]);
        let flags = [
            (self.nftables, "--nftables"),
            (self.overlay, "--overlay"),
            (self.node_cache, "--node-cache"),
            (self.bare, "--bare"),
        ]
        .into_iter()
        .filter_map(|(set, word)| set.then_some(OsStr::new(word)));
        flags.chain(files)
    }

    fn release(&self) -> Result<Option<Release>> {
        self.files.as_deref().map(Release::find).transpose()
    }

    /// Arguments for helm.
    fn values(&self) -> Vec<String> {
        let presets = [(self.overlay, "flannel"), (self.node_cache, "nodelocaldns")];
        let presets: Vec<&str> =
            presets.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
        // `--set presets={}` would be a list of one empty name.
        let presets = format!("presets={}", serde_json::json!(presets));
        ["--set-json", SINKS, "--set-json", &presets].map(str::to_owned).into()
    }
}

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    match &arguments.action {
        Action::Up(options) => up(workspace, options),
        Action::Down => down(workspace),
        Action::Test => run_tests(workspace),
        Action::Serve(options) => serve(&State::of(workspace), options),
    }
}

/// Files of a running cluster.
struct State {
    directory: PathBuf,
}

impl State {
    fn of(workspace: &Workspace) -> Self {
        Self { directory: workspace.target.join("cluster") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The process that holds the cluster, if it runs.
    fn holder(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.file("pid")).ok()?.trim().parse().ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let is_serve = words.windows(2).any(|pair| pair == [&b"cluster"[..], b"serve"]);
        is_serve.then(|| Pid::from_raw(pid))
    }
}

fn prepare(workspace: &Workspace) -> Result<()> {
    setup::install_missing(workspace, Purpose::Test)?;
    cluster::prepare()
}

fn build_agent(workspace: &Workspace) -> Result<()> {
    build_ebpf::run(workspace)?;
    run_command(workspace.cargo().args(["build", "--quiet", "--package", "tap53"]))
}

fn run_tests(workspace: &Workspace) -> Result<()> {
    let runner = test::runner(workspace)?;
    prepare(workspace)?;
    build_agent(workspace)?;
    run_command(
        workspace
            .cargo()
            .args(["test", "--package", "tap53-tests", "--test", "cluster"])
            .args(&runner)
            .args(["--", "--include-ignored", "--test-threads=1"]),
    )
}

fn up(workspace: &Workspace, options: &Options) -> Result<()> {
    let state = State::of(workspace);
    ensure!(state.holder().is_none(), "a cluster runs already: `cargo xtask cluster down` first");
    prepare(workspace)?;
    if options.release()?.is_none() {
        build_agent(workspace)?;
    }
    fs::create_dir_all(&state.directory)?;
    // A password is asked for here, where there is a terminal.
    run_command(as_root("the cluster")?.arg("true"))?;
    for name in ["ready", "pid"] {
        let _ = fs::remove_file(state.file(name));
    }
    let mut holder = start_holder(workspace, &state, options)?;
    wait_until_ready(&state, &mut holder)?;
    println!("{}", fs::read_to_string(state.file("ready"))?);
    Ok(())
}

fn start_holder(workspace: &Workspace, state: &State, options: &Options) -> Result<Child> {
    let log = File::create(state.file("log"))?;
    let mut command = as_root("the cluster")?;
    command
        .arg(format!("TAP53_CACHE={}", workspace.cache.display()))
        .arg(format!("CARGO_TARGET_DIR={}", workspace.target.display()))
        .arg(env::current_exe().context("cannot find this program")?)
        .args(["cluster", "serve"])
        .args(options.words())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Keys that interrupt this command do not reach it.
        .process_group(0);
    command.spawn().context("start the cluster")
}

fn wait_until_ready(state: &State, holder: &mut Child) -> Result<()> {
    let log = state.file("log");
    wait::until_every(POLL_INTERVAL, "the cluster", START_DEADLINE, || {
        if let Some(status) = holder.try_wait()? {
            let text = fs::read_to_string(&log).unwrap_or_default();
            bail!("the cluster ended: {status}\n{text}");
        }
        Ok(state.file("ready").exists().then_some(()))
    })
    .with_context(|| format!("see {}", log.display()))
}

/// Starts the cluster and keeps it until a signal.
fn serve(state: &State, options: &Options) -> Result<()> {
    demo::interrupt_on_signals()?;
    fs::write(state.file("pid"), std::process::id().to_string())?;
    let outcome = hold(state, options);
    for name in ["ready", "kubectl", "pid"] {
        let _ = fs::remove_file(state.file(name));
    }
    let left = Namespace::left_by_this_process()?;
    ensure!(left.is_empty(), "namespaces that could not be removed: {}", left.join(", "));
    outcome
}

fn hold(state: &State, options: &Options) -> Result<()> {
    let started = Instant::now();
    let network = Network::new()?;
    let cluster = Cluster::start_with(&network, options.plan(), options.release()?.as_ref())?;
    if !options.bare {
        let values = options.values();
        cluster.install(&values.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    cluster.write_kubectl(&state.file("kubectl"))?;
    let text = summary(&cluster, state, started.elapsed());
    // Complete when it has its name.
    fs::write(state.file("ready.partial"), text)?;
    fs::rename(state.file("ready.partial"), state.file("ready"))?;
    while wait::require_uninterrupted().is_ok() {
        thread::park_timeout(POLL_INTERVAL);
    }
    Ok(())
}

fn summary(cluster: &Cluster<'_>, state: &State, took: Duration) -> String {
    let mut text = format!("the cluster is ready after {} s\n", took.as_secs());
    for node in cluster.nodes() {
        let records = node.path("/var/lib/tap53");
        text.push_str(&format!(
            "  {} {}  records: {}\n",
            node.name,
            node.address,
            records.display()
        ));
    }
    let kubectl = state.file("kubectl");
    text.push_str(&format!("  {} get pods --all-namespaces\n", kubectl.display()));
    text + "  cargo xtask cluster down"
}

fn down(workspace: &Workspace) -> Result<()> {
    if require_root().is_err() {
        let this = env::current_exe().context("cannot find this program")?;
        let mut command = as_root("the cluster")?;
        command
            .arg(format!("TAP53_CACHE={}", workspace.cache.display()))
            .arg(format!("CARGO_TARGET_DIR={}", workspace.target.display()))
            .arg(this)
            .args(["cluster", "down"]);
        return run_command(&mut command);
    }
    let state = State::of(workspace);
    let holder = state.holder();
    if let Some(holder) = holder {
        kill(holder, Signal::SIGTERM).context("end the cluster")?;
        wait_until_gone(holder)?;
    }
    cluster::sweep();
    println!("{}", if holder.is_some() { "the cluster is removed" } else { "no cluster runs" });
    remove(&state.directory)
}

fn wait_until_gone(holder: Pid) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{holder}"));
    wait::until("the cluster to end", STOP_DEADLINE, || Ok((!path.exists()).then_some(())))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
