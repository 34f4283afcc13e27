//! A question: which records are selected, and what becomes of them.

use std::io;

use crate::{
    avro::{Damaged, Shape},
    expression::{Expression, Matcher},
    row::{Fields, FlatField, Projection, Row},
};

/// The reason why a question ends early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The records are damaged.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The result cannot be written.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    /// The requested number of records was found.
    #[error("the limit is reached")]
    Limit,
}

/// Receives the selected records.
pub trait Consumer {
    /// Takes a record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn take(&mut self, row: &Row<'_, '_>) -> io::Result<()>;

    /// Passes on what is written so far, before a pause. Only lines are.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finish(self) -> io::Result<()>;
}

/// Numbers of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were read.
    pub read: u64,
    /// Records that the expression selects.
    pub selected: u64,
}

/// A question in progress.
pub struct Query<C> {
    fields: Fields,
    matcher: Option<Matcher>,
    consumer: C,
    limit: u64,
    counts: Counts,
}

impl<C: Consumer> Query<C> {
    /// Prepares a question; `fields` are those that `consumer` needs. After `limit` selected records it
    /// ends.
    pub fn new(
        mut fields: Fields,
        expression: Option<&Expression>,
        consumer: C,
        limit: Option<u64>,
    ) -> Self {
        let matcher = expression.map(|expression| Matcher::new(expression, &mut fields));
        let limit = limit.unwrap_or(u64::MAX);
        Self { fields, matcher, consumer, limit, counts: Counts::default() }
    }

    /// Returns true if the question needs a field.
    pub fn reads(&self, field: &str) -> bool {
        self.fields.contains(field)
    }

    /// Prepares to read records of a shape.
    ///
    /// # Errors
    /// When the expression needs a field in another form.
    pub fn projection(&self, shape: &Shape) -> Result<Projection, FlatField> {
        let paths = self.matcher.as_ref().map_or(&[][..], Matcher::paths);
        Projection::new(shape, &self.fields, paths)
    }

    /// Takes a block of `records` records.
    ///
    /// # Errors
    /// See [`Error`]. Records before the damage are taken.
    pub fn take(
        &mut self,
        projection: &Projection,
        block: &[u8],
        records: u64,
    ) -> Result<(), Error> {
        let Self { matcher, consumer, limit, counts, .. } = self;
        projection.rows(block, records, |row| {
            if counts.selected >= *limit {
                return Err(Error::Limit);
            }
            counts.read += 1;
            if matcher.as_ref().is_none_or(|matcher| matcher.matches(&row)) {
                counts.selected += 1;
                consumer.take(&row)?;
            }
            Ok(())
        })
    }

    /// Passes on what is written so far, before a pause.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Result<(), Error> {
        Ok(self.consumer.flush()?)
    }

    /// Returns the numbers of records so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the receiver of the selected records.
    pub const fn consumer(&self) -> &C {
        &self.consumer
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        self.consumer.finish()
    }
}
