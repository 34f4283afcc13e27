//! Draws the model: a header, panels, and a line of help.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color as Hue, Modifier, Style},
    text::{Line, Span},
    widgets::{self, Block, Borders, Clear, Paragraph},
};
use tap53_base::visible::visible;

use super::{
    super::table::Color,
    model::{Connection, Mode, Model, quantile},
    panel::{Cell, Column, Panel, Table},
    units,
};

/// Size from which on all panels are shown together.
const ROOMY: (u16, u16) = (150, 36);

/// Width of a panel below which wide columns are left out.
const NARROW: u16 = 50;

/// Spaces between columns.
const SPACING: u16 = 1;

/// Colours, or only attributes where colours are not wanted (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    pub(super) colored: bool,
}

impl Palette {
    fn style(self, color: Color) -> Style {
        let style = Style::new();
        match (color, self.colored) {
            (Color::Plain, _) => style,
            (Color::Heading, _) | (Color::Bad, false) => style.add_modifier(Modifier::BOLD),
            (_, false) => style,
            (Color::Good, true) => style.fg(Hue::Green),
            (Color::Notable, true) => style.fg(Hue::Yellow),
            (Color::Bad, true) => style.fg(Hue::Red),
        }
    }

    fn border(self, is_chosen: bool) -> Style {
        match (is_chosen, self.colored) {
            (true, true) => Style::new().fg(Hue::Cyan),
            (true, false) => Style::new().add_modifier(Modifier::BOLD),
            (false, true) => Style::new().fg(Hue::DarkGray),
            (false, false) => Style::new(),
        }
    }
}

/// Draws the model, and keeps its scroll position within the chosen panel.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, palette: Palette) {
    let area = frame.area();
    let header = header(model, area.width, palette);
    let height = u16::try_from(header.len()).unwrap_or(u16::MAX);
    let [top, body, bottom] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(0), Constraint::Length(1)])
            .areas(area);
    frame.render_widget(Paragraph::new(header), top);
    for (panel, area) in arrange(model, body) {
        draw_panel(frame, model, palette, (panel, area));
    }
    frame.render_widget(Paragraph::new(bottom_line(model, bottom.width)), bottom);
    if model.mode == Mode::Help {
        draw_help(frame, body, palette);
    }
}

/// Returns the place of each panel that is shown.
fn arrange(model: &Model, area: Rect) -> Vec<(Panel, Rect)> {
    if model.is_zoomed {
        return vec![(model.focus, area)];
    }
    if area.width >= ROOMY.0 && area.height >= ROOMY.1 {
        return arrange_all(model, area);
    }
    const BESIDE: [Panel; 4] = [Panel::Rcodes, Panel::Latency, Panel::Qtypes, Panel::Workloads];
    let beside: Vec<Panel> =
        BESIDE.into_iter().filter(|panel| *panel != model.focus).take(3).collect();
    // Rows of the small panels: a border and a heading above, a border below.
    let height = (area.height * 2 / 5).min(12);
    let [main, small] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(height)]).areas(area);
    let places = Layout::horizontal([Constraint::Fill(1); 3]).split(small);
    let mut all = vec![(model.focus, main)];
    all.extend(beside.into_iter().zip(places.iter().copied()));
    all
}

/// Returns the places of all panels: three columns.
fn arrange_all(model: &Model, area: Rect) -> Vec<(Panel, Rect)> {
    let columns: [&[Panel]; 3] = [
        &[Panel::Names, Panel::NxdomainNames, Panel::Clients],
        &[Panel::Workloads, Panel::Servers, Panel::Sinks, Panel::Losses],
        &[Panel::Rcodes, Panel::Qtypes, Panel::Latency, Panel::Signals],
    ];
    let widths = [Constraint::Fill(7), Constraint::Fill(8), Constraint::Fill(4)];
    let places = Layout::horizontal(widths).split(area);
    let shown = model.panels();
    let mut all = Vec::new();
    for (panels, place) in columns.into_iter().zip(places.iter()) {
        let panels: Vec<Panel> = panels.iter().copied().filter(|it| shown.contains(it)).collect();
        let heights = panels.iter().map(|panel| Constraint::Fill(panel.weight()));
        let heights = Layout::vertical(heights).split(*place);
        all.extend(panels.into_iter().zip(heights.iter().copied()));
    }
    all
}

/// Returns the lines above the panels: facts, as many on a line as fit.
fn header(model: &Model, width: u16, palette: Palette) -> Vec<Line<'static>> {
    let groups = [agent_facts(model), dns_facts(model), problem_facts(model)];
    groups.into_iter().flat_map(|facts| flow(facts, usize::from(width), palette)).collect()
}

