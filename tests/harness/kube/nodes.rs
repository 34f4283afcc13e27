//! The API server of a cluster with nodes and controllers.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{KubeApi, RELEASE, account, arguments_of, ca, random_token};
use crate::{namespace::Namespace, process::run};

/// Port of API servers that kubeadm installs.
const PORT: u16 = 6443;
const ETCD_PORTS: [u16; 2] = [2379, 2380];

/// A user beside the administrator, with a kubeconfig file.
#[derive(Clone, Debug)]
pub struct User {
    /// Name, such as `system:node:node-1`.
    pub name: String,
    /// Group, such as `system:nodes`.
    pub group: String,
}

impl User {
    /// The user of a node's kubelet.
    #[must_use]
    pub fn of_node(node: &str) -> Self {
        Self { name: format!("system:node:{node}"), group: "system:nodes".to_owned() }
    }

    /// Writes the kubeconfig file, and returns the line with the token.
    pub(super) fn prepare(&self, directory: &Path, url: &str) -> Result<String> {
        let token = random_token()?;
        let user = format!("{{token: {token}}}");
        let text = account::kubeconfig(url, &ca(directory), "default", &user);
        let file = kubeconfig(directory, &self.name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(format!("{token},{0},{0},\"{1}\"\n", self.name, self.group))
    }
}

impl<'a> KubeApi<'a> {
    /// Starts an API server at port 6443 of an address of a namespace, for nodes and controllers: service
    /// accounts exist in all namespaces and are given to pods, and the server publishes its address as the
    /// service `kubernetes`.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_for_nodes(namespace: &'a Namespace, ip: Ipv4Addr, users: &[User]) -> Result<Self> {
        let server = SocketAddr::from((ip, PORT));
        let [client, peer] = ETCD_PORTS.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self::launch(Some(namespace), [server, client, peer], users, |directory| {
            let mut all = arguments_of(directory, server, client);
            all.extend(
                [
                    "--authorization-mode=Node,RBAC",
                    "--enable-admission-plugins=NodeRestriction",
                    "--allow-privileged=true",
                    "--kubelet-preferred-address-types=InternalIP",
                ]
                .map(str::to_owned),
            );
            all
        })
    }

    /// The kubeconfig file of a user.
    #[must_use]
    pub fn kubeconfig(&self, user: &User) -> PathBuf {
        kubeconfig(self.directory.path(), &user.name)
    }

    /// The key that signs tokens of service accounts.
    #[must_use]
    pub fn signing_key(&self) -> PathBuf {
        self.directory.path().join(account::SIGNING_KEY)
    }

    /// Runs helm as administrator and returns its output.
    ///
    /// # Errors
    /// When helm fails; with its message.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(self.programs.path("helm"));
        command.args(arguments).arg("--kubeconfig").arg(self.admin_kubeconfig());
        run(self.with_home(&mut command))
    }

    /// Runs `helm VERB` for a chart, a directory or a package, as the release [`RELEASE`], with more
    /// arguments.
    ///
    /// # Errors
    /// See [`helm`](Self::helm).
    pub fn helm_chart(&self, verb: &str, chart: &Path, arguments: &[&str]) -> Result<String> {
        let chart = chart.to_str().context("a path in UTF-8")?;
        let fixed = [verb, RELEASE, chart, "--namespace", RELEASE];
        self.helm(&[&fixed[..], arguments].concat())
    }

    /// Programs write their caches there instead of to the user's home.
    fn with_home<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("HOME", self.directory.path()).env_remove("KUBECONFIG")
    }
}

fn kubeconfig(directory: &Path, user: &str) -> PathBuf {
    directory.join("accounts").join(format!("{}.kubeconfig", user.replace(':', "-")))
}
