use serde_json::json;

use super::*;
use crate::stages::tests::every_reason;

#[test]
fn losses_keep_their_names_and_every_stage_is_among_them() {
    let mut ledger = every_reason();
    ledger.agent.packets.rings.abandoned = 4;
    let standing = serde_json::to_value(Standing::from(&ledger)).unwrap();
    let lost = &standing["lost"];
    assert_eq!(lost["hook_packets"]["ring_full"], 1);
    assert_eq!(lost["packets"]["malformed_packet"], 1);
    assert_eq!(lost["fragments"]["overlap"], 1);
    assert_eq!(lost["tcp_bytes"]["gap"], 1);
    assert_eq!(lost["messages"]["abandoned"], 1);
    assert_eq!(lost["rings"]["abandoned"], 4);
    assert_eq!(lost["records"]["kafka"]["expired"], 1);
    assert!(lost["messages"].get("copy").is_none(), "it is ignored");
}

#[test]
fn losses_that_an_earlier_version_wrote_are_read_and_added_up() {
    let written = json!({
        "hook_packets": {"ring_full": 2}, "packets": {}, "fragments": {}, "tcp_bytes": {},
        "messages": {"of_an_earlier_version": 3}, "records": {"kafka": {"expired": 5}},
    });
    let mut lost: Lost = serde_json::from_value(written).unwrap();
    lost.add(&Standing::from(&every_reason()).lost);
    assert_eq!(lost.stages["hook_packets"]["ring_full"], 3);
    assert_eq!(lost.stages["messages"]["of_an_earlier_version"], 3);
    assert_eq!(lost.records["kafka"]["expired"], 6);
    assert_eq!(serde_json::from_str::<Lost>("{}").unwrap(), Lost::default());
}
