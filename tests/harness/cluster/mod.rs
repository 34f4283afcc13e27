//! A Kubernetes cluster of two nodes on this machine, from its own programs.
//!
//! ```text
//!   control                node-1                       node-2               outside
//!  ┌──────────────────┐   ┌────────────────────────┐   ┌────────────────┐   ┌─────────────┐
//!  │ etcd, apiserver, │   │ containerd, kubelet,   │   │ the same       │   │ unbound     │
//!  │ controllers,     │   │ kube-proxy             │   │                │   │ Kafka, if a │
//!  │ scheduler        │   │ pods ── veth ── cni0   │   │                │   │ test has it │
//!  └──── eth0 .10 ────┘   └─ routes ─── eth0 .11 ──┘   └── eth0 .12 ────┘   └─ eth0 .53 ──┘
//!             └───────────────────────── lan0 192.168.53.0/24 ──────────────────────┘
//! ```
//!
//! Each is a network namespace on one bridge. A node also has its own mounts, processes and host name:
//! see [`space`]. Nothing of it outlives this process, however that ends, but directories in the trees of
//! cgroups and below the temporary directory, which the next run removes.

mod cgroups;
mod control;
mod dns;
mod images;
mod network;
mod node;
mod plugin;
mod pods;
mod programs;
mod runtime;
mod space;

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    iter,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    architecture::Architecture,
    kube::{self, KubeApi},
    namespace,
    process::Process,
    unbound::{Extra, Unbound},
    wait,
};

pub use dns::{CLUSTER_IP, NODE_CACHE_IP};
pub use images::IMAGE;
pub use network::{Network, OUTSIDE_IP};
pub use node::Node;
pub use plugin::Plugin;
pub use pods::{Query, ZONE};
pub use programs::prepare;

const DEADLINE: Duration = Duration::from_secs(120);
/// Timeout of one `kubectl wait`. kubectl itself ends a little later.
const TIMEOUT: &str = "--timeout=55s";

/// Removes what processes that no longer exist have left: cgroups, namespaces and files.
pub fn sweep() {
    cgroups::sweep();
    namespace::sweep();
}

/// A mode of kube-proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyMode {
    /// Rules of iptables.
    #[default]
    Iptables,
    /// Rules of nftables.
    Nftables,
}

impl ProxyMode {
    const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// The parts of a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// The mode of kube-proxy on node 1 and node 2.
    pub proxy: [ProxyMode; 2],
    /// True if packets between pods of different nodes travel in VXLAN, as with flannel.
    pub overlay: bool,
    /// True if pods query a cache on their node, at [`NODE_CACHE_IP`].
    pub node_cache: bool,
}

/// Files of `cargo xtask dist` that a cluster needs.
#[derive(Clone, Debug)]
pub struct Release {
    /// The image, as an OCI archive.
    pub image: PathBuf,
    /// The chart's package.
    pub chart: PathBuf,
}

impl Release {
    /// Finds the files in the directory that `cargo xtask dist` wrote.
    ///
    /// # Errors
    /// If one is not there.
    pub fn find(directory: &Path) -> Result<Self> {
        let architecture = Architecture::of_this_machine()?.rust();
        let base = concat!("tap53-", env!("CARGO_PKG_VERSION"));
        let release = Self {
            image: directory.join(format!("{base}-{architecture}.oci.tar")),
            chart: directory.join(format!("{base}.tgz")),
        };
        for file in [&release.image, &release.chart] {
            ensure!(file.is_file(), "there is no {}: `cargo xtask dist`", file.display());
        }
        Ok(release)
    }
}

/// A running cluster; dropping it removes everything.
pub struct Cluster<'a> {
    // Fields drop in this order.
    nodes: [Node<'a>; 2],
    _controllers: [Process; 2],
    /// The API server.
    pub api: KubeApi<'a>,
    _upstream: Unbound,
    plan: Plan,
    chart: PathBuf,
}

impl<'a> Cluster<'a> {
    /// Starts the cluster, with its DNS, and waits until pods can run and query on both nodes.
    ///
    /// # Errors
    /// Without root, if a program cannot be built or fetched, or if a part does not start.
    pub fn start(network: &'a Network, plan: Plan) -> Result<Self> {
        Self::start_with(network, plan, None)
    }

