//! Responses that a CNI delivers past the device of a pod (`bpf_redirect_peer`).

use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::{Value, json};
use tap53_harness::{
    account,
    agent::Agent,
    bpf::TcxHolder,
    client::{Client, Transport},
    lab::ANSWERED,
    namespace::Namespace,
    process::run,
    unbound::Unbound,
    wait,
};

use crate::DEADLINE;

/// More than the agent needs to see.
const QUERIES: usize = 30;

const CONFIG: &str = "interfaces: {include: [\"kind:pods\"]}\ncapture: {workers: 1}\n\
     pair: {timeout_ms: 300}\nsinks: [{type: stdout, format: json}]\n";

/// The resolver behind the tunnel, and the one on the node.
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 2);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);

/// Connects a pod with the node by addresses of 10.0.`net`.0/24.
fn pod(node: &Namespace, name: &str, net: u8) -> Result<Namespace> {
    let pod = Namespace::new()?;
    pod.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", node.name()])?;
    pod.ip(&["address", "add", &format!("10.0.{net}.2/24"), "dev", "eth0"])?;
    pod.ip(&["link", "set", "eth0", "up"])?;
    pod.ip(&["route", "add", "default", "via", &format!("10.0.{net}.1")])?;
    node.ip(&["address", "add", &format!("10.0.{net}.1/24"), "dev", name])?;
    node.ip(&["link", "set", name, "up"])?;
    Ok(pod)
}

/// Connects the node with another one by VXLAN.
fn tunnel(node: &Namespace, other: &Namespace) -> Result<()> {
    node.ip(&["link", "add", "u0", "type", "veth", "peer", "name", "u1", "netns", other.name()])?;
    let ends = [(node, "u0", 1, 2), (other, "u1", 2, 1)];
    for (space, device, own, peer) in ends {
        space.ip(&["address", "add", &format!("192.0.2.{own}/24"), "dev", device])?;
        space.ip(&["link", "set", device, "up"])?;
        let remote = format!("192.0.2.{peer}");
        #[rustfmt::skip]
        space.ip(&[
            "link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "8472", "remote", &remote,
            "dev", device,
        ])?;
        space.ip(&["address", "add", &format!("10.0.9.{own}/24"), "dev", "vx0"])?;
        space.ip(&["link", "set", "vx0", "up"])?;
    }
    other.ip(&["route", "add", "10.0.0.0/16", "via", "10.0.9.1"]).map(drop)
}

fn bypass(agent: &Agent) -> Result<Value> {
    let status = run(&mut agent.command(&["status", "--output", "json"])?)?;
    Ok(serde_json::from_str::<Value>(&status)?["bypass"].clone())
}

#[test]
fn responses_that_go_past_a_device_are_noticed_and_the_interface_to_add_is_named() -> Result<()> {
    let (node, other) = (Namespace::new()?, Namespace::new()?);
    run(node.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"]))?;
    tunnel(&node, &other)?;
    let past = pod(&node, "p1", 1)?;
    let usual = pod(&node, "p2", 2)?;
    let _remote = Unbound::start(&other, &[REMOTE.into()])?;
    let _local = Unbound::start(&node, &[LOCAL.into()])?;
    let _redirect = TcxHolder::deliver_to_peer(&node, "vx0", "p1")?;
    let agent = Agent::start(&node, CONFIG, &[])?;
    let ask = |pod, server: Ipv4Addr| -> Result<()> {
        let client = Client::new(pod, server.into());
        (0..QUERIES).try_for_each(|_| client.ask(Transport::Udp, ANSWERED[0]).map(drop))
    };
    // The pod gets each response.
    ask(&past, REMOTE)?;
    assert_eq!(bypass(&agent)?, Value::Null, "the server may be gone");
    ask(&usual, LOCAL)?;
    let expected = json!({"interfaces": ["p1"], "add": ["vx0"]});
    assert_eq!(bypass(&agent)?, expected);
    let text = run(&mut agent.command(&["status"])?)?;
    assert!(text.contains("queries arrive at p1 and no response leaves there"), "{text}");
    assert!(text.contains("capture vx0 too"), "{text}");
    let doctor = agent.command(&["doctor", "--output", "json"])?.output()?;
    let report: Value = serde_json::from_slice(&doctor.stdout)?;
    let checks = report["checks"].as_array().into_iter().flatten();
    let check = checks.filter(|check| check["what"] == "responses to pods").collect::<Vec<_>>();
    assert_eq!(check.len(), 1, "{report}");
    assert!(check[0]["fix"].to_string().contains("vx0"), "{report}");

    run(&mut agent.command(&["enable", "vx0"])?)?;
    assert_eq!(bypass(&agent)?, Value::Null);
    let from = agent.process().stdout().lines().len();
    ask(&past, REMOTE)?;
    wait::until("the queries to be answered", DEADLINE, || {
        let lines = agent.process().stdout().lines();
        let matched = lines.iter().skip(from).filter(|line| line.contains("\"MATCHED\""));
        Ok((matched.count() >= QUERIES).then_some(()))
    })?;
    account::Ledger(&agent.stop()?.ledger).require_balance()
}
