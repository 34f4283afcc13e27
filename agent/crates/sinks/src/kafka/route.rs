//! The route of new records: the state of the sink's machine, and its only transitions.
//!
//! | route | a new record goes to | if that has no room |
//! |---|---|---|
//! | `Direct` | the producer | spool or buffer, if there is one, and the route changes; else it waits for room, and is lost (`queue_full`) |
//! | `Spool` | the spool | its oldest records are dropped; if the disk fails, the producer, else lost (`spool_failed`) |
//! | `Buffer(SpoolLocked)` | memory, until the other agent unlocks the spool | the producer, else lost (`spool_failed`) |
//! | `Buffer(SchemaPending)`, without a spool | memory, until the schema's id is known | lost (`no_schema_id`) |
//!
//! | in route | `Blocked` | `Drained` | `SpoolAcquired` |
//! |---|---|---|---|
//! | `Direct`, no spool | stays | stays | – |
//! | `Direct`, spool locked | `Buffer(SpoolLocked)` | stays | `Spool`; stays in mode fast with an empty spool |
//! | `Direct`, mode fast | `Spool` | stays | – |
//! | `Spool`, mode fast | stays | `Direct` | – |
//! | `Spool`, mode durable | stays | stays | – |
//! | `Buffer(SpoolLocked)` | stays | `Direct` | `Spool`; `Direct` in mode fast with an empty spool |
//! | `Buffer(SchemaPending)` | stays | `Direct`, permanently | – |

use parking_lot::RwLock;

use super::{backlog::Backlog, flight::Flight};
use crate::config::SpoolMode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the producer; they are in memory alone.
    Direct,
    /// To the spool, from where the sender sends them.
    Spool,
    /// To a buffer in memory, from where the sender sends them.
    Buffer(BufferReason),
}

/// The reason why records wait in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BufferReason {
    /// The registry has not given the id of their schema, and there is no spool.
    SchemaPending,
    /// Another agent has locked the spool.
    SpoolLocked,
}

/// An event that may change the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The producer refused a record, a delivery failed, nothing was acknowledged for a while, the
    /// broker refused a batch as too large, or the sink is closing.
    Blocked,
    /// The producer has the whole backlog, and the broker is not known to be unreachable.
    Drained,
    /// This agent has locked the spool, which now holds the records of the buffer.
    SpoolAcquired { is_empty: bool },
}

/// The storage for records that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    None,
    /// A spool that another agent has locked.
    Locked(SpoolMode),
    Spool(SpoolMode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) route: Route,
    pub(super) storage: Storage,
}

impl State {
    /// The state before the spool is open.
    pub(super) const fn initial(mode: Option<SpoolMode>, has_registry: bool) -> Self {
        match mode {
            Some(mode) => Self { route: Route::Direct, storage: Storage::Locked(mode) },
            None if has_registry => {
                Self { route: Route::Buffer(BufferReason::SchemaPending), storage: Storage::None }
            }
            None => Self { route: Route::Direct, storage: Storage::None },
        }
    }

    /// The table of the [module](self).
    pub(super) const fn after(self, event: Event) -> Self {
        use Route::{Buffer, Direct};
        let Self { route, storage } = self;
        match (event, storage) {
            (Event::SpoolAcquired { is_empty }, Storage::Locked(mode) | Storage::Spool(mode)) => {
                let is_direct = is_empty && matches!(mode, SpoolMode::Fast);
                let route = if is_direct { Direct } else { Route::Spool };
                Self { route, storage: Storage::Spool(mode) }
            }
            (Event::Blocked, Storage::Spool(_)) => Self { route: Route::Spool, storage },
            (Event::Blocked, Storage::Locked(_)) => {
                Self { route: Buffer(BufferReason::SpoolLocked), storage }
            }
            (Event::Drained, Storage::Spool(SpoolMode::Durable))
            | (Event::Blocked | Event::SpoolAcquired { .. }, Storage::None) => {
                Self { route, storage }
            }
            (Event::Drained, _) => Self { route: Direct, storage },
        }
    }
}

/// Holds the state. Workers read it once for each batch.
pub(super) struct Router(RwLock<State>);

impl Router {
    pub(super) const fn new(state: State) -> Self {
        Self(RwLock::new(state))
    }

    pub(super) fn route(&self) -> Route {
        self.state().route
    }

    /// True once this agent has the spool.
    pub(super) fn has_spool(&self) -> bool {
        matches!(self.state().storage, Storage::Spool(_))
    }

    pub(super) fn state(&self) -> State {
        *self.0.read()
    }

    /// Changes the route; nothing else does. It takes the backlog to prove that it is locked: no
    /// worker appends to it by a route that is changing.
    pub(super) fn apply(&self, event: Event, _locked: &mut Backlog<Flight>) {
        let mut state = self.0.write();
        *state = state.after(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [SpoolMode; 2] = [SpoolMode::Fast, SpoolMode::Durable];

    /// All states that events lead to.
    fn reachable() -> Vec<State> {
        let mut states: Vec<State> = Vec::new();
        let mut open: Vec<State> = MODES.map(|mode| State::initial(Some(mode), false)).to_vec();
        open.extend([State::initial(None, false), State::initial(None, true)]);
        while let Some(state) = open.pop() {
            if !states.contains(&state) {
                states.push(state);
                open.extend(EVENTS.map(|event| state.after(event)));
            }
        }
        states
    }

    const EVENTS: [Event; 4] = [
        Event::Blocked,
        Event::Drained,
        Event::SpoolAcquired { is_empty: false },
        Event::SpoolAcquired { is_empty: true },
    ];

    #[test]
    fn every_reachable_state_has_the_storage_of_its_route() {
        let states = reachable();
        for state in &states {
            let fits = match state.route {
                Route::Direct => state.storage != Storage::Spool(SpoolMode::Durable),
                Route::Spool => matches!(state.storage, Storage::Spool(_)),
                Route::Buffer(BufferReason::SpoolLocked) => {
                    matches!(state.storage, Storage::Locked(_))
                }
                Route::Buffer(BufferReason::SchemaPending) => state.storage == Storage::None,
            };
            assert!(fits, "{state:?}");
        }
        assert_eq!(states.len(), 9, "{states:?}");
    }

    #[test]
    fn transitions_are_those_of_the_table() {
        use Route::{Buffer, Direct, Spool};
        let locked = Buffer(BufferReason::SpoolLocked);
        let pending = Buffer(BufferReason::SchemaPending);
        let route = |state: State, event| state.after(event).route;
        for mode in MODES {
            let direct = State::initial(Some(mode), true);
            let buffering = direct.after(Event::Blocked);
            assert_eq!((direct.route, buffering.route), (Direct, locked));
            assert_eq!(route(buffering, Event::Blocked), locked);
            assert_eq!(route(buffering, Event::Drained), Direct);
            for state in [direct, buffering] {
                let empty = Event::SpoolAcquired { is_empty: true };
                let expected = if mode == SpoolMode::Fast { Direct } else { Spool };
                assert_eq!(route(state, empty), expected);
                let spool = state.after(Event::SpoolAcquired { is_empty: false });
                assert_eq!(spool.route, Spool);
                assert_eq!(route(spool, Event::Drained), expected);
                assert_eq!(route(spool.after(Event::Drained), Event::Blocked), Spool);
            }
        }
        let waiting = State::initial(None, true);
        assert_eq!((waiting.route, route(waiting, Event::Blocked)), (pending, pending));
        let ready = waiting.after(Event::Drained);
        assert_eq!((ready.route, route(ready, Event::Blocked)), (Direct, Direct), "for good");
    }
}