/// A fact of the header, in a colour.
type Fact = (Color, String);

/// Distributes facts over lines, so that none is cut.
fn flow(facts: Vec<Fact>, width: usize, palette: Palette) -> Vec<Line<'static>> {
    const GAP: &str = "  ";
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (color, text) in facts {
        let span = Span::styled(units::elide(&text, width), palette.style(color));
        match lines.last_mut() {
            Some(line) if line.width() + GAP.len() + span.width() <= width => {
                line.push_span(Span::raw(GAP));
                line.push_span(span);
            }
            _ => lines.push(Line::from(span)),
        }
    }
    lines
}

fn agent_facts(model: &Model) -> Vec<Fact> {
    let agent = &model.shown().now.agent;
    let plain = |text: String| (Color::Plain, text);
    let mut facts = vec![
        (Color::Heading, "tap53 top".to_owned()),
        plain(visible(&agent.node).into_owned()),
        plain(format!("up {}", units::duration(agent.uptime_s))),
        health_fact(model),
        plain(format!("every {}", units::nanoseconds(model.interval_ms * 1_000_000))),
    ];
    if !model.selection.is_empty() {
        facts.push((Color::Notable, format!("only {}", model.selection)));
    }
    if model.is_paused() {
        facts.push((Color::Notable, "PAUSED".to_owned()));
    }
    match &model.connection {
        Connection::Connected => {}
        Connection::Lost { at, why } => {
            let text = format!("no agent since {at}, reconnecting: {}", visible(why));
            facts.push((Color::Bad, text));
        }
        Connection::Again { at } => {
            facts.push((Color::Notable, format!("reconnected, counts begin at {at}")));
        }
    }
    facts
}

fn health_fact(model: &Model) -> Fact {
    let health = &model.shown().now.agent.health;
    let reasons = |reasons: &[String]| visible(&reasons.join("; ")).into_owned();
    match health {
        it if !it.live.ok => (Color::Bad, format!("not alive: {}", reasons(&it.live.reasons))),
        it if !it.ready.ok => (Color::Bad, format!("not ready: {}", reasons(&it.ready.reasons))),
        _ => (Color::Good, "ready".to_owned()),
    }
}

/// Returns facts about all transactions; latencies are those since the last snapshot.
fn dns_facts(model: &Model) -> Vec<Fact> {
    let readings = model.shown();
    let (now, before) = (&readings.now, &readings.before);
    let latency = readings.latency();
    let elapsed = units::duration(now.dns.elapsed_ms / 1_000);
    let transactions = readings.per_second(now.dns.transactions, before.dns.transactions);
    let packets = readings.per_second(now.packets.captured, before.packets.captured);
    let facts = [
        format!("{} transactions in {elapsed}", units::count(now.dns.transactions)),
        format!("{}/s", units::rate(transactions)),
        format!("p50 {}", quantile(&latency, 50)),
        format!("p95 {}", quantile(&latency, 95)),
        format!("packets {}/s", units::rate(packets)),
    ];
    facts.map(|fact| (Color::Plain, fact)).to_vec()
}

/// Returns facts about what goes wrong: shares since the last snapshot, losses, and sinks that fail.
fn problem_facts(model: &Model) -> Vec<Fact> {
    let readings = model.shown();
    let fresh = readings.change(|dns| dns.transactions);
    let code = |name: &str| {
        readings.change(|dns| dns.rcodes.iter().find(|it| it.name == name).map_or(0, |it| it.count))
    };
    let shares = [
        ("NXDOMAIN", code("NXDOMAIN"), Color::Notable),
        ("SERVFAIL", code("SERVFAIL"), Color::Bad),
        ("unanswered", readings.change(|dns| dns.unanswered), Color::Bad),
    ];
    let share = |(name, count, color)| {
        let color = if count > 0 { color } else { Color::Plain };
        (color, format!("{name} {}", units::share(count, fresh)))
    };
    let mut facts: Vec<Fact> = shares.into_iter().map(share).collect();
    facts.push(lost(model));
    facts.extend(sink_facts(model));
    facts
}

fn sink_facts(model: &Model) -> Vec<Fact> {
    let sinks = &model.shown().now.agent.health.sinks;
    let failing = sinks.iter().filter(|sink| !sink.condition.ok);
    let fact = |name: &str| (Color::Bad, format!("sink {} failing", visible(name)));
    let facts: Vec<Fact> = failing.map(|sink| fact(&sink.name)).collect();
    match facts.is_empty() {
        true => vec![(Color::Good, "sinks ok".to_owned())],
        false => facts,
    }
}

