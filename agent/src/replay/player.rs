//! The thread that reads the files, one after the other, and passes their frames to a worker's stages.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tap53_capture::interfaces::{Interface, Names};
use tap53_dns::frames;
use tap53_ebpf::{counter::Counters, record::RecordHeader};
use tap53_ledger::{InterfaceCounts, Published, WorkerCounts};
use tap53_records::encode::{self, Clock};
use tap53_signals::SharedSignals;
use tap53_sinks::Named;
use tap53_transactions::{
    chain::Chains,
    pair::{RecordIds, SharedNotes},
};

use super::{
    CaptureFile, Error, Frame, Step, file_name,
    hook::FileHook,
    interfaces::Interfaces,
    link::{self, Link},
    order::Order,
    pace::{self, Pace},
};
use crate::{
    config::{CaptureConfig, Config, SignalsConfig},
    tail::{RecordFilter, Selection},
    worker::{CrossWorkerQueue, Rules, RulesInForce, Shared, Stages},
};

/// Number of frames between two deliveries to the sinks.
const BATCH: usize = 1_024;

/// Number of epochs that files may start at once. A thousand frames allow one more: a new table of recent
/// exchanges takes as long as that. Sections beyond that continue the current epoch, as do frames whose
/// time goes back within a section.
const EPOCHS: u32 = 64;
const FRAMES_PER_EPOCH: u32 = 1_000;

/// State that the thread shares while it runs.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Set to stop reading.
    pub(super) stop: Arc<AtomicBool>,
    /// Number of bytes of the files that have been read.
    pub(super) read_bytes: Arc<AtomicU64>,
    /// Number of frames that have been read.
    pub(super) frames: AtomicU64,
    /// Set when every file has been read to its end, or to an error.
    pub(super) complete: AtomicBool,
    /// Number of epochs started and of interfaces named: the cost of a file in addition to its frames.
    pub(super) steps: AtomicU64,
}

impl Control {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Counts of the thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Counts of each file.
    pub(super) files: Vec<InterfaceCounts>,
    /// Counts of the stages.
    pub(super) worker: Published<WorkerCounts>,
}

/// The stages of an epoch: a sequence of frames with continuous times. A transaction that starts in one
/// file can end in the next. A new epoch keeps the stages, since files can start any number of epochs: a
/// section of some 100 bytes may be one.
struct Epoch {
    stages: Stages,
    /// Packets that may have to wait for earlier ones.
    order: Order,
    /// The latest time of a packet that the stages have processed.
    now_ns: u64,
    /// The latest time of a frame of the epoch.
    latest_ns: u64,
}

pub(super) struct Player {
    pub(super) files: Vec<PathBuf>,
    /// Names of the files so far.
    names: Vec<String>,
    pub(super) sinks: Vec<Named>,
    pub(super) control: Arc<Control>,
    pub(super) published: Published<Counts>,
    config: Config,
    messages: bool,
    hook: FileHook,
    interfaces: Interfaces,
    /// Features of each interface, by number: bits of `tap53_ebpf::settings::features`.
    features: Vec<Option<u32>>,
    pace: Pace,
    epoch: Option<Epoch>,
    /// Epochs that may start now, in frames.
    epoch_allowance: u32,
    /// Random prefix of the record ids.
    run: [u8; 8],
    /// Number of frames since the last delivery.
    undelivered: usize,
    selection: Selection,
}

impl Player {
    pub(super) fn new(
        config: &Config,
        plan: &super::Plan,
        sinks: Vec<Named>,
        run: [u8; 8],
    ) -> Self {
        let CaptureConfig { snap_length, .. } = config.capture;
        Self {
            files: plan.files.clone(),
            names: Vec::new(),
            sinks,
            control: Arc::default(),
            published: Published::default(),
            config: config.clone(),
            messages: plan.messages,
            hook: FileHook::new(config.capture.port_sets(), snap_length),
            interfaces: Interfaces::default(),
            features: Vec::new(),
            pace: Pace::new(plan.speed),
            epoch: None,
            epoch_allowance: EPOCHS * FRAMES_PER_EPOCH,
            run,
            undelivered: 0,
            selection: plan.selection.clone(),
        }
    }

    /// Replays every file to its end or to an error; returns the errors, in the order of the files.
    ///
    /// # Errors
    /// When an encoder cannot be created.
    pub(super) fn run(mut self) -> Result<Vec<Error>, encode::Error> {
        let mut errors = Vec::new();
        for path in std::mem::take(&mut self.files) {
            if self.control.is_stopped() {
                break;
            }
            self.begin_file(&path);
            match self.file(&path)? {
                Err(error) if !self.control.is_stopped() => errors.push(error),
                _ => {}
            }
            self.flush();
            self.deliver();
        }
        self.finish();
        if !self.control.is_stopped()
            && let Err(refusal) = self.selection.check_interfaces(&self.interface_names())
        {
            errors.push(refusal.into());
        }
        self.control.complete.store(!self.control.is_stopped(), Ordering::Release);
        Ok(errors)
    }

