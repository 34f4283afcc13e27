//! The control plane.

use anyhow::Result;

use super::{
    network::{CONTROL_IP, Network, POD_RANGE},
    programs::Programs,
};
use crate::{
    kube::{KubeApi, User},
    process::Process,
};

pub(super) fn start_api(network: &Network) -> Result<KubeApi<'_>> {
    let users = ["node-1", "node-2"].map(User::of_node);
    KubeApi::start_for_nodes(&network.control, CONTROL_IP, &users)
}

/// Starts the controllers and the scheduler.
pub(super) fn start_controllers(
    network: &Network,
    api: &KubeApi<'_>,
    programs: &Programs,
) -> Result<[Process; 2]> {
    let start = |name: &str, arguments: &[String]| {
        let mut command = network.control.command(programs.kube(name));
        command.arg("--kubeconfig").arg(api.admin_kubeconfig());
        command.args(["--leader-elect=false", "--bind-address=127.0.0.1"]).args(arguments);
        Process::spawn(name, command)
    };
    let controllers = [
        format!("--cluster-cidr={POD_RANGE}"),
        format!("--root-ca-file={}", api.ca().display()),
        format!("--service-account-private-key-file={}", api.signing_key().display()),
    ];
    Ok([start("kube-controller-manager", &controllers)?, start("kube-scheduler", &[])?])
}
