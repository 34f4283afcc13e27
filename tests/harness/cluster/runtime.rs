//! The configuration of a node's container runtime and of its pods' network.

use std::path::Path;

use anyhow::Result;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use serde_json::json;

use super::{images, network::pod_range, programs::Programs};

/// Directory on the node in which the runtime looks for networks.
const NETWORKS: &str = "/var/lib/cni/net.d";
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
/// MTU of pods' interfaces: VXLAN adds 50 bytes.
const MTU: u32 = 1450;

/// The configuration of containerd, whose files are below `directory`.
pub(super) fn containerd(programs: &Programs, directory: &Path) -> Result<String> {
    let (runc, cni) = (programs.runc(), programs.cni());
    // The kernel stacks no overlay on one, as containers have for their temporary files.
    let on_overlay = statfs(directory)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC;
    let snapshotter = if on_overlay { "native" } else { "overlayfs" };
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    Ok(format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = "{SOCKET}"

[{cri}]
sandbox_image = "{pause}"
# Without CAP_SYS_RESOURCE, nothing gets a better score than containerd has.
restrict_oom_score_adj = true
disable_apparmor = true

[{cri}.containerd]
snapshotter = "{snapshotter}"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false

[{cri}.cni]
bin_dir = "{cni}"
conf_dir = "{NETWORKS}"
"#,
        pause = images::PAUSE,
        runc = runc.display(),
        cni = cni.display(),
    ))
}

/// Path of the pods' network's configuration, below the node's directory for `/var/lib`.
pub(super) const NETWORK_FILE: &str = "cni/net.d/10-pods.conflist";

/// A bridge, from which routes lead to the pods of other nodes, without translation of addresses.
pub(super) fn pods_network(number: usize) -> String {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": true,
            "hairpinMode": true,
            "mtu": MTU,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": pod_range(number)}]]},
        }, {
            "type": "portmap",
            "capabilities": {"portMappings": true},
        }],
    })
    .to_string()
}

/// The configuration of the kubelet.
pub(super) fn kubelet(cgroups: &str, dns: &str, resolv_conf: &Path) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups,
        "failCgroupV1": false,
        // Nothing but the cluster reaches its port.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [dns],
        "clusterDomain": "cluster.local",
        "resolvConf": resolv_conf,
        "volumePluginDir": "/var/lib/kubelet/plugins",
        "failSwapOn": false,
        // Without CAP_SYS_RESOURCE, a lower one is refused.
        "oomScoreAdj": 0,
        "featureGates": {"KubeletInUserNamespace": true},
        // Not shares: the disk is the machine's, and may be nearly full for its size.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "100Mi", "imagefs.available": "100Mi",
        },
        "imageGCHighThresholdPercent": 100,
        // Changes of ConfigMaps arrive after that time at the latest.
        "syncFrequency": "5s",
    })
    .to_string()
}
