//! A producer with a thread that receives its events.
//!
//! It replaces `rdkafka`'s `ThreadedProducer`, which polls with a timeout of 100 ms that is cut to
//! whole milliseconds, and then without a timeout until the 100 ms are over: an idle thread that
//! wakes up a thousand times a second. Here librdkafka writes to an eventfd when its event queue
//! becomes non-empty, and the thread sleeps on that.

use std::{
    ffi::c_void,
    io,
    ops::Deref,
    os::fd::AsRawFd,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
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
    error::KafkaError,
    producer::{BaseProducer, Producer as _, ProducerContext},
};
use tap53_base::threads::JoinedThread;

/// Reasons why a producer cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka refuses the configuration.
    #[error(transparent)]
    Configuration(#[from] KafkaError),
    /// Its thread cannot be started.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// A producer whose callbacks run on a thread of its own, `kafka-reports`, which ends with it.
pub struct PolledProducer<C: ProducerContext + 'static> {
    /// Dropped first: events after its end are handled by the drop of the producer.
    _thread: JoinedThread,
    shared: Arc<Shared<C>>,
}

struct Shared<C: ProducerContext + 'static> {
    producer: BaseProducer<C>,
    /// Readable while there are events, or the thread must stop.
    event: EventFd,
    stop: AtomicBool,
}

impl<C: ProducerContext + 'static> PolledProducer<C> {
    /// Creates a producer with these callbacks, and starts its thread.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration, or the thread cannot be started.
    pub fn new(config: &ClientConfig, callbacks: C) -> Result<Self, Error> {
        // The call makes the linker take the mended objects.
        if !crate::is_mended() {
            tracing::warn!(event = "librdkafka_unpatched", "librdkafka is not the patched one");
        }
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(io::Error::from)?;
        let producer = config.create_with_context(callbacks)?;
        let shared = Arc::new(Shared { producer, event, stop: AtomicBool::new(false) });
        let (queue, stopped) = (Queue::of(shared.clone()), shared.clone());
        let stop = move || {
            stopped.stop.store(true, Ordering::Release);
            // It fails if the descriptor is readable already.
            let _ = stopped.event.write(1);
        };
        let thread = JoinedThread::start("kafka-reports", move || queue.serve(), stop)?;
        Ok(Self { _thread: thread, shared })
    }
}

impl<C: ProducerContext + 'static> Deref for PolledProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.shared.producer
    }
}

/// librdkafka's event queue, which writes to the descriptor when it becomes non-empty.
struct Queue<C: ProducerContext + 'static> {
    queue: *mut rd_kafka_queue_t,
    /// The producer and the descriptor, which must outlive the queue.
    shared: Arc<Shared<C>>,
}

// SAFETY: librdkafka's queues may be used by any thread, and `Shared` is `Send` and `Sync`.
unsafe impl<C: ProducerContext + 'static> Send for Queue<C> {}

impl<C: ProducerContext + 'static> Queue<C> {
    fn of(shared: Arc<Shared<C>>) -> Self {
        // librdkafka adds this to the descriptor.
        let one = 1_u64;
        let (client, descriptor) = (shared.producer.client().native_ptr(), &shared.event);
        // SAFETY: the client lives as long as `shared`. librdkafka copies the payload, and writes it
        // to the descriptor until `drop` removes that.
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

    /// Handles events as they arrive, until the thread is stopped.
    fn serve(&self) {
        let Shared { producer, event, stop } = &*self.shared;
        loop {
            // Also those from before the descriptor was set.
            while self.length() > 0 {
                producer.poll(Duration::ZERO);
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

impl<C: ProducerContext + 'static> Drop for Queue<C> {
    fn drop(&mut self) {
        // SAFETY: the queue is not used any more, and its producer is still alive. Without a
        // descriptor librdkafka writes to none.
        unsafe {
            rd_kafka_queue_io_event_enable(self.queue, -1, ptr::null(), 0);
            rd_kafka_queue_destroy(self.queue);
        }
    }
}
