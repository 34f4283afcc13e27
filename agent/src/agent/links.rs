//! Reads changes of the interfaces from netlink.

use tap53_capture::interfaces::{self, Change, Interface, Watch};
use tokio::io::unix::AsyncFd;

use super::{Error, readable, wait_for};

/// Changes of the interfaces.
pub(super) enum News {
    /// The changes since the last ones, oldest first; may be none.
    Changes(Vec<Change>),
    /// Changes were lost: these are all interfaces.
    All(Vec<Interface>),
}

impl News {
    /// No change.
    pub(super) const NONE: Self = Self::Changes(Vec::new());

    /// Returns true if nothing has changed.
    pub(super) const fn is_none(&self) -> bool {
        matches!(self, Self::Changes(changes) if changes.is_empty())
    }
}

/// The subscription to changes.
pub(super) struct Links(AsyncFd<Watch>);

impl Links {
    pub(super) fn open() -> Result<Self, Error> {
        wait_for("changes of interfaces", Watch::open()?).map(Self)
    }

    /// Waits until there may be a change.
    pub(super) async fn readable(&self) {
        readable(&self.0).await;
    }

    /// Returns what has changed, without waiting. Errors are logged, and the next call tries again.
    pub(super) fn read(&mut self) -> News {
        let watch = self.0.get_mut();
        let changes = match watch.changes() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(
                    event = "netlink_failed",
                    %error,
                    "cannot read changes of the interfaces from netlink"
                );
                return News::NONE;
            }
        };
        if !changes.contains(&Change::Lost) {
            return News::Changes(changes);
        }
        // Messages that are still queued are older than the list.
        while watch.changes().is_ok_and(|changes| !changes.is_empty()) {}
        tracing::warn!(event = "netlink_overrun", "netlink overrun, resyncing interfaces");
        interfaces::list().map_or_else(
            |error| {
                tracing::error!(
                    event = "interface_list_failed",
                    %error,
                    "cannot list the interfaces"
                );
                News::NONE
            },
            News::All,
        )
    }
}
