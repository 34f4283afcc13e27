//! Kernel capture: loading the programs, attaching them, and reading what they counted.
//!
//! ```text
//!  object ─▶ load ─▶ rings ──────────────────────────────▶ workers
//!              │        ▲ records
//!              └─▶ programs ◀─ attach: xdp, tcx, clsact ◀─ interfaces
//!                     │ counters
//!                     ▼
//!                  ledger
//! ```
//!
//! - **Nothing outlives the agent.** Programs are held by links, which the kernel drops with the
//!   process, however it ends. Filters of a clsact qdisc, for kernels without TCX, are the
//!   exception: the next start removes them (see `clsact.rs`).
//! - **Nothing of others is touched**: no program is replaced, no foreign qdisc or filter removed.
//! - **Settings before programs**: an interface's settings are in their map before a program runs
//!   on it, and are changed there; programs are not attached anew. Both directions begin and end in
//!   one moment, by the settings; what passes a hook before and after is counted as `disabled`.
//! - **Counter slots are used again**: what an interface counted is kept when it is detached, so
//!   that neither maps nor ledger grow with the interfaces that come and go (`slots.rs`).
//! - **Exact counts**: when [`Capture::detach_all`] returns, no program runs any more, so that
//!   counters and rings are final.
//! - Whether the kernel has a feature is found by trying to use it, not by its version:
//!   distributions backport.

mod attached;
mod bpf;
mod clsact;
pub mod config;
mod counters;
mod error;
mod holders;
mod hook;
mod object;
mod preflight;
pub mod privilege;
pub mod probe;
mod qdisc;
mod settings;
mod shadow;
mod slots;
mod thread;

use std::sync::Arc;

use aya::maps::{MapData, PerCpuArray};

use attached::Attached;
use object::{CountersValue, Programs};
use settings::Settings;
use slots::{Both, Retired, Slots};
use tap53_base::clock::monotonic_ns;
use tap53_ebpf::{
    counter::{Counter, Counters},
    settings::{Direction, InterfaceSettings, UNCONFIGURED_SLOT},
};

pub use counters::{InterfaceCounters, RingLost};
pub use error::Error;
pub use holders::{Holders, Program, XdpAttached};
pub use hook::{Attachment, Hook};
pub use object::{KernelLog, OBJECT, Ring};
pub use preflight::Preflight;
pub use qdisc::{Filter, Qdisc};
pub use thread::{CaptureThread, Counted, Loaded};

use crate::{
    capture::config::CaptureConfig,
    interfaces::config::Directions,
    interfaces::{Interface, Names},
    ring::Doorbells,
};

/// The kernel side, loaded. Dropping it detaches everything.
pub struct Capture {
    config: CaptureConfig,
    programs: Programs,
    settings: Settings,
    counters: PerCpuArray<MapData, CountersValue>,
    ring_lost: RingLost,
    doorbells: Doorbells,
    rings: Vec<Ring>,
    kernel_log: Option<KernelLog>,
    slots: Slots,
    /// In order of attaching.
    attached: Vec<Attached>,
    retired: Retired,
    /// Generation of the settings of the interface that was attached last.
    generation: u32,
    /// What the workers call the interfaces.
    names: Arc<Names>,
}

/// What an interface is found to do, by asking the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How it was attached.
    pub attachment: Attachment,
    /// Whether packets are captured in each direction, by the settings that the programs read.
    pub enabled: [bool; 2],
    /// Whether each hook that was attached is still in place: anybody with the right can detach it.
    pub in_place: [bool; 2],
    /// What keeps packets from the program of each direction, where something is known to.
    pub shadowed: [Option<String>; 2],
}

