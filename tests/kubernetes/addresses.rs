//! The host's own addresses, which no API server names.

use super::*;

/// An address that the host gets while the agent runs.
const ADDRESS: &str = "198.51.100.77";

/// Time from a change of an address until records have it.
const FOLLOWED: Duration = Duration::from_secs(5);

fn configuration(kubeconfig: &Path) -> String {
    format!(
        "node: node-1\ninterfaces: {{include: [s0]}}\npair: {{timeout_ms: 100}}\n\
         kubernetes: {{kubeconfig: {}}}\nsinks: [{{type: stdout, format: json}}]\n",
        kubeconfig.display()
    )
}

#[test]
fn an_address_that_the_host_gets_or_loses_is_followed() -> Result<()> {
    let lab = Lab::new()?;
    let gateway = SERVER_END.ipv4.to_string();
    lab.client.ip(&["route", "add", ADDRESS, "via", &gateway])?;
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    // Nobody listens at port 1 of a namespace that is ours.
    std::fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{name: c, context: {cluster: c, user: u}}]\n\
         clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
         users: [{name: u, user: {}}]\n",
    )?;
    let agent = Agent::start(&lab.server, &configuration(&kubeconfig), &[])?;
    let client = Client::new(&lab.client, ADDRESS.parse()?);
    let until = |attribution: &str| {
        wait::until(&format!("the server to be {attribution}"), FOLLOWED, || {
            let from = agent.process().stdout().lines().len();
            client.ask_in_vain(UNANSWERED)?;
            let line = agent.wait_for_output("UNANSWERED", from, DEADLINE)?;
            let record: Value = serde_json::from_str(&line)?;
            Ok((record["server_attribution"] == attribution).then_some(record))
        })
    };
    let before = until("EXTERNAL")?;
    assert_eq!(before["server_node_name"], Value::Null);
    lab.server.ip(&["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"])?;
    assert_eq!(until("NODE")?["server_node_name"], "node-1");
    lab.server.ip(&["address", "delete", &format!("{ADDRESS}/32"), "dev", "lo"])?;
    until("EXTERNAL")?;
    agent.stop()?;
    Ok(())
}
