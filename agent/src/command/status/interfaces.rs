//! The text of `tap53 status` about interfaces.

use std::collections::HashMap;

use serde_json::Value;
use tap53::config::Directions;
use tap53_capture::interfaces::{Actual, InterfaceStatus, WantedBy};

use super::{
    super::table::{Cell, Color, colored, table},
    duration_text,
};

/// Minimum number of interfaces that are folded into a line: fewer take no more room than it.
const MIN_FOLDED: usize = 3;

/// Maximum number of names in the line of folded interfaces.
const SHOWN_NAMES: usize = 5;

/// Formats the interfaces with packets or with something to notice as a table, and the others as a
/// line for the idle and one for the absent.
pub(super) fn folded_table(interfaces: &[InterfaceStatus], ledger: &Value) -> String {
    let seen = packets_seen(ledger);
    let has_packets = |it: &InterfaceStatus| seen.get(&it.ifindex).is_some_and(|seen| *seen > 0);
    let is_idle = |it: &InterfaceStatus| {
        let is_switched = it.wanted_by != WantedBy::File;
        it.ifindex != 0 && it.is_as_wanted() && !is_switched && !has_packets(it)
    };
    let (idle, others): (Vec<_>, Vec<_>) = interfaces.iter().cloned().partition(is_idle);
    let (absent, mut shown): (Vec<_>, Vec<_>) = others.into_iter().partition(|it| it.ifindex == 0);
    let mut lines = String::new();
    for (group, what) in [(idle, "idle, no packets yet"), (absent, "absent")] {
        if group.len() < MIN_FOLDED {
            shown.extend(group);
        } else {
            lines.push_str(&fold(&group, what));
        }
    }
    if shown.is_empty() && !lines.is_empty() {
        return lines;
    }
    interface_table(&shown) + &lines
}

fn fold(interfaces: &[InterfaceStatus], what: &str) -> String {
    let names: Vec<_> = interfaces.iter().map(|it| it.name.as_str()).take(SHOWN_NAMES).collect();
    let more = if interfaces.len() > SHOWN_NAMES { ", …" } else { "" };
    let (count, names) = (interfaces.len(), names.join(", "));
    format!("{count} interfaces {what}: {names}{more}   (all: tap53 status '*')\n")
}

/// Returns the packets that each interface has seen, by its number.
fn packets_seen(ledger: &Value) -> HashMap<u32, u64> {
    let interfaces = ledger["interfaces"].as_array().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let ifindex = u32::try_from(interface["ifindex"].as_u64()?).ok()?;
            let seen =
                ["ingress", "egress"].map(|way| interface[way]["seen"].as_u64().unwrap_or(0));
            Some((ifindex, seen.iter().sum()))
        })
        .collect()
}

/// Formats the interfaces as a table.
pub(in super::super) fn interface_table(interfaces: &[InterfaceStatus]) -> String {
    let mut rows = vec![
        ["INTERFACE", "KIND", "WANTED", "BY", "FOR", "INGRESS", "EGRESS", "WHY"].map(Cell::from),
    ];
    for interface in interfaces {
        let color = if interface.is_as_wanted() { Color::Plain } else { Color::Bad };
        let switched = match interface.wanted_by {
            WantedBy::File => Color::Plain,
            WantedBy::Annotation | WantedBy::Command => Color::Notable,
        };
        let lasts = interface.wanted_for_s.map_or_else(|| "-".to_owned(), duration_text);
        rows.push([
            interface.name.as_str().into(),
            if interface.ifindex == 0 { "absent".into() } else { interface.kind.as_str().into() },
            Cell::new(switched, interface.wanted.map_or("off", Directions::name)),
            Cell::new(switched, interface.wanted_by.name()),
            Cell::new(switched, lasts),
            actual_cell(&interface.ingress),
            actual_cell(&interface.egress),
            Cell::new(color, why_text(interface)),
        ]);
    }
    if interfaces.is_empty() {
        return "no interfaces\n".to_owned();
    }
    table(&rows, colored())
}

/// Returns the hook of a direction, in parentheses while capture is switched off.
fn actual_cell(actual: &Actual) -> Cell {
    match (&actual.hook, actual.capturing, &actual.shadowed) {
        (Some(hook), true, None) => Cell::new(Color::Good, hook),
        (Some(hook), true, Some(_)) => Cell::new(Color::Bad, format!("{hook}, shadowed")),
        (Some(hook), false, _) => format!("off ({hook})").into(),
        (None, ..) => "off".into(),
    }
}

