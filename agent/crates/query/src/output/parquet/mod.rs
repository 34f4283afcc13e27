//! Parquet: a column for each field, with arrays and labels as lists and maps.
//!
//! Every field is optional, so records of earlier versions fit. The columns of a row group are held in memory
//! until it is written, at [`ROW_GROUP_BYTES`]. Levels are those of Dremel
//! (<https://parquet.apache.org/docs/file-format/nestedencoding>).

mod column;

use std::{
    io::{self, Write},
    sync::Arc,
};

use parquet::{
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::Type,
};

use super::Column;
use crate::{query::Consumer, row::Row};
use column::Node;

/// Size of a row group in memory, in bytes.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Writes records as Parquet.
pub struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<(Column, Node)>,
    bytes: usize,
}

impl<W: Write + Send> Parquet<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When it cannot be written, or a column occurs twice.
    pub fn begin(columns: Vec<Column>, out: W) -> io::Result<Self> {
        let mut names: Vec<&str> = columns.iter().map(|it| it.field.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(io::Error::other(format!("column {} occurs twice", twice[0])));
        }
        let (mut types, mut nodes) = (Vec::new(), Vec::new());
        for column in columns {
            let (kind, node) = Node::new(&column.field.name, &column.field.shape, 0, 0)?;
            types.push(Arc::new(kind));
            nodes.push((column, node));
        }
        let schema = Type::group_type_builder("record").with_fields(types).build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("tap53 ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { writer, columns: nodes, bytes: 0 })
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for (_, node) in &mut self.columns {
            node.write(&mut group)?;
        }
        self.bytes = 0;
        group.close().map(drop)
    }
}

impl<W: Write + Send> Consumer for Parquet<W> {
    fn take(&mut self, row: &Row<'_, '_>) -> io::Result<()> {
        for (column, node) in &mut self.columns {
            let pushed = node.push(row.get(column.slot));
            self.bytes += pushed.map_err(|why| {
                io::Error::other(format!("field {} of a record: {why}", column.field.name))
            })?;
        }
        if self.bytes >= ROW_GROUP_BYTES {
            self.end_row_group()?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if self.bytes > 0 {
            self.end_row_group()?;
        }
        self.writer.finish()?;
        self.writer.inner_mut().flush()
    }
}
