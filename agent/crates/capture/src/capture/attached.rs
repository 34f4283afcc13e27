//! One attached interface: its links and filters, and the order in which its hooks are tried.

use std::os::fd::{AsFd, OwnedFd};

use aya::programs::ProgramFd;
use tap53_ebpf::settings::{Direction, InterfaceSettings};

use super::{
    Error, bpf,
    bpf::AttachPoint,
    clsact::Clsact,
    error::errno_name,
    hook::{Attachment, Hook, Plan, Refusal},
    hook_owners::HookOwners,
    object::{Programs, TC_PROGRAMS},
    precedence::PacketComparison,
    preflight::circumstances,
    qdisc::Filter,
    slots::Both,
};
use crate::{
    capture::config::{CaptureConfig, TcChoice},
    interfaces::config::Directions,
    interfaces::{Device, Interface, Kind},
};

/// The reason why XDP is not tried on any interface.
const NO_XDP: &str = "this kernel accepts no XDP program";

/// An interface with settings.
pub(super) struct Attached {
    pub(super) attachment: Attachment,
    pub(super) settings: InterfaceSettings,
    /// Counters from earlier attachments.
    pub(super) carried: Both,
    links: Vec<(Direction, OwnedFd)>,
    clsact: Option<Clsact>,
    notes: Vec<String>,
    /// Packet counts per direction, to detect packets that do not reach our program.
    pub(super) comparisons: [PacketComparison; 2],
}

impl Attached {
    pub(super) fn new(interface: Interface, settings: InterfaceSettings, carried: Both) -> Self {
        Self {
            attachment: Attachment { interface, ingress: None, egress: None, why: String::new() },
            settings,
            carried,
            links: Vec::new(),
            clsact: None,
            notes: Vec::new(),
            comparisons: [PacketComparison::default(); 2],
        }
    }

    /// Attaches programs for the `directions` that have none yet. Detaches nothing: attaching
    /// resets some NICs, so switching off only changes the settings.
    pub(super) fn attach(
        &mut self,
        directions: Directions,
        config: &CaptureConfig,
        programs: &Programs,
    ) -> Result<(), Error> {
        // Continue without it: it only affects the choice of the hook, and explanations.
        // Only for a physical device does the choice depend on it. The queries wait for the lock
        // that others hold while they create pods.
        let early = if self.attachment.interface.kind == Kind::Physical {
            Device::of(&self.attachment.interface).ok()
        } else {
            None
        };
        if directions.contains(Direction::Ingress) && self.attachment.ingress.is_none() {
            self.attachment.ingress =
                Some(self.attach_ingress(config, programs, early.as_ref())?);
        }
        if directions.contains(Direction::Egress) && self.attachment.egress.is_none() {
            self.attachment.egress = Some(self.attach_tc(Direction::Egress, config, programs)?);
        }
        let device = early.or_else(|| Device::of(&self.attachment.interface).ok());
        self.attachment.why = self.why(device.as_ref());
        Ok(())
    }

    /// Explains the choice of these hooks, and describes the device.
    fn why(&self, device: Option<&Device>) -> String {
        let mut why = self.notes.clone();
        if why.is_empty() {
            why.push("first choice".to_owned());
        }
        why.extend(device.into_iter().flat_map(circumstances));
        why.join("; ")
    }

    /// Returns the attachment with the current state of the device: a link may have come up since.
    pub(super) fn attachment_now(&self) -> Attachment {
        let device = Device::of(&self.attachment.interface).ok();
        Attachment { why: self.why(device.as_ref()), ..self.attachment.clone() }
    }

    fn attach_ingress(
        &mut self,
        config: &CaptureConfig,
        programs: &Programs,
        device: Option<&Device>,
    ) -> Result<Hook, Error> {
        let part_of = device.and_then(|device| device.part_of.as_ref());
        let plan = Plan::new(config, &self.attachment.interface.kind, part_of);
        self.notes.extend(plan.why);
        match &programs.xdp {
            None if !plan.xdp.is_empty() => self.notes.push(NO_XDP.to_owned()),
            None => {}
            Some(program) => {
                for hook in plan.xdp {
                    match self.attach_xdp(*hook, program)? {
                        Refused::No => return Ok(*hook),
                        Refused::Unsupported => {}
                        Refused::Taken => break,
                    }
                }
            }
        }
        self.attach_tc(Direction::Ingress, config, programs)
    }

