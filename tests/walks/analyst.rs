//! The analyst's walk: an incident in a capture, and the same one while an agent runs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tap53_harness::{
    agent::Agent,
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    wait,
};

use crate::{
    incident,
    page::Walk,
    shell::{Shell, root},
};

const CONFIGURATION: &str = "
interfaces: {include: [s0]}
signals: {enabled: true, learning_seconds: 0}
telemetry: {listen: '127.0.0.1:9530'}
sinks: [{type: stdout, format: json}]
";

const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn the_analysts_walk_runs() -> Result<()> {
    let capture = root().join("docs/walks/incident.pcap");
    if !capture.exists() {
        incident::write(&capture)?;
    }
    let mut walk = Walk::open("analyst")?;
    let files = Shell::new()?;
    walk.run("What is there?", &files)?;
    walk.run("The tunnel", &files)?;
    walk.run("The generated domains", &files)?;
    walk.run("The conflicting answer", &files)?;
    walk.run("A page for others", &files)?;

    let (client, server) = (Namespace::new()?, Namespace::new()?);
    join((&client, CLIENT_END), (&server, SERVER_END), 1_500)?;
    let agent = Agent::start(&server, CONFIGURATION, &[])?;
    let queries = incident::send(&capture, &client, &server)?;
    wait::until("the records of the incident", DEADLINE, || {
        Ok((agent.process().stdout().len() >= queries).then_some(()))
    })
    .with_context(|| agent.process().stderr().text())?;
    let node = Shell::new()?.inside(&server).agent(&agent)?.without_numbers();
    walk.run("While an agent runs", &node)?;
    agent.stop()?;
    walk.finish()
}
