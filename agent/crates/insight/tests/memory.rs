//! The memory of the metrics is bounded, and counting allocates nothing once a series exists.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use tap53_insight::{DnsCounter, DnsMetrics, config::DnsMetricsConfig};

#[path = "../src/tests/sample.rs"]
mod sample;

use sample::{Sample, pod};

/// The default maximum number of workers.
const WORKERS: usize = 8;

/// The stated maximum in bytes, for that many workers.
const MAX_BYTES: isize = 8 << 20;

/// The system's allocator, counting the calls and the bytes of each thread.
struct Counting;

thread_local! {
    // Neither allocates nor has a destructor, so that it may be used in an allocator.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(allocations: u64, bytes: isize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + allocations);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: every call goes on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size().cast_signed());
        // SAFETY: our caller keeps the contract of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size.cast_signed() - layout.size().cast_signed());
        // SAFETY: our caller keeps the contract of this function.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, -layout.size().cast_signed());
        // SAFETY: our caller keeps the contract of this function.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Everything that can be enabled.
const ALL: DnsMetricsConfig = DnsMetricsConfig {
    enabled: true,
    by: tap53_insight::config::ClientLabel::Workload,
    max_series: 2_000,
    names: true,
    clients: true,
    top: 256,
};

/// A name of 253 bytes.
fn long_name(number: usize) -> String {
    let label = "l".repeat(60);
    format!("{number:09}.{label}.{label}.{label}.{}", "m".repeat(60))
}

/// More clients, series, names and addresses than there is room for, with labels of the maximum length.
fn flood(counters: &mut [DnsCounter]) {
    for number in 0..2_500_u32 {
        let name = long_name(number as usize);
        let sample = Sample {
            client: pod(&"n".repeat(63), &name),
            server: pod(&"n".repeat(63), &format!("{:0253}", number % 64)),
            client_address: std::net::Ipv4Addr::from_bits(number).into(),
            name,
            rcode: Some(3),
            ..Sample::default()
        };
        sample.with(|record| {
            for counter in &mut *counters {
                counter.count(record);
                counter.publish();
            }
        });
    }
}

#[test]
fn all_workers_together_stay_within_the_stated_memory() {
    let before = BYTES.get();
    let metrics = DnsMetrics::new(ALL);
    let mut counters: Vec<_> = (0..WORKERS).map(|_| metrics.counter()).collect();
    flood(&mut counters);
    let first = BYTES.get() - before;
    flood(&mut counters);
    let bytes = BYTES.get() - before;
    println!("{first}, then {bytes} bytes in {WORKERS} workers");
    let used = metrics.read().usage().map(|usage| (usage.of, usage.used, usage.limit));
    assert!(used.iter().all(|(_, used, limit)| used == limit), "not full: {used:?}");
    assert!(bytes > 1 << 20, "the allocator does not count: {bytes}");
    assert!(bytes <= MAX_BYTES, "{bytes}");
    assert!(bytes - first < 100_000, "it grows: {first}, then {bytes}");
    assert_eq!(metrics.read().transactions(), 2 * 2_500 * WORKERS as u64);
}

#[test]
fn known_series_are_counted_without_allocation() {
    let metrics = DnsMetrics::new(ALL);
    let mut counter = metrics.counter();
    let sample = Sample { client: pod("shop", "web"), ..Sample::default() };
    sample.with(|record| {
        let mut count_and_publish = || {
            let before = ALLOCATIONS.get();
            counter.count(record);
            counter.publish();
            ALLOCATIONS.get() - before
        };
        assert!(count_and_publish() > 0, "the allocator does not count");
        assert_eq!([count_and_publish(), count_and_publish()], [0, 0]);
    });
}
