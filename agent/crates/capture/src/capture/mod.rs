//! Kernel capture: loads the programs, attaches them, and reads their counters.
//!
//! ```text
//!  object ─▶ load ─▶ rings ──────────────────────────────▶ workers
//!              │        ▲ ring items
//!              └─▶ programs ◀─ attach: xdp, tcx, clsact ◀─ interfaces
//!                     │ counters
//!                     ▼
//!                  ledger
//! ```
//!
//! - **Nothing outlives the agent.** Links hold the programs, and the kernel drops them with the
//!   process, however it ends. Filters of a clsact qdisc, for kernels without TCX, are the
//!   exception: the next start removes them (see `clsact.rs`).
//! - **Objects of others are never touched**: no program is replaced, no foreign qdisc or filter
//!   removed.
//! - **Settings before programs**: an interface's settings are in their map before a program runs
//!   on it, and later changes are made there, without attaching programs again. The settings start
//!   and stop both directions at the same moment; packets that a hook sees before and after are
//!   counted as `disabled`.
//! - **Counter slots are reused**: the counts of an interface are kept when it is detached, so that
//!   neither maps nor the ledger grow with the interfaces that come and go (`slots.rs`).
//! - **Exact counts**: when [`Capture::detach_all`] returns, no program runs any more, so that
//!   counters and rings are final.
//! - Kernel features are detected by trying to use them, not by the kernel's version: distributions
//!   backport.

mod attached;
mod bpf;
mod clsact;
pub mod config;
mod counters;
mod error;
mod hook;
mod hook_owners;
mod object;
mod precedence;
mod preflight;
pub mod privilege;
pub mod probe;
mod processes;
mod qdisc;
mod settings;
mod slots;
mod thread;

use std::{path::Path, sync::Arc};

use aya::maps::{MapData, PerCpuArray};

use attached::Attached;
use object::{CountersValue, Programs};
use processes::Followed;
use settings::Settings;
use slots::{Both, Retired, Slots};
use tap53_base::clock::monotonic_ns;
use tap53_ebpf::{
    counter::{Counter, Counters},
    settings::{Direction, InterfaceSettings, UNCONFIGURED_SLOT},
};

pub use counters::{InterfaceCounters, RingLost};
pub use error::Error;
pub use hook::{Attachment, Hook};
pub use hook_owners::{HookOwners, Program, XdpAttached};
pub use object::{KernelLog, OBJECT, Ring};
pub use preflight::Preflight;
pub use processes::Processes;
pub use qdisc::{Filter, Qdisc};
pub use thread::{CaptureThread, Counted, Loaded};

use crate::{
    capture::config::CaptureConfig,
    interfaces::config::Directions,
    interfaces::{Interface, Names},
    ring::Doorbells,
};

/// The loaded kernel programs. Dropping it detaches everything.
pub struct Capture {
    config: CaptureConfig,
    programs: Programs,
    settings: Settings,
    counters: PerCpuArray<MapData, CountersValue>,
    ring_lost: RingLost,
    doorbells: Doorbells,
    rings: Vec<Ring>,
    kernel_log: Option<KernelLog>,
    processes: Option<Followed>,
    slots: Slots,
    /// In the order in which they were attached.
    attached: Vec<Attached>,
    retired: Retired,
    /// Generation of the settings of the interface that was attached last.
    generation: u32,
    /// Names of the interfaces, for the workers.
    names: Arc<Names>,
}

/// State of an interface according to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The attached hooks.
    pub attachment: Attachment,
    /// True per direction if packets are captured, by the settings that the programs read.
    pub enabled: [bool; 2],
    /// True per direction if the hook is still attached: other privileged processes can detach it.
    pub in_place: [bool; 2],
    /// Per direction, what keeps packets from the program, if anything is known to.
    pub shadowed: [Option<String>; 2],
}

impl Capture {
    /// Loads the programs, creates the rings, and removes the filters of killed agents.
    ///
    /// Install the logger of the crate `log` before this call if `kernel_log` is configured.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] names the missing capability; [`Error::Verifier`] and
    /// [`Error::Kernel`] mean that this kernel lacks a feature that the programs need.
    pub fn load(config: &CaptureConfig) -> Result<Self, Error> {
        Self::load_with_processes(config, None)
    }

