//! Queries for A and AAAA that a client sends at once from one socket, over both families.

use std::{collections::HashMap, net::IpAddr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::laboratory::{Laboratory, PairAsked, Pairs, paired};

use super::{
    Path, on_nodes,
    truth::{Key, by_key},
};

/// Lookups over each family.
const LOOKUPS: usize = 12;

/// The rows that [`require`] compares.
pub(super) const QUESTIONS: &str = "SELECT dns_id, qname, qtype, client_address, client_port, server_address, \
     outcome, answer_count, records FROM questions WHERE qname LIKE 'pair%' \
     AND server_address <> '192.168.53.53'";

/// Looks names up at the server of a path, by its IPv4 and its IPv6 address.
pub(super) fn look_up(laboratory: &Laboratory, path: &Path) -> Result<Vec<(IpAddr, PairAsked)>> {
    let mut asked = Vec::new();
    for (first, server) in [(0, path.server.into()), (LOOKUPS, paired(path.server).into())] {
        let pairs = Pairs { first, clients: 3, lookups: LOOKUPS, server };
        asked.extend(pairs.run(laboratory)?.into_iter().map(|question| (server, question)));
    }
    Ok(asked)
}

/// Each question has a record at each node of its path, and one row, with its own type and answer.
pub(super) fn require(
    path: &Path,
    asked: &[(IpAddr, PairAsked)],
    records: &HashMap<Key, Vec<&Value>>,
    questions: &[Value],
) -> Result<()> {
    let questions = by_key(questions)?;
    for (server, question) in asked {
        let key = (question.id, question.qname.clone());
        let found = on_nodes(records.get(&key));
        ensure!(found == path.records, "{} at {server}: {found:?}: {question:?}", path.name);
        let rows = questions.get(&key).context("a question without a row")?;
        ensure!(rows.len() == 1, "{}: {} rows: {question:?}", path.name, rows.len());
        for (field, expected) in [
            ("qtype", Value::from(&*question.qtype)),
            ("client_address", question.client.ip().to_string().into()),
            ("client_port", question.client.port().into()),
            ("server_address", server.to_string().into()),
            ("outcome", "MATCHED".into()),
            ("answer_count", question.answers.into()),
            ("records", path.records.iter().sum::<usize>().into()),
        ] {
            ensure!(rows[0][field] == expected, "{field}: {}, not {expected}", rows[0]);
        }
    }
    // Without what a node's cache asks the service.
    let servers = [path.server.to_string(), paired(path.server).to_string()];
    let is_asked = |row: &&&Value| servers.iter().any(|server| row["server_address"] == **server);
    let rows = questions.values().flatten().filter(is_asked).count();
    ensure!(rows == asked.len(), "{rows} rows of {} questions", asked.len());
    Ok(())
}
