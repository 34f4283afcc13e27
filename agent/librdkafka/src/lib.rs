//! librdkafka with a limit of its idempotent producer mended.
//!
//! Brokers remember the last five batches of a producer and partition, so an idempotent producer may
//! have five requests unanswered. librdkafka (2.12 and all before, 2.15 too) subtracts unanswered
//! *messages* from that five (`rd_kafka_toppar_producer_serve`). A batch of five messages or more
//! therefore uses the limit up alone: one batch of a partition is under way, and the next one waits
//! for its answer. While it waits past its linger time, the broker's thread calls poll(2) with a
//! timeout of zero, again and again.
//!
//! Here the limit is left to `max.in.flight.requests.per.connection`, which librdkafka keeps at five
//! or less for the idempotent producer, and to the number of requests that wait to be sent. Both
//! count requests, and where they are reached the thread waits for the broker. All that librdkafka
//! does to keep the order when one of several requests fails (drain, then send again under the same
//! sequence numbers, or bump the epoch) is its own code, unchanged.
//!
//! `build.rs` does this at build time, to the sources that rdkafka-sys brings. When those change in
//! this place, the build fails and says so. Remove this package once librdkafka counts requests
//! itself (its pull request 4989).

// The symbols that the mended object has in place of the original's come from this library.
use rdkafka_sys as _;

unsafe extern "C" {
    /// In the mended object alone.
    #[link_name = "tap53_rdkafka_broker"]
    static MENDED: std::ffi::c_char;
}

/// True: in programs that call this, librdkafka limits requests in flight, not messages. The call
/// makes the linker take the mended object.
#[must_use]
pub fn limits_requests_in_flight() -> bool {
    // SAFETY: a constant of C, which is never written.
    unsafe { MENDED == 1 }
}
