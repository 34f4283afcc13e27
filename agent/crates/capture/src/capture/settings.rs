//! Writes the settings of interfaces for the kernel programs.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use tap53_ebpf::settings::{InterfaceSettings, NearSettings, near_index};

use super::{Error, object::take};

const INTERFACES: &str = "INTERFACES";
const NEAR: &str = "INTERFACES_NEAR";

/// Wraps [`InterfaceSettings`] as a map value of aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct SettingsValue(InterfaceSettings);

// SAFETY: repr(C), consists of integers, without padding (its size is asserted at its definition).
unsafe impl Pod for SettingsValue {}

/// Wraps [`NearSettings`] as a map value of aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct NearValue(NearSettings);

// SAFETY: repr(C), consists of integers, without padding (its size is asserted at its definition).
unsafe impl Pod for NearValue {}

/// The settings of every interface, and the cached copies of most of them that programs read first.
///
/// A copy is written in place, and a program may read it half written. So a slot is never given to
/// another interface while programs run on its owner: a new interface gets a free slot before
/// programs are attached to it, or none; and later changes write a single word.
pub(super) struct Settings {
    all: HashMap<MapData, u32, SettingsValue>,
    near: Array<MapData, NearValue>,
}

impl Settings {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { all: take(ebpf, INTERFACES)?, near: take(ebpf, NEAR)? })
    }

    /// Sets the behaviour of the programs on an interface.
    pub(super) fn set(&mut self, ifindex: u32, settings: InterfaceSettings) -> Result<(), Error> {
        self.all
            .insert(ifindex, SettingsValue(settings), 0)
            .map_err(|error| Error::map(INTERFACES, &error))?;
        let occupant = self.occupant(ifindex)?;
        if occupant == 0 || occupant == ifindex {
            self.write_near(ifindex, NearSettings { ifindex, settings })?;
        }
        Ok(())
    }

    /// Returns the settings of an interface, or `None`.
    pub(super) fn get(&self, ifindex: u32) -> Result<Option<InterfaceSettings>, Error> {
        match self.all.get(&ifindex, 0) {
            Ok(SettingsValue(settings)) => Ok(Some(settings)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(Error::map(INTERFACES, &error)),
        }
    }

    /// Removes an interface on which no program runs any more.
    pub(super) fn remove(&mut self, ifindex: u32) -> Result<(), Error> {
        if self.occupant(ifindex)? == ifindex {
            self.write_near(ifindex, NearSettings::default())?;
        }
        self.all.remove(&ifindex).map_err(|error| Error::map(INTERFACES, &error))
    }

    /// Returns the ifindex of the interface that has the slot of this one; 0 if it is free.
    fn occupant(&self, ifindex: u32) -> Result<u32, Error> {
        self.near
            .get(&near_index(ifindex), 0)
            .map(|NearValue(near)| near.ifindex)
            .map_err(|error| Error::map(NEAR, &error))
    }

    fn write_near(&mut self, ifindex: u32, near: NearSettings) -> Result<(), Error> {
        self.near
            .set(near_index(ifindex), NearValue(near), 0)
            .map_err(|error| Error::map(NEAR, &error))
    }
}
