//! The loader's engine: a real Apache Spark in local mode, from its Python package, with the jars that it
//! needs beside its own. The jobs are those of `deploy/warehouse`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cache,
    lake::{ICEBERG_VERSION, Store},
    maven,
    namespace::Namespace,
    process::{Process, run},
    scratch,
};

const POM: &str = include_str!("spark/pom.xml");
/// Beside Spark: what its Python workers pass rows in (pandas is asked for and not used), and the driver of
/// the warehouse.
const PACKAGES: [(&str, &str); 3] =
    [("pyarrow", "26.0.1"), ("pandas", "2.3.3"), ("psycopg[binary]", "3.3.9")];
/// Two cores, and a task that fails is tried again, as on a cluster.
const MASTER: &str = "local[2,4]";
const MEMORY: &str = "1g";

/// An installation of Spark.
#[derive(Clone, Debug)]
pub struct Spark {
    python: PathBuf,
    home: PathBuf,
    jars: PathBuf,
}

impl Spark {
    /// Spark in the cache; fetched now if it is not there yet (870 MB on disk).
    ///
    /// # Errors
    /// When Python 3 with venv or Maven are not installed, or a package cannot be had.
    pub fn get() -> Result<Self> {
        let environment = cache::filled(&name()?, fetch)?;
        let libraries = fs::read_dir(environment.join("lib"))?.flatten();
        let mut homes = libraries.map(|entry| entry.path().join("site-packages/pyspark"));
        Ok(Self {
            python: environment.join("bin/python"),
            home: homes.find(|home| home.is_dir()).context("no pyspark in its environment")?,
            jars: environment.join("jars"),
        })
    }

    /// A job of `deploy/warehouse`, started by `spark-submit` in a namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn submit(&self, namespace: &Namespace, job: &str, arguments: &[&str]) -> Result<Job> {
        let directory = scratch::directory("spark")?;
        let mut command = self.command(namespace, "spark-submit", directory.path());
        command.arg("--jars").arg(joined(&jar_files(&self.jars)));
        submit(&mut command, job, arguments);
        Ok(Job { process: Process::spawn(job, command)?, _directory: directory })
    }

    /// Does the same as [`submit`](Self::submit), with the tables of a lake in the catalog `lake`.
    ///
    /// # Errors
    /// Does the same as [`submit`](Self::submit), or when Iceberg's jars cannot be had.
    pub fn submit_with_lake(
        &self,
        store: &Store<'_>,
        job: &str,
        arguments: &[&str],
    ) -> Result<Job> {
        let directory = scratch::directory("spark")?;
        let mut command = self.command(store.namespace, "spark-submit", directory.path());
        self.add_lake(&mut command, store)?;
        submit(&mut command, job, arguments);
        Ok(Job { process: Process::spawn(job, command)?, _directory: directory })
    }

    /// Runs SQL statements on the tables of a lake, in the catalog `lake`; returns their output.
    ///
    /// # Errors
    /// When one fails; with the log.
    pub fn sql(&self, store: &Store<'_>, statements: &str) -> Result<String> {
        let directory = scratch::directory("spark")?;
        let file = directory.path().join("statements.sql");
        fs::write(&file, statements)?;
        let mut command = self.command(store.namespace, "spark-sql", directory.path());
        self.add_lake(&mut command, store)?;
        command.args(["--conf", "spark.sql.catalogImplementation=in-memory", "-f"]).arg(file);
        run(&mut command)
    }

    fn add_lake(&self, command: &mut Command, store: &Store<'_>) -> Result<()> {
        let jars = [jar_files(&self.jars), jar_files(&iceberg()?)].concat();
        command.arg("--jars").arg(joined(&jars));
        for (key, value) in store.spark_settings() {
            command.arg("--conf").arg(format!("{key}={value}"));
        }
        Ok(())
    }

    /// The Python of the jobs, in a namespace, with their modules; without Spark's JVM.
    #[must_use]
    pub fn python(&self, namespace: &Namespace) -> Command {
        let mut command = namespace.command(&self.python);
        command.env("PYTHONPATH", jobs()).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// A program of Spark's with the settings of the jobs, and `scratch` for its files.
    fn command(&self, space: &Namespace, program: &str, scratch: &Path) -> Command {
        let mut command = space.command(self.home.join("bin").join(program));
        // By default there are 200 partitions; most would be empty here.
        command.args(["--master", MASTER, "--conf", "spark.sql.shuffle.partitions=4"]);
        command.args(["--driver-memory", MEMORY, "--properties-file"]);
        command.arg(jobs().join("spark.conf"));
        command
            .env("SPARK_HOME", &self.home)
            .env("PYSPARK_PYTHON", &self.python)
            .env("SPARK_LOCAL_IP", "127.0.0.1")
            .env("SPARK_LOCAL_DIRS", scratch)
            .env("TMPDIR", scratch)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // Lives are short: compiling for long ones does not pay.
            .env(
                "SPARK_SUBMIT_OPTS",
                format!(
                    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {}",
                    scratch::jvm_option(scratch)
                ),
            )
            .current_dir(scratch);
        command
    }
}

