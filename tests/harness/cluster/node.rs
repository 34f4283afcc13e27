//! A node: its namespaces, and the programs in them.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use tempfile::TempDir;

use super::{
    ProxyMode,
    cgroups::Cgroups,
    dns,
    images::Archive,
    network::{Network, OUTSIDE_IP, POD_RANGE, node_ip, pod_range},
    programs::Programs,
    runtime,
    space::{BOUND, Space},
};
use crate::{
    kube::{KubeApi, User},
    process::{Process, run},
    scratch, wait,
};

const DEADLINE: Duration = Duration::from_secs(90);
/// Directories of the node's own.
const DIRECTORIES: [&str; 6] =
    ["cgroups", "settings", "lib/cni/net.d", "lib/containerd", "lib/kubelet", "log/pods"];

/// A running node; dropping it ends its processes, and removes its files.
pub struct Node<'a> {
    /// Name, `node-1` or `node-2`.
    pub name: String,
    /// Address.
    pub address: Ipv4Addr,
    number: usize,
    network: &'a Network,
    // In this order: what runs in the namespaces, these, the cgroups of what ran, and the files.
    proxy: Option<Process>,
    kubelet: Option<Process>,
    containerd: Process,
    space: Space,
    cgroups: Cgroups,
    directory: TempDir,
}

impl<'a> Node<'a> {
    /// Starts the namespaces and the container runtime, and imports the images.
    pub(super) fn start(
        network: &'a Network,
        number: usize,
        programs: &Programs,
        archives: &[Archive],
    ) -> Result<Self> {
        let name = format!("node-{}", number + 1);
        let directory = scratch::directory(&name)?;
        prepare_files(directory.path(), number, programs)?;
        let cgroups = Cgroups::create(&name)?;
        let namespace = &network.nodes[number];
        let space = Space::create(namespace, &name, directory.path(), programs.pod())?;
        let containerd = start_containerd(&space, directory.path(), programs)?;
        let node = Self {
            name,
            address: node_ip(number),
            number,
            network,
            proxy: None,
            kubelet: None,
            containerd,
            space,
            cgroups,
            directory,
        };
        archives.iter().try_for_each(|archive| node.import(archive, programs))?;
        Ok(node)
    }

    fn import(&self, archive: &Archive, programs: &Programs) -> Result<()> {
        let mut command = self.ctr(programs);
        run(command.args(["images", "import"]).arg(&archive.path)).map(drop)
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// If there is no such image.
    pub fn tag_image(&self, image: &str, name: &str) -> Result<()> {
        run(self.ctr(&Programs::get()?).args(["images", "tag", image, name])).map(drop)
    }

    fn ctr(&self, programs: &Programs) -> Command {
        let mut command = self.command(programs.containerd().join("ctr"));
        command.args(["--namespace", "k8s.io"]);
        command
    }

    /// A command that will run in the node, beside its pods.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.space.command(program)
    }

