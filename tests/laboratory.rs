//! The two-node laboratory: the records of two agents against what clients asked and servers logged.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent::{Agent, Ended},
    laboratory::{Asked, CACHE_IP, CLUSTER_IP, Laboratory, Load, Plan, UPSTREAM_IP},
};

const FILE_SINK: &str = "sinks: [{type: file, directory: $OUT}]";

/// A way from a client to the server that answers.
struct Path {
    name: &'static str,
    plan: Plan,
    server: Ipv4Addr,
    /// Records of each question that node-1 and node-2 create, without those of the queries that the
    /// resolvers send themselves.
    records: [usize; 2],
}

/// A question has a record before and one after NAT, because nothing in the records links the two.
fn paths() -> [Path; 4] {
    let plan = Plan::default;
    [
        Path { name: "other node", plan: plan(), server: CLUSTER_IP, records: [2, 1] },
        Path {
            name: "same node",
            plan: Plan { backends: vec![0], ..plan() },
            server: CLUSTER_IP,
            records: [2, 0],
        },
        Path {
            name: "masquerade",
            plan: Plan { masquerade: true, ..plan() },
            server: CLUSTER_IP,
            records: [2, 1],
        },
        Path {
            name: "node cache",
            plan: Plan { node_cache: true, ..plan() },
            server: CACHE_IP,
            records: [1, 0],
        },
    ]
}

#[test]
fn each_node_records_a_question_as_often_as_its_addresses_change() -> Result<()> {
    for path in paths() {
        let laboratory = Laboratory::new(&path.plan)?;
        let agents = laboratory.start_agents(FILE_SINK)?;
        let load = Load { clients: 1, questions: 30, server: path.server };
        let asked = load.run(&laboratory)?;
        for (ended, expected) in stop(agents)?.iter().zip(path.records) {
            require_records(&ended.records, &asked, &path, expected)?;
        }
    }
    Ok(())
}

fn require_records(records: &[Value], asked: &[Asked], path: &Path, expected: usize) -> Result<()> {
    let upstream = UPSTREAM_IP.to_string();
    for question in asked {
        let of_question = records.iter().filter(|record| {
            record["qname"] == *question.qname
                && record["dns_id"] == question.id
                && record["outcome"] == "MATCHED"
                && record["server_address"] != *upstream
        });
        let count = of_question.count();
        ensure!(count == expected, "{}: {count} records, not {expected}: {question:?}", path.name);
    }
    Ok(())
}

fn stop(agents: [Agent; 2]) -> Result<[Ended; 2]> {
    let [first, second] = agents;
    Ok([first.stop()?, second.stop()?])
}
