//! Checks the configuration file, as `tap53 check-config` does.

use super::{Check, Subject};
use crate::config::{Error, Problem};

const AREA: &str = "config";

/// Checks the file, and reports the areas that cannot be checked without it.
pub(super) fn look(subject: &Subject<'_>) -> Vec<Check> {
    let mut checks = file(subject);
    if subject.config.is_err() {
        checks.push(Check::warn(
            AREA,
            "interfaces, resources, outputs, kafka, kubernetes, telemetry",
            "not checked, since the configuration is invalid",
            "correct the problems above, then: tap53 doctor",
        ));
    }
    checks
}

fn file(subject: &Subject<'_>) -> Vec<Check> {
    let file = subject.file.map_or("no file".to_owned(), |file| file.display().to_string());
    let check = format!("tap53 check-config --config {file}");
    match subject.config {
        Ok(_) if subject.file.is_none() => {
            let reason = subject.discovered.unwrap_or("no --config");
            vec![Check::ok(AREA, format!("defaults and flags; {reason}"))]
        }
        Ok(_) => {
            let reason = subject.discovered.map_or_else(String::new, |it| format!(", {it}"));
            vec![Check::ok(AREA, format!("{file}{reason}"))]
        }
        Err(Error::Unreadable { cause, .. }) => {
            let fix = match cause.kind() {
                std::io::ErrorKind::PermissionDenied => format!("chmod a+r {file}"),
                _ => format!("ls -l {file}   # and give the right one with --config"),
            };
            vec![Check::fail(AREA, file, format!("cannot be read: {cause}"), fix)]
        }
        Err(error @ Error::Syntax { .. }) => {
            vec![Check::fail(AREA, file, error.to_string(), check)]
        }
        Err(Error::Refused { problems, .. }) => problems
            .iter()
            .map(|problem| {
                let what = match problem.place {
                    Some((line, column)) => format!("{file}:{line}:{column}"),
                    None => file.clone(),
                };
                let fix = fix(problem).unwrap_or_else(|| format!("correct it, then: {check}"));
                Check::fail(AREA, what, problem.to_string(), fix)
            })
            .collect(),
    }
}

/// Returns the fix of a problem that is not a typing error.
fn fix(problem: &Problem) -> Option<String> {
    let Problem { path, value, .. } = problem;
    let value = value.as_deref().map(|value| value.trim_matches('"'));
    if path.ends_with(".directory") {
        return Some(format!("install -d -m 0750 {}", value?));
    }
    if path == "interfaces.include" {
        return Some("interfaces: {include: [\"eth*\"]}   # or --interface 'eth*'".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn every_problem_is_a_check_with_a_fix() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tap53.yaml");
        std::fs::write(
            &path,
            "capture: {hook: xpd}\nsinks:\n  - {type: file, directory: /nonexistent/out}\n",
        )
        .unwrap();
        let look_at = |file: &Path| {
            let config = Config::load(Some(file), &Overrides::default());
            look(&Subject {
                config: &config,
                file: Some(file),
                discovered: None,
                interfaces_named: true,
                live: None,
            })
        };
        let checks = look_at(&path);
        let fixes: Vec<_> = checks.iter().filter_map(|check| check.fix.as_deref()).collect();
        assert_eq!(checks.len(), 4);
        assert!(fixes.contains(&"install -d -m 0750 /nonexistent/out"), "{fixes:?}");
        assert!(fixes.iter().any(|fix| fix.contains("interfaces: {include:")), "{fixes:?}");
        assert!(fixes.iter().any(|fix| fix.contains("check-config")), "{fixes:?}");
        let absent = look_at(Path::new("/nonexistent/tap53.yaml"));
        assert!(absent[0].wrong.as_deref().unwrap().contains("No such file"));
    }
}
