//! `cargo xtask bench --system` at rates that overload nothing: that all of it runs, and that the old
//! way and the agent both record every query. What it costs is no matter here.

use anyhow::Result;
use tap53_harness::system::{Plan, Section};

/// Measures a section, and returns the rows of its tables.
fn rows(section: Section) -> Result<Vec<String>> {
    let text = section.measure(&Plan::short())?;
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    Ok(rows.map(str::to_owned).collect())
}

#[test]
fn a_gateway_is_measured_alone_and_both_ways() -> Result<()> {
    // Pod, node, clients, storage: a heading and a rate in each.
    let rows = rows(Section::Gateway)?;
    assert_eq!(rows.len(), 8, "{rows:?}");
    assert!(rows[7].ends_with("| 0.00 | 0.00 |"), "{rows:?}");
    Ok(())
}

#[test]
fn several_gateways_share_one_agent() -> Result<()> {
    assert_eq!(rows(Section::Node)?.len(), 1 + Plan::short().gateways.len());
    Ok(())
}

#[test]
fn a_resolver_is_measured_with_each_recorder() -> Result<()> {
    let rows = rows(Section::Resolver)?;
    assert_eq!(rows.len(), 7, "{rows:?}");
    assert!(rows[1].starts_with("| nobody |") && rows[1].ends_with("| – |"), "{rows:?}");
    Ok(())
}

#[test]
fn the_agent_is_measured_by_rate_delay_and_capacity() -> Result<()> {
    for (section, count) in [(Section::Agent, 2), (Section::Delay, 2), (Section::Capacity, 3)] {
        let rows = rows(section)?;
        assert_eq!(rows.len(), count, "{rows:?}");
    }
    Ok(())
}

#[test]
fn fleets_meet_a_broker_a_registry_and_an_api_server() -> Result<()> {
    for section in [Section::Producers, Section::Services] {
        let rows = rows(section)?;
        assert_eq!(rows.len(), 2, "{rows:?}");
    }
    Ok(())
}

#[test]
fn each_watch_is_measured_alone_and_calculated_for_a_large_cluster() -> Result<()> {
    // Two tables of ten watches.
    let rows = rows(Section::Watches)?;
    assert_eq!(rows.len(), 22, "{rows:?}");
    let received = |name: &str| -> Vec<&str> {
        let row = rows.iter().find(|row| row.contains(name)).map(|row| row.split(" | "));
        row.into_iter().flatten().skip(2).take(1).collect()
    };
    for name in ["scope: node", "`servers`", "own node"] {
        assert_eq!(received(name), ["0 %"], "{name}: {rows:?}");
    }
    for name in ["scope: cluster", "metadata only", "nodes: true"] {
        assert_eq!(received(name), ["100 %"], "{name}: {rows:?}");
    }
    Ok(())
}
