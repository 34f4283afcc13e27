//! librdkafka with two faults mended, and with safe versions of the calls that `rdkafka` lacks: a
//! [producer](PolledProducer) that does not wake up while it is idle, tokens, passwords and latencies.
//!
//! **Requests in flight.** Brokers remember the last five batches of a producer and partition, so an
//! idempotent producer may have five requests unanswered. librdkafka (2.12 and all before, 2.15 too)
//! subtracts unanswered *messages* from that five (`rd_kafka_toppar_producer_serve`). A batch of five
//! messages or more therefore uses the limit up alone: one batch of a partition is under way, and the
//! next one waits for its answer. While it waits past its linger time, the broker's thread calls
//! poll(2) with a timeout of zero, again and again.
//!
//! Here the limit is left to `max.in.flight.requests.per.connection`, which librdkafka keeps at five
//! or less for the idempotent producer, and to the number of requests that wait to be sent. Both
//! count requests, and where they are reached the thread waits for the broker. All that librdkafka
//! does to keep the order when one of several requests fails (drain, then send again under the same
//! sequence numbers, or bump the epoch) is its own code, unchanged.
//!
//! **A broker without API versions.** An answer to the first request of a connection whose list of
//! API versions is null makes librdkafka allocate -1 elements, which fails an assertion: whoever
//! answers at a broker's address can end the process. Here it is an empty list.
//!
//! `build.rs` does this at build time, to the sources that rdkafka-sys brings. When those change in
//! one of these places, the build fails and says so. Remove the first once librdkafka counts requests
//! itself (its pull request 4989), the second once it checks the number.

mod calls;
mod polled;

pub use calls::{latency, set_password, set_token};
pub use polled::{Error, PolledProducer};

// The symbols that the mended objects have in place of the originals' come from this library.
use rdkafka_sys as _;

unsafe extern "C" {
    /// In the mended objects alone.
    #[link_name = "tap53_rdkafka_broker"]
    static MENDED_BROKER: std::ffi::c_char;
    #[link_name = "tap53_rdkafka_request"]
    static MENDED_REQUEST: std::ffi::c_char;
}

/// True: programs that call this have the mended librdkafka. The call makes the linker take the
/// mended objects.
#[must_use]
pub fn is_mended() -> bool {
    // SAFETY: constants of C, which are never written.
    unsafe { MENDED_BROKER == 1 && MENDED_REQUEST == 1 }
}
