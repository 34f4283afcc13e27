//! Limits the rate of repeated log lines: [`BURST`] of them are written, and then [`PER_S`] a second.
//! The lines that are suppressed are counted, and reported in one line. A disk that fills with the
//! same line, or a log pipeline that is charged by the line, costs more than the thousandth line is
//! worth.
//!
//! Lines are the same if they come from the same place in the code, whatever their fields: the lines
//! of a flood differ in an address or an id. (Crates that limit by content, such as
//! `tracing-throttle`, let such a flood pass, or keep a state for each of its lines.) For libraries
//! that use the `log` crate, the place is the module. Lines about a change are never limited: the
//! request for it ([`AUDIT`]) and its effect on an interface ([`CHANGE`]).

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tap53_base::vitals::AUDIT;
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

use super::CHANGE;

/// Lines at once: a start or a reload on a large node may log one for each of its interfaces.
const BURST: f64 = 100.0;

/// Lines a second after that.
const PER_S: f64 = 10.0;

/// Maximum number of sources that are limited; the code has fewer.
const MAX_SOURCES: usize = 4_096;

/// Target of the lines that report suppressed ones.
pub const SUPPRESSED: &str = "suppressed";

/// Limits the lines of a layer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    sources: Mutex<HashMap<Source, Bucket>>,
    is_over: AtomicBool,
    written: [AtomicU64; LEVELS.len()],
    suppressed: [AtomicU64; LEVELS.len()],
}

const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
const NAMES: [&str; LEVELS.len()] = ["error", "warn", "info", "debug", "trace"];

/// Numbers of lines, by level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    pub(in crate::telemetry) written: [(&'static str, u64); LEVELS.len()],
    pub(in crate::telemetry) suppressed: [(&'static str, u64); LEVELS.len()],
}

/// The source of a line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// Place in the code of a crate that uses `tracing`.
    Code(Identifier),
    /// Level and module of a library.
    Library(Level, String),
}

/// Token bucket of the lines of one source.
#[derive(Debug)]
struct Bucket {
    lines: f64,
    at: Instant,
    level: Level,
    /// Lines suppressed since the last report.
    suppressed: u64,
    /// Message of the first of them.
    message: String,
}

impl Limit {
    fn allows(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if matches!(metadata.target(), AUDIT | CHANGE | SUPPRESSED)
            || self.0.is_over.load(Ordering::Relaxed)
        {
            return true;
        }
        let mut sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = Source::of(event);
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&source) {
            return true;
        }
        let level = *metadata.level();
        let bucket = sources.entry(source).or_insert_with(|| Bucket {
            lines: BURST,
            at: now,
            level,
            suppressed: 0,
            message: String::new(),
        });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.lines = passed.mul_add(PER_S, bucket.lines).min(BURST);
        bucket.at = now;
        if bucket.lines >= 1.0 {
            bucket.lines -= 1.0;
            return true;
        }
        if bucket.suppressed == 0 {
            bucket.message = FieldText::of(event, "message");
        }
        bucket.suppressed += 1;
        false
    }

    fn count(&self, counters: &[AtomicU64; LEVELS.len()], level: Level) {
        if let Some(index) = LEVELS.iter().position(|other| *other == level) {
            counters[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs how many lines were suppressed since the last call, one line for each source.
    pub(super) fn report(&self) {
        let mut sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed: Vec<_> = sources
            .values_mut()
            .filter(|bucket| bucket.suppressed > 0)
            .map(|bucket| {
                let lines = std::mem::take(&mut bucket.suppressed);
                (lines, bucket.level, std::mem::take(&mut bucket.message))
            })
            .collect();
        // Logging takes the lock.
        drop(sources);
        for (lines, level, message) in suppressed {
            tracing::warn!(
                target: SUPPRESSED,
                event = "log_lines_suppressed",
                lines,
                of_level = %level,
                first_message = message,
                "repeated log lines suppressed"
            );
        }
    }

    pub(super) fn end(&self) {
        self.report();
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn lines(&self) -> Lines {
        let read = |counters: &[AtomicU64; LEVELS.len()]| {
            std::array::from_fn(|index| (NAMES[index], counters[index].load(Ordering::Relaxed)))
        };
        Lines { written: read(&self.0.written), suppressed: read(&self.0.suppressed) }
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let is_allowed = self.allows(event, Instant::now());
        let counters = if is_allowed { &self.0.written } else { &self.0.suppressed };
        self.count(counters, *event.metadata().level());
        is_allowed
    }
}

impl Source {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        // Lines of the `log` crate have one callsite for each level, and their module in a field.
        if metadata.target() == "log" {
            return Self::Library(*metadata.level(), FieldText::of(event, "log.target"));
        }
        Self::Code(metadata.callsite())
    }
}

/// The text of one field.
struct FieldText {
    field: &'static str,
    text: String,
}

impl FieldText {
    fn of(event: &Event<'_>, field: &'static str) -> String {
        let mut found = Self { field, text: String::new() };
        event.record(&mut found);
        found.text
    }
}

impl Visit for FieldText {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.field {
            value.clone_into(&mut self.text);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.field {
            self.text = format!("{value:?}");
        }
    }
}
