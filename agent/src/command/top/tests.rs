//! The view at the smallest size and at a large one.

use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, crossterm::event::KeyCode};
use tap53::top::{
    AgentState, Count, DnsCounts, EndCounts, Latency, Loss, PacketCounts, SinkCounts, Snapshot,
    TopItem, TopList,
};
use tap53_base::vitals::{BrokerHealth, Condition, Health, Probe, SinkHealth};

use super::{
    input::press,
    model::{Connection, Model},
    panel::Panel,
    view::{Palette, draw, plain},
};

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 50);

fn list(items: &[(&str, u64)]) -> TopList {
    let item =
        |(item, count): &(&str, u64)| TopItem { item: (*item).to_owned(), count: *count, error: 0 };
    TopList { items: items.iter().map(item).collect(), error: 0 }
}

fn counts(items: &[(&str, u64)]) -> Vec<Count> {
    items.iter().map(|(name, count)| Count { name: (*name).to_owned(), count: *count }).collect()
}

fn latency(buckets: [u64; 4]) -> Latency {
    let bounds_ns = vec![100_000, 1_000_000, 25_000_000];
    Latency { bounds_ns, buckets: buckets.to_vec(), sum_ns: 0 }
}

fn end(name: &str, transactions: u64, nxdomain: u64) -> EndCounts {
    let name = name.to_owned();
    let latency = latency([transactions / 2, transactions / 2, 0, 0]);
    EndCounts { name, transactions, nxdomain, latency, ..EndCounts::default() }
}

fn health() -> Health {
    let since = "2026-11-29T10:00:00Z".to_owned();
    let brokers = [("1", true), ("2", false)].map(|(name, connected)| BrokerHealth {
        name: name.to_owned(),
        connected,
        since: since.clone(),
    });
    let condition = Condition { ok: true, since, reasons: Vec::new() };
    let sink = SinkHealth { name: "kafka".to_owned(), condition, brokers: brokers.to_vec() };
    let ok = Probe { ok: true, reasons: Vec::new() };
    Health { live: ok.clone(), ready: ok, sinks: vec![sink], ..Health::default() }
}

/// Returns the report of an agent after `seconds`, with `scale` times 100 transactions.
fn snapshot(seconds: u64, scale: u64) -> Snapshot {
    let name = "a-very-long-name-that-no-column-of-a-small-terminal-holds.shop.svc.cluster.local";
    let dns = DnsCounts {
        elapsed_ms: seconds * 1_000,
        transactions: 100 * scale,
        names: list(&[
            ("www.example.test", 60 * scale),
            (name, 30 * scale),
            ("b.test", 10 * scale),
        ]),
        nxdomain_names: list(&[("absent.example.test", 25 * scale)]),
        clients: list(&[("192.0.2.1", 70 * scale), ("192.0.2.2", 30 * scale)]),
        workloads: vec![
            end("shop/checkout", 80 * scale, 25 * scale),
            end("shop/web", 20 * scale, 0),
        ],
        servers: vec![end("kube-system/kube-dns", 100 * scale, 25 * scale)],
        rcodes: counts(&[("NOERROR", 70 * scale), ("NXDOMAIN", 25 * scale)]),
        qtypes: counts(&[("A", 90 * scale), ("AAAA", 10 * scale)]),
        unanswered: 5 * scale,
        latency: latency([50 * scale, 40 * scale, 5 * scale, 0]),
        ..DnsCounts::default()
    };
    Snapshot {
        agent: AgentState {
            version: "0.1.0".to_owned(),
            node: "node-1".to_owned(),
            uptime_s: 3_700 + seconds,
            health: health(),
        },
        dns,
        packets: PacketCounts { seen: 900 * scale, captured: 200 * scale },
        losses: Vec::new(),
        sinks: vec![SinkCounts {
            name: "kafka".to_owned(),
            delivered: 5_000 + 90 * scale,
            in_flight: 7,
            spooled: 3,
            lost: 0,
        }],
    }
}

/// A model after two snapshots, 2 s apart.
fn model() -> Model {
    let mut model = Model::new(2_000, String::new());
    model.push(snapshot(0, 0));
    model.push(snapshot(2, 10));
    model
}

fn render(model: &mut Model, (width, height): (u16, u16), colored: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, Palette { colored })).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(model: &mut Model, size: (u16, u16)) -> Vec<String> {
    let buffer = render(model, size, true);
    let row = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect();
    buffer.content.chunks(usize::from(size.0)).map(row).collect()
}

fn text(model: &mut Model, size: (u16, u16)) -> String {
    lines(model, size).join("\n")
}

/// Returns the words of the line that contains `part`.
fn words(model: &mut Model, size: (u16, u16), part: &str) -> Vec<String> {
    let all = lines(model, size);
    let line = all.iter().find(|line| line.contains(part));
    let line = line.unwrap_or_else(|| panic!("no line has {part:?}:\n{}", all.join("\n")));
    line.replace('│', " ").split_whitespace().map(str::to_owned).collect()
}

fn push_keys(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        press(model, KeyCode::Char(key).into());
    }
}