    fn attach_xdp(&mut self, hook: Hook, program: &ProgramFd) -> Result<Refused, Error> {
        let hookup = match hook {
            Hook::XdpGeneric => AttachPoint::XdpGeneric,
            _ => AttachPoint::XdpNative,
        };
        let interface = &self.attachment.interface;
        let error = match bpf::link_create(program.as_fd(), interface.ifindex, hookup) {
            Ok(link) => {
                self.links.push((Direction::Ingress, link));
                return Ok(Refused::No);
            }
            Err(error) => error,
        };
        match Refusal::of(&error) {
            Refusal::Unsupported => {
                // The driver has no room for packets of this length.
                let mtu = match error.raw_os_error() {
                    Some(libc::ERANGE) => format!(" at MTU {}", interface.mtu),
                    _ => String::new(),
                };
                self.notes.push(format!("{hook} refused: {}{mtu}", errno_name(&error)));
                Ok(Refused::Unsupported)
            }
            Refusal::Taken => {
                let owner = HookOwners::of(interface)
                    .ok()
                    .and_then(|owners| owners.describe_xdp())
                    .unwrap_or_else(|| "another program".to_owned());
                self.notes.push(format!("XDP is occupied by {owner}: {}", errno_name(&error)));
                Ok(Refused::Taken)
            }
            Refusal::Failure => {
                let what = format!("{hook} (capture.hook: tc would capture without it)");
                Err(Error::attach(&interface.name, what, error))
            }
        }
    }

    fn attach_tc(
        &mut self,
        direction: Direction,
        config: &CaptureConfig,
        programs: &Programs,
    ) -> Result<Hook, Error> {
        let program = programs.tc[direction as usize].as_fd();
        let interface = &self.attachment.interface;
        if config.tc != TcChoice::Clsact {
            match bpf::link_create(program, interface.ifindex, AttachPoint::Tcx(direction)) {
                Ok(link) => {
                    self.links.push((direction, link));
                    return Ok(Hook::Tcx);
                }
                // The kernel does not know this attach type.
                Err(error)
                    if config.tc == TcChoice::Auto
                        && Refusal::of(&error) == Refusal::Unsupported =>
                {
                    note(&mut self.notes, format!("no TCX: {}", errno_name(&error)));
                }
                Err(error) => {
                    let what = format!("tcx on {}", direction.name());
                    return Err(Error::attach(&interface.name, what, error));
                }
            }
        }
        let clsact = match &mut self.clsact {
            Some(clsact) => clsact,
            none => none.insert(Clsact::open(interface)?),
        };
        let ahead = clsact.attach(direction, TC_PROGRAMS[direction as usize], program)?;
        if let Some(filter) = ahead {
            note(
                &mut self.notes,
                format!(
                    "on {} behind a {} filter of priority {}",
                    direction.name(),
                    filter.kind,
                    filter.priority
                ),
            );
        }
        Ok(Hook::Clsact)
    }

    /// Returns our clsact filter of a direction.
    pub(super) fn filter(&self, direction: Direction) -> Option<&Filter> {
        self.clsact.as_ref()?.filter(direction)
    }

    /// Returns true if no hook was ever attached.
    pub(super) const fn is_bare(&self) -> bool {
        self.attachment.ingress.is_none() && self.attachment.egress.is_none()
    }

    /// Returns per direction whether the hook is still attached. A link no longer names the device
    /// if the device is gone, or if another process has detached it.
    pub(super) fn in_place(&self) -> [bool; 2] {
        Direction::ALL.map(|direction| match self.attachment.hook(direction) {
            None => false,
            Some(Hook::Clsact) => {
                self.clsact.as_ref().is_some_and(|clsact| clsact.has_filter(direction))
            }
            Some(_) => self.links.iter().any(|(of, link)| {
                let ifindex = bpf::link_ifindex(link.as_fd());
                *of == direction && ifindex.ok() == Some(self.attachment.interface.ifindex)
            }),
        })
    }

    /// Returns false if no program of ours can run any more: the kernel has removed the device, and
    /// has waited for them. A device that has moved to another namespace keeps its programs.
    pub(super) fn may_run(&self) -> bool {
        let is_gone =
            |link: &OwnedFd| bpf::link_ifindex(link.as_fd()).is_ok_and(|ifindex| ifindex == 0);
        self.clsact.is_some() || !self.links.iter().all(|(_, link)| is_gone(link))
    }

    /// Detaches everything; only the description of the attachment remains.
    pub(super) fn detach(&mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        for (direction, link) in self.links.drain(..) {
            // Closing the link also detaches it, but reports no error.
            if let Err(error) = bpf::link_detach(link.as_fd()) {
                let what = format!("detaching from {}", direction.name());
                errors.push(Error::attach(&self.attachment.interface.name, what, error));
            }
        }
        if let Some(clsact) = self.clsact.take() {
            errors.extend(clsact.detach().err());
        }
        errors
    }
}

/// Adds a note once, though both directions may add it.
fn note(notes: &mut Vec<String>, note: String) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

/// The result of attaching in one XDP mode.
enum Refused {
    /// It was attached.
    No,
    /// The device does not support the mode.
    Unsupported,
    /// Another program occupies the slot.
    Taken,
}
