//! A sink that blocks until the test opens its gate.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{super::wait_budget::WAIT, *};
use tap53_records::encode::{Datum, samples};

/// A sink that writes while its gate is open.
#[derive(Default)]
struct GatedSink {
    counts: Published<SinkCounts>,
    open: Mutex<bool>,
    opened: Condvar,
    linger: Duration,
    /// Records of each batch.
    written: Mutex<Vec<u64>>,
    ticked: AtomicBool,
}

impl GatedSink {
    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        self.opened.wait_while(&mut self.open.lock(), |open| !*open);
    }
}

impl Sink for Arc<GatedSink> {
    fn format(&self) -> Format {
        Format::AvroDatum
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn linger(&self) -> Duration {
        self.linger
    }

    fn write(&self, batch: &Batch) {
        self.pass();
        self.written.lock().push(batch.records());
        // In flight until the end, like records in a file that is not finished.
        self.counts.update(|counts| {
            counts.offer(amount(batch));
            counts.in_flight += amount(batch);
        });
    }

    fn tick(&self, _now: Instant) {
        self.pass();
        self.ticked.store(true, Ordering::Relaxed);
    }

    fn close(&self, _deadline: Duration) {
        self.pass();
        self.counts.update(|counts| {
            counts.delivered += std::mem::take(&mut counts.in_flight);
        });
    }
}

fn queued() -> (Arc<GatedSink>, QueuedSink) {
    queued_with(Duration::ZERO)
}

fn queued_with(linger: Duration) -> (Arc<GatedSink>, QueuedSink) {
    let gated = Arc::new(GatedSink { linger, ..GatedSink::default() });
    let queued = QueuedSink::start("gated", Box::new(gated.clone()), &Arc::default()).unwrap();
    (gated, queued)
}

fn batch(records: usize) -> Batch {
    let (mut batch, mut datum) = (Batch::default(), Datum::default());
    for _ in 0..records {
        samples::with_record("matched", |record| batch.push(&mut datum, record).unwrap());
    }
    batch
}

/// Writes a batch like a worker; returns how long that took.
fn hand_over(queued: &QueuedSink, batch: &Batch) -> Duration {
    queued.counts().update(|counts| counts.in_batches += amount(batch));
    let began = Instant::now();
    queued.write(batch);
    began.elapsed()
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// Checks that each record is counted once.
#[track_caller]
fn adds_up(counts: &SinkCounts, handed_over: Amount) {
    let mut sum = counts.in_batches;
    sum += counts.offered;
    assert_eq!(sum, handed_over, "{counts:?}");
    let mut taken = counts.delivered;
    taken += counts.in_flight;
    counts.lost.iter().for_each(|lost| taken += *lost);
    assert_eq!(taken, counts.offered, "{counts:?}");
}

/// Longer than a test takes.
const NEVER: Duration = Duration::from_secs(3_600);

#[test]
fn a_sink_that_lingers_writes_the_first_batch_at_once_and_joins_the_next_ones() {
    let (gated, queued) = queued_with(NEVER);
    gated.open();
    hand_over(&queued, &batch(1));
    until(|| *gated.written.lock() == [1]);
    for records in [2, 3] {
        hand_over(&queued, &batch(records));
    }
    queued.close(NEVER);
    assert_eq!(*gated.written.lock(), [1, 5]);
}

#[test]
fn enough_records_end_a_linger() {
    let (gated, queued) = queued_with(NEVER);
    gated.open();
    hand_over(&queued, &batch(1));
    until(|| *gated.written.lock() == [1]);
    let enough = 1 + ENOUGH_BYTES / batch(1).bytes().len();
    hand_over(&queued, &batch(enough));
    until(|| *gated.written.lock() == [1, enough as u64]);
}

#[test]
fn a_linger_ends() {
    let (gated, queued) = queued_with(Duration::from_millis(5));
    gated.open();
    for written in 1..=3 {
        hand_over(&queued, &batch(1));
        until(|| gated.written.lock().len() == written);
    }
}

#[test]
fn what_does_not_fit_is_lost_and_counted_and_the_rest_arrives() {
    let (gated, queued) = queued();
    let large = batch(1 + CHUNK_BYTES / batch(1).bytes().len());
    let mut handed_over = Amount::default();
    let mut waited = Duration::ZERO;
    const BATCHES: u64 = 40;
    for _ in 0..BATCHES {
        waited += hand_over(&queued, &large);
        handed_over += amount(&large);
        adds_up(&queued.counts().read(), handed_over);
    }
    // One wait, and none for nine times as long.
    assert!(waited >= WAIT && waited < WAIT * 10, "{waited:?}");
    let counts = queued.counts().read();
    let lost = counts.lost[SinkLoss::QueueFull as usize];
    // The thread may have taken one from the queue.
    let kept = BATCHES - lost.records / large.records();
    assert!((CHUNKS as u64..=CHUNKS as u64 + 1).contains(&kept), "{kept}");
    gated.open();
    until(|| queued.counts().read().in_batches == Amount::default());
    adds_up(&queued.counts().read(), handed_over);
    queued.close(Duration::from_secs(20));
    let counts = queued.counts().read();
    adds_up(&counts, handed_over);
    assert_eq!(counts.delivered.records, kept * large.records());
    assert_eq!(counts.lost[SinkLoss::QueueFull as usize], lost);
    // Records after the shutdown are lost and counted.
    hand_over(&queued, &batch(1));
    assert_eq!(queued.counts().read().lost[SinkLoss::Unflushed as usize].records, 1);
}

#[test]
fn a_sink_that_is_held_up_at_the_end_is_left_behind_and_its_counts_stand_still() {
    let (gated, queued) = queued();
    gated.open();
    hand_over(&queued, &batch(5));
    until(|| queued.counts().read().in_flight.records == 5);
    *gated.open.lock() = false;
    let mut handed_over = amount(&batch(5));
    for _ in 0..3 {
        hand_over(&queued, &batch(2));
        handed_over += amount(&batch(2));
    }
    queued.close(Duration::from_millis(20));
    let counts = queued.counts().read();
    adds_up(&counts, handed_over);
    assert_eq!(counts.lost[SinkLoss::Unflushed as usize].records, 11);
    assert_eq!((counts.in_flight, counts.in_batches), Default::default());
    gated.open();
    until(|| gated.written.lock().len() >= 2);
    assert_eq!(queued.counts().read(), counts);
}

#[test]
fn small_batches_are_joined_and_buffers_used_again() {
    let (gated, queued) = queued();
    // The thread blocks on the first.
    hand_over(&queued, &batch(1));
    until(|| queued.shared.queue.lock().chunks.is_empty());
    for _ in 0..100 {
        hand_over(&queued, &batch(1));
    }
    assert_eq!(queued.shared.queue.lock().chunks.len(), 1);
    gated.open();
    until(|| queued.counts().read().in_flight.records == 101);
    assert_eq!(*gated.written.lock(), [1, 100]);
    until(|| queued.shared.queue.lock().spare.len() == 2);
    hand_over(&queued, &batch(1));
    until(|| queued.counts().read().in_flight.records == 102);
    until(|| queued.shared.queue.lock().spare.len() == 2);
}

#[test]
fn what_others_count_meanwhile_stays() {
    let (gated, queued) = queued();
    // A worker that could not encode a record.
    let failed = Amount::record(2);
    queued.counts().update(|counts| {
        counts.in_batches += failed;
        counts.offer(failed);
        counts.lose(SinkLoss::EncodeFailed, failed);
    });
    gated.open();
    hand_over(&queued, &batch(3));
    queued.close(Duration::from_secs(20));
    let counts = queued.counts().read();
    assert_eq!((counts.delivered.records, counts.offered.records), (3, 4));
    assert_eq!(counts.lost[SinkLoss::EncodeFailed as usize], failed);
}

#[test]
fn a_tick_waits_for_nobody() {
    let (gated, queued) = queued();
    hand_over(&queued, &batch(1));
    // Like the run loop, which would wait permanently.
    queued.tick(Instant::now());
    assert!(!gated.ticked.load(Ordering::Relaxed));
    gated.open();
    until(|| gated.ticked.load(Ordering::Relaxed));
}

/// Panics at the first batch.
#[derive(Default)]
struct PanickingSink(Published<SinkCounts>);

impl Sink for PanickingSink {
    fn format(&self) -> Format {
        Format::AvroDatum
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.0
    }

    fn write(&self, _batch: &Batch) {
        panic!("a defect of the sink, for the test");
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

#[test]
fn a_sink_that_panics_stops_the_agent_and_its_records_are_counted() {
    let stop = Arc::new(Notify::new());
    let sink = Box::<PanickingSink>::default();
    let queued = QueuedSink::start("panicking", sink, &stop).unwrap();
    hand_over(&queued, &batch(3));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let notified = async { tokio::time::timeout(Duration::from_secs(20), stop.notified()).await };
    runtime.block_on(notified).unwrap();
    hand_over(&queued, &batch(2));
    queued.close(Duration::ZERO);
    let counts = queued.counts().read();
    assert_eq!(counts.lost[SinkLoss::Unflushed as usize].records, 5);
    assert_eq!((counts.offered.records, counts.in_batches), (5, Amount::default()));
}