fn submit(command: &mut Command, job: &str, arguments: &[&str]) {
    let modules = ["records.py", "warehouse.py"].map(|name| jobs().join(name));
    command.arg("--py-files").arg(joined(&modules)).arg(jobs().join(job)).args(arguments);
}

fn jar_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The directory with Iceberg's jars for Spark, fetched when missing.
///
/// # Errors
/// When they cannot be fetched.
pub fn iceberg() -> Result<PathBuf> {
    let artefacts = [
        ("org.apache.iceberg", "iceberg-spark-runtime-4.1_2.13", ICEBERG_VERSION),
        ("org.apache.iceberg", "iceberg-aws-bundle", ICEBERG_VERSION),
    ];
    cache::filled(&format!("spark-iceberg-{ICEBERG_VERSION}"), |target| {
        maven::copy(&artefacts, target)
    })
}

fn jobs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/warehouse")
}

fn joined(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
}

/// Spark's version.
///
/// # Errors
/// When `pom.xml` names none.
pub fn version() -> Result<&'static str> {
    let (_, rest) =
        POM.split_once("<spark.version>").context("spark/pom.xml has no spark.version")?;
    Ok(rest.split('<').next().unwrap_or_default())
}

/// True if [`Spark::get`] has nothing to fetch.
///
/// # Errors
/// When there is no place for the cache.
pub fn is_ready() -> Result<bool> {
    Ok(cache::directory()?.join(name()?).is_dir())
}

/// Directory in the cache. Its name changes with the packages.
fn name() -> Result<String> {
    let named = |name: String, (package, version): &(&str, &str)| {
        format!("{name}-{}-{version}", package.split('[').next().unwrap_or_default())
    };
    Ok(PACKAGES.iter().fold(format!("spark-{}", version()?), named))
}

fn fetch(target: &Path) -> Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(target))
        .context("make a virtual environment (packages python3 and python3-venv)")?;
    let packages = PACKAGES.map(|(name, version)| format!("{name}=={version}"));
    let spark = format!("pyspark=={}", version()?);
    let mut pip = Command::new(target.join("bin/python"));
    run(pip.args(["-m", "pip", "install", "--quiet", &spark]).args(packages))
        .context("install Spark's Python packages")?;
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/spark/pom.xml");
    maven::copy_dependencies(&pom, &target.join("jars"))
        .context("fetch Spark's jars for Kafka and Avro")
}

/// A running job; dropping it kills it.
pub struct Job {
    process: Process,
    _directory: TempDir,
}

impl Job {
    /// Its process.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Waits for the next event of this name, from line `from` of its output on.
    ///
    /// # Errors
    /// When it ends first or `deadline` passes; with its last lines.
    pub fn wait_for_event(&self, event: &str, from: usize, deadline: Duration) -> Result<Value> {
        let pattern = format!("\"event\": \"{event}\"");
        let line = self
            .process
            .stdout()
            .wait_for_line(&pattern, from, deadline)
            .with_context(|| format!("its log:\n{}", self.log()))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// All events of this name so far.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.process.stdout().lines();
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|fields| fields["event"] == event).collect()
    }

    /// Waits for it to end well.
    ///
    /// # Errors
    /// When it fails, or goes on after `deadline`.
    pub fn finish(&mut self, deadline: Duration) -> Result<()> {
        let status = self.process.wait(deadline)?;
        anyhow::ensure!(status.success(), "{status}; its log:\n{}", self.log());
        Ok(())
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let lines = self.process.stderr().lines();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}
