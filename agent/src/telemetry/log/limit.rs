//! A line that repeats is written [`BURST`] times, and then [`PER_S`] times a second; how many were
//! left out is said in one line, and counted. A disk that fills with the same line, or a log
//! pipeline that is charged by the line, costs more than what the thousandth one says.
//!
//! The same line is the same place in the code at the same level, whatever its fields: a flood
//! differs in an address or an id. (Crates that limit by content, `tracing-throttle` for one, let
//! such a flood pass, or keep a state for each of its lines.) Of libraries that log by the `log`
//! crate it is the module. Never limited is what is one line for each change: who asked for it
//! ([`AUDIT`]), and what it changed at which interface ([`CHANGE`]).

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

/// Lines at once: what a start or a reload on a large node may say of each of its interfaces.
const BURST: f64 = 100.0;

/// Lines a second after that.
const PER_S: f64 = 10.0;

/// Places that are kept in mind; those in the code are fewer.
const PLACES: usize = 4_096;

/// Target of the lines that say how many were left out.
pub const SUPPRESSED: &str = "suppressed";

/// Limits the lines of a layer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    places: Mutex<HashMap<Place, Bucket>>,
    is_over: AtomicBool,
    written: [AtomicU64; LEVELS.len()],
    suppressed: [AtomicU64; LEVELS.len()],
}

const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
const NAMES: [&str; LEVELS.len()] = ["error", "warn", "info", "debug", "trace"];

/// How many lines there were, by level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    pub(in crate::telemetry) written: [(&'static str, u64); LEVELS.len()],
    pub(in crate::telemetry) suppressed: [(&'static str, u64); LEVELS.len()],
}

/// Where a line comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// Of ours.
    Code(Identifier),
    /// Level and module of a library.
    Library(Level, String),
}

/// Lines of one place: so many may be written now.
#[derive(Debug)]
struct Bucket {
    lines: f64,
    at: Instant,
    level: Level,
    /// Left out since that was last told, and what the first of them said.
    suppressed: u64,
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
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::of(event);
        if places.len() >= PLACES && !places.contains_key(&place) {
            return true;
        }
        let level = *metadata.level();
        let bucket = places.entry(place).or_insert_with(|| Bucket {
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
            bucket.message = Said::of(event, "message");
        }
        bucket.suppressed += 1;
        false
    }

    fn count(&self, counters: &[AtomicU64; LEVELS.len()], level: Level) {
        if let Some(index) = LEVELS.iter().position(|other| *other == level) {
            counters[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says what was left out since the last time, a line for each place.
    pub(super) fn tell(&self) {
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<_> = places
            .values_mut()
            .filter(|bucket| bucket.suppressed > 0)
            .map(|bucket| {
                let lines = std::mem::take(&mut bucket.suppressed);
                (lines, bucket.level, std::mem::take(&mut bucket.message))
            })
            .collect();
        // Telling takes the lock.
        drop(places);
        for (lines, level, message) in told {
            tracing::warn!(target: SUPPRESSED, lines, of_level = %level, said = message, "lines that repeat were left out");
        }
    }

    pub(super) fn end(&self) {
        self.tell();
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

impl Place {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        // What comes by the `log` crate has one place for each level, and its module in a field.
        if metadata.target() == "log" {
            return Self::Library(*metadata.level(), Said::of(event, "log.target"));
        }
        Self::Code(metadata.callsite())
    }
}

/// The text of one field.
struct Said {
    field: &'static str,
    text: String,
}

impl Said {
    fn of(event: &Event<'_>, field: &'static str) -> String {
        let mut said = Self { field, text: String::new() };
        event.record(&mut said);
        said.text
    }
}

impl Visit for Said {
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
