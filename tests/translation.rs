//! Address translation by the kernel itself: a pod, a node that translates by nftables, and a resolver
//! behind it. The node captures both sides, and each query is one record.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    account::Ledger,
    agent::{Agent, Ended},
    client::{Client, Exchange, Question, Transport},
    namespace::{self, End, Namespace},
    process::Stream,
    unbound::{Extra, Unbound},
    wait,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// The service's address, which no host has.
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));

const QUESTION: Question = Question { name: "www.tap53.test", qtype: "A" };

const fn end(interface: &'static str, subnet: u8, host: u8) -> End {
    End {
        interface,
        mac: [0x02, 0, 0, 0, subnet, host],
        ipv4: Ipv4Addr::new(10, 53, subnet, host),
        ipv6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, subnet as u16, 0, 0, 0, host as u16),
    }
}

const POD: End = end("c0", 1, 2);
const POD_SIDE: End = end("pod0", 1, 1);
const SERVER_SIDE: End = end("nic0", 2, 1);
const SERVER: End = end("s0", 2, 2);

/// The port of the resolver behind the service, as in some distributions of Kubernetes.
const BACKEND_PORT: u16 = 5_353;

/// A pod and a resolver, with a node between them.
struct Site {
    // Fields drop in this order: the resolver before its namespace.
    _unbound: Unbound,
    pod: Namespace,
    node: Namespace,
    _server: Namespace,
}

impl Site {
    fn new(rules: &str) -> Result<Self> {
        let (pod, node, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        namespace::join((&pod, POD), (&node, POD_SIDE), 1_500)?;
        namespace::join((&node, SERVER_SIDE), (&server, SERVER), 1_500)?;
        pod.ip(&["route", "add", "default", "via", &POD_SIDE.ipv4.to_string()])?;
        server.ip(&["route", "add", "default", "via", &SERVER_SIDE.ipv4.to_string()])?;
        node.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward"))?;
        translate(&node, rules)?;
        let extra = Extra {
            server: format!("  interface: {}@{BACKEND_PORT}\n", SERVER.ipv4),
            ..Extra::default()
        };
        let unbound = Unbound::start_with(&server, &[SERVER.ipv4.into()], &extra)?;
        Ok(Self { _unbound: unbound, pod, node, _server: server })
    }

    /// Sends queries from the pod to `server` and stops the agent when it has recorded them.
    fn run(&self, workers: u32, server: IpAddr, transport: Transport) -> Result<Run> {
        let agent = Agent::start(&self.node, &configuration(workers), &[])?;
        let client = Client::new(&self.pod, server);
        let exchanges = (0..QUERIES)
            .map(|_| client.ask(transport, QUESTION))
            .collect::<Result<Vec<Exchange>>>()?;
        let lines =
            |stream: &Stream| stream.lines().iter().filter(|line| line.starts_with('{')).count();
        let stdout = agent.process().stdout();
        wait::until("a line for each query", DEADLINE, || {
            Ok((lines(stdout) >= exchanges.len()).then_some(()))
        })?;
        Ok(Run { exchanges, ended: agent.stop()? })
    }
}

/// Queries of a run: enough for each worker to have some.
const QUERIES: usize = 40;

struct Run {
    exchanges: Vec<Exchange>,
    ended: Ended,
}

impl Run {
    /// Returns the only record of each exchange, in order, after checks that concern every record.
    fn records(&self) -> Result<Vec<&Value>> {
        let Self { exchanges, ended } = self;
        ensure!(ended.status.success(), "{}", ended.stderr);
        Ledger(&ended.ledger).require_balance()?;
        assert_eq!(ended.records.len(), exchanges.len(), "{:#?}", ended.records.first());
        let mut identifiers: Vec<_> =
            ended.records.iter().map(|record| record["exchange_id"].to_string()).collect();
        identifiers.sort();
        identifiers.dedup();
        assert_eq!(identifiers.len(), exchanges.len(), "each exchange has its identifier");
        exchanges.iter().map(|exchange| self.record_of(exchange)).collect()
    }