    /// Starts the cluster for the files of a release instead of the built agent and the chart of `deploy`.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_with(network: &'a Network, plan: Plan, release: Option<&Release>) -> Result<Self> {
        cgroups::sweep();
        let programs = programs::Programs::get()?;
        let archives = images::archives(&programs, release)?;
        let chart = release.map_or_else(kube::chart, |release| release.chart.clone());
        network.route_pods(plan.overlay)?;
        let (api, nodes) = thread::scope(|scope| -> Result<_> {
            let api = scope.spawn(|| control::start_api(network));
            let nodes = [0, 1].map(|number| {
                let (programs, archives) = (&programs, &archives);
                scope.spawn(move || Node::start(network, number, programs, archives))
            });
            let [first, second] = nodes.map(|node| node.join().map_err(|_| anyhow!("panicked"))?);
            let api = api.join().map_err(|_| anyhow!("panicked"))?;
            Ok((api?, [first.context("node-1")?, second.context("node-2")?]))
        })?;
        let controllers = control::start_controllers(network, &api, &programs)?;
        let extra = Extra { server: dns::upstream_zone(), ..Extra::default() };
        let upstream = Unbound::start_with(&network.outside, &[OUTSIDE_IP.into()], &extra)?;
        let mut cluster =
            Self { nodes, _controllers: controllers, api, _upstream: upstream, plan, chart };
        cluster.join_nodes(&programs)?;
        cluster.start_dns(&programs)?;
        Ok(cluster)
    }

    /// Registers the nodes, and waits until pods can run on them.
    fn join_nodes(&mut self, programs: &programs::Programs) -> Result<()> {
        self.api.apply(&self.nodes.iter().map(Node::object).collect::<String>())?;
        for node in &mut self.nodes {
            node.start_kubelet(&self.api, programs, self.plan.node_cache)?;
        }
        for (node, mode) in self.nodes.iter_mut().zip(self.plan.proxy) {
            node.start_proxy(&self.api, programs, mode)?;
        }
        let arguments = ["wait", "--for=condition=Ready", "node", "--all", TIMEOUT];
        self.api.kubectl(&arguments).with_context(|| self.logs()).map(drop)
    }

    /// The end of the logs of both nodes.
    fn logs(&self) -> String {
        self.nodes.iter().map(Node::logs).collect()
    }

    /// The nodes.
    #[must_use]
    pub const fn nodes(&self) -> &[Node<'a>; 2] {
        &self.nodes
    }

    /// Installs the chart with more arguments for helm, and waits until the agents are ready.
    ///
    /// # Errors
    /// If they do not get ready; the message has the pods' state and log.
    pub fn install(&self, arguments: &[&str]) -> Result<()> {
        self.api.kubectl(&["create", "namespace", kube::RELEASE])?;
        let label = "pod-security.kubernetes.io/enforce=privileged";
        self.api.kubectl(&["label", "namespace", kube::RELEASE, label])?;
        self.helm("install", arguments)
    }

    /// Runs `helm upgrade` with arguments, and waits until the agents are ready.
    ///
    /// # Errors
    /// See [`install`](Self::install).
    pub fn upgrade(&self, arguments: &[&str]) -> Result<()> {
        self.helm("upgrade", arguments)
    }

    fn helm(&self, verb: &str, arguments: &[&str]) -> Result<()> {
        let timeout = format!("{}s", DEADLINE.as_secs());
        let fixed = ["--wait", "--timeout", timeout.as_str()];
        self.api
            .helm_chart(verb, &self.chart, &[&fixed[..], arguments].concat())
            .with_context(|| self.agents_report())
            .map(drop)
    }

    /// The state and the logs of the agents' pods.
    #[must_use]
    pub fn agents_report(&self) -> String {
        let namespace = ["--namespace", kube::RELEASE];
        let selector = ["--selector", "app.kubernetes.io/name=tap53"];
        let describe = [&["describe", "pod"][..], &namespace[..], &selector[..]].concat();
        let logs = [&["logs", "--tail=40", "--prefix"][..], &namespace[..], &selector[..]].concat();
        [describe, logs]
            .map(|arguments| {
                self.api.kubectl(&arguments).unwrap_or_else(|error| format!("{error:#}"))
            })
            .concat()
    }

    /// The name of the agent's pod on a node.
    ///
    /// # Errors
    /// If there is none.
    pub fn agent_on(&self, node: &str) -> Result<String> {
        let field = format!("spec.nodeName={node}");
        #[rustfmt::skip]
        let name = self.api.kubectl(&[
            "get", "pod", "--namespace", kube::RELEASE, "--field-selector", &field,
            "--selector", "app.kubernetes.io/name=tap53", "--output=jsonpath={.items[0].metadata.name}",
        ])?;
        Ok(name.trim().to_owned())
    }

    /// Runs `tap53` with arguments in the agent's pod on a node, and returns its output.
    ///
    /// # Errors
    /// If it fails.
    pub fn in_agent(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let pod = self.agent_on(node)?;
        let fixed = ["exec", "--namespace", kube::RELEASE, &pod, "--", "/usr/bin/tap53"];
        self.api.kubectl(&[&fixed[..], arguments].concat())
    }

    fn start_dns(&self, programs: &programs::Programs) -> Result<()> {
        self.api.apply(&dns::objects())?;
        if self.plan.node_cache {
            self.nodes.iter().try_for_each(Node::prepare_cache)?;
            self.api.apply(&dns::cache_objects())?;
        }
        for object in dns::workloads(self.plan.node_cache) {
            let arguments = ["rollout", "status", object, "--namespace=kube-system", TIMEOUT];
            self.api.kubectl(&arguments).with_context(|| self.pods_report())?;
        }
        let server = if self.plan.node_cache { NODE_CACHE_IP } else { CLUSTER_IP };
        self.nodes.iter().try_for_each(|node| answers(node, programs, server))
    }

    /// Writes a script that runs kubectl as the administrator of this cluster.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_kubectl(&self, path: &Path) -> Result<()> {
        let command = self.api.command(self.api.kubectl_path());
        let words: Vec<_> = iter::once(command.get_program()).chain(command.get_args()).collect();
        let (line, configuration) = (words.join(OsStr::new(" ")), self.api.admin_kubeconfig());
        // A variable: kubectl takes no flags before the name of a plugin.
        let text = format!(
            "#!/bin/sh\nKUBECONFIG={} exec {} \"$@\"\n",
            configuration.display(),
            line.display()
        );
        fs::write(path, text)?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// The state of all pods and the newest events.
    #[must_use]
    pub fn pods_report(&self) -> String {
        [&["get", "pods", "-A", "-o", "wide"][..], &["get", "events", "-A"][..]]
            .map(|arguments| {
                self.api.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"))
            })
            .concat()
    }
}

/// Waits until a server answers queries of the node itself: kube-proxy has its rules then.
fn answers(node: &Node<'_>, programs: &programs::Programs, server: Ipv4Addr) -> Result<()> {
    let server = server.to_string();
    wait::until("the cluster's DNS to answer", DEADLINE, || {
        let mut command = node.command(programs.pod());
        command.args(["query", "kubernetes.default.svc.cluster.local", "1", "0", &server]);
        Ok(command.output()?.status.success().then_some(()))
    })
}
