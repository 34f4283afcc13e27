//! Kafka's jars, fetched once by Maven.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{cache, maven};

const POM: &str = include_str!("pom.xml");

/// The directory with Kafka's jars, in the cache; fetched now if it is not there yet.
///
/// # Errors
/// When Maven is not installed or cannot fetch them.
pub fn directory() -> Result<PathBuf> {
    cache::filled(&format!("kafka-{}", version()?), fetch)
}

/// Kafka's version.
///
/// # Errors
/// When `pom.xml` names none.
pub fn version() -> Result<&'static str> {
    let (_, rest) =
        POM.split_once("<kafka.version>").context("kafka/pom.xml has no kafka.version")?;
    Ok(rest.split('<').next().unwrap_or_default())
}

fn fetch(target: &Path) -> Result<()> {
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/kafka/pom.xml");
    maven::copy_dependencies(&pom, target).context("fetch Apache Kafka")
}
