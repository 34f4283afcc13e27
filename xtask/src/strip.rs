//! Removes DWARF from a BPF object.
//!
//! bpf-linker generates BTF from DWARF and keeps both. The kernel uses BTF only, and the agent embeds the
//! object, five sixths of which would be useless DWARF in its memory.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, Section, SectionData},
    elf::SHT_STRTAB,
};

/// The object without its DWARF sections and their relocations. BTF stays.
pub(crate) fn strip_debug_sections(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("cannot read the BPF object as ELF")?;

    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    // LLVM keeps section names and symbol names in one string table; the builder wants two.
    let has_names = |section: &Section<'_>| matches!(section.data, SectionData::SectionString);
    if !builder.sections.iter().any(has_names) {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = SHT_STRTAB;
        names.data = SectionData::SectionString;
    }
    builder.delete_orphans();
    builder.delete_unused_versions();
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the BPF object without DWARF")?;
    Ok(stripped)
}
