//! A producer, and the thread that takes in what librdkafka has to report.
//!
//! In place of `rdkafka`'s `ThreadedProducer`, which polls with a timeout of 100 ms, cut to whole
//! milliseconds, and polls without a timeout for what is left of the last one: an idle thread that
//! wakes a thousand times a second. Here librdkafka writes to a descriptor when its queue of events
//! gets a first one, and the thread sleeps on that until then.

use std::{
    ffi::c_void,
    ops::Deref,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};
use rdkafka::{
    ClientConfig,
    bindings::{
        rd_kafka_queue_destroy, rd_kafka_queue_get_main, rd_kafka_queue_io_event_enable,
        rd_kafka_queue_length, rd_kafka_queue_t,
    },
    producer::{BaseProducer, Producer as _},
};

use tap53_base::threads::JoinedThread;

use super::reports::Callbacks;
use crate::Error;

/// A producer whose reports are taken in by a thread of its own, which ends with it.
pub(in crate::kafka) struct PolledProducer {
    /// Dropped first: what is reported after it has ended is taken in by the drop of the producer.
    _thread: JoinedThread,
    shared: Arc<Shared>,
}

struct Shared {
    producer: BaseProducer<Callbacks>,
    /// Readable while there are events, or the thread is to stop.
    event: EventFd,
    stop: AtomicBool,
}

impl PolledProducer {
    pub(super) fn new(
        sink: &str,
        config: &ClientConfig,
        callbacks: Callbacks,
    ) -> Result<Self, Error> {
        let thread = |cause| Error::Thread { sink: sink.to_owned(), cause };
        // The call has the mended objects linked: see that package.
        if !tap53_librdkafka::is_mended() {
            tracing::warn!(event = "librdkafka_unpatched", "librdkafka is not the patched one");
        }
        let event =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(|error| thread(error.into()))?;
        let producer = config
            .create_with_context(callbacks)
            .map_err(|cause| Error::Kafka { sink: sink.to_owned(), cause })?;
        let shared = Arc::new(Shared { producer, event, stop: AtomicBool::new(false) });
        let (queue, stopped) = (Queue::of(shared.clone()), shared.clone());
        let stop = move || {
            stopped.stop.store(true, Ordering::Release);
            // It fails where the descriptor is readable already.
            let _ = stopped.event.write(1);
        };
        let thread =
            JoinedThread::start("kafka-reports", move || queue.serve(), stop).map_err(thread)?;
        Ok(Self { _thread: thread, shared })
    }
}

impl Deref for PolledProducer {
    type Target = BaseProducer<Callbacks>;

    fn deref(&self) -> &Self::Target {
        &self.shared.producer
    }
}

/// librdkafka's queue of events, which writes to the descriptor with the first.
struct Queue {
    queue: *mut rd_kafka_queue_t,
    /// The producer and the descriptor, which have to outlive the queue.
    shared: Arc<Shared>,
}

// SAFETY: librdkafka's queues may be used by any thread.
unsafe impl Send for Queue {}

impl Queue {
    fn of(shared: Arc<Shared>) -> Self {
        // What is added to the descriptor with the first event.
        let one = 1_u64;
        let (client, descriptor) = (shared.producer.client().native_ptr(), &shared.event);
        // SAFETY: the client lives as long as `shared`. librdkafka copies the payload, and writes it
        // to the descriptor until `drop` takes that back.
        let queue = unsafe {
            let queue = rd_kafka_queue_get_main(client);
            let payload = (&raw const one).cast::<c_void>();
            rd_kafka_queue_io_event_enable(
                queue,
                descriptor.as_raw_fd(),
                payload,
                size_of::<u64>(),
            );
            queue
        };
        Self { queue, shared }
    }

    /// Takes in events as they come, until it is stopped.
    fn serve(&self) {
        let Shared { producer, event, stop } = &*self.shared;
        loop {
            // Those too that were there before the descriptor was set.
            while self.length() > 0 {
                producer.poll(std::time::Duration::ZERO);
            }
            if stop.load(Ordering::Acquire) {
                return;
            }
            match event.read() {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(event = "reports_stopped", %error, "cannot wait for delivery reports");
                    return;
                }
            }
        }
    }

    fn length(&self) -> usize {
        // SAFETY: the queue is not destroyed before `drop`.
        unsafe { rd_kafka_queue_length(self.queue) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is not used any more, and its producer still lives. Without a descriptor
        // librdkafka writes to none.
        unsafe {
            rd_kafka_queue_io_event_enable(self.queue, -1, std::ptr::null(), 0);
            rd_kafka_queue_destroy(self.queue);
        }
    }
}
