//! The schema registry: a real Apicurio Registry, started from its distribution. It has Confluent's
//! API at `/apis/ccompat/v7`, and keeps what it is told in a file (H2), or forgets it.
//!
//! Version 3.0.9 is the last that Java 17 runs, which the broker is at home on; 3.3 wants Java 21.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cache,
    http::{self, JsonAnswer},
    kafka::Security,
    namespace::Namespace,
    process::{Process, run},
    python::{json_lines_of, python},
    scratch, wait,
};

const VERSION: &str = "3.0.9";
/// The old one: newer ones read the parents of the archive's description too, of which nothing is
/// needed, and which not every mirror has.
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.8";

const API: &str = "/apis/ccompat/v7";

/// Two seconds on a machine with nothing else to do.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// The directory of the distribution, in the cache; fetched now if it is not there yet.
///
/// # Errors
/// When Maven is not installed or cannot fetch it.
pub fn distribution() -> Result<PathBuf> {
    cache::filled(&format!("apicurio-registry-{VERSION}"), |target| {
        let archive = target.join("all.tar.gz");
        run(Command::new("mvn")
            .args(["--quiet", "--batch-mode", &format!("{DEPENDENCY_PLUGIN}:get")])
            .arg(format!("-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"))
            .args(["-Dtransitive=false", &format!("-Ddest={}", archive.display())]))
        .context("fetch Apicurio Registry with Maven (packages maven and default-jre-headless)")?;
        run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(target))?;
        fs::remove_file(archive)?;
        Ok(())
    })
}

/// A registry on 127.0.0.1 of a namespace; dropping it kills it and removes its files.
pub struct Registry<'a> {
    namespace: &'a Namespace,
    distribution: PathBuf,
    directory: TempDir,
    address: SocketAddr,
    security: Option<(SocketAddr, PathBuf, PathBuf)>,
    process: Option<Process>,
}

/// A record, and the id of the schema that it was written with.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Id.
    pub id: u32,
    /// Its fields.
    pub record: Value,
}

impl<'a> Registry<'a> {
    /// Starts an empty one, which asks that each schema can read what the one before wrote, and waits
    /// until it answers.
    ///
    /// # Errors
    /// When it cannot be had or does not start; the message ends with its log.
    pub fn start(namespace: &'a Namespace) -> Result<Self> {
        Self::start_with(namespace, None)
    }