    fn record_of(&self, exchange: &Exchange) -> Result<&Value> {
        let mut own = self.ended.records.iter().filter(|record| {
            record["dns_id"] == exchange.id && record["client_port"] == exchange.client.port()
        });
        let record = own.next().context("no record")?;
        ensure!(own.next().is_none(), "several records of {exchange:?}");
        assert_eq!(record["client_address"], exchange.client.ip().to_string());
        assert_eq!(record["server_address"], exchange.server.ip().to_string());
        assert_eq!(record["server_port"], exchange.server.port());
        assert_eq!(record["outcome"], "MATCHED");
        assert_eq!(record["interface"], "pod0");
        assert_eq!(record["sighting_count"], 2, "{record}");
        assert_eq!((&record["query_count"], &record["copy_count"]), (&1.into(), &1.into()));
        // All namespaces are of one kernel, which knows the sockets of both ends.
        assert_eq!(record["observation"], "SAME_NODE");
        Ok(record)
    }
}

fn configuration(workers: u32) -> String {
    format!(
        "
interfaces:
  include: [pod0, nic0]
capture:
  ports: [53, {BACKEND_PORT}]
  workers: {workers}
  ring_bytes: 1048576
sinks:
  - type: stdout
    format: text
  - type: file
    directory: $OUT
"
    )
}

/// Loads rules of nftables in a namespace.
fn translate(node: &Namespace, rules: &str) -> Result<()> {
    let mut nft = node
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start nft")?;
    nft.stdin.take().context("a pipe")?.write_all(rules.as_bytes())?;
    let output = nft.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Rules of a service, as kube-proxy has them in principle.
fn service(masquerade: &str) -> String {
    format!(
        "table ip nat {{
  chain services {{
    type nat hook prerouting priority -100;
    ip daddr {SERVICE} udp dport 53 dnat to {backend}:{BACKEND_PORT}
    ip daddr {SERVICE} tcp dport 53 dnat to {backend}:{BACKEND_PORT}
  }}
  chain postrouting {{
    type nat hook postrouting priority 100;
    {masquerade}
  }}
}}
",
        backend = SERVER.ipv4
    )
}

const MASQUERADE: &str = "oifname nic0 masquerade";
const MASQUERADE_RANDOM: &str = "oifname nic0 masquerade fully-random";

#[test]
fn a_query_to_a_service_is_one_record_that_names_the_backend() -> Result<()> {
    let site = Site::new(&service(""))?;
    for (workers, transport) in
        [(1, Transport::Udp), (2, Transport::Tcp), (4, Transport::Udp), (4, Transport::Tcp)]
    {
        let run = site.run(workers, SERVICE, transport)?;
        for record in run.records()? {
            assert_eq!(record["nat"], "DESTINATION", "{record}");
            assert_eq!(record["backend_address"], SERVER.ipv4.to_string());
            assert_eq!(record["backend_port"], BACKEND_PORT);
            assert_eq!(record["translated_client_address"], Value::Null);
            assert_eq!(record["translated_client_port"], Value::Null);
        }
    }
    Ok(())
}

#[test]
fn a_masqueraded_query_is_one_record_whatever_port_it_gets() -> Result<()> {
    let server = IpAddr::V4(SERVER.ipv4);
    for (masquerade, destination, nat) in
        [(MASQUERADE_RANDOM, server, "SOURCE"), (MASQUERADE_RANDOM, SERVICE, "BOTH")]
    {
        let site = Site::new(&service(masquerade))?;
        let run = site.run(4, destination, Transport::Udp)?;
        let mut ports_changed = 0;
        for record in run.records()? {
            assert_eq!(record["nat"], nat, "{record}");
            assert_eq!(record["translated_client_address"], SERVER_SIDE.ipv4.to_string());
            let port = &record["translated_client_port"];
            ports_changed += usize::from(*port != record["client_port"]);
            let backend = if nat == "BOTH" { SERVER.ipv4.to_string().into() } else { Value::Null };
            assert_eq!(record["backend_address"], backend);
        }
        assert!(ports_changed > QUERIES / 2, "the ports were drawn");
    }
    Ok(())
}

/// Without a random port, masquerade keeps the client's, and so the worker of a connection.
#[test]
fn a_masqueraded_connection_is_one_record_if_it_keeps_its_port() -> Result<()> {
    let site = Site::new(&service(MASQUERADE))?;
    let run = site.run(4, SERVICE, Transport::Tcp)?;
    for record in run.records()? {
        assert_eq!(record["nat"], "BOTH", "{record}");
        assert_eq!(record["translated_client_port"], record["client_port"]);
    }
    Ok(())
}

/// The reverse of the above: what the node only forwards is not translated.
#[test]
fn a_forwarded_query_is_one_record_without_translation() -> Result<()> {
    let site = Site::new(&service(""))?;
    let run = site.run(2, IpAddr::V4(SERVER.ipv4), Transport::Udp)?;
    assert_eq!(run.ended.records.len(), run.exchanges.len());
    for record in &run.ended.records {
        assert_eq!((&record["nat"], &record["sighting_count"]), (&"NONE".into(), &1.into()));
        assert_eq!((&record["backend_address"], &record["copy_count"]), (&Value::Null, &1.into()));
    }
    Ledger(&run.ended.ledger).require_balance()
}