    /// Returns the names that interfaces of the files have in records: their own, or the file's.
    fn interface_names(&self) -> Vec<String> {
        let names = self.interfaces.names().values().chain(&self.names);
        let mut names: Vec<String> = names.cloned().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn begin_file(&mut self, path: &Path) {
        let name = file_name(path);
        self.hook.begin_file();
        self.interfaces.begin(&name);
        // Interfaces without a name have the file's name.
        self.features.clear();
        self.pace.begin();
        self.names.push(name.clone());
        if let Some(epoch) = &mut self.epoch {
            epoch.stages.name_file(&name);
            for (number, name) in self.interfaces.names() {
                epoch.stages.name_interface(*number, name);
            }
        }
        self.published.update(|counts| {
            counts.files.push(InterfaceCounts {
                name,
                ifindex: 0,
                hooks: ["file", "file"].map(str::to_owned),
                counters: [Counters::default(); 2],
                is_pair: false,
                is_attached: true,
            });
        });
    }

    fn file(&mut self, path: &Path) -> Result<Result<(), Error>, encode::Error> {
        let control = self.control.clone();
        let mut file = match CaptureFile::open(path, &control.stop, &control.read_bytes) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut section = None;
        loop {
            match file.step() {
                Ok(Step::Frame(frame)) => {
                    let begins = section != Some(frame.interface.section);
                    section = Some(frame.interface.section);
                    self.frame(&frame, begins)?;
                }
                Ok(Step::Waiting) => {
                    self.flush();
                    self.deliver();
                }
                Ok(Step::End) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
            if control.is_stopped() {
                return Ok(Ok(()));
            }
        }
    }

    /// Processes a frame; `begins` is true for the first one of a file or section.
    fn frame(&mut self, frame: &Frame<'_>, begins: bool) -> Result<(), encode::Error> {
        if let Some(due) = self.pace.due(frame.at_ns) {
            self.flush();
            self.deliver();
            pace::sleep(due, &self.control.stop);
            if self.control.is_stopped() {
                return Ok(());
            }
        }
        self.control.frames.fetch_add(1, Ordering::Relaxed);
        if begins {
            self.end_epoch_before(frame.at_ns);
        }
        self.epoch_allowance = (self.epoch_allowance + 1).min(EPOCHS * FRAMES_PER_EPOCH);
        let link = Link::of(frame);
        let index = link.as_ref().ok().and_then(|link| link.ifindex);
        let (ifindex, is_new) = self.interfaces.number(&frame.interface, index);
        if is_new {
            self.name_interface(ifindex, frame, link.is_err());
        }
        let captured = match link {
            Ok(link) => {
                let wanted = self.features_of(ifindex);
                self.hook.capture(frame, &link, ifindex, wanted)
            }
            Err(reason) => {
                self.hook.refuse(reason);
                None
            }
        };
        let epoch = match &mut self.epoch {
            Some(epoch) => epoch,
            epoch => {
                let begun = Epoch::new(
                    &self.config,
                    &self.interfaces,
                    &self.names,
                    &self.sinks,
                    self.messages,
                    &self.selection,
                    RecordIds::new(self.run, 0),
                    frame.at_ns,
                )?;
                let names = self.interfaces.names().len() as u64;
                self.control.steps.fetch_add(names, Ordering::Relaxed);
                self.published.update(|counts| counts.worker = begun.stages.published());
                epoch.insert(begun)
            }
        };
        epoch.latest_ns = epoch.latest_ns.max(frame.at_ns);
        epoch.order.begin(frame.at_ns);
        epoch.take_due();
        if let Some((header, bytes)) = captured {
            let number = frames::of(self.names.len() - 1, frame.number);
            if self.messages {
                // In the order of the file.
                epoch.take(&header, bytes, number);
            } else {
                let is_from_server = self.hook.is_from_server(&header, bytes);
                epoch.order.push(&header, bytes, number, is_from_server);
                epoch.take_due();
            }
        }
        self.undelivered += 1;
        if self.undelivered >= BATCH {
            self.deliver();
        }
        Ok(())
    }

    fn features_of(&mut self, ifindex: u32) -> u32 {
        // Numbers are assigned in sequence.
        let index = ifindex as usize;
        if self.features.len() <= index {
            self.features.resize(index + 1, None);
        }
        let (interfaces, capture) = (&self.interfaces, &self.config.capture);
        *self.features[index].get_or_insert_with(|| {
            // A capture file has no kinds of interfaces.
            capture.features_of(&Interface::named(interfaces.name(ifindex)))
        })
    }

    fn name_interface(&mut self, ifindex: u32, frame: &Frame<'_>, is_refused: bool) {
        let name = self.interfaces.name(ifindex);
        if is_refused && link::LinkType::of(frame.link_type).is_none() {
            tracing::warn!(
                event = "link_type_unsupported",
                file = self.interfaces.file(),
                interface = name,
                "frames of link type {} are not supported",
                link::describe(frame.link_type)
            );
        }
        self.control.steps.fetch_add(1, Ordering::Relaxed);
        if let Some(epoch) = &mut self.epoch {
            epoch.stages.name_interface(ifindex, name);
        }
    }

    /// Ends the epoch if the time of a file's first frame does not continue it: another capture starts.
    /// Waiting queries would wait for all of that file otherwise. They are recorded: as unanswered if they
    /// have waited long enough by the time of the last frame, else with a capture gap.
    fn end_epoch_before(&mut self, at_ns: u64) {
        let pair = &self.config.pair;
        let timeout = pair.udp_timeout.max(pair.tcp_timeout).as_nanos();
        let Some(epoch) = &mut self.epoch else { return };
        if u128::from(at_ns) + timeout >= u128::from(epoch.latest_ns) {
            return;
        }
        let Some(left) = self.epoch_allowance.checked_sub(FRAMES_PER_EPOCH) else { return };
        self.epoch_allowance = left;
        self.control.steps.fetch_add(1, Ordering::Relaxed);
        epoch.flush();
        epoch.stages.expire(epoch.latest_ns);
        epoch.stages.restart(|ids| pair.build(at_ns, ids, SharedNotes::default()));
        (epoch.now_ns, epoch.latest_ns) = (at_ns, at_ns);
        epoch.order = Order::default();
    }

    /// Records waiting queries at the end of the last file, as at the end of an epoch.
    fn finish(&mut self) {
        if let Some(mut epoch) = self.epoch.take() {
            self.publish_files();
            epoch.flush();
            epoch.stages.expire(epoch.latest_ns);
            epoch.stages.finish();
        }
    }

    /// Processes the packets that are buffered for sorting.
    fn flush(&mut self) {
        if let Some(epoch) = &mut self.epoch {
            epoch.flush();
        }
    }

    fn deliver(&mut self) {
        self.undelivered = 0;
        self.publish_files();
        if let Some(epoch) = &mut self.epoch {
            epoch.stages.deliver();
        }
    }

    /// Publishes the counts of the file's hook, before the stages publish theirs: packets in between count
    /// as if they were in a ring.
    fn publish_files(&self) {
        let counters = *self.hook.counters();
        self.published.update(|counts| {
            if let Some(file) = counts.files.last_mut() {
                file.counters = counters;
            }
        });
    }
}

/// Returns the signals of a replay that begins at this time, if they are enabled or selected.
fn signals(config: &SignalsConfig, selection: &Selection, began_ns: u64) -> Option<SharedSignals> {
    let is_wanted = config.enabled || !selection.signals.is_empty();
    let began_us = i64::try_from(began_ns / 1_000).unwrap_or(i64::MAX);
    is_wanted.then(|| SharedSignals::of_replay(config, began_us))
}

impl Epoch {
    #[allow(clippy::too_many_arguments)] // The parts of an epoch, put together in one place.
    fn new(
        config: &Config,
        interfaces: &Interfaces,
        files: &[String],
        sinks: &[Named],
        messages: bool,
        selection: &Selection,
        ids: RecordIds,
        began_ns: u64,
    ) -> Result<Self, encode::Error> {
        let names = Arc::new(Names::of(interfaces.names().clone()));
        // Without attribution: the current owner of an address is not its owner at the time of the file.
        let shared = Shared {
            wire_bytes: config.record.wire_bytes,
            kept: config.record.kept(),
            max_record_bytes: config.record.max_bytes,
            rules: Arc::new(RulesInForce::new(Rules::new(
                &config.filter,
                &config.privacy,
                &config.record.keep,
            ))),
            each_message: messages,
            selection: (!selection.is_everything()).then(|| Arc::new(RecordFilter::new(selection))),
            chains: config.chains.tracker().map(|tracker| Chains::new(tracker, 1)),
            signals: signals(&config.signals, selection, began_ns),
            ..Shared::new(&config.node, names)
        };
        let table = config.pair.build(began_ns, ids, SharedNotes::default());
        // Frames have their times in UTC.
        let mut stages = Stages::new(
            table,
            sinks,
            &shared,
            CrossWorkerQueue::single_worker(),
            Clock { utc_offset_ns: 0 },
        )?;
        files.iter().for_each(|name| stages.name_file(name));
        Ok(Self { stages, order: Order::default(), now_ns: began_ns, latest_ns: began_ns })
    }

    fn take(&mut self, header: &RecordHeader, bytes: &[u8], frame: u64) {
        take(&mut self.stages, &mut self.now_ns, header, bytes, frame);
    }

    /// Processes the packets that are due.
    fn take_due(&mut self) {
        let Self { stages, order, now_ns, .. } = self;
        while let Some(held) = order.next() {
            take(stages, now_ns, &held.header, &held.bytes, held.frame);
        }
        // Frames that are not captured advance the time too.
        *now_ns = (*now_ns).max(order.passed_ns());
    }

    fn flush(&mut self) {
        self.order.flush();
        self.take_due();
    }
}

fn take(stages: &mut Stages, now_ns: &mut u64, header: &RecordHeader, bytes: &[u8], frame: u64) {
    *now_ns = (*now_ns).max(header.captured_at_ns);
    // Before each packet, so that the records do not depend on the size of a batch.
    stages.expire(*now_ns);
    stages.take_packet(header, bytes, frame);
}
