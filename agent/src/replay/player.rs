//! The thread that reads the files, one after the other, into a worker's stages.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tap53_capture::interfaces::Names;
use tap53_dns::frames;
use tap53_ebpf::{counter::Counters, record::RecordHeader};
use tap53_ledger::{InterfaceCounts, Published, WorkerCounts};
use tap53_records::encode::{self, Clock};
use tap53_sinks::Named;
use tap53_transactions::pair::{RecordIds, Truncations};

use super::{
    CaptureFile, Error, Frame, Step, file_name,
    hook::FileHook,
    interfaces::Interfaces,
    link::{self, Link},
    order::Order,
    pace::{self, Pace},
};
use crate::{
    config::{CaptureConfig, Config},
    pipeline::pairing,
    worker::{CrossWorkerQueue, Rules, RulesInForce, Shared, Stages},
};

/// Frames taken in before what they became is delivered.
const BATCH: usize = 1_024;

/// Epochs that files may begin at once, and frames that make up for one more: a new table of recent
/// exchanges takes as long as some thousand frames. Sections beyond that go on in the epoch that
/// there is, as frames do whose time goes back within a section.
const EPOCHS: u32 = 64;
const FRAMES_PER_EPOCH: u32 = 1_000;

/// What the thread is told, and tells while it runs.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Nothing more is read once it is set.
    pub(super) stop: Arc<AtomicBool>,
    /// Bytes of the files that have been read.
    pub(super) read_bytes: Arc<AtomicU64>,
    /// Frames that have been read.
    pub(super) frames: AtomicU64,
    /// Set once every file has been read as far as it goes.
    pub(super) complete: AtomicBool,
    /// Epochs begun, and names of interfaces handed on: beside its frames, what a file costs.
    pub(super) steps: AtomicU64,
}

impl Control {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// What the thread has counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// One for each file.
    pub(super) files: Vec<InterfaceCounts>,
    /// What became of what they hold.
    pub(super) worker: Published<WorkerCounts>,
}

/// What frames go into. An epoch is a run of frames whose times go on from each other: what began in
/// one file can end in the next. Where another one begins, the stages stay, since files can begin
/// epochs without end: a section of some 100 bytes may be one.
struct Epoch {
    stages: Stages,
    /// Packets that may have to wait for earlier ones.
    order: Order,
    /// The latest time of a packet that the stages have taken in.
    now_ns: u64,
    /// The latest time of a frame of the epoch so far.
    latest_ns: u64,
}

pub(super) struct Player {
    pub(super) files: Vec<PathBuf>,
    /// Names of those begun so far.
    names: Vec<String>,
    pub(super) sinks: Vec<Named>,
    pub(super) control: Arc<Control>,
    pub(super) published: Published<Counts>,
    config: Config,
    messages: bool,
    hook: FileHook,
    interfaces: Interfaces,
    /// What is followed at each interface, by number: bits of `tap53_ebpf::settings::features`.
    features: Vec<Option<u32>>,
    pace: Pace,
    epoch: Option<Epoch>,
    /// Frames' worth of epochs that may begin now.
    epoch_allowance: u32,
    /// Random prefix of the records' identifiers.
    run: [u8; 8],
    /// Since the last delivery.
    undelivered: usize,
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
        }
    }

    /// Replays every file as far as it goes; what is wrong with them, in their order.
    ///
    /// # Errors
    /// When an encoder cannot be made.
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
        self.control.complete.store(!self.control.is_stopped(), Ordering::Release);
        Ok(errors)
    }

    fn begin_file(&mut self, path: &Path) {
        let name = file_name(path);
        self.hook.begin_file();
        self.interfaces.begin(&name);
        // Interfaces without a name are called after the file.
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

    /// Takes in a frame; `begins` is true for the first of a file or section.
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
        // Numbers are given out one after the other.
        let place = ifindex as usize;
        if self.features.len() <= place {
            self.features.resize(place + 1, None);
        }
        let (interfaces, capture) = (&self.interfaces, &self.config.capture);
        *self.features[place].get_or_insert_with(|| capture.features_of(interfaces.name(ifindex)))
    }

    fn name_interface(&mut self, ifindex: u32, frame: &Frame<'_>, is_refused: bool) {
        let name = self.interfaces.name(ifindex);
        if is_refused && link::LinkType::of(frame.link_type).is_none() {
            tracing::warn!(
                event = "link_type_unsupported",
                file = self.interfaces.file(),
                interface = name,
                "frames of link type {} are not read",
                link::describe(frame.link_type)
            );
        }
        self.control.steps.fetch_add(1, Ordering::Relaxed);
        if let Some(epoch) = &mut self.epoch {
            epoch.stages.name_interface(ifindex, name);
        }
    }

    /// Ends an epoch that the time of a file's first frame does not go on from: another capture
    /// begins. What waits for a response would wait for all of that file otherwise, and is recorded:
    /// as unanswered what has waited long enough by the time of the last frame, and the rest with a
    /// capture gap.
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
        epoch.stages.restart(|ids| pairing(pair).build(at_ns, ids, Truncations::default()));
        (epoch.now_ns, epoch.latest_ns) = (at_ns, at_ns);
        epoch.order = Order::default();
    }

    /// Records what still waits at the end of the last file, as at the end of an epoch.
    fn finish(&mut self) {
        if let Some(mut epoch) = self.epoch.take() {
            self.publish_files();
            epoch.flush();
            epoch.stages.expire(epoch.latest_ns);
            epoch.stages.finish();
        }
    }

    /// Takes in what is held for the sake of its order.
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

    /// Publishes what the file's hook has counted: before the stages publish what became of it, as
    /// if it were still in a ring until then.
    fn publish_files(&self) {
        let counters = *self.hook.counters();
        self.published.update(|counts| {
            if let Some(file) = counts.files.last_mut() {
                file.counters = counters;
            }
        });
    }
}

impl Epoch {
    fn new(
        config: &Config,
        interfaces: &Interfaces,
        files: &[String],
        sinks: &[Named],
        messages: bool,
        ids: RecordIds,
        began_ns: u64,
    ) -> Result<Self, encode::Error> {
        let names = Arc::new(Names::of(interfaces.names().clone()));
        // Without owners: who has an address now says nothing of who had it then.
        let shared = Shared {
            wire_bytes: config.record.wire_bytes,
            max_record_bytes: config.record.max_bytes,
            rules: Arc::new(RulesInForce::new(Rules::new(&config.filter, &config.privacy))),
            each_message: messages,
            ..Shared::new(&config.node, names)
        };
        let table = pairing(&config.pair).build(began_ns, ids, Truncations::default());
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

    /// Takes in the packets whose turn it is.
    fn take_due(&mut self) {
        let Self { stages, order, now_ns, .. } = self;
        while let Some(held) = order.next() {
            take(stages, now_ns, &held.header, &held.bytes, held.frame);
        }
        // What was read without being captured passes the time too.
        *now_ns = (*now_ns).max(order.passed_ns());
    }

    fn flush(&mut self) {
        self.order.flush();
        self.take_due();
    }
}

fn take(stages: &mut Stages, now_ns: &mut u64, header: &RecordHeader, bytes: &[u8], frame: u64) {
    *now_ns = (*now_ns).max(header.captured_at_ns);
    // Before each packet, so that the records do not depend on how many come at once.
    stages.expire(*now_ns);
    stages.take_packet(header, bytes, frame);
}