#[test]
fn a_small_terminal_shows_names_with_counts_rates_and_shares() {
    let mut model = model();
    let row = words(&mut model, SMALL, "www.example.test");
    assert_eq!(row[..4], ["www.example.test", "600", "300", "60.0%"].map(str::to_owned));
    let text = text(&mut model, SMALL);
    for part in [
        "node-1",
        "up 1h01m",
        "ready",
        "500/s",
        "1,000 transactions in 2s",
        "NXDOMAIN 25.0%",
        "unanswered 5.0%",
        "p50 ≤100µs",
        "packets 1,000/s",
        "lost nothing",
        "sinks ok",
        "q quit",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn no_line_of_the_header_is_cut_and_every_box_is_closed() {
    let mut model = model();
    model.lose("the agent has stopped".to_owned());
    for width in [80, 81, 100, 120, 149, 150, 200] {
        for height in [24, 25, 40, 50] {
            let text = text(&mut model, (width, height));
            for part in ["p95 ", "sinks ok", "reconnecting: the agent has stopped"] {
                assert!(text.contains(part), "{width}×{height}: no {part:?} in\n{text}");
            }
            let count = |corner| text.matches(corner).count();
            let corners = ["┌", "┐", "└", "┘"].map(count);
            assert!(corners[0] > 1 && corners.iter().all(|it| *it == corners[0]), "{text}");
        }
    }
}

#[test]
fn a_long_name_is_shortened_in_its_middle_and_whole_where_there_is_room() {
    let mut model = model();
    assert!(text(&mut model, SMALL).contains("…"));
    assert!(text(&mut model, SMALL).contains(".cluster.local"));
    model.is_zoomed = true;
    let whole = "a-very-long-name-that-no-column-of-a-small-terminal-holds.shop.svc.cluster.local";
    assert!(text(&mut model, LARGE).contains(whole));
}

#[test]
fn a_large_terminal_shows_all_panels_at_once() {
    let mut model = model();
    let text = text(&mut model, LARGE);
    let shown = model.panels();
    assert_eq!(shown.len(), Panel::ALL.len() - 1, "no signals");
    for panel in shown {
        assert!(text.contains(panel.title()), "no {} in\n{text}", panel.title());
    }
    for part in [
        "shop/checkout",
        "kube-system/kube-dns",
        "192.0.2.2",
        "absent.example.test",
        "broker 2",
        "not connected",
        "nothing was lost since the agent started",
        "5,900",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn every_panel_can_be_chosen_and_seen_alone_on_a_small_terminal() {
    let mut model = model();
    for _ in 0..Panel::ALL.len() - 1 {
        let title = model.focus.title();
        assert!(text(&mut model, SMALL).contains(title), "{title}");
        press(&mut model, KeyCode::Enter.into());
        let alone = text(&mut model, SMALL);
        assert!(alone.contains(title) && alone.matches('┌').count() == 1, "{alone}");
        press(&mut model, KeyCode::Enter.into());
        press(&mut model, KeyCode::Tab.into());
    }
    assert_eq!(model.focus, Panel::Names, "once around");
    press(&mut model, KeyCode::Left.into());
    assert_eq!(model.focus, Panel::Losses);
}

#[test]
fn workloads_show_what_went_wrong() {
    let mut model = model();
    model.focus = Panel::Workloads;
    let row = words(&mut model, SMALL, "shop/checkout");
    let expected = ["shop/checkout", "800", "400", "31.2%", "0%", "0%", "≤100µs", "≤1ms"];
    assert_eq!(row[..8], expected.map(str::to_owned));
}

#[test]
fn signals_are_shown_if_the_agent_reports_any() {
    let mut model = model();
    assert!(!text(&mut model, LARGE).contains("Signals"));
    let mut with_signals = snapshot(4, 20);
    with_signals.dns.signals = counts(&[("tunnel", 12)]);
    model.push(with_signals);
    assert!(text(&mut model, LARGE).contains("Signals"));
    assert_eq!(words(&mut model, LARGE, "tunnel").iter().filter(|it| *it == "12").count(), 1);
}

#[test]
fn losses_and_an_agent_that_is_not_ready_stand_out() {
    let mut model = model();
    let mut bad = snapshot(4, 20);
    bad.losses = vec![Loss {
        stage: "sink kafka".to_owned(),
        reason: "expired".to_owned(),
        unit: "records".to_owned(),
        count: 1_234,
    }];
    bad.agent.health.ready =
        Probe { ok: false, reasons: vec!["broker\x1b[2J unreachable".to_owned()] };
    model.push(bad);
    let shown = text(&mut model, LARGE);
    assert!(shown.contains("lost 1,234 records"), "{shown}");
    // Nothing from outside controls the terminal.
    assert!(shown.contains("not ready: broker\\u001b[2J unreachable"), "{shown}");
    let expected = ["sink", "kafka", "expired", "records", "1,234"];
    let row = words(&mut model, LARGE, "expired").join(" ");
    assert!(row.contains(&expected.join(" ")), "{row}");
}

#[test]
fn the_filter_hides_names_and_workloads_and_says_so() {
    let mut model = model();
    push_keys(&mut model, "/checkout");
    assert!(text(&mut model, SMALL).contains("filter: checkout█"));
    press(&mut model, KeyCode::Enter.into());
    let shown = text(&mut model, LARGE);
    assert!(shown.contains("shop/checkout") && !shown.contains("shop/web"), "{shown}");
    assert!(shown.contains("/checkout hides 3") && shown.contains("no row passes"), "{shown}");
    // Codes and latencies are of all.
    assert!(shown.contains("NOERROR"));
}

#[test]
fn sorting_goes_through_the_columns() {
    let mut model = model();
    let first = |model: &mut Model| {
        let lines = lines(model, SMALL);
        let heading = lines.iter().position(|line| line.contains("COUNT")).unwrap();
        lines[heading + 1].split_whitespace().next().unwrap().trim_start_matches('│').to_owned()
    };
    assert_eq!(first(&mut model), "www.example.test");
    push_keys(&mut model, "sss");
    let sorted_by = lines(&mut model, SMALL).iter().any(|line| line.contains("▾NAME"));
    assert!(sorted_by && first(&mut model).starts_with("a-very-long"), "by name");
}

#[test]
fn a_paused_view_does_not_change_and_goes_on_with_the_latest() {
    let mut model = model();
    push_keys(&mut model, "p");
    model.push(snapshot(4, 30));
    let paused = text(&mut model, SMALL);
    assert!(paused.contains("PAUSED") && paused.contains("1,000 transactions in 2s"), "{paused}");
    push_keys(&mut model, "p");
    let shown = text(&mut model, SMALL);
    assert!(shown.contains("3,000 transactions in 4s") && shown.contains("1,000/s"), "{shown}");
}

#[test]
fn an_agent_that_begins_anew_counts_from_its_own_beginning() {
    let mut model = model();
    model.lose("the agent has stopped".to_owned());
    let Connection::Lost { at, .. } = model.connection.clone() else { panic!("connected") };
    model.lose("no agent answers".to_owned());
    assert!(matches!(&model.connection, Connection::Lost { at: still, .. } if *still == at));
    model.push(snapshot(1, 2));
    let shown = text(&mut model, SMALL);
    assert!(shown.contains("200/s") && shown.contains("200 transactions in 1s"), "{shown}");
    assert!(shown.contains("reconnected, counts begin at "), "{shown}");
}

#[test]
fn a_long_list_is_scrolled_to_its_end_and_no_further() {
    let mut model = model();
    let names: Vec<String> = (0..40).map(|number| format!("name-{number:02}.test")).collect();
    let items: Vec<(&str, u64)> =
        names.iter().zip((1..=40).rev()).map(|(n, c)| (&**n, c)).collect();
    let mut long = snapshot(4, 20);
    long.dns.names = list(&items);
    model.push(long);
    let shown = text(&mut model, SMALL);
    assert!(shown.contains("name-00.test") && shown.contains(" more "), "{shown}");
    press(&mut model, KeyCode::End.into());
    let shown = text(&mut model, SMALL);
    assert!(shown.contains("name-39.test") && !shown.contains(" more "), "{shown}");
    press(&mut model, KeyCode::Up.into());
    assert!(text(&mut model, SMALL).contains(" 1 more "));
}

#[test]
fn help_fits_the_smallest_terminal_and_any_key_closes_it() {
    let mut model = model();
    push_keys(&mut model, "?");
    let shown = text(&mut model, SMALL);
    assert!(shown.contains("quit") && shown.contains("since the start of the agent."), "{shown}");
    push_keys(&mut model, "x");
    assert!(!text(&mut model, SMALL).contains("any key closes"));
}

#[test]
fn without_colours_there_is_none() {
    let mut model = model();
    let is_colored = |buffer: &Buffer| {
        buffer.content.iter().any(|cell| {
            cell.fg != ratatui::style::Color::Reset || cell.bg != ratatui::style::Color::Reset
        })
    };
    assert!(is_colored(&render(&mut model, SMALL, true)));
    assert!(!is_colored(&render(&mut model, SMALL, false)));
}

#[test]
fn tiny_terminals_do_not_panic() {
    let mut model = model();
    for width in [1, 2, 3, 5, 10, 20, 39] {
        for height in [1, 2, 3, 4, 5, 8, 13] {
            render(&mut model, (width, height), true);
            push_keys(&mut model, "?");
            render(&mut model, (width, height), true);
            push_keys(&mut model, "x");
        }
    }
}

#[test]
fn plain_text_has_all_panels_and_no_line_is_too_wide() {
    let text = plain(&model(), 80, 2);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for panel in model().panels() {
        assert!(text.contains(&format!("\n{}\n", panel.title())), "{text}");
    }
    assert!(text.contains("(1 more)") && !text.contains('│'), "{text}");
    let row = text.lines().find(|line| line.starts_with("www.example.test")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        ["www.example.test", "600", "300", "60.0%"]
    );
}
