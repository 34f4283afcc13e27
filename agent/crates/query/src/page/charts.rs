//! Pictures of the timeline, as SVG.

use std::fmt::Write as _;

use super::timeline::{Bucket, CATEGORIES, FIRST_OCTAVE, OCTAVES, Timeline};
use crate::{format::humane_duration, report::Cell};

/// Number of columns of a picture.
const COLUMNS: usize = 96;

/// Size of a column, and of the picture, in its own units: it is stretched to the width of the page, and its
/// labels are not.
const COLUMN_WIDTH: usize = 9;
const WIDTH: usize = COLUMNS * COLUMN_WIDTH;
const HEIGHT: usize = 176;

/// Returns bars of the numbers of transactions, by what became of them.
pub(super) fn bars(timeline: &Timeline) -> String {
    let (columns, width_us) = timeline.columns::<COLUMNS>();
    let total = |column: &Bucket| column.categories.iter().sum::<u64>();
    let Some(most) = columns.iter().map(total).max().filter(|most| *most > 0) else {
        return "<p>No records.</p>".to_owned();
    };
    let mut svg = begin("Bars of the numbers of transactions over time, by response code");
    for (number, column) in columns.iter().enumerate() {
        let mut below = 0;
        for (category, count) in column.categories.iter().enumerate() {
            let low = height_of(below, most);
            below += count;
            let high = height_of(below, most);
            if *count == 0 {
                continue;
            }
            let _ = write!(
                svg,
                "<rect class=\"c{category}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}: {count} {}</title></rect>",
                number * COLUMN_WIDTH,
                HEIGHT - high,
                COLUMN_WIDTH - 1,
                // Also few are visible.
                (high - low).max(1),
                start_of(timeline, number, width_us),
                CATEGORIES[category]
            );
        }
    }
    let labels = [(0, most.to_string()), (HEIGHT, "0".to_owned())];
    end(&mut svg, timeline, labels);
    legend(&mut svg, width_us);
    svg
}

/// Returns a map of the numbers of responses by time and latency.
pub(super) fn heat_map(timeline: &Timeline) -> String {
    let (columns, width_us) = timeline.columns::<COLUMNS>();
    let counts = columns.iter().flat_map(|column| column.latencies);
    let Some(most) = counts.max().filter(|most| *most > 0) else {
        return "<p>No record has a latency.</p>".to_owned();
    };
    let row_height = HEIGHT / OCTAVES;
    let mut svg = begin("Map of the numbers of responses by time and latency");
    for (number, column) in columns.iter().enumerate() {
        for (octave, count) in column.latencies.iter().enumerate().filter(|(_, it)| **it > 0) {
            let _ = write!(
                svg,
                "<rect class=\"heat\" x=\"{}\" y=\"{}\" width=\"{COLUMN_WIDTH}\" height=\"{row_height}\" fill-opacity=\"{:.2}\"><title>{}: {count} from {}</title></rect>",
                number * COLUMN_WIDTH,
                (OCTAVES - 1 - octave) * row_height,
                opacity(*count, most),
                start_of(timeline, number, width_us),
                lower_bound(octave)
            );
        }
    }
    let octaves = (0..OCTAVES).step_by(5);
    let labels = octaves.map(|octave| ((OCTAVES - octave) * row_height, lower_bound(octave)));
    end(&mut svg, timeline, labels);
    svg
}

/// Returns the lowest latency of a row.
fn lower_bound(octave: usize) -> String {
    match octave {
        0 => "0".to_owned(),
        octave => humane_duration(1 << (octave + FIRST_OCTAVE as usize)),
    }
}

/// Returns the height of a number, in pixels.
fn height_of(count: u64, most: u64) -> usize {
    let height = u128::from(count) * HEIGHT as u128 / u128::from(most.max(1));
    usize::try_from(height).unwrap_or(HEIGHT)
}

/// Returns the opacity of a number: by its logarithm, since few slow responses matter as well.
#[allow(clippy::cast_precision_loss)]
fn opacity(count: u64, most: u64) -> f64 {
    0.15 + 0.85 * (count as f64).ln_1p() / (most as f64).ln_1p()
}

/// Returns the time at which a column starts.
fn start_of(timeline: &Timeline, column: usize, width_us: i64) -> String {
    let (first, _) = timeline.bounds().unwrap_or_default();
    let column = i64::try_from(column).unwrap_or(0);
    Cell::Time(first.saturating_add(column.saturating_mul(width_us))).shown()
}

fn begin(title: &str) -> String {
    format!(
        "<div class=\"chart\"><svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}\"><rect class=\"plot\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
    )
}

/// Ends a picture with labels of heights, and the times at its ends.
fn end(html: &mut String, timeline: &Timeline, labels: impl IntoIterator<Item = (usize, String)>) {
    html.push_str("</svg>");
    for (y, text) in labels {
        let top = y * 100 / HEIGHT;
        let _ = write!(html, "<span style=\"top:{top}%\">{text}</span>");
    }
    let (first, last) = timeline.bounds().unwrap_or_default();
    let (first, last) = (Cell::Time(first).shown(), Cell::Time(last).shown());
    let _ = write!(html, "</div><p class=\"ends\"><span>{first}</span><span>{last}</span></p>");
}

fn legend(html: &mut String, width_us: i64) {
    html.push_str("<p class=\"legend\">");
    for (category, name) in CATEGORIES.iter().enumerate() {
        let _ = write!(html, "<span><i class=\"c{category}\"></i>{name}</span>");
    }
    let width = humane_duration(width_us.saturating_mul(1_000));
    let _ = write!(html, "<span>{width} each</span></p>");
}
