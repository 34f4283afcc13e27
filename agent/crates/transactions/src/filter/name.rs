//! Allow and deny lists of names.

use hashbrown::HashMap;
use tap53_dns::parent;

use super::{List, Refusal};
use crate::filter::config::Lists;

/// Names by their zone. A name is looked up with one label less at a time, so a list of thousands
/// costs as much as a list of one.
#[derive(Clone, Debug)]
pub(super) struct Names {
    zones: HashMap<Box<str>, List>,
    has_allow: bool,
}

impl Names {
    /// Creates the lists from names in the format of [`presentation`](tap53_dns::presentation),
    /// including escapes.
    pub(super) fn new(lists: &Lists<String>) -> Self {
        let entry = |list: List| move |name: &String| (name.as_str().into(), list);
        let allow = lists.allow.iter().map(entry(List::Allow));
        let zones = allow.chain(lists.deny.iter().map(entry(List::Deny))).collect();
        Self { zones, has_allow: !lists.allow.is_empty() }
    }

    /// Returns the refusal of `name`, which must be in lower case already.
    pub(super) fn refusal(&self, name: Option<&str>) -> Option<Refusal> {
        if self.zones.is_empty() {
            return None;
        }
        let list = name.and_then(|name| {
            let closest = std::iter::successors(Some(name), |name| parent(name))
                .find_map(|zone| self.zones.get(zone));
            closest.or_else(|| self.zones.get(".")).copied()
        });
        List::refusal(list, self.has_allow)
    }
}
