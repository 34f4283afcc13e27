//! A cluster of one node, a client and the agent between, and what a test does in place of a kubelet.

use super::*;

/// Time for which the API server accepts expired tokens.
pub(super) const LEEWAY: Duration = Duration::from_secs(60);

/// The service that the resolver answers as.
pub(super) const SERVICE: &str = "10.96.0.10";

/// The account that the agent runs as, with the rights that it needs and no others.
pub(super) const ACCOUNT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: tap53, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: tap53}
rules:
- {apiGroups: [''], resources: [pods, services, nodes], verbs: [list, watch]}
- {apiGroups: [batch], resources: [jobs], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: tap53}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tap53}
subjects: [{kind: ServiceAccount, name: tap53, namespace: default}]
";

pub(super) const CONFIGURATION: &str = r#"
node: node-1
interfaces: {include: ["s0"]}
kubernetes:
  kubeconfig: KUBECONFIG
  labels: [app]
  hold_ms: 15000
CONTAINERS
pair: {timeout_ms: TIMEOUT}
sinks:
  - {type: stdout, format: json}
  - {type: file, directory: $OUT}
"#;

pub(super) fn now_s() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

/// RFC 3339, as objects have it.
pub(super) fn text(seconds: i64) -> Result<String> {
    let output = std::process::Command::new("date")
        .args(["--utc", &format!("--date=@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Waits for the clock to show a later second: objects have their times in whole ones.
pub(super) fn next_second() -> Result<()> {
    let now = now_s()?;
    wait::until("the next second", DEADLINE, || Ok((now_s()? > now).then_some(())))
}

/// A cluster in which the test replaces the kubelet.
pub(super) struct Cluster<'a> {
    pub(super) api: KubeApi<'a>,
}

/// A pod of the test.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) started: i64,
}

impl<'a> Cluster<'a> {
    /// A cluster of this node, with the resolver's service and the agent's account.
    pub(super) fn start(namespace: Option<&'a Namespace>) -> Result<Self> {
        Self::of(KubeApi::start_with(namespace, &[])?)
    }

    /// The same, of an API server that runs.
    pub(super) fn of(api: KubeApi<'a>) -> Result<Self> {
        api.apply(ACCOUNT)?;
        api.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system}}\n\
             spec: {{clusterIP: {SERVICE}, ports: [{{name: dns, port: 53, protocol: UDP}}]}}"
        ))?;
        api.apply(
            "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n\
             spec: {podCIDR: 198.51.100.0/24, podCIDRs: [198.51.100.0/24]}",
        )?;
        let address = SERVER_END.ipv4;
        let status = json!({"addresses": [{"type": "InternalIP", "address": address}]});
        patch_status(&api, "", "node/node-1", &status)?;
        Ok(Self { api })
    }

    pub(super) fn account(&self) -> Result<Account> {
        self.api.account("default", "tap53", Duration::from_secs(3_600))
    }

    /// Creates a pod on this node, as yet without an address.
    pub(super) fn create(&self, name: &str, metadata: &Value, host_network: bool) -> Result<Pod> {
        self.create_on("node-1", name, metadata, host_network)
    }

    /// Creates a pod on any node.
    pub(super) fn create_on(
        &self,
        node: &str,
        name: &str,
        metadata: &Value,
        host_network: bool,
    ) -> Result<Pod> {
        let mut whole = json!({"name": name, "namespace": "default", "labels": {"app": name}});
        for (key, value) in metadata.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": whole,
            "spec": {
                "nodeName": node,
                "hostNetwork": host_network,
                "containers": [{"name": "main", "image": "nothing:1"}],
            },
        });
        // JSON is YAML.
        self.api.apply(&pod.to_string())?;
        let namespace = whole["namespace"].as_str().context("a namespace")?.to_owned();
        let uid = ["get", "pod", name, "-n", &namespace, "--output=jsonpath={.metadata.uid}"];
        let uid = self.api.kubectl(&uid)?.trim().to_owned();
        Ok(Pod { name: name.to_owned(), namespace, uid, started: now_s()? })
    }

    /// Writes that the pod runs with `address`, since its start.
    pub(super) fn run(&self, pod: &Pod, address: &str) -> Result<()> {
        let started = text(pod.started)?;
        let status = json!({
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": SERVER_END.ipv4,
            "startTime": text(pod.started - 1)?,
            "containerStatuses": [container(&json!({"running": {"startedAt": started}}))],
        });
        patch_status(&self.api, &pod.namespace, &format!("pod/{}", pod.name), &status)
    }

    /// Writes that the pod's container was created with this identifier; the pod has no address yet.
    pub(super) fn create_container(&self, pod: &Pod, id: &str) -> Result<()> {
        let mut main = container(&json!({"waiting": {"reason": "ContainerCreating"}}));
        main["containerID"] = format!("containerd://{id}").into();
        let status = json!({"phase": "Pending", "containerStatuses": [main]});
        patch_status(&self.api, &pod.namespace, &format!("pod/{}", pod.name), &status)
    }

    /// Writes that the pod has completed, at a time; its object stays, as a Job's does.
    pub(super) fn complete(&self, pod: &Pod, finished: i64) -> Result<()> {
        let (started, finished) = (text(pod.started)?, text(finished)?);
        let ended = json!({"terminated": {
            "exitCode": 0, "startedAt": started, "finishedAt": finished,
        }});
        let status = json!({"phase": "Succeeded", "containerStatuses": [container(&ended)]});
        patch_status(&self.api, &pod.namespace, &format!("pod/{}", pod.name), &status)
    }

    pub(super) fn delete(&self, pod: &Pod) -> Result<()> {
        let how = ["--namespace", &pod.namespace, "--grace-period=0", "--force"];
        self.api.kubectl(&[&["delete", "pod", &pod.name][..], &how].concat())?;
        Ok(())
    }

    /// The UID of any object.
    pub(super) fn uid(&self, kind: &str, name: &str) -> Result<String> {
        let output = self.api.kubectl(&["get", kind, name, "--output=jsonpath={.metadata.uid}"])?;
        Ok(output.trim().to_owned())
    }
}

