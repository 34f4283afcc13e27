//! Checks the control socket of a running agent.

use std::{io::ErrorKind, os::unix::net::UnixStream, path::Path};

use super::Check;
use crate::config::{CONTROL_SOCKET, Config};

const AREA: &str = "control";

pub(super) fn look(config: Option<&Config>) -> Vec<Check> {
    match config.map(|config| &config.control) {
        Some(control) if !control.enabled => vec![Check::ok(AREA, "disabled")],
        Some(control) => vec![look_at(&control.socket)],
        None => vec![look_at(Path::new(CONTROL_SOCKET))],
    }
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