    /// Does the same as [`start`](Self::start), with a second port that speaks TLS by the broker's certificate.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_secure(namespace: &'a Namespace, security: &Security) -> Result<Self> {
        Self::start_with(namespace, Some(security))
    }

    fn start_with(namespace: &'a Namespace, security: Option<&Security>) -> Result<Self> {
        let distribution = distribution()?;
        let [address, tls] = namespace.enter(|| {
            // Both are open before either is closed, so they differ.
            let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
            let [one, other] = listeners;
            Ok([one?.local_addr()?, other?.local_addr()?])
        })?;
        let security = security
            .map(|security| (tls, security.path("broker.pem"), security.path("broker.key")));
        let directory = scratch::directory("registry")?;
        let mut registry =
            Self { namespace, distribution, directory, address, security, process: None };
        registry.restart()?;
        registry.require_compatibility("BACKWARD")?;
        Ok(registry)
    }

    /// Returns its URL without the path of an API.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The API's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{API}", self.address)
    }

    /// The API's URL with TLS, where there is one.
    #[must_use]
    pub fn secure_url(&self) -> String {
        let address = self.security.as_ref().map_or(self.address, |(address, ..)| *address);
        format!("https://{address}{API}")
    }

    /// Ends it with SIGKILL. What it had acknowledged stays on disk.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends it a signal, such as SIGSTOP, which suspends it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("no registry runs")?.signal(signal)
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<Pid> {
        Ok(self.process.as_ref().context("no registry runs")?.pid())
    }

    /// Starts it again with its data, at the same address.
    ///
    /// # Errors
    /// When it does not answer before the deadline.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = self.namespace.command("java");
        #[rustfmt::skip]
        command.args([
            "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Dquarkus.http.host=127.0.0.1",
        ]);
        command.arg(scratch::jvm_option(self.directory.path()));
        let property = |name: &str, value: String| format!("-D{name}={value}");
        command.arg(property("quarkus.http.port", self.address.port().to_string()));
        // Without a delay: a registry that is killed must know what it has acknowledged.
        let database = format!("jdbc:h2:file:{};WRITE_DELAY=0", self.database().display());
        command.arg(property("apicurio.datasource.url", database));
        if let Some((address, certificate, key)) = &self.security {
            command.arg(property("quarkus.http.ssl-port", address.port().to_string()));
            let path = |path: &PathBuf| path.display().to_string();
            command.arg(property("quarkus.http.ssl.certificate.files", path(certificate)));
            command.arg(property("quarkus.http.ssl.certificate.key-files", path(key)));
        }
        let runner = format!("apicurio-registry-app-{VERSION}-runner.jar");
        command.current_dir(self.directory.path()).arg("-jar").arg(self.distribution.join(runner));
        let mut process = Process::spawn("Apicurio Registry", command)?;
        wait::until("the registry to answer", START_DEADLINE, || {
            ensure!(process.is_running()?, "it ended: {}", process.stdout().text());
            let answer = self.ask("GET", "/subjects", None);
            Ok(answer.is_ok_and(|answer| answer.code == 200).then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it, and starts one at the same address that knows nothing.
    ///
    /// # Errors
    /// When it does not answer before the deadline.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill();
        for entry in fs::read_dir(self.directory.path())? {
            let path = entry?.path();
            if path.is_file() {
                fs::remove_file(path)?;
            }
        }
        self.restart()?;
        self.require_compatibility("BACKWARD")
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("database")
    }

    /// Sets the compatibility level, such as `BACKWARD` or `NONE`.
    ///
    /// # Errors
    /// When it refuses.
    pub fn require_compatibility(&self, level: &str) -> Result<()> {
        let answer = self.ask("PUT", "/config", Some(&json!({"compatibility": level})))?;
        ensure!(answer.code == 200, "{answer:?}");
        Ok(())
    }

    /// Registers a schema, as some other producer might; its id.
    ///
    /// # Errors
    /// When it refuses.
    pub fn register(&self, subject: &str, schema: &str) -> Result<u64> {
        let path = format!("/subjects/{subject}/versions");
        let answer = self.ask("POST", &path, Some(&json!({"schema": schema})))?;
        answer.body["id"].as_u64().with_context(|| format!("{answer:?}"))
    }

    /// Number of versions of a subject, which may not be there.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn versions(&self, subject: &str) -> Result<usize> {
        let answer = self.ask("GET", &format!("/subjects/{subject}/versions"), None)?;
        match answer.code {
            200 => Ok(answer.body.as_array().context("a list")?.len()),
            404 => Ok(0),
            _ => bail!("{answer:?}"),
        }
    }

    /// The schema with this id, as it was registered.
    ///
    /// # Errors
    /// When there is none.
    pub fn schema(&self, id: u32) -> Result<String> {
        let answer = self.ask("GET", &format!("/schemas/ids/{id}"), None)?;
        Ok(answer.body["schema"].as_str().with_context(|| format!("{answer:?}"))?.to_owned())
    }

    /// Any request of the API.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<JsonAnswer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = http::JsonRequest {
            method,
            path: &format!("{API}{path}"),
            content_type: "application/vnd.schemaregistry.v1+json",
            body: &body,
        };
        request.send(self.namespace, self.address)
    }

    /// Everything in partition 0 of `topic`, read by Confluent's client for Python with the schemas
    /// that this registry has; resolved to the schema in the file `reader`, if there is one.
    ///
    /// # Errors
    /// When a record is not framed with an id, or cannot be read.
    pub fn consume(&self, broker: &str, topic: &str, reader: Option<&Path>) -> Result<Vec<Read>> {
        let url = self.url();
        let arguments = [broker, topic, &url].map(OsStr::new).into_iter();
        let lines = json_lines_of(
            self.namespace.command(python()?),
            "read_registry.py",
            arguments.chain(reader.map(Path::as_os_str)),
            &[],
        )?;
        let read = |mut line: Value| {
            let id = line["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            Ok(Read { id: id.context("an id")?, record: line["record"].take() })
        };
        lines.into_iter().map(read).collect()
    }
}
