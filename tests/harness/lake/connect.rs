//! Workers of Kafka Connect.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{
    connectors::Connector,
    parts::{self, Jars},
    store::Store,
};
use crate::{
    http::{JsonAnswer, JsonRequest},
    kafka,
    namespace::Namespace,
    process::Process,
    scratch, wait,
};

/// Ten seconds on a machine with nothing else to do.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// A connector reads its plugin, the catalog and the consumer group first.
const RUN_DEADLINE: Duration = Duration::from_secs(120);

/// Small heap and quick start, as the broker's.
const JVM_OPTIONS: [&str; 5] = [
    "-Xmx768m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    // Says when it commits.
    "-Dorg.slf4j.simpleLogger.log.org.apache.iceberg.connect=info",
];

/// Options of the workers.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// `host:port` of brokers, with commas between.
    pub brokers: &'a str,
    /// The registry's URL, up to its host and port.
    pub registry: &'a str,
    /// Number of workers.
    pub workers: usize,
    /// Replicas of the worker's own topics and of the dead letters.
    pub replicas: usize,
}

/// One worker or several, on 127.0.0.1 of the store's namespace; dropping them kills them and removes
/// their files.
pub struct Connect<'a> {
    namespace: &'a Namespace,
    jars: Jars,
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
    replicas: usize,
    workers: Vec<Worker>,
    restarts: AtomicU32,
}

struct Worker {
    address: SocketAddr,
    properties: PathBuf,
    process: Option<Process>,
}

impl<'a> Connect<'a> {
    /// Starts workers, and waits until all answer.
    ///
    /// # Errors
    /// When the jars cannot be had, or a worker does not start; the message ends with its log.
    pub fn start(store: &Store<'a>, start: &Start<'_>) -> Result<Self> {
        let mut environment = store.environment().to_vec();
        environment.push(("LAKE_REGISTRY_URL", format!("{}/apis/registry/v2", start.registry)));
        let mut connect = Self {
            namespace: store.namespace,
            jars: parts::jars()?,
            directory: scratch::directory("connect")?,
            environment,
            replicas: start.replicas,
            workers: Vec::new(),
            restarts: AtomicU32::new(0),
        };
        for index in 0..start.workers {
            let worker = connect.prepare(index, start)?;
            connect.workers.push(worker);
            connect.spawn(index)?;
        }
        for index in 0..start.workers {
            connect.wait_until_ready(index)?;
        }
        Ok(connect)
    }

    fn prepare(&self, index: usize, start: &Start<'_>) -> Result<Worker> {
        let [address] = kafka::free_addresses(self.namespace, std::net::Ipv4Addr::LOCALHOST)?;
        let deployed = Path::new(env!("CARGO_MANIFEST_DIR"))
            .with_file_name("deploy/downstream/connect/worker.properties");
        let mut text = fs::read_to_string(&deployed)
            .with_context(|| format!("read {}", deployed.display()))?;
        // The last of two with one name counts.
        let Start { brokers, replicas, .. } = start;
        write!(
            text,
            "\nbootstrap.servers={brokers}\nlisteners=http://{address}\nplugin.path={}\n\
             config.storage.replication.factor={replicas}\n\
             offset.storage.replication.factor={replicas}\n\
             offset.storage.partitions=1\n\
             status.storage.replication.factor={replicas}\n\
             status.storage.partitions=1\n\
             offset.flush.interval.ms=1000\n\
             scheduled.rebalance.max.delay.ms=2000\n\
             session.timeout.ms=10000\n\
             task.shutdown.graceful.timeout.ms=1000\n",
            self.jars.plugin_path().display()
        )?;
        let properties = self.directory.path().join(format!("worker-{index}.properties"));
        fs::write(&properties, text)?;
        Ok(Worker { address, properties, process: None })
    }

    fn spawn(&mut self, index: usize) -> Result<()> {
        let worker = &self.workers[index];
        let mut command = self.namespace.command("java");
        command
            .args(JVM_OPTIONS)
            .arg(scratch::jvm_option(self.directory.path()))
            .arg("-cp")
            .arg(self.jars.class_path())
            .arg("org.apache.kafka.connect.cli.ConnectDistributed")
            // The sink reads the file too, which it finds by this argument.
            .arg(&worker.properties)
            .current_dir(self.directory.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::spawn(&format!("Connect {}", index + 1), command)?;
        self.workers[index].process = Some(process);
        Ok(())
    }

    fn wait_until_ready(&mut self, index: usize) -> Result<()> {
        wait::until("the Connect worker to answer", START_DEADLINE, || {
            let worker = &mut self.workers[index];
            let process = worker.process.as_mut().context("it does not run")?;
            ensure!(process.is_running()?, "it ended: {}", process.stderr().tail());
            let answer = self.ask_worker(index, "GET", "/connectors", None);
            Ok(answer.is_ok_and(|answer| answer.code == 200).then_some(()))
        })
    }

    /// Ends the worker with this index with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.workers[index].process = None;
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        self.kill(index);
        self.spawn(index)?;
        self.wait_until_ready(index)
    }