fn why_text(interface: &InterfaceStatus) -> String {
    let InterfaceStatus { why, ingress, egress, .. } = interface;
    let shadowed = [("ingress", ingress), ("egress", egress)].into_iter();
    let shadowed = shadowed.filter_map(|(direction, actual)| {
        Some(format!("{direction} shadowed by {}", actual.shadowed.as_ref()?))
    });
    let parts: Vec<String> =
        Some(why.clone()).filter(|why| !why.is_empty()).into_iter().chain(shadowed).collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(wanted: Option<Directions>, ingress: bool, egress: bool) -> InterfaceStatus {
        let actual = |capturing| Actual { capturing, hook: Some("tcx".to_owned()), shadowed: None };
        InterfaceStatus {
            name: "eth0".to_owned(),
            ifindex: 2,
            kind: "veth".to_owned(),
            wanted,
            wanted_by: WantedBy::Command,
            wanted_for_s: Some(581),
            ingress: actual(ingress),
            egress: actual(egress),
            why: "first choice".to_owned(),
        }
    }

    #[test]
    fn an_interface_is_as_wanted_if_each_direction_is() {
        let both = Some(Directions::Both);
        assert!(interface(both, true, true).is_as_wanted());
        assert!(interface(Some(Directions::Ingress), true, false).is_as_wanted());
        assert!(interface(None, false, false).is_as_wanted());
        for wrong in [
            interface(both, true, false),
            interface(Some(Directions::Egress), true, true),
            interface(None, true, false),
        ] {
            assert!(!wrong.is_as_wanted(), "{wrong:?}");
        }
        let mut shadowed = interface(both, true, true);
        shadowed.egress.shadowed = Some("cilium".to_owned());
        assert!(!shadowed.is_as_wanted());
        let loopback =
            InterfaceStatus { kind: "loopback".to_owned(), ..interface(both, true, false) };
        assert!(loopback.is_as_wanted());
    }

    #[test]
    fn the_table_shows_the_desired_and_the_observed_state_and_the_reason() {
        let mut off = interface(None, false, false);
        off.egress.hook = None;
        off.ingress.shadowed = Some("another".to_owned());
        assert_eq!(
            interface_table(&[off]),
            "INTERFACE  KIND  WANTED  BY       FOR     INGRESS    EGRESS  WHY\n\
             eth0       veth  off     command  9m 41s  off (tcx)  off     first choice; ingress \
             shadowed by another\n"
        );
    }

    #[test]
    fn idle_and_absent_interfaces_are_a_line_each_and_all_others_are_shown() {
        let named = |name: &str, ifindex| InterfaceStatus {
            name: name.to_owned(),
            ifindex,
            wanted_by: WantedBy::File,
            wanted_for_s: None,
            ..interface(Some(Directions::Both), true, true)
        };
        let mut interfaces: Vec<_> = (1..=7).map(|n| named(&format!("veth{n}"), n)).collect();
        interfaces.extend(["gone1", "gone2", "gone3"].map(|name| named(name, 0)));
        interfaces.push(named("busy", 8));
        let mut wrong = named("wrong", 9);
        wrong.egress.capturing = false;
        interfaces.push(wrong);
        interfaces.push(InterfaceStatus { ifindex: 10, ..interface(None, false, false) });
        let ledger = serde_json::json!({"interfaces": [
            {"ifindex": 1, "ingress": {"seen": 0}, "egress": {"seen": 0}},
            {"ifindex": 8, "ingress": {"seen": 0}, "egress": {"seen": 1}},
        ]});
        let text = folded_table(&interfaces, &ledger);
        let first_words: Vec<_> =
            text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(first_words, ["INTERFACE", "busy", "wrong", "eth0", "7", "3"], "{text}");
        assert!(
            text.contains(
                "7 interfaces idle, no packets yet: veth1, veth2, veth3, veth4, veth5, …"
            ),
            "{text}"
        );
        assert!(text.contains("3 interfaces absent: gone1, gone2, gone3   ("), "{text}");
        // Two take no more room than a line that names them.
        let text = folded_table(&interfaces[..2], &ledger);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(folded_table(&[], &ledger), "no interfaces\n");
    }
}