/// Returns what was lost, as a sum for each unit.
fn lost(model: &Model) -> Fact {
    let mut sums = std::collections::BTreeMap::<&str, u64>::new();
    for loss in &model.shown().now.losses {
        *sums.entry(&*loss.unit).or_default() += loss.count;
    }
    if sums.is_empty() {
        return (Color::Good, "lost nothing".to_owned());
    }
    let sums =
        sums.iter().map(|(unit, count)| format!("{} {}", units::short(*count), visible(unit)));
    (Color::Bad, format!("lost {}", sums.collect::<Vec<_>>().join(", ")))
}

fn draw_panel(
    frame: &mut Frame<'_>,
    model: &mut Model,
    palette: Palette,
    (panel, area): (Panel, Rect),
) {
    let table = panel.table(model);
    let is_chosen = panel == model.focus;
    let block = Block::bordered()
        .border_style(palette.border(is_chosen))
        .title(title(model, panel, &table));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    if table.rows.is_empty() {
        frame.render_widget(Paragraph::new(table.empty), inner);
        return;
    }
    let shown = usize::from(inner.height.saturating_sub(1));
    let last = table.rows.len().saturating_sub(shown);
    let offset = if is_chosen { model.scroll.min(last) } else { 0 };
    if is_chosen {
        model.scroll = offset;
    }
    let sort = (panel.sort_columns() > 0).then(|| model.sort(panel));
    let widget = Sized::new(&table, inner.width).widget(palette, sort, offset, shown);
    frame.render_widget(widget, inner);
    let below = last - offset;
    if is_chosen && below > 0 && area.height > 2 {
        let text = format!(" {below} more ");
        let place = Rect { y: area.bottom() - 1, height: 1, x: area.x + 1, width: area.width - 2 };
        frame.render_widget(Paragraph::new(text).alignment(Alignment::Right), place);
    }
}

fn title(model: &Model, panel: Panel, table: &Table) -> Line<'static> {
    let mut spans = vec![Span::raw(" "), Span::raw(panel.title()), Span::raw(" ")];
    if panel.is_filtered() && !model.filter.is_empty() {
        let text = format!("/{} hides {} ", visible(&model.filter), table.hidden);
        spans.push(Span::styled(text, Style::new().add_modifier(Modifier::REVERSED)));
    }
    Line::from(spans)
}

/// A table whose columns have their widths.
struct Sized<'a> {
    table: &'a Table,
    /// Position and width of each column that is shown.
    columns: Vec<(usize, &'a Column, u16)>,
}

impl<'a> Sized<'a> {
    fn new(table: &'a Table, width: u16) -> Self {
        let fits = |column: &&Column| !column.is_wide || width >= NARROW;
        let shown = table.columns.iter().enumerate().filter(|(_, column)| fits(column));
        let shown: Vec<_> = shown.collect();
        let fixed: u16 = shown.iter().map(|(_, column)| column.width + SPACING).sum();
        let rest = (width + SPACING).saturating_sub(fixed);
        let width_of = |column: &Column| if column.width == 0 { rest } else { column.width };
        let columns = shown.into_iter().map(|(at, column)| (at, column, width_of(column)));
        Self { table, columns: columns.collect() }
    }

    fn widget(
        &self,
        palette: Palette,
        sort: Option<usize>,
        offset: usize,
        count: usize,
    ) -> widgets::Table<'static> {
        let header = self.columns.iter().map(|(at, column, width)| {
            let mark = if sort == Some(*at) { "▾" } else { "" };
            line(column.is_text, *width, &format!("{mark}{}", heading(*at, column)))
        });
        let rows = self.table.rows.iter().skip(offset).take(count).map(|row| {
            let cells = self.columns.iter().filter_map(|(at, column, width)| {
                let cell = row.get(*at)?;
                Some(
                    line(column.is_text, *width, &text(cell, *width))
                        .style(palette.style(cell.color)),
                )
            });
            widgets::Row::new(cells.collect::<Vec<_>>())
        });
        let widths = self.columns.iter().map(|(_, _, width)| Constraint::Length(*width));
        widgets::Table::new(rows.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
            .header(
                widgets::Row::new(header.collect::<Vec<_>>()).style(palette.style(Color::Heading)),
            )
            .column_spacing(SPACING)
    }
}

/// Returns the heading of a column; the first one without a title has names.
fn heading(at: usize, column: &Column) -> &'static str {
    match column.title {
        "" if at == 0 => "NAME",
        title => title,
    }
}