pub(super) fn container(state: &Value) -> Value {
    json!({
        "name": "main", "image": "nothing:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": state,
    })
}

/// Writes the status of an object; `namespace` is empty for a node.
pub(super) fn patch_status(
    api: &KubeApi<'_>,
    namespace: &str,
    object: &str,
    status: &Value,
) -> Result<()> {
    let patch = json!({"status": status}).to_string();
    let how = ["--subresource=status", "--type=merge", "--namespace", namespace];
    api.kubectl(&[&["patch", object, "--patch", &patch][..], &how].concat())?;
    Ok(())
}

/// The controller of a pod.
pub(super) fn owned_by(kind: &str, api: &str, name: &str, uid: &str) -> Value {
    json!([{
        "apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true,
    }])
}

/// A client in the pod's namespace and the resolver, which is also a service, and the agent between.
pub(super) struct Stage<'a> {
    pub(super) client: Client<'a>,
    pub(super) agent: Agent,
    /// The expected client, by the query's id.
    pub(super) expected: HashMap<u16, String>,
    /// Queries during which the agent may not know the owner yet: right or unknown.
    pub(super) probes: HashMap<u16, String>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(lab: &'a Lab, kubeconfig: &str, timeout_ms: u32) -> Result<Self> {
        // By address alone: the client is a thread of the test, which is in no container.
        Self::with_containers(lab, kubeconfig, timeout_ms, "containers: {enabled: false}")
    }

    /// As [`new`](Self::new), with a section `containers`.
    pub(super) fn with_containers(
        lab: &'a Lab,
        kubeconfig: &str,
        timeout_ms: u32,
        containers: &str,
    ) -> Result<Self> {
        let configuration = CONFIGURATION
            .replace("CONTAINERS", containers)
            .replace("KUBECONFIG", kubeconfig)
            .replace("TIMEOUT", &timeout_ms.to_string());
        Ok(Self {
            client: Client::new(&lab.client, SERVICE.parse()?),
            agent: Agent::start(&lab.server, &configuration, &[])?,
            expected: HashMap::new(),
            probes: HashMap::new(),
        })
    }

    pub(super) fn records(&self) -> Result<Vec<Value>> {
        let lines = self.agent.process().stdout().lines();
        lines.iter().map(|line| serde_json::from_str(line).context("a JSON line")).collect()
    }

    pub(super) fn record_of(&self, exchange: &Exchange) -> Result<Value> {
        wait::until("the record", DEADLINE, || {
            let records = self.records()?;
            Ok(records.into_iter().find(|record| record["dns_id"] == exchange.id))
        })
    }

    /// Asks until the agent knows that `owner` has the address.
    pub(super) fn until_named(&mut self, owner: &str) -> Result<Value> {
        wait::until(&format!("{owner} to be known"), DEADLINE, || {
            let exchange = self.client.ask(Transport::Udp, ANSWERED[0])?;
            self.probes.insert(exchange.id, owner.to_owned());
            let record = self.record_of(&exchange)?;
            Ok((client_of(&record) == owner).then_some(record))
        })
    }

    /// Asks several questions, each of which has to name `owner`.
    pub(super) fn ask(&mut self, owner: &str) -> Result<()> {
        for question in ANSWERED {
            let exchange = self.client.ask(Transport::Udp, question)?;
            self.expected.insert(exchange.id, owner.to_owned());
        }
        let exchange = self.client.ask(Transport::Tcp, ANSWERED[0])?;
        self.expected.insert(exchange.id, owner.to_owned());
        Ok(())
    }

    /// Sends a query that gets no answer: its record is created after the timeout.
    pub(super) fn ask_in_vain(&mut self, owner: &str, question: Question) -> Result<()> {
        let exchange = self.client.ask_in_vain(question)?;
        self.expected.insert(exchange.id, owner.to_owned());
        Ok(())
    }

    /// Runs a command of the agent, and returns its output.
    pub(super) fn tap53(&self, arguments: &[&str]) -> Result<String> {
        process::run(&mut self.agent.command(arguments)?)
    }

    /// The agent's own status, once it is as `wanted`.
    pub(super) fn status_when(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until("the agent's status", DEADLINE, || {
            let status: Value = serde_json::from_str(&self.tap53(&["status", "-o", "json"])?)?;
            Ok(wanted(&status).then_some(status))
        })
    }

    /// Stops the agent; every record names whom it should.
    pub(super) fn finish(self) -> Result<Vec<Value>> {
        let ended = self.agent.stop()?;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        Ledger(&ended.ledger).require_balance()?;
        let mut found = 0;
        for record in &ended.records {
            let id = u16::try_from(record["dns_id"].as_u64().context("an id")?)?;
            let named = client_of(record);
            if let Some(owner) = self.expected.get(&id) {
                assert_eq!(&named, owner, "{record:#}");
                found += 1;
            } else if let Some(owner) = self.probes.get(&id) {
                ensure!(named == *owner || named == "UNKNOWN", "{record:#}");
            } else {
                continue;
            }
            assert_eq!(record["server_attribution"], "SERVICE", "{record:#}");
            assert_eq!(record["server_service_name"], "kube-dns");
            assert_eq!(record["server_service_namespace"], "kube-system");
        }
        assert_eq!(found, self.expected.len(), "records are missing");
        assert_eq!(ended.records.len(), found + self.probes.len());
        Ok(ended.records)
    }
}

/// The UID of the client's pod, or why there is none.
pub(super) fn client_of(record: &Value) -> String {
    match &record["client_pod_uid"] {
        Value::String(uid) => uid.clone(),
        _ => record["client_attribution"].as_str().unwrap_or_default().to_owned(),
    }
}

/// A lab whose resolver also answers as the service.
pub(super) fn lab() -> Result<(Lab, Unbound)> {
    let lab = Lab::new()?;
    lab.server.ip(&["address", "add", &format!("{SERVICE}/32"), "dev", "lo"])?;
    let gateway = SERVER_END.ipv4.to_string();
    lab.client.ip(&["route", "add", SERVICE, "via", &gateway])?;
    let unbound = Unbound::start(&lab.server, &[SERVICE.parse()?])?;
    Ok((lab, unbound))
}
