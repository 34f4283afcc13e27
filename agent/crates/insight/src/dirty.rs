//! Indices that have changed since the last publication.

/// A set of indices, in the order of their first change.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    is_set: Vec<bool>,
    indices: Vec<usize>,
}

impl Dirty {
    /// Adds an index.
    #[inline]
    pub(crate) fn mark(&mut self, index: usize) {
        if index >= self.is_set.len() {
            self.is_set.resize(index + 1, false);
        }
        if !self.is_set[index] {
            self.is_set[index] = true;
            self.indices.push(index);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Passes each index to `publish`, and empties the set.
    pub(crate) fn drain(&mut self, mut publish: impl FnMut(usize)) {
        for index in self.indices.drain(..) {
            self.is_set[index] = false;
            publish(index);
        }
    }
}
