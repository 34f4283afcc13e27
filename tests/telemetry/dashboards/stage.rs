//! An agent whose metrics have a value for every panel: with a resolver and its upstream server, an API
//! server, a broker, and two sinks whose broker is away.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
};

use anyhow::{Result, anyhow};
use serde_json::json;
use tap53_harness::{
    agent::Agent,
    kafka::Kafka,
    kube::KubeApi,
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    unbound::{Extra, Unbound},
};

use super::PORT;

/// The workload of the client.
pub(super) const WORKLOAD: &str = "web";

/// Names below have a TTL of a second, and are the upstream server's.
pub(super) const FORWARDED: &str = "up.test";
/// The resolver may not query the only server of this zone: SERVFAIL.
pub(super) const BROKEN: &str = "broken.test";

/// The upstream server, beside the client.
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

const TOPIC: &str = "t";

/// Clients and an upstream server, and a node with the resolver.
pub(super) struct Network {
    _servers: [Unbound; 2],
    pub(super) client: Namespace,
    pub(super) node: Namespace,
}

impl Network {
    pub(super) fn new() -> Result<Self> {
        let (client, node) = (Namespace::new()?, Namespace::new()?);
        join((&client, CLIENT_END), (&node, SERVER_END), 1_500)?;
        client.ip(&["address", "add", &format!("{UPSTREAM}/24"), "dev", CLIENT_END.interface])?;
        let mac = CLIENT_END.mac.map(|byte| format!("{byte:02x}")).join(":");
        let upstream = UPSTREAM.to_string();
        #[rustfmt::skip]
        node.ip(&[
            "neighbour", "replace", &upstream, "lladdr", &mac, "dev", SERVER_END.interface,
            "nud", "permanent",
        ])?;
        let servers = [
            Unbound::start_with(&client, &[UPSTREAM.into()], &upstream_zone())?,
            Unbound::start_with(&node, &[IpAddr::V4(SERVER_END.ipv4)], &resolver_zones())?,
        ];
        Ok(Self { _servers: servers, client, node })
    }
}

fn upstream_zone() -> Extra {
    let server = format!(
        "  local-zone: \"{FORWARDED}.\" static\n  \
         local-data: \"{FORWARDED}. 1 IN SOA ns.{FORWARDED}. admin.{FORWARDED}. 1 60 60 60 1\"\n  \
         local-data: \"api.{FORWARDED}. 1 IN A 192.0.2.1\"\n"
    );
    Extra { server, ..Extra::default() }
}

fn resolver_zones() -> Extra {
    let forward = |zone: &str, to: &str| {
        format!("forward-zone:\n  name: \"{zone}.\"\n  forward-addr: {to}\n")
    };
    // More than the 512 bytes that a query without EDNS takes.
    let large: String = ["a", "b", "c"]
        .iter()
        .map(|text| {
            format!("  local-data: 'large.tap53.test. 60 IN TXT \"{}\"'\n", text.repeat(250))
        })
        .collect();
    let server = format!(
        "  local-zone: \"{FORWARDED}.\" transparent\n  local-zone: \"{BROKEN}.\" transparent\n{large}"
    );
    let sections = forward(FORWARDED, &UPSTREAM.to_string()) + &forward(BROKEN, "127.0.0.1@1");
    Extra { server, sections, log_file: None }
}

/// The servers that the agent connects to.
pub(super) struct Backends<'a> {
    kafka: Kafka<'a>,
    api: KubeApi<'a>,
}

impl<'a> Backends<'a> {
    /// Starts a broker, and an API server that knows the client's pod and the resolver's.
    pub(super) fn start(node: &'a Namespace) -> Result<Self> {
        thread::scope(|scope| {
            let kafka = scope.spawn(|| {
                let kafka = Kafka::start(node)?;
                kafka.create_topic(TOPIC)?;
                anyhow::Ok(kafka)
            });
            let api = KubeApi::start(node)?;
            create_pods(&api)?;
            let kafka = kafka.join().map_err(|_| anyhow!("the start of the broker panicked"))??;
            Ok(Self { kafka, api })
        })
    }

    /// Starts the agent.
    pub(super) fn start_agent(&self, node: &Namespace) -> Result<Agent> {
        let yaml = format!(
            "node: node-1\ninterfaces: {{include: [s0]}}\n\
             capture: {{workers: 2, ring_bytes: 1048576}}\npair: {{timeout_ms: 300}}\n\
             chains: {{enabled: true}}\nfilter: {{qtypes: {{deny: [SRV]}}}}\n\
             kubernetes: {{kubeconfig: {}}}\ncontainers: {{enabled: false}}\n\
             sinks: [{{type: kafka, brokers: ['{}'], topic: {TOPIC}, linger_ms: 5,\n\
             options: {{statistics.interval.ms: 200}}}},\n\
             {{type: kafka, name: losing, brokers: ['127.0.0.1:1'], topic: {TOPIC},\n\
             message_timeout_ms: 1000,\n\
             options: {{reconnect.backoff.max.ms: 500, statistics.interval.ms: 200}}}},\n\
             {{type: kafka, name: spooling, brokers: ['127.0.0.1:1'], topic: {TOPIC},\n\
             spool: {{mode: durable, directory: $OUT/spool}}}}]\n\
             shutdown: {{flush_timeout_ms: 500}}\n\
             telemetry: {{listen: '{PORT}'}}\ndns_metrics: {{names: true, clients: true}}\n\
             signals: {{enabled: true, learning_seconds: 0}}\n",
            self.api.admin_kubeconfig().display(),
            self.kafka.address(),
        );
        Agent::start(node, &yaml, &[])
    }

    /// Ends the API server.
    pub(super) fn lose_api_server(&mut self) {
        self.api.kill();
    }
}

/// Creates the node, and a running pod for each address.
fn create_pods(api: &KubeApi<'_>) -> Result<()> {
    api.apply("apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n")?;
    for (namespace, workload, address) in
        [("default", WORKLOAD, CLIENT_END.ipv4), ("kube-system", "coredns", SERVER_END.ipv4)]
    {
        let name = format!("{workload}-7d4b9c6f5-x2x4z");
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name, "namespace": namespace,
                "labels": {"pod-template-hash": "7d4b9c6f5"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                    "name": format!("{workload}-7d4b9c6f5"), "uid": workload,
                }],
            },
            "spec": {
                "nodeName": "node-1",
                "containers": [{"name": "main", "image": "nothing:1"}],
            },
        });
        // JSON is YAML.
        api.apply(&pod.to_string())?;
        let patch = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "startTime": "2024-01-01T00:00:00Z",
            "containerStatuses": [{
                "name": "main", "image": "nothing:1", "imageID": "", "ready": true,
                "restartCount": 0, "state": {"running": {"startedAt": "2024-01-01T00:00:01Z"}},
            }],
        }});
        let (pod, patch) = (format!("pod/{name}"), patch.to_string());
        #[rustfmt::skip]
        api.kubectl(&[
            "patch", &pod, "--namespace", namespace, "--subresource=status", "--type=merge",
            "--patch", &patch,
        ])?;
    }
    Ok(())
}
