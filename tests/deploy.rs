//! The files of `deploy/`: the chart, the manifests rendered from it, and the agent as they start it.

use std::{
    collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tap53_harness::{
    agent,
    client::Transport,
    container::{Image, Privileges, Volume},
    fastavro,
    kube::{self, Account, KubeApi, RELEASE, Request},
    lab::{ANSWERED, Lab},
    namespace::CLIENT_END,
    process::{Process, run},
    wait,
};
use tempfile::TempDir;

#[path = "deploy/admission.rs"]
mod admission;
#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/container.rs"]
mod container;
#[path = "deploy/helm_test.rs"]
mod helm_test;
#[path = "deploy/permissions.rs"]
mod permissions;

const DEADLINE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
/// File capabilities of the program in the image: see deploy/Dockerfile.
const CAPABILITIES: [&str; 3] = ["cap_bpf", "cap_net_admin", "cap_perfmon"];

fn chart() -> String {
    kube::chart().display().to_string()
}

/// The chart's objects on the API server, as plain manifests have them.
fn apply_manifests(api: &KubeApi<'_>) -> Result<()> {
    api.apply(&fs::read_to_string(kube::manifests())?)?;
    Ok(())
}

/// The object `name` of the release's namespace.
fn object(api: &KubeApi<'_>, kind: &str, name: &str) -> Result<Value> {
    let text = api.kubectl(&["get", kind, name, "--namespace", RELEASE, "--output=json"])?;
    serde_json::from_str(&text).context("JSON of kubectl")
}

/// Returns a pod of the DaemonSet as its controller creates it for a node.
fn pod_of(daemon_set: &Value, namespace: &str) -> Value {
    let template = &daemon_set["spec"]["template"];
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!("node-1");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "agent",
            "namespace": namespace,
            "labels": template["metadata"]["labels"],
        },
        "spec": spec,
    })
}

/// Sinks of the agent in the tests.
const SINKS: &str = r#"config.sinks=[
    {"type": "stdout", "format": "json"}, {"type": "file", "directory": "/var/lib/tap53"}
]"#;
/// Mount point of a pod's account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const NODE: &str = "node-1";

/// An agent as kubelet and runtime start it for the objects on the API server.
struct Pod<'a> {
    lab: &'a Lab,
    privileges: Privileges,
    arguments: Vec<String>,
    /// Arguments of the startup probe's command.
    started: Vec<String>,
    /// Arguments of the liveness probe's command.
    alive: Vec<String>,
    /// Arguments of the readiness probe's command.
    ready: Vec<String>,
    environment: Vec<(String, String)>,
    volumes: Vec<(String, Volume)>,
    /// Privileges and arguments of the init container.
    first: Option<(Privileges, Vec<String>)>,
    image: Image,
    account: Account,
    // The directory that is mounted.
    _config: TempDir,
}

