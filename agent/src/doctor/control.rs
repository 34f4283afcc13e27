//! Checks the control socket of a running agent.

use std::{io::ErrorKind, os::unix::net::UnixStream, path::Path};

use serde_json::Value;

use super::Check;
use crate::{
    config::{CONTROL_SOCKET, Config},
    control::{Bypass, client::Client},
};

const AREA: &str = "control";

pub(super) fn look(config: Option<&Config>) -> Vec<Check> {
    match config.map(|config| &config.control) {
        Some(control) if !control.enabled => vec![Check::ok(AREA, "disabled")],
        Some(control) => look_at_agent(&control.socket),
        None => look_at_agent(Path::new(CONTROL_SOCKET)),
    }
}

fn look_at_agent(path: &Path) -> Vec<Check> {
    let check = look_at(path);
    let answer = check.wrong.is_none().then(|| Client::new(path).status().ok()).flatten();
    let bypass = answer.and_then(|answer| bypass(answer.status.get("bypass")?));
    [Some(check), bypass].into_iter().flatten().collect()
}

/// Reports devices of pods that responses go past, as the status of a running agent has them.
fn bypass(status: &Value) -> Option<Check> {
    let bypass: Bypass = serde_json::from_value(status.clone()).ok()?;
    let quoted: Vec<_> = bypass.add.iter().map(|name| format!("\"{name}\"")).collect();
    let fix =
        format!("interfaces: {{include: [{}]}}   # beside those that it has", quoted.join(", "));
    Some(Check::warn("interfaces", "responses to pods", bypass.problem(), fix))
}

/// Connects and disconnects.
fn look_at(path: &Path) -> Check {
    let what = path.display().to_string();
    match UnixStream::connect(path) {
        Ok(_) => Check::ok(AREA, format!("{what}: an agent answers")),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Check::ok(AREA, format!("{what}: missing, no agent runs")),
            ErrorKind::ConnectionRefused => Check::warn(
                AREA,
                what,
                "no agent listens: one was killed, and none has started since",
                "tap53 run   # replaces it",
            ),
            ErrorKind::PermissionDenied => Check::warn(
                AREA,
                what,
                "this user may not use it",
                "sudo tap53 status   # or control: {allow_uids: [1000]}",
            ),
            _ => Check::warn(AREA, what, error.to_string(), "ls -l /run/tap53"),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn devices_that_responses_go_past_are_reported_with_what_to_capture() {
        assert_eq!(bypass(&Value::Null), None);
        let status = serde_json::json!({"interfaces": ["lxc1"], "add": ["eth0", "eth1"]});
        let check = bypass(&status).unwrap();
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(check.wrong.unwrap().contains("arrive at lxc1"));
        let fix = check.fix.unwrap();
        assert!(fix.starts_with("interfaces: {include: [\"eth0\", \"eth1\"]}"), "{fix}");
    }

    #[test]
    fn the_sockets_of_a_running_and_of_a_killed_agent_are_distinguished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let none = look_at(&path);
        assert_eq!(none.verdict, Verdict::Ok);
        assert!(none.what.ends_with("no agent runs"));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(look_at(&path).what.ends_with("an agent answers"));
        drop(listener);
        let dead = look_at(&path);
        assert_eq!(dead.verdict, Verdict::Warn);
        assert!(dead.wrong.unwrap().contains("killed"));
    }
}