    /// The log of the worker with this index, since it was last started.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        let process = self.workers[index].process.as_ref();
        process.map_or_else(String::new, |process| process.stderr().text())
    }

    /// Creates a connector of `deploy/downstream` with `changes` to its configuration, and waits until
    /// its tasks run.
    ///
    /// # Errors
    /// When the worker refuses it, or a task fails; with the reason.
    pub fn create(&self, connector: &Connector, changes: &[(&str, &str)]) -> Result<()> {
        let mut configuration = connector.configuration()?;
        let replicas = self.replicas.to_string();
        let own = [("errors.deadletterqueue.topic.replication.factor", replicas.as_str())];
        for (key, value) in own.iter().chain(changes) {
            configuration.insert((*key).to_owned(), json!(value));
        }
        self.create_named(connector.topic, &configuration)
    }

    /// Creates a connector, and waits until its tasks run. One at a time: each makes the workers
    /// rebalance.
    ///
    /// # Errors
    /// See [`create`](Self::create).
    pub fn create_named(&self, name: &str, configuration: &Map<String, Value>) -> Result<()> {
        let path = format!("/connectors/{name}/config");
        wait::until("the worker to take the connector", RUN_DEADLINE, || {
            let answer = self.ask("PUT", &path, Some(&json!(configuration)))?;
            match answer.code {
                200 | 201 => Ok(Some(())),
                // It rebalances.
                409 => Ok(None),
                _ => bail!("connector {name} is refused: {answer:?}"),
            }
        })?;
        wait::until("the connector's tasks to run", RUN_DEADLINE, || {
            let status = self.status(name)?;
            let failed = failure(&status);
            ensure!(failed.is_none(), "{}", failed.unwrap_or_default());
            let tasks = status["tasks"].as_array().map_or(&[][..], Vec::as_slice);
            let run = |task: &Value| task["state"] == "RUNNING";
            let ready = status["connector"]["state"] == "RUNNING" && !tasks.is_empty();
            Ok((ready && tasks.iter().all(run)).then_some(()))
        })
    }

    /// The state of a connector and its tasks; null where it has none yet.
    ///
    /// # Errors
    /// When no worker answers.
    pub fn status(&self, name: &str) -> Result<Value> {
        let answer = self.ask("GET", &format!("/connectors/{name}/status"), None)?;
        Ok(if answer.code == 200 { answer.body } else { Value::Null })
    }

    /// Restarts the connector and tasks that have failed, as Strimzi's `autoRestart` does; returns why
    /// one had.
    ///
    /// # Errors
    /// When no worker answers.
    pub fn restart_failed(&self, name: &str) -> Result<Option<String>> {
        let failed = failure(&self.status(name)?);
        if failed.is_some() {
            let path = format!("/connectors/{name}/restart?includeTasks=true&onlyFailed=true");
            self.ask("POST", &path, None)?;
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
        Ok(failed)
    }

    /// Does the same as [`restart_failed`](Self::restart_failed), for each connector that the worker names. A worker
    /// that does not answer is left alone.
    pub fn restart_all_failed(&self) {
        let Ok(answer) = self.ask("GET", "/connectors", None) else { return };
        let names: Vec<String> = serde_json::from_value(answer.body).unwrap_or_default();
        for name in names {
            if let Ok(Some(why)) = self.restart_failed(&name) {
                eprintln!("restarted {name}: {why}");
            }
        }
    }

    /// Number of times that failed connectors or tasks were restarted.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Deletes a connector.
    ///
    /// # Errors
    /// When the worker refuses.
    pub fn delete(&self, name: &str) -> Result<()> {
        let answer = self.ask("DELETE", &format!("/connectors/{name}"), None)?;
        ensure!(answer.code == 204, "{answer:?}");
        Ok(())
    }

    /// A request to the first worker that answers.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<JsonAnswer> {
        let running =
            (0..self.workers.len()).filter(|index| self.workers[*index].process.is_some());
        let mut failed = anyhow::anyhow!("no worker runs");
        for index in running {
            match self.ask_worker(index, method, path, body) {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn ask_worker(
        &self,
        index: usize,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<JsonAnswer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = JsonRequest { method, path, content_type: "application/json", body: &body };
        request.send(self.namespace, self.workers[index].address)
    }
}

/// Returns the end of the trace of a connector or task that has failed.
fn failure(status: &Value) -> Option<String> {
    let tasks = status["tasks"].as_array().into_iter().flatten();
    let failed = std::iter::once(&status["connector"])
        .chain(tasks)
        .find(|part| part["state"] == "FAILED")?;
    let trace = failed["trace"].as_str().unwrap_or_default();
    let causes = trace.lines().filter(|line| !line.trim_start().starts_with("at "));
    Some(causes.collect::<Vec<_>>().join("; "))
}