    /// The path on this machine of a path below the node's `/var/lib` or `/var/log`.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        let own = BOUND.iter().find_map(|(own, shown)| {
            Some(Path::new(own).join(Path::new(path).strip_prefix(shown).ok()?))
        });
        self.directory.path().join(own.unwrap_or_default())
    }

    /// The node as an object of the API, with the range of its pods.
    pub(super) fn object(&self) -> String {
        let range = pod_range(self.number);
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name},
            "spec": {"podCIDR": range, "podCIDRs": [range]},
        });
        format!("---\n{node}\n")
    }

    /// Starts the kubelet, which registers the node.
    pub(super) fn start_kubelet(
        &mut self,
        api: &KubeApi<'_>,
        programs: &Programs,
        node_cache: bool,
    ) -> Result<()> {
        let file = |name: &str| self.directory.path().join(name);
        let dns = if node_cache { dns::NODE_CACHE_IP } else { dns::CLUSTER_IP };
        let resolv_conf = file("resolv.conf");
        fs::write(&resolv_conf, format!("nameserver {OUTSIDE_IP}\n"))?;
        let text = runtime::kubelet(&self.cgroups.path(), &dns.to_string(), &resolv_conf);
        fs::write(file("kubelet.json"), text)?;
        let mut command = self.command(programs.kube("kubelet"));
        command.arg("--config").arg(file("kubelet.json"));
        command.arg("--kubeconfig").arg(api.kubeconfig(&User::of_node(&self.name)));
        command.args(["--hostname-override", &self.name, "--node-ip", &self.address.to_string()]);
        self.kubelet = Some(Process::spawn("kubelet", command)?);
        Ok(())
    }

    /// Starts kube-proxy once the node has an address: it ends when that changes.
    pub(super) fn start_proxy(
        &mut self,
        api: &KubeApi<'_>,
        programs: &Programs,
        mode: ProxyMode,
    ) -> Result<()> {
        let own = self.address.to_string();
        let output = "--output=jsonpath={.status.addresses[*].address}";
        wait::until("the node's address", DEADLINE, || {
            let addresses = api.kubectl(&["get", "node", &self.name, output])?;
            Ok(addresses.contains(&own).then_some(()))
        })
        .with_context(|| self.logs())?;
        let mut command = self.command(programs.kube("kube-proxy"));
        command.arg("--kubeconfig").arg(api.admin_kubeconfig());
        command.args(["--hostname-override", &self.name, "--cluster-cidr", POD_RANGE]);
        command.args(["--proxy-mode", mode.name()]);
        // Settings of connection tracking for the whole machine stay as they are.
        command.args(["--conntrack-max-per-core", "0"]);
        command.args(["--conntrack-tcp-timeout-established", "0s"]);
        command.args(["--conntrack-tcp-timeout-close-wait", "0s"]);
        self.proxy = Some(Process::spawn("kube-proxy", command)?);
        Ok(())
    }

    /// Gives the node what NodeLocal DNSCache sets up on each: its addresses, and rules that exempt queries
    /// to them from connection tracking. A bridge takes the place of the dummy device.
    pub(super) fn prepare_cache(&self) -> Result<()> {
        let space = &self.network.nodes[self.number];
        space.ip(&["link", "add", "nodelocaldns", "type", "bridge"])?;
        for address in [dns::NODE_CACHE_IP, dns::CLUSTER_IP] {
            space.ip(&["address", "add", &format!("{address}/32"), "dev", "nodelocaldns"])?;
        }
        for rule in dns::cache_rules() {
            run(self.command("iptables").args(&rule))?;
        }
        Ok(())
    }

    /// The end of the logs of the node's programs.
    pub(super) fn logs(&self) -> String {
        let programs = [Some(&self.containerd), self.kubelet.as_ref(), self.proxy.as_ref()];
        let tails = programs.into_iter().flatten().map(|program| program.stderr().tail());
        format!("{}:\n{}", self.name, tails.collect::<Vec<_>>().join("\n"))
    }
}

fn prepare_files(directory: &Path, number: usize, programs: &Programs) -> Result<()> {
    for name in DIRECTORIES {
        fs::create_dir_all(directory.join(name))?;
    }
    fs::write(directory.join("containerd.toml"), runtime::containerd(programs, directory)?)?;
    let network = directory.join("lib").join(runtime::NETWORK_FILE);
    fs::write(network, runtime::pods_network(number))?;
    Ok(())
}

fn start_containerd(space: &Space, directory: &Path, programs: &Programs) -> Result<Process> {
    let binaries = programs.containerd();
    let mut command = space.command(binaries.join("containerd"));
    command.arg("--config").arg(directory.join("containerd.toml"));
    // It finds its shims there.
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binaries.display()));
    let process = Process::spawn("containerd", command)?;
    process.wait_for_line("containerd successfully booted", 0, DEADLINE)?;
    Ok(process)
}