impl Capture {
    /// Loads the programs, makes the rings, and removes what a killed agent left behind.
    ///
    /// Install the logger of crate `log` before this if `kernel_log` is configured.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] names the capability that is missing; [`Error::Verifier`] and
    /// [`Error::Kernel`] mean that this kernel lacks something that the programs need.
    pub fn load(config: &CaptureConfig) -> Result<Self, Error> {
        let object::Loaded {
            programs,
            settings,
            counters,
            ring_lost,
            doorbells,
            rings,
            kernel_log,
        } = object::load(config)?;
        match clsact::sweep() {
            Ok(swept) => {
                for ifindex in swept {
                    tracing::info!(
                        event = "clsact_stale_removed",
                        ifindex,
                        "removed stale clsact filters of a killed agent"
                    );
                }
            }
            // Not worth failing for: the filters do no harm but cost time.
            Err(error) => tracing::warn!(
                event = "clsact_sweep_failed",
                %error,
                "cannot look for stale clsact filters"
            ),
        }
        Ok(Self {
            config: config.clone(),
            programs,
            settings,
            counters,
            ring_lost,
            doorbells,
            rings,
            kernel_log,
            slots: Slots::new(config.max_interfaces),
            attached: Vec::new(),
            retired: Retired::default(),
            generation: 0,
            names: Arc::default(),
        })
    }