impl<'a> Pod<'a> {
    /// Installs the chart for an agent that captures from `s0` and prints its records.
    fn installed(lab: &'a Lab, api: &KubeApi<'_>, values: &[&str]) -> Result<Self> {
        #[rustfmt::skip]
        let usual = [
            "--set", "namespace.create=true",
            "--set", "config.interfaces.include={s0}",
            "--set-json", SINKS,
            "--set-json", r#"stateVolume={"emptyDir": {"sizeLimit": "16Mi"}}"#,
        ];
        api.apply(&kube::render(&[&usual[..], values].concat())?)?;
        let daemon_set = object(api, "daemonset", RELEASE)?;
        let spec = &daemon_set["spec"]["template"]["spec"];
        let container = &spec["containers"][0];

        // The kubelet mounts it with these permissions: anyone may read.
        let config = tempfile::tempdir()?;
        fs::set_permissions(config.path(), fs::Permissions::from_mode(0o755))?;
        let config_map = object(api, "configmap", RELEASE)?;
        let yaml = config_map["data"]["tap53.yaml"].as_str().context("tap53.yaml")?;
        fs::write(config.path().join("tap53.yaml"), yaml)?;

        let privileges = Privileges::of(spec, container)?;
        let account = api.account(RELEASE, RELEASE, HOUR)?;
        let mut volumes = Vec::new();
        if spec["automountServiceAccountToken"] == true {
            volumes.push((ACCOUNT.to_owned(), Volume::Files(account.directory.clone())));
        }
        for mount in container["volumeMounts"].as_array().context("volumeMounts")? {
            let mut all = spec["volumes"].as_array().context("volumes")?.iter();
            let volume =
                all.find(|volume| volume["name"] == mount["name"]).context("its volume")?;
            let source = if volume["configMap"]["name"] == RELEASE {
                Volume::Files(config.path().to_owned())
            } else if volume["hostPath"]["type"] == "DirectoryOrCreate" {
                Volume::node()?
            } else if volume["hostPath"]["type"] == "Directory" {
                ensure!(mount["readOnly"] == true, "of the node, and writable: {mount}");
                Volume::Files(volume["hostPath"]["path"].as_str().context("path")?.into())
            } else {
                ensure!(volume["emptyDir"].is_object(), "not known here: {volume}");
                Volume::empty(privileges.user)?
            };
            volumes.push((mount["mountPath"].as_str().context("mountPath")?.to_owned(), source));
        }
        let mut environment: Vec<(String, String)> =
            api.pod_environment().map(|(name, value)| (name.to_owned(), value)).into();
        for variable in container["env"].as_array().into_iter().flatten() {
            let of_node = variable["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName";
            let value = variable["value"].as_str().or(of_node.then_some(NODE));
            let value = value.with_context(|| format!("not known here: {variable}"))?;
            let name = variable["name"].as_str().context("a variable's name")?;
            environment.push((name.to_owned(), value.to_owned()));
        }
        let words = |list: &Value| -> Vec<String> {
            let words = list.as_array().into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let first = spec["initContainers"].as_array().map(|containers| -> Result<_> {
            let [container] = &containers[..] else { bail!("not known here: {containers:?}") };
            ensure!(container["image"] == spec["containers"][0]["image"], "another image");
            Ok((Privileges::of(spec, container)?, words(&container["args"])))
        });
        let probe = |name: &str| -> Result<Vec<String>> {
            let words = words(&container[name]["exec"]["command"]);
            let (program, arguments) = words.split_first().context("a command")?;
            ensure!(program == "/usr/bin/tap53", "another program: {program}");
            Ok(arguments.to_vec())
        };
        let started = probe("startupProbe")?;
        let (alive, ready) = (probe("livenessProbe")?, probe("readinessProbe")?);
        Ok(Self {
            lab,
            privileges,
            arguments: words(&container["args"]),
            started,
            alive,
            ready,
            environment,
            volumes,
            first: first.transpose()?,
            image: Image::of(&agent::binary()?)?,
            account,
            _config: config,
        })
    }

    /// A process of the container, not waited for.
    fn start(&self, arguments: &[String]) -> Result<Process> {
        self.start_as(&self.privileges, arguments)
    }

    fn start_as(&self, privileges: &Privileges, arguments: &[String]) -> Result<Process> {
        let volumes: Vec<(&str, Volume)> =
            self.volumes.iter().map(|(path, volume)| (path.as_str(), volume.clone())).collect();
        let mut command = privileges.command(&self.lab.server, &self.image, &volumes)?;
        // A container has the variables that its pod names, and none of ours.
        command.env_clear().envs(self.environment.iter().cloned()).args(arguments);
        Process::spawn("tap53", command)
    }

    /// The agent, capturing.
    fn run(&self) -> Result<Process> {
        let process = self.start(&self.arguments)?;
        process.wait_for_line("ready interfaces=1", 0, DEADLINE)?;
        Ok(process)
    }
}
