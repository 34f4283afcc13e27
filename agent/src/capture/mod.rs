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
//!   on it, and are changed there; programs are not attached anew.
//! - **Exact counts**: when [`Capture::detach_all`] returns, no program runs any more, so that
//!   counters and rings are final.
//! - Whether the kernel has a feature is found by trying to use it, not by its version:
//!   distributions backport.

mod attached;
mod bpf;
mod clsact;
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

use aya::maps::{MapData, PerCpuArray};
use tap53_ebpf::{
    counter::{Counter, Counters},
    settings::{Direction, InterfaceSettings, UNCONFIGURED_SLOT},
};

use attached::Attached;
use object::{CountersValue, Loaded, Programs};
use settings::Settings;

pub use counters::{InterfaceCounters, RingLost};
pub use error::Error;
pub use holders::{Holders, Program, XdpAttached};
pub use hook::{Attachment, Hook};
pub use object::{KernelLog, OBJECT, Ring};
pub use preflight::Preflight;
pub use qdisc::{Filter, Qdisc};

use crate::{
    config::{CaptureConfig, Directions},
    interfaces::Interface,
};

/// Interfaces that can be attached in one run, counted anew when one is detached and attached
/// again, since its counters stay for the ledger. On each CPU 2 × 136 bytes of counters for each.
const MAX_ATTACHMENTS: u32 = 512;

/// The kernel side, loaded. Dropping it detaches everything.
pub struct Capture {
    config: CaptureConfig,
    programs: Programs,
    settings: Settings,
    counters: PerCpuArray<MapData, CountersValue>,
    ring_lost: RingLost,
    rings: Vec<Ring>,
    kernel_log: Option<KernelLog>,
    /// In order of attaching; the position decides counter slot and generation.
    attached: Vec<Attached>,
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
        let Loaded { programs, settings, counters, ring_lost, rings, kernel_log } =
            object::load(config)?;
        match clsact::sweep() {
            Ok(swept) => {
                for ifindex in swept {
                    tracing::info!(ifindex, "removed clsact filters that a killed agent left");
                }
            }
            // Not worth failing for: the filters do no harm but cost time.
            Err(error) => tracing::warn!(%error, "cannot look for filters of a killed agent"),
        }
        Ok(Self {
            config: config.clone(),
            programs,
            settings,
            counters,
            ring_lost,
            rings,
            kernel_log,
            attached: Vec::new(),
        })
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
                self.attached.push(Attached::new(interface.clone(), settings));
                self.attached.len() - 1
            }
        };
        self.apply(position, directions)?;
        Ok(&self.attached[position].attachment)
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
        let position = self
            .position(ifindex)
            .ok_or_else(|| Error::NoSuchInterface { name: format!("number {ifindex}") })?;
        self.apply(position, directions)?;
        Ok(&self.attached[position].attachment)
    }

    /// Stops capturing on an interface. Its counters stay, and are final when this returns.
    pub fn detach(&mut self, ifindex: u32) -> Vec<Error> {
        self.detach_those(|interface| interface.ifindex == ifindex)
    }

    /// Stops capturing everywhere. When this returns, no program runs any more: counters are final,
    /// and rings hold what is left to drain.
    pub fn detach_all(&mut self) -> Vec<Error> {
        self.detach_those(|_| true)
    }

    /// How each interface is attached that is attached now.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.iter().filter(|attached| attached.live).map(|attached| &attached.attachment)
    }

    /// The counters of every interface attached since the start, also of those detached again.
    ///
    /// # Errors
    ///
    /// If the map cannot be read, which does not happen while this value lives.
    pub fn counters(&self) -> Result<Vec<InterfaceCounters>, Error> {
        self.attached
            .iter()
            // Where attaching failed there is nothing to tell.
            .filter(|attached| {
                Direction::ALL.iter().any(|d| attached.attachment.hook(*d).is_some())
            })
            .map(|attached| {
                Ok(InterfaceCounters {
                    attachment: attached.attachment.clone(),
                    by_direction: counters::read(&self.counters, attached.settings.counter_slot)?,
                })
            })
            .collect()
    }

    /// The counters of packets on interfaces without settings.
    ///
    /// # Errors
    ///
    /// As [`Self::counters`].
    pub fn unconfigured(&self) -> Result<[Counters; 2], Error> {
        counters::read(&self.counters, UNCONFIGURED_SLOT)
    }

    /// What keeps packets from our programs on an attached interface, for what arrives and for
    /// what leaves; `None` where nothing does, or nothing is attached.
    ///
    /// Cheap enough to be asked every few seconds: one question to rtnetlink and one to bpf(2) a
    /// direction. It compares with the call before, so that the first can only tell who is ahead,
    /// and it takes some packets to tell whether those ahead let them pass.
    pub fn shadowed(&mut self, ifindex: u32) -> [Option<String>; 2] {
        let Some(position) = self.position(ifindex) else { return [None, None] };
        let attached = &mut self.attached[position];
        let Ok(counters) = counters::read(&self.counters, attached.settings.counter_slot) else {
            return [None, None];
        };
        shadow::look(attached, &self.programs, counters.map(|of| of.get(Counter::Seen)))
    }

    /// The losses of each ring.
    #[must_use]
    pub fn ring_lost(&self) -> RingLost {
        self.ring_lost.clone()
    }

    fn position(&self, ifindex: u32) -> Option<usize> {
        self.attached.iter().position(|a| a.live && a.attachment.interface.ifindex == ifindex)
    }

    /// Settings for one more interface, with a counter slot and a generation of its own.
    fn next_settings(&self, name: &str) -> Result<InterfaceSettings, Error> {
        let number = u32::try_from(self.attached.len() + 1).unwrap_or(u32::MAX);
        if number > MAX_ATTACHMENTS {
            return Err(Error::TooManyInterfaces { name: name.to_owned(), limit: MAX_ATTACHMENTS });
        }
        Ok(InterfaceSettings {
            directions: 0,
            snap_length: self.config.snap_length,
            counter_slot: UNCONFIGURED_SLOT + number,
            generation: number,
            features: self.config.features_of(name),
        })
    }

    /// Writes the settings, then attaches what is missing; undoes both on failure.
    fn apply(&mut self, position: usize, directions: Directions) -> Result<(), Error> {
        let attached = &mut self.attached[position];
        let ifindex = attached.attachment.interface.ifindex;
        let before = attached.settings;
        attached.settings.directions = directions.bits();
        let result = self
            .settings
            .set(ifindex, attached.settings)
            .and_then(|()| attached.attach(directions, &self.config, &self.programs));
        let Err(error) = result else {
            return Ok(());
        };
        attached.settings = before;
        if before.directions == 0 {
            for error in self.detach(ifindex) {
                tracing::error!(%error, "left behind");
            }
        } else if let Err(error) = self.settings.set(ifindex, before) {
            tracing::error!(%error, "settings cannot be written back");
        }
        Err(error)
    }

    fn detach_those(&mut self, is_meant: impl Fn(&Interface) -> bool) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut detached = Vec::new();
        for attached in &mut self.attached {
            let interface = &attached.attachment.interface;
            if attached.live && is_meant(interface) {
                detached.push(interface.ifindex);
                errors.extend(attached.detach());
            }
        }
        // The settings after the programs, which without them would count their last packets
        // elsewhere; and one wait for all, since it takes milliseconds.
        if let Err(error) = bpf::wait_for_running_programs() {
            tracing::debug!(%error, "membarrier refused");
        }
        for ifindex in detached {
            errors.extend(self.settings.remove(ifindex).err());
        }
        errors
    }
}