    /// What the interfaces are called, for the workers.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        self.names.clone()
    }

    /// The rings, one for each worker; empty after the first call.
    pub fn take_rings(&mut self) -> Vec<Ring> {
        std::mem::take(&mut self.rings)
    }

    /// The messages of the kernel programs, if `kernel_log` is configured; `None` after the first
    /// call.
    pub fn take_kernel_log(&mut self) -> Option<KernelLog> {
        self.kernel_log.take()
    }

    /// Begins to capture on an interface of this thread's network namespace. On one that is
    /// attached already, this is [`Self::set_directions`].
    ///
    /// # Errors
    ///
    /// If no hook takes the programs; then the interface is left as it was.
    pub fn attach(
        &mut self,
        interface: &Interface,
        directions: Directions,
    ) -> Result<&Attachment, Error> {
        if !interface.ethernet {
            return Err(Error::NotEthernet {
                name: interface.name.clone(),
                kind: interface.kind.to_string(),
            });
        }
        let position = match self.position(interface.ifindex) {
            Some(position) => position,
            None => {
                let settings = self.next_settings(&interface.name)?;
                let carried = self.retired.resume(&interface.name, interface.ifindex);
                self.attached.push(Attached::new(interface.clone(), settings, carried));
                self.attached.len() - 1
            }
        };
        // Before a program can send a packet of it to a worker.
        self.names.set(interface.ifindex, &interface.name, monotonic_ns());
        self.apply(position, directions)?;
        Ok(&self.attached[position].attachment)
    }

    /// Captures nothing on an attached interface any more, in the time of a map write: the programs
    /// stay, and count what passes as `disabled`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchInterface`] if no attached interface has this number.
    pub fn switch_off(&mut self, ifindex: u32) -> Result<(), Error> {
        let position = self.required_position(ifindex)?;
        let settings = InterfaceSettings { directions: 0, ..self.attached[position].settings };
        let is_on = self.attached[position].settings.directions != 0;
        self.settings.set(ifindex, settings)?;
        self.attached[position].settings = settings;
        if is_on {
            self.names.switch(ifindex, monotonic_ns());
        }
        Ok(())
    }

    /// Notes that an attached interface has changed: its name, and with it perhaps the tunnels to
    /// look into, its MTU.
    ///
    /// # Errors
    ///
    /// If the settings cannot be written, which does not happen while this value lives.
    pub fn update(&mut self, interface: &Interface) -> Result<(), Error> {
        let Some(position) = self.position(interface.ifindex) else { return Ok(()) };
        let attached = &mut self.attached[position];
        attached.attachment.interface = interface.clone();
        self.names.set(interface.ifindex, &interface.name, monotonic_ns());
        let features = self.config.features_of(&interface.name);
        if features == attached.settings.features {
            return Ok(());
        }
        attached.settings.features = features;
        self.settings.set(interface.ifindex, attached.settings)
    }

    /// Changes what is captured on an attached interface. Programs are attached where one is
    /// missing, but none is detached or attached anew: what is not wanted is ignored by setting.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchInterface`] if no attached interface has this number, and those of
    /// [`Self::attach`].
    pub fn set_directions(
        &mut self,
        ifindex: u32,
        directions: Directions,
    ) -> Result<&Attachment, Error> {
        let position = self.required_position(ifindex)?;
        self.apply(position, directions)?;
        Ok(&self.attached[position].attachment)
    }

    /// Stops capturing on an interface. Its counters stay, and are final when this returns.
    pub fn detach(&mut self, ifindex: u32) -> Vec<Error> {
        self.detach_these(&[ifindex])
    }

    /// Stops capturing everywhere. When this returns, no program runs any more: counters are final,
    /// and rings hold what is left to drain.
    pub fn detach_all(&mut self) -> Vec<Error> {
        let all: Vec<u32> = self.attachments().map(|a| a.interface.ifindex).collect();
        self.detach_and_keep_lines(&all)
    }

    /// How each interface is attached that is attached now.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.iter().map(|attached| &attached.attachment)
    }

    /// What the kernel says of each attached interface.
    ///
    /// # Errors
    ///
    /// If the settings cannot be read, which does not happen while this value lives.
    pub fn states(&mut self) -> Result<Vec<State>, Error> {
        let mut states = Vec::with_capacity(self.attached.len());
        for position in 0..self.attached.len() {
            let shadowed = self.shadowed_at(position);
            let attached = &self.attached[position];
            let settings = self.settings.get(attached.attachment.interface.ifindex)?;
            let enabled = Direction::ALL
                .map(|direction| settings.is_some_and(|settings| settings.wants(direction)));
            let attachment = attached.attachment_now();
            states.push(State { attachment, enabled, in_place: attached.in_place(), shadowed });
        }
        Ok(states)
    }

    /// What keeps packets from our programs on an attached interface, for what arrives and for
    /// what leaves; `None` where nothing does, or nothing is attached.
    ///
    /// Cheap enough to be asked every few seconds: one question to rtnetlink and one to bpf(2) a
    /// direction. It compares with the call before, so that the first can only tell who is ahead,
    /// and it takes some packets to tell whether those ahead let them pass.
    pub fn shadowed(&mut self, ifindex: u32) -> [Option<String>; 2] {
        self.position(ifindex).map_or([None, None], |position| self.shadowed_at(position))
    }

    fn shadowed_at(&mut self, position: usize) -> [Option<String>; 2] {
        let attached = &mut self.attached[position];
        let Ok(counters) = counters::read(&self.counters, attached.settings.counter_slot) else {
            return [None, None];
        };
        shadow::look(attached, &self.programs, counters.map(|of| of.get(Counter::Seen)))
    }

    /// The counters of the interfaces that are attached, and before them of those that last were;
    /// an interface that was attached several times has one line.
    ///
    /// # Errors
    ///
    /// If the map cannot be read, which does not happen while this value lives.
    pub fn counters(&self) -> Result<Vec<InterfaceCounters>, Error> {
        let mut lines: Vec<_> = self.retired.lines().cloned().collect();
        for attached in &self.attached {
            let by_direction = self.counted(attached)?.1;
            lines.push(InterfaceCounters { attachment: attached.attachment.clone(), by_direction });
        }
        Ok(lines)
    }

    /// Number of the interfaces that were detached so long ago that they have no line in
    /// [`Self::counters`], and the sum of their counters.
    #[must_use]
    pub const fn retired(&self) -> (u64, [Counters; 2]) {
        self.retired.earlier()
    }

    /// The counters of packets on interfaces without settings.
    ///
    /// # Errors
    ///
    /// As [`Self::counters`].
    pub fn unconfigured(&self) -> Result<[Counters; 2], Error> {
        counters::read(&self.counters, UNCONFIGURED_SLOT)
    }

    /// Whether this thread may use maps by their descriptors.
    pub(crate) fn can_read_maps(&self) -> bool {
        self.ring_lost.get(0).is_ok()
    }

    /// The losses of each ring.
    #[must_use]
    pub fn ring_lost(&self) -> RingLost {
        self.ring_lost.clone()
    }

    /// What has the kernel wake the worker of each ring.
    #[must_use]
    pub fn doorbells(&self) -> Doorbells {
        self.doorbells.clone()
    }

    fn position(&self, ifindex: u32) -> Option<usize> {
        self.attached.iter().position(|a| a.attachment.interface.ifindex == ifindex)
    }

    fn required_position(&self, ifindex: u32) -> Result<usize, Error> {
        self.position(ifindex)
            .ok_or_else(|| Error::NoSuchInterface { name: format!("number {ifindex}") })
    }

    /// What an interface's slot holds, and what the interface has counted in all.
    fn counted(&self, attached: &Attached) -> Result<(Both, Both), Error> {
        let slot = attached.settings.counter_slot;
        let held = counters::read(&self.counters, slot)?;
        let mut counted = self.slots.counted(slot, &held);
        slots::add(&mut counted, &attached.carried);
        Ok((held, counted))
    }

    /// Settings for one more interface, with a counter slot and a generation of its own.
    fn next_settings(&mut self, name: &str) -> Result<InterfaceSettings, Error> {
        let counter_slot = self.slots.take().ok_or_else(|| Error::TooManyInterfaces {
            name: name.to_owned(),
            limit: self.config.max_interfaces,
        })?;
        self.generation = self.generation.wrapping_add(1);
        Ok(InterfaceSettings {
            directions: 0,
            snap_length: self.config.snap_length,
            counter_slot,
            generation: self.generation,
            features: self.config.features_of(name),
        })
    }

    /// Attaches what is missing, then enables the directions, both in the same moment: a query of
    /// which one hook had the answer only because the other was late would look unanswered. Undoes
    /// both on failure.
    fn apply(&mut self, position: usize, directions: Directions) -> Result<(), Error> {
        let attached = &mut self.attached[position];
        let ifindex = attached.attachment.interface.ifindex;
        let before = attached.settings;
        let was_bare = attached.is_bare();
        let changes = before.directions != directions.bits();
        if changes {
            // Before a response can come of which the query was not looked at.
            self.names.switch(ifindex, monotonic_ns());
        }
        let result = self
            .settings
            .set(ifindex, before)
            .and_then(|()| attached.attach(directions, &self.config, &self.programs))
            .and_then(|()| {
                attached.settings.directions = directions.bits();
                self.settings.set(ifindex, attached.settings)
            });
        let Err(error) = result else {
            if changes {
                // And after the last query of which the response is not looked at.
                self.names.switch(ifindex, monotonic_ns());
            }
            return Ok(());
        };
        attached.settings = before;
        if was_bare {
            for error in self.detach(ifindex) {
                tracing::error!(event = "rollback_detach_failed", %error, "cannot detach a program");
            }
        } else if let Err(error) = self.settings.set(ifindex, before) {
            tracing::error!(
                event = "settings_not_restored",
                %error,
                "cannot restore the settings of an interface"
            );
        }
        Err(error)
    }

    /// Stops capturing on several interfaces, which costs little more than on one. As
    /// [`Self::detach`].
    pub fn detach_these(&mut self, ifindexes: &[u32]) -> Vec<Error> {
        let errors = self.detach_and_keep_lines(ifindexes);
        self.retired.trim();
        errors
    }

    /// As [`Self::detach_these`]; in the end, each interface that was attached has its line.
    fn detach_and_keep_lines(&mut self, ifindexes: &[u32]) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut detached = Vec::new();
        // One hook is detached after the other; what is captured ends in one moment.
        for attached in &self.attached {
            let ifindex = attached.attachment.interface.ifindex;
            if ifindexes.contains(&ifindex) {
                let off = InterfaceSettings { directions: 0, ..attached.settings };
                errors.extend(self.settings.set(ifindex, off).err());
                self.names.switch(ifindex, monotonic_ns());
            }
        }
        for ifindex in ifindexes {
            if let Some(position) = self.position(*ifindex) {
                let mut attached = self.attached.remove(position);
                errors.extend(attached.detach());
                detached.push(attached);
            }
        }
        if detached.is_empty() {
            return errors;
        }
        // The settings after the programs, which without them would count their last packets
        // elsewhere; and one wait for all, since it takes milliseconds.
        if let Err(error) = bpf::wait_for_running_programs() {
            tracing::debug!(event = "membarrier_failed", %error, "membarrier(2) failed");
        }
        for attached in detached {
            let ifindex = attached.attachment.interface.ifindex;
            errors.extend(self.settings.remove(ifindex).err());
            self.names.retire(ifindex);
            match self.counted(&attached) {
                Ok((held, counted)) => {
                    self.slots.give_back(attached.settings.counter_slot, held);
                    // Where attaching failed there is nothing to tell.
                    if !attached.is_bare() || counted != Both::default() {
                        self.retired.keep(attached.attachment, counted);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }
}