    /// Does the same as [`Self::load`], and follows the processes that use sockets if `cgroups`, the
    /// tree of all cgroups, is there. If the kernel cannot do that, it is logged.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::load`] does.
    pub fn load_with_processes(
        config: &CaptureConfig,
        cgroups: Option<&Path>,
    ) -> Result<Self, Error> {
        let object::Loaded {
            programs,
            settings,
            counters,
            ring_lost,
            doorbells,
            rings,
            kernel_log,
            processes,
        } = object::load(config, cgroups)?;
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
            // Continue: the filters do no harm but cost time.
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
            processes,
            slots: Slots::new(config.max_interfaces),
            attached: Vec::new(),
            retired: Retired::default(),
            generation: 0,
            names: Arc::default(),
        })
    }

    /// Returns the names of the interfaces, for the workers.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        self.names.clone()
    }

    /// Returns the rings, one for each worker; empty after the first call.
    pub fn take_rings(&mut self) -> Vec<Ring> {
        std::mem::take(&mut self.rings)
    }

    /// Returns the messages of the kernel programs if `kernel_log` is configured; `None` after the
    /// first call.
    pub fn take_kernel_log(&mut self) -> Option<KernelLog> {
        self.kernel_log.take()
    }

    /// Starts capture on an interface of this thread's network namespace. If it is attached
    /// already, this equals [`Self::set_directions`].
    ///
    /// # Errors
    ///
    /// Fails if no hook accepts the programs; then the interface is left unchanged.
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
                let settings = self.next_settings(interface)?;
                let carried = self.retired.resume(&interface.name, interface.ifindex);
                self.attached.push(Attached::new(interface.clone(), settings, carried));
                self.attached.len() - 1
            }
        };
        // Set the name before a program can send one of its packets to a worker.
        self.names.set(interface.ifindex, &interface.name, monotonic_ns());
        self.apply(position, directions)?;
        Ok(&self.attached[position].attachment)
    }

    /// Stops capture on an attached interface in the time of a map write: the programs stay, and
    /// count packets as `disabled`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchInterface`] if no attached interface has this ifindex.
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

    /// Updates an attached interface that has changed: its MTU or its name, and with the name
    /// perhaps the tunnels to decapsulate.
    ///
    /// # Errors
    ///
    /// Fails if the settings cannot be written, which does not happen while this value lives.
    pub fn update(&mut self, interface: &Interface) -> Result<(), Error> {
        let Some(position) = self.position(interface.ifindex) else { return Ok(()) };
        let attached = &mut self.attached[position];
        attached.attachment.interface = interface.clone();
        self.names.set(interface.ifindex, &interface.name, monotonic_ns());
        let features = self.config.features_of(interface);
        if features == attached.settings.features {
            return Ok(());
        }
        attached.settings.features = features;
        self.settings.set(interface.ifindex, attached.settings)
    }

    /// Changes the captured directions of an attached interface. A missing program is attached, but
    /// none is detached or attached again: a direction that is off is ignored by the settings.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchInterface`] if no attached interface has this ifindex, and the errors of
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

    /// Stops capture on an interface. Its counters remain, and are final when this returns.
    pub fn detach(&mut self, ifindex: u32) -> Vec<Error> {
        self.detach_these(&[ifindex])
    }

    /// Stops capture on all interfaces. When this returns, no program runs any more: counters are
    /// final, and rings contain the items that remain to be drained.
    pub fn detach_all(&mut self) -> Vec<Error> {
        let all: Vec<u32> = self.attachments().map(|a| a.interface.ifindex).collect();
        self.detach_and_keep_lines(&all)
    }

    /// Returns the attachments of all attached interfaces.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.iter().map(|attached| &attached.attachment)
    }

    /// Returns the state of each attached interface according to the kernel.
    ///
    /// # Errors
    ///
    /// Fails if the settings cannot be read, which does not happen while this value lives.
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

    /// Describes what keeps packets from our programs on an attached interface, for arriving and
    /// for departing packets; `None` if nothing does, or the direction is not attached.
    ///
    /// It is cheap enough to be called every few seconds: one request to rtnetlink and one to
    /// bpf(2) per direction. It compares packet counts with those of the previous call, so the
    /// first call only finds programs that run before ours, and it takes some packets to find out
    /// whether they let packets pass.
    pub fn shadowed(&mut self, ifindex: u32) -> [Option<String>; 2] {
        self.position(ifindex).map_or([None, None], |position| self.shadowed_at(position))
    }

    fn shadowed_at(&mut self, position: usize) -> [Option<String>; 2] {
        let attached = &mut self.attached[position];
        let Ok(counters) = counters::read(&self.counters, attached.settings.counter_slot) else {
            return [None, None];
        };
        precedence::check(attached, &self.programs, counters.map(|of| of.get(Counter::Seen)))
    }

    /// Returns the counters of the interfaces that are attached, after those of recently detached
    /// ones; an interface that was attached several times has one line.
    ///
    /// # Errors
    ///
    /// Fails if the map cannot be read, which does not happen while this value lives.
    /// If the map cannot be read, which does not happen while this value lives.
    pub fn counters(&self) -> Result<Vec<InterfaceCounters>, Error> {
        let mut lines: Vec<_> = self.retired.lines().cloned().collect();
        for attached in &self.attached {
            let by_direction = self.counted(attached)?.1;
            let attachment = attached.attachment.clone();
            lines.push(InterfaceCounters { attachment, by_direction, is_attached: true });
        }
        Ok(lines)
    }

    /// Returns the number of detached interfaces that no longer have a line in [`Self::counters`],
    /// and the sum of their counters: first of others than ends of pairs, then of those.
    #[must_use]
    pub const fn retired(&self) -> [(u64, [Counters; 2]); 2] {
        self.retired.earlier()
    }

    /// Returns the counters of packets on interfaces without settings.
    ///
    /// # Errors
    ///
    /// The same as [`Self::counters`].
    pub fn unconfigured(&self) -> Result<[Counters; 2], Error> {
        counters::read(&self.counters, UNCONFIGURED_SLOT)
    }

    /// Returns true if this thread may use maps by their descriptors.
    pub(crate) fn can_read_maps(&self) -> bool {
        self.ring_lost.get(0).is_ok()
    }

    /// Returns the loss counters of the rings.
    #[must_use]
    pub fn ring_lost(&self) -> RingLost {
        self.ring_lost.clone()
    }

    /// Returns the processes that use sockets, if they are followed.
    #[must_use]
    pub fn processes(&self) -> Option<Processes> {
        self.processes.as_ref().map(|followed| followed.processes.clone())
    }

    /// Returns the doorbells, by which the workers request a wake-up from the kernel.
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

    /// Returns the current counters of an interface's slot, and the total of the interface.
    fn counted(&self, attached: &Attached) -> Result<(Both, Both), Error> {
        let slot = attached.settings.counter_slot;
        let held = counters::read(&self.counters, slot)?;
        let mut counted = self.slots.counted(slot, &held);
        slots::add(&mut counted, &attached.carried);
        Ok((held, counted))
    }

    /// Creates the settings of one more interface, with a free counter slot and a new generation.
    fn next_settings(&mut self, interface: &Interface) -> Result<InterfaceSettings, Error> {
        let counter_slot = self.slots.take().ok_or_else(|| Error::TooManyInterfaces {
            name: interface.name.clone(),
            limit: self.config.max_interfaces,
        })?;
        self.generation = self.generation.wrapping_add(1);
        Ok(InterfaceSettings {
            directions: 0,
            snap_length: self.config.snap_length,
            counter_slot,
            generation: self.generation,
            features: self.config.features_of(interface),
        })
    }

    /// Attaches missing programs, then enables the directions, both at the same moment: if one hook
    /// was late, a query whose response only the other hook saw would look unanswered. A single
    /// direction of an interface without programs is enabled before: the kernel runs a program some
    /// 15 ms before it confirms the attachment (`tcx_entry_sync` waits for an RCU grace period).
    /// Reverts both on failure.
    fn apply(&mut self, position: usize, directions: Directions) -> Result<(), Error> {
        let attached = &mut self.attached[position];
        let ifindex = attached.attachment.interface.ifindex;
        let before = attached.settings;
        let was_bare = attached.is_bare();
        let changes = before.directions != directions.bits();
        if changes {
            // Record it before a response can arrive whose query was not captured.
            self.names.switch(ifindex, monotonic_ns());
        }
        let enabled = InterfaceSettings { directions: directions.bits(), ..before };
        let is_early = was_bare && directions != Directions::Both;
        let result = self
            .settings
            .set(ifindex, if is_early { enabled } else { before })
            .and_then(|()| attached.attach(directions, &self.config, &self.programs))
            .and_then(|()| {
                attached.settings = enabled;
                self.settings.set(ifindex, enabled)
            });
        let Err(error) = result else {
            if changes {
                // And after the last query whose response is not captured.
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

    /// Stops capture on several interfaces, which costs little more than on one. See
    /// [`Self::detach`].
    pub fn detach_these(&mut self, ifindexes: &[u32]) -> Vec<Error> {
        let errors = self.detach_and_keep_lines(ifindexes);
        self.retired.trim();
        errors
    }

    /// Detaches like [`Self::detach_these`]; afterwards each interface that was attached has its
    /// line.
    fn detach_and_keep_lines(&mut self, ifindexes: &[u32]) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut detached = Vec::new();
        let mut may_run = false;
        // Hooks are detached one after the other; the settings end capture at one moment.
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
                may_run |= attached.may_run();
                errors.extend(attached.detach());
                detached.push(attached);
            }
        }
        if detached.is_empty() {
            return errors;
        }
        // Remove the settings after the programs, which would otherwise count their last packets
        // elsewhere. Wait once for all of them, since it takes some 15 milliseconds.
        if may_run && let Err(error) = bpf::wait_for_running_programs() {
            tracing::debug!(event = "membarrier_failed", %error, "membarrier(2) failed");
        }
        for attached in detached {
            let ifindex = attached.attachment.interface.ifindex;
            errors.extend(self.settings.remove(ifindex).err());
            self.names.retire(ifindex);
            match self.counted(&attached) {
                Ok((held, counted)) => {
                    self.slots.release(attached.settings.counter_slot, held);
                    // There is nothing to report if attaching failed.
                    if !attached.is_bare() || counted != Both::default() {
                        self.retired.add(attached.attachment, counted);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }
}
