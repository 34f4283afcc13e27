//! Series for interfaces: bounded however many pods come and go.

use std::collections::BTreeSet;

use super::*;

const CAPTURED: &str = "tap53_hook_packets_captured_total";

fn configuration(more: &str) -> String {
    format!(
        "interfaces: {{include: [s0, 'p*']}}\ncapture: {{workers: 1}}\n\
         sinks: [{{type: stdout, format: json}}]\ntelemetry: {{listen: '{PORT}'{more}}}\n"
    )
}

fn add_pods(lab: &Lab) -> Result<()> {
    for number in 1..=4 {
        let (pod, peer) = (format!("p{number}"), format!("q{number}"));
        lab.server.ip(&["link", "add", &pod, "type", "veth", "peer", "name", &peer])?;
        lab.server.ip(&["link", "set", &pod, "up"])?;
        lab.server.ip(&["link", "set", &peer, "up"])?;
    }
    Ok(())
}

/// Returns the values of the label `interface` in the series of a metric.
fn interfaces(metrics: &str, metric: &str) -> BTreeSet<String> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    let names = lines.filter_map(|line| line.strip_prefix("interface=\"")?.split('"').next());
    names.map(str::to_owned).collect()
}

#[test]
fn interfaces_of_pods_are_one_series_and_those_that_are_gone_one_line() -> Result<()> {
    let lab = Lab::new()?;
    add_pods(&lab)?;
    let agent = Agent::start(&lab.server, &configuration(""), &[])?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    let captured = format!("{CAPTURED}{{interface=\"(pairs)\",direction=\"ingress\"}} 1\n");
    let metrics = wait_for(&lab, "/metrics", 200, &captured)?.body;
    let names = ["tap53_interface_wanted", "tap53_interface_capturing", CAPTURED];
    for metric in names {
        assert_eq!(interfaces(&metrics, metric), BTreeSet::from(["(pairs)".to_owned()]));
    }
    assert_eq!(
        series(&metrics)["tap53_interface_capturing{interface=\"(pairs)\",direction=\"egress\"}"],
        1.0
    );
    for number in 1..=4 {
        lab.server.ip(&["link", "delete", &format!("p{number}")])?;
    }
    let status = wait::until("the interfaces to be gone", DEADLINE, || {
        let output = agent.command(&["status"])?.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.contains("detached interfaces").then_some(text))
    })?;
    assert!(!status.contains("p1 ingress"), "{status}");
    assert!(status.contains("s0 ingress"), "{status}");
    // A counter never goes back.
    assert!(get(&lab, "/metrics")?.body.contains(&captured));
    agent.stop()?;
    Ok(())
}

#[test]
fn interfaces_of_pods_have_series_of_their_own_if_that_is_configured() -> Result<()> {
    let lab = Lab::new()?;
    add_pods(&lab)?;
    let agent = Agent::start(&lab.server, &configuration(", pod_interfaces: each"), &[])?;
    let metrics = get(&lab, "/metrics")?.body;
    let expected = ["p1", "p2", "p3", "p4", "s0"].map(str::to_owned);
    assert_eq!(interfaces(&metrics, CAPTURED), BTreeSet::from(expected));
    agent.stop()?;
    Ok(())
}
