//! `kubectl tap53 status`: a line for each node.

use std::process::ExitCode;

use serde_json::{Value, json};
use tap53::control::agents::{Agent, Agents};
use tap53_base::vitals::Health;
use tap53_capture::interfaces::InterfaceStatus;

use crate::{
    command::{
        output::{Format, Output},
        status::{self, duration_text},
        table::{Cell, Color, colored, print, table},
    },
    exit,
};

/// Prints the status of one agent as a whole, or a line for each of several.
///
/// # Errors
/// When standard output is closed.
pub(super) fn run(agents: &[Agent], output: Output) -> anyhow::Result<ExitCode> {
    if let ([agent], Format::Text) = (agents, output.format) {
        print(&status::text(&agent.client.status()?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let answers = Agents::new(agents.to_vec()).each(|agent| agent.client.status());
    let mut rows = vec![["NODE", "STATE", "VERSION", "UP", "CAPTURING", "WHY"].map(Cell::from)];
    let (mut statuses, mut is_complete) = (Vec::new(), true);
    for (agent, answer) in agents.iter().zip(answers) {
        let node = agent.node.as_str();
        match answer {
            Ok(answer) => {
                rows.push(row(node, &answer.status));
                statuses.push(answer.status);
            }
            Err(error) => {
                is_complete = false;
                let why = error.to_string();
                let mut row = [node, "no answer", "", "", "", &why].map(Cell::from);
                row[1].color = Color::Bad;
                rows.push(row);
                statuses.push(json!({ "node": node, "error": why }));
            }
        }
    }
    output.print(&Value::Array(statuses), || table(&rows, colored()))?;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn row(node: &str, status: &Value) -> [Cell; 6] {
    let health: Health = serde_json::from_value(status["health"].clone()).unwrap_or_default();
    let interfaces = status::interfaces(status).unwrap_or_default();
    let is_capturing = |it: &&InterfaceStatus| it.ingress.capturing || it.egress.capturing;
    let capturing = interfaces.iter().filter(is_capturing).count();
    let state = match health.ready.ok {
        true => Cell::new(Color::Good, "ready"),
        false => Cell::new(Color::Bad, "not ready"),
    };
    let up = status["uptime_s"].as_u64().map_or_else(|| "?".to_owned(), duration_text);
    [
        node.into(),
        state,
        status["version"].as_str().unwrap_or("?").into(),
        up.into(),
        capturing.to_string().into(),
        health.ready.reasons.join("; ").into(),
    ]
}
