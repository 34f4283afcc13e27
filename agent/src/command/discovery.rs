//! Finds the configuration of commands that inspect this machine and were given none.

use std::{
    env,
    path::{Path, PathBuf},
};

use tap53::control::client::Client;

/// Environment variable with the path of the configuration; the chart sets it.
const VARIABLE: &str = "TAP53_CONFIG";

/// Path of the configuration that is tried last.
const USUAL_PATH: &str = "/etc/tap53/tap53.yaml";

/// A configuration that was found, with the place that names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Discovered {
    /// The file; `None` if only defaults and flags apply.
    pub(super) file: Option<PathBuf>,
    /// The reason for this one, for people.
    pub(super) reason: &'static str,
}

impl Discovered {
    const fn new(file: Option<PathBuf>, reason: &'static str) -> Self {
        Self { file, reason }
    }
}

/// Returns the configuration of the agent that answers `client`, or else the file in [`VARIABLE`], or
/// else the one at [`USUAL_PATH`]. A file of the agent that is not here, as one in a container, is
/// skipped.
pub(super) fn discover(client: &Client) -> Discovered {
    let variable = env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    of(agent_file(client), variable, Path::new(USUAL_PATH))
}

/// Returns the file of the running agent; `None` without an agent, `Some(None)` if it has no file.
fn agent_file(client: &Client) -> Option<Option<PathBuf>> {
    let answer = client.status().ok()?;
    Some(answer.status["config"]["file"].as_str().map(PathBuf::from))
}

fn of(agent: Option<Option<PathBuf>>, variable: Option<PathBuf>, usual: &Path) -> Discovered {
    match agent {
        Some(None) => return Discovered::new(None, "the running agent has no configuration file"),
        Some(Some(file)) if file.is_absolute() && file.exists() => {
            return Discovered::new(Some(file), "of the running agent");
        }
        _ => {}
    }
    match variable {
        Some(file) => Discovered::new(Some(file), "from TAP53_CONFIG"),
        None if usual.exists() => Discovered::new(Some(usual.to_owned()), "the usual path"),
        None => Discovered::new(None, "no --config, no running agent, no TAP53_CONFIG"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_precedes_the_variable_and_that_the_usual_path() {
        let directory = tempfile::tempdir().unwrap();
        let [agent, usual] = ["agent.yaml", "usual.yaml"].map(|name| directory.path().join(name));
        let variable = directory.path().join("missing.yaml");
        for file in [&agent, &usual] {
            std::fs::write(file, "").unwrap();
        }
        let found = |agent: Option<Option<&Path>>, variable: Option<&Path>, usual: &Path| {
            of(agent.map(|file| file.map(Path::to_owned)), variable.map(Path::to_owned), usual).file
        };
        let [agent, usual, variable] = [&agent, &usual, &variable].map(|path| path.as_path());
        assert_eq!(found(Some(Some(agent)), Some(variable), usual).as_deref(), Some(agent));
        // It captures by defaults and flags, so another file says nothing about it.
        assert_eq!(found(Some(None), Some(variable), usual), None);
        // A file in a container.
        assert_eq!(found(Some(Some(variable)), None, usual).as_deref(), Some(usual));
        // Named, so its absence is reported.
        assert_eq!(found(None, Some(variable), usual).as_deref(), Some(variable));
        assert_eq!(found(None, None, variable), None);
    }
}
