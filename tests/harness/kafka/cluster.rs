//! Several brokers, each a controller as well, that restart one after the other.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    CLUSTER_ID, CONSUME_DEADLINE, Message, START_DEADLINE, admin, free_addresses, jars, java,
    read_topic,
};
use crate::{
    namespace::Namespace,
    process::{Process, run},
    scratch, wait,
};

/// Brokers.
const SIZE: usize = 3;

/// Three brokers on 127.0.0.1 of a namespace; dropping them kills them and removes their files.
pub struct Cluster<'a> {
    namespace: &'a Namespace,
    jars: PathBuf,
    directory: TempDir,
    nodes: Vec<Node>,
}

struct Node {
    address: SocketAddr,
    properties: PathBuf,
    process: Option<Process>,
}

impl<'a> Cluster<'a> {
    /// Starts them, and waits until all answer.
    ///
    /// # Errors
    /// When the jars cannot be had, or a broker does not start.
    pub fn start(namespace: &'a Namespace) -> Result<Self> {
        let jars = jars()?;
        let directory = scratch::directory("cluster")?;
        let addresses: [SocketAddr; 2 * SIZE] = free_addresses(namespace, Ipv4Addr::LOCALHOST)?;
        let (brokers, controllers) = addresses.split_at(SIZE);
        let voters: Vec<_> =
            (1..).zip(controllers).map(|(id, address)| format!("{id}@{address}")).collect();
        let mut cluster = Self { namespace, jars, directory, nodes: Vec::new() };
        for ((id, broker), controller) in (1..).zip(brokers).zip(controllers) {
            let own = cluster.directory.path().join(format!("node-{id}"));
            fs::create_dir(&own)?;
            let properties = own.join("server.properties");
            fs::write(&properties, configuration(id, *broker, *controller, &voters, &own))?;
            let mut format = cluster.java("kafka.tools.StorageTool");
            format.args(["format", "--cluster-id", CLUSTER_ID, "--config"]).arg(&properties);
            run(&mut format)?;
            cluster.nodes.push(Node { address: *broker, properties, process: None });
        }
        // None is ready before there is a majority of controllers.
        for index in 0..SIZE {
            cluster.spawn(index)?;
        }
        for node in &cluster.nodes {
            node.wait_until_ready()?;
        }
        Ok(cluster)
    }

    /// `host:port` of each.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.to_string()).collect()
    }

    /// Creates a topic with so many partitions, each at all brokers, of which two have to have a
    /// record before it is acknowledged.
    ///
    /// # Errors
    /// When the brokers refuse, or partitions get no leaders.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let address = self.nodes[0].address;
        let stream = self.namespace.enter(|| Ok(TcpStream::connect(address)?))?;
        let settings = &[("min.insync.replicas", "2")];
        let replicas = i16::try_from(SIZE)?;
        admin::create_topic(stream, topic, admin::Shape { partitions, replicas, settings })?;
        self.wait_until_in_sync(topic)
    }

    /// Ends the broker with this index, by SIGTERM, as a rolling restart does, or by SIGKILL; and
    /// waits until it has ended.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&mut self, index: usize, signal: Signal) -> Result<()> {
        let mut process = self.nodes[index].process.take().context("it does not run")?;
        process.signal(signal)?;
        process.wait(START_DEADLINE)?;
        Ok(())
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        self.spawn(index)?;
        self.nodes[index].wait_until_ready()
    }

    fn java(&self, class: &str) -> Command {
        java(self.namespace, &self.jars, &self.directory, None, class)
    }

    fn spawn(&mut self, index: usize) -> Result<()> {
        let mut command = self.java("kafka.Kafka");
        command.arg(&self.nodes[index].properties);
        self.nodes[index].process = Some(Process::spawn(&format!("Kafka {}", index + 1), command)?);
        Ok(())
    }

    /// Waits until each partition has a leader and is in sync at all brokers: before that, the next
    /// one must not restart.
    ///
    /// # Errors
    /// When that does not come.
    pub fn wait_until_in_sync(&self, topic: &str) -> Result<()> {
        wait::until("all replicas to be in sync", START_DEADLINE, || {
            let Ok(partitions) = self.partitions(topic) else { return Ok(None) };
            let in_sync = |partition: &Value| {
                let leads = partition["leader"].as_i64().is_some_and(|leader| leader > 0);
                leads && partition["isrs"].as_array().is_some_and(|isrs| isrs.len() == SIZE)
            };
            Ok((!partitions.is_empty() && partitions.iter().all(in_sync)).then_some(()))
        })
    }

    /// Returns how many brokers lead a partition of the topic.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn leaders(&self, topic: &str) -> Result<usize> {
        let partitions = self.partitions(topic)?;
        let mut leaders: Vec<_> =
            partitions.iter().filter_map(|partition| partition["leader"].as_i64()).collect();
        leaders.sort_unstable();
        leaders.dedup();
        Ok(leaders.len())
    }

    fn partitions(&self, topic: &str) -> Result<Vec<Value>> {
        let mut command = self.namespace.command("timeout");
        command.arg(CONSUME_DEADLINE.as_secs().to_string()).args(["kcat", "-q", "-L", "-J", "-b"]);
        let output = command
            .arg(self.addresses().join(","))
            .args(["-t", topic])
            .stdin(Stdio::null())
            .output()
            .context("start kcat")?;
        ensure!(output.status.success(), "kcat: {}", output.status);
        let told: Value = serde_json::from_slice(&output.stdout)?;
        Ok(told["topics"][0]["partitions"].as_array().context("no partitions")?.clone())
    }

    /// Everything in `topic`. What is in one partition is in its order.
    ///
    /// # Errors
    /// When kcat is not installed, or fails.
    pub fn consume(&self, topic: &str) -> Result<Vec<Message>> {
        read_topic(self.namespace, &self.addresses().join(","), topic)
    }
}

impl Node {
    fn wait_until_ready(&self) -> Result<()> {
        let process = self.process.as_ref().context("it does not run")?;
        process.wait_for_line("Kafka Server started", 0, START_DEADLINE)?;
        Ok(())
    }
}

/// Returns the configuration of one broker; internal topics are replicated to all brokers.
fn configuration(
    id: usize,
    broker: SocketAddr,
    controller: SocketAddr,
    voters: &[String],
    directory: &Path,
) -> String {
    let voters = voters.join(",");
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{broker}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         log.retention.ms=-1\n\
         offsets.topic.replication.factor={SIZE}\n\
         transaction.state.log.replication.factor={SIZE}\n\
         transaction.state.log.min.isr=2\n\
         share.coordinator.state.topic.replication.factor={SIZE}\n\
         share.coordinator.state.topic.min.isr=2\n",
        directory.join("log").display()
    )
}
