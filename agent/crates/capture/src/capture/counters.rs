//! Counters of the kernel programs.

use std::sync::Arc;

use aya::maps::{Array, MapData, PerCpuArray};
use tap53_ebpf::{
    counter::Counters,
    settings::{Direction, counter_index},
};

use super::{Error, hook::Attachment, object::CountersValue};

/// Counters of the kernel programs for one interface since it was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// The interface and its hooks.
    pub attachment: Attachment,
    /// Counters of ingress and egress, summed over the CPUs.
    pub by_direction: [Counters; 2],
    /// False once it is detached.
    pub is_attached: bool,
}

/// Counts the ring items that each ring lost because it was full. Cheap to clone, for the workers.
#[derive(Clone)]
pub struct RingLost(Arc<Array<MapData, u64>>);

impl RingLost {
    pub(super) fn new(map: Array<MapData, u64>) -> Self {
        Self(Arc::new(map))
    }

    /// Returns the number of items that the ring has lost since it was created. It takes one system
    /// call.
    ///
    /// # Errors
    ///
    /// Fails if there is no such ring.
    pub fn get(&self, ring: u32) -> Result<u64, Error> {
        self.0.get(&ring, 0).map_err(|error| Error::map("RING_LOST", &error))
    }
}

/// Maximum number of reads of a slot until its counters are consistent. Packets are counted while
/// they are read, and a read can fall between two counters.
const MAX_READS: usize = 20;

/// Returns the counters of a slot, summed over the CPUs.
pub(super) fn read(
    map: &PerCpuArray<MapData, CountersValue>,
    slot: u32,
) -> Result<[Counters; 2], Error> {
    let mut counters = read_once(map, slot)?;
    for _ in 1..MAX_READS {
        if counters.iter().all(Counters::balanced) {
            break;
        }
        counters = read_once(map, slot)?;
    }
    Ok(counters)
}

fn read_once(map: &PerCpuArray<MapData, CountersValue>, slot: u32) -> Result<[Counters; 2], Error> {
    let mut by_direction = [Counters::default(); 2];
    for (direction, sum) in Direction::ALL.into_iter().zip(&mut by_direction) {
        let values = map
            .get(&counter_index(slot, direction), 0)
            .map_err(|error| Error::map("COUNTERS", &error))?;
        for CountersValue(counters) in values.iter() {
            sum.add(counters);
        }
    }
    Ok(by_direction)
}
