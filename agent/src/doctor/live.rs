//! Follows a query through the running agent: the stages of [`probe`] as checks.

use std::net::SocketAddr;

use super::Check;
use crate::{
    config::{CONTROL_SOCKET, Config},
    probe::{self, Agent, Stage},
    verdict::Verdict,
};

const AREA: &str = "live";

pub(super) fn look(config: Option<&Config>, server: SocketAddr) -> Vec<Check> {
    let socket = config.map_or_else(|| CONTROL_SOCKET.into(), |it| it.control.socket.clone());
    match probe::probe(&probe::Config::new(Agent::Socket(socket), server)) {
        Ok(report) => report.stages.into_iter().map(|stage| check(stage, server)).collect(),
        Err(error) => {
            let what = format!("a query to {server}");
            vec![Check::fail(AREA, what, format!("{error:#}"), "tap53 run   # in another terminal")]
        }
    }
}

fn check(stage: Stage, server: SocketAddr) -> Check {
    let Stage { stage, verdict, text, .. } = stage;
    let fix = match stage {
        "resolver" => format!("dig @{} -p {} . NS", server.ip(), server.port()),
        "captured" => "tap53 status; tap53 interfaces".to_owned(),
        "client" => {
            "interfaces: {include: […]}   # where packets are not translated yet".to_owned()
        }
        _ => format!("tap53 probe --server {server} -o json"),
    };
    match verdict {
        Verdict::Ok => Check::ok(AREA, format!("{stage}: {text}")),
        Verdict::Warn => Check::warn(AREA, stage, text, fix),
        Verdict::Fail => Check::fail(AREA, stage, text, fix),
    }
}
