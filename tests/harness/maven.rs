//! Jars from Maven repositories.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{process::run, scratch};

const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";

/// Group, artefact, version.
pub(crate) type Coordinates = (&'static str, &'static str, &'static str);

/// Copies the dependencies of the project `pom` to `target`.
pub(crate) fn copy_dependencies(pom: &Path, target: &Path) -> Result<()> {
    run(Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(pom)
        .arg(format!("{DEPENDENCY_PLUGIN}:copy-dependencies"))
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", target.display())))
    .context("fetch with Maven (packages maven and default-jre-headless)")
    .map(drop)
}

/// Copies artefacts and all that they need to `target`.
pub(crate) fn copy(artefacts: &[Coordinates], target: &Path) -> Result<()> {
    let directory = scratch::directory("maven")?;
    let pom = directory.path().join("pom.xml");
    fs::write(&pom, project(artefacts)).with_context(|| format!("write {}", pom.display()))?;
    copy_dependencies(&pom, target)
}

/// A Maven project that is a list of dependencies.
fn project(artefacts: &[Coordinates]) -> String {
    let mut dependencies = String::new();
    for (group, artefact, version) in artefacts {
        let _ = write!(
            dependencies,
            "<dependency><groupId>{group}</groupId><artifactId>{artefact}</artifactId>\
             <version>{version}</version></dependency>"
        );
    }
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>org.tap53</groupId><artifactId>tap53-parts</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
    )
}
