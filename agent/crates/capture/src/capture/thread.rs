//! The thread that owns capture. Only this thread retains privileges, since they belong to threads.
//!
//! It executes requests one after the other: load, attach, change settings, detach, read counters.
//! It reads no packet, no file and no socket that others write to. Other threads do everything
//! else, without a capability (see [`tap53_base::privileges`]).

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use tap53_base::privileges;
use tap53_ebpf::counter::Counters;

use super::{
    Attachment, Capture, Error, InterfaceCounters, KernelLog, Processes, Ring, RingLost, State,
};
use crate::{
    capture::config::CaptureConfig,
    interfaces::config::Directions,
    interfaces::{Interface, Names},
    ring::Doorbells,
};

/// A request, which contains the channel for its reply. Private: the requests are the methods
/// below.
type Job = Box<dyn FnOnce(&mut Option<Capture>) + Send>;

/// Capacity of the request queue. Callers wait for the reply, so that there are few.
const QUEUE_CAPACITY: usize = 16;

/// The capture thread. Dropping it detaches everything and ends it.
pub struct CaptureThread {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The result of [`CaptureThread::load`].
pub struct Loaded {
    /// The rings, one for each worker.
    pub rings: Vec<Ring>,
    /// The loss counters of the rings.
    pub ring_lost: RingLost,
    /// The doorbells, by which the workers request a wake-up from the kernel.
    pub doorbells: Doorbells,
    /// Names of the interfaces.
    pub names: Arc<Names>,
    /// The messages of the kernel programs, if they are configured.
    pub kernel_log: Option<KernelLog>,
    /// The processes that use sockets, if they are followed.
    pub processes: Option<Processes>,
}

impl CaptureThread {
    /// Starts the thread, with the privileges and in the network namespace of the caller.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] if the thread cannot be created.
    pub fn start() -> Result<Self, Error> {
        let (jobs, received) = mpsc::sync_channel::<Job>(QUEUE_CAPACITY);
        let thread = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || {
                let mut capture = None;
                for job in received {
                    job(&mut capture);
                }
            })
            .map_err(|cause| Error::Thread { cause })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Returns false once the thread has panicked: then nothing is attached any more.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Calls [`Capture::load_with_processes`]; then the thread drops the privileges that only loading needs, if
    /// the caller has dropped its own.
    ///
    /// # Errors
    ///
    /// Those of [`Capture::load`].
    pub fn load(&self, config: &CaptureConfig, cgroups: Option<PathBuf>) -> Result<Loaded, Error> {
        let config = config.clone();
        self.request(move |slot| {
            let capture = Capture::load_with_processes(&config, cgroups.as_deref())?;
            let capture = slot.insert(capture);
            privileges::keep_least(|| capture.can_read_maps());
            Ok(Loaded {
                rings: capture.take_rings(),
                ring_lost: capture.ring_lost(),
                doorbells: capture.doorbells(),
                names: capture.names(),
                kernel_log: capture.take_kernel_log(),
                processes: capture.processes(),
            })
        })?
    }

    /// Calls [`Capture::attach`].
    ///
    /// # Errors
    ///
    /// Those of [`Capture::attach`].
    pub fn attach(
        &self,
        interface: &Interface,
        directions: Directions,
    ) -> Result<Attachment, Error> {
        let interface = interface.clone();
        self.with(move |capture| capture.attach(&interface, directions).cloned())?
    }

    /// Calls [`Capture::switch_off`].
    ///
    /// # Errors
    ///
    /// Those of [`Capture::switch_off`].
    pub fn switch_off(&self, ifindex: u32) -> Result<(), Error> {
        self.with(move |capture| capture.switch_off(ifindex))?
    }

    /// Calls [`Capture::update`].
    ///
    /// # Errors
    ///
    /// Those of [`Capture::update`].
    pub fn update(&self, interface: &Interface) -> Result<(), Error> {
        let interface = interface.clone();
        self.with(move |capture| capture.update(&interface))?
    }

    /// Calls [`Capture::detach_these`].
    ///
    /// # Errors
    ///
    /// [`Error::ThreadEnded`].
    pub fn detach(&self, ifindexes: &[u32]) -> Result<Vec<Error>, Error> {
        let ifindexes = ifindexes.to_vec();
        self.with(move |capture| capture.detach_these(&ifindexes))
    }

    /// Calls [`Capture::detach_all`].
    ///
    /// # Errors
    ///
    /// [`Error::ThreadEnded`].
    pub fn detach_all(&self) -> Result<Vec<Error>, Error> {
        self.with(Capture::detach_all)
    }

    /// Calls [`Capture::states`].
    ///
    /// # Errors
    ///
    /// Those of [`Capture::states`].
    pub fn states(&self) -> Result<Vec<State>, Error> {
        self.with(|capture| capture.states())?
    }

    /// Reads [`Capture::counters`], [`Capture::retired`] and [`Capture::unconfigured`].
    ///
    /// # Errors
    ///
    /// Those of [`Capture::counters`].
    pub fn counters(&self) -> Result<Counted, Error> {
        self.with(|capture| {
            Ok(Counted {
                interfaces: capture.counters()?,
                retired: capture.retired(),
                unconfigured: capture.unconfigured()?,
            })
        })?
    }

    fn with<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Capture) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.request(|slot| slot.as_mut().map(job))?.ok_or(Error::ThreadEnded)
    }

    fn request<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Option<Capture>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, response) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |slot| {
            // The caller waits for the reply, or has ended with the process.
            let _ = reply.send(job(slot));
        });
        let jobs = self.jobs.as_ref().ok_or(Error::ThreadEnded)?;
        jobs.send(job).map_err(|_| Error::ThreadEnded)?;
        response.recv().map_err(|_| Error::ThreadEnded)
    }
}

impl Drop for CaptureThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(event = "capture_panicked", "the capture thread panicked");
        }
    }
}

/// Counters of every interface, of those without a line, and of those without settings.
pub struct Counted {
    /// Result of [`Capture::counters`].
    pub interfaces: Vec<InterfaceCounters>,
    /// Result of [`Capture::retired`].
    pub retired: [(u64, [Counters; 2]); 2],
    /// Result of [`Capture::unconfigured`].
    pub unconfigured: [Counters; 2],
}
