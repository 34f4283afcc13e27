//! Packets at the hooks, as the kernel programs counted them.

use tap53_ledger::Hook;

use super::{Metric, each_hook, stage};

pub(super) fn stages() -> impl Iterator<Item = Metric> {
    stage::<Hook>(&["interface", "direction"], |r, report| {
        each_hook(r, |of, hook| report(&of, hook));
    })
}