/// Returns a cell: names at the left, numbers at the right.
fn line(is_left: bool, width: u16, text: &str) -> Line<'static> {
    let line = Line::from(units::elide(text, usize::from(width)));
    if is_left { line } else { line.alignment(Alignment::Right) }
}

fn text(cell: &Cell, width: u16) -> String {
    match cell.bar {
        None => cell.text.clone(),
        Some(part) => bar(part, width),
    }
}

/// Returns a bar; what is more than nothing has at least an eighth of a character.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the part is at most 1"
)]
fn bar(part: f64, width: u16) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part.clamp(0.0, 1.0) * f64::from(width) * 8.0).ceil() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

fn bottom_line(model: &Model, width: u16) -> Line<'static> {
    if model.mode == Mode::Filter {
        return Line::from(format!("filter: {}█  Enter keep  Esc cancel", visible(&model.filter)));
    }
    let keys = [
        ("q", "quit"),
        ("?", "help"),
        ("Tab", "panel"),
        ("↑↓", "scroll"),
        ("Enter", "zoom"),
        ("s", "sort"),
        ("/", "filter"),
        ("p", "pause"),
        ("+-", "interval"),
    ];
    let mut line = Line::default();
    for (key, meaning) in keys {
        let gap = if line.spans.is_empty() { "" } else { " " };
        let key = Span::styled(key, Style::new().add_modifier(Modifier::REVERSED));
        let spans = [Span::raw(gap), key, Span::raw(format!(" {meaning}"))];
        let more: usize = spans.iter().map(Span::width).sum();
        if line.width() + more <= usize::from(width) {
            spans.into_iter().for_each(|span| line.push_span(span));
        }
    }
    line
}

const HELP: &[&str] = &[
    "Tab, → / Shift-Tab, ←  next / previous panel",
    "↑ ↓ PgUp PgDn Home End scroll in the panel",
    "Enter                  the panel alone, and back",
    "s                      sort by the next column",
    "/                      filter names, workloads, addresses; Esc clears",
    "p                      pause, and go on",
    "+ -                    longer, shorter interval",
    "q, Ctrl-C              quit",
    "",
    "COUNT: since this view began. /S, and shares in the header:",
    "since the last interval. ~: at most the shown number; the list",
    "has no room for every name. NXDOM, ERROR, UNANS: shares of COUNT.",
    "Losses and sinks: since the start of the agent.",
];

fn draw_help(frame: &mut Frame<'_>, area: Rect, palette: Palette) {
    let width = HELP.iter().map(|line| line.chars().count()).max().unwrap_or(0) + 4;
    let width = u16::try_from(width).unwrap_or(area.width).min(area.width);
    let height = u16::try_from(HELP.len() + 2).unwrap_or(area.height).min(area.height);
    let [place] = Layout::horizontal([Constraint::Length(width)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let [place] = Layout::vertical([Constraint::Length(height)])
        .flex(ratatui::layout::Flex::Center)
        .areas(place);
    let block = Block::bordered()
        .borders(Borders::ALL)
        .border_style(palette.border(true))
        .title(" Help: any key closes ");
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

/// Returns one frame as plain text: the header, and each panel with a row for all that it has, up to
/// `rows`.
pub(super) fn plain(model: &Model, width: u16, rows: usize) -> String {
    let palette = Palette { colored: false };
    let mut text: String =
        header(model, width, palette).iter().map(|line| format!("{line}\n")).collect();
    for panel in model.panels() {
        let table = panel.table(model);
        text.push_str(&format!("\n{}\n", panel.title()));
        match table.rows.is_empty() {
            true => text.push_str(&format!("  {}\n", table.empty)),
            false => text.push_str(&plain_table(&table, width, rows)),
        }
    }
    text
}

fn plain_table(table: &Table, width: u16, rows: usize) -> String {
    let sized = Sized::new(table, width);
    let write = |cell: &dyn Fn(usize, &Column, u16) -> String| {
        let cells = sized.columns.iter().map(|(at, column, width)| {
            let text = units::elide(&cell(*at, column, *width), usize::from(*width));
            let width = usize::from(*width);
            if column.is_text { format!("{text:<width$}") } else { format!("{text:>width$}") }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join(" ").trim_end())
    };
    let mut out = write(&|at, column, _| heading(at, column).to_owned());
    for row in table.rows.iter().take(rows) {
        out.push_str(&write(&|at, _, width| {
            row.get(at).map_or_else(String::new, |it| text(it, width))
        }));
    }
    if table.rows.len() > rows {
        out.push_str(&format!("({} more)\n", table.rows.len() - rows));
    }
    out
}
