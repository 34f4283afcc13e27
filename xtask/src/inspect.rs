//! `cargo xtask inspect`: shows the content of a BPF object, and checks that the agent and the kernel can use
//! it.
//!
//! A BPF "link" leaves calls unresolved without complaint; the loader finds out on the user's
//! machine. So build-ebpf fails on whatever is found here.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    Architecture, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget,
    SectionKind, Symbol, SymbolKind,
};

/// Programs that the agent loads, with the section that gives each its type.
const PROGRAMS: &[(&str, &str)] = &[
    ("tap53_xdp_frags", "xdp.frags"),
    ("tap53_xdp", "xdp"),
    ("tap53_xdp_old", "xdp"),
    ("tap53_tc_ingress", "classifier"),
    ("tap53_tc_egress", "classifier"),
    ("tap53_tc_ingress_old", "classifier"),
    ("tap53_tc_egress_old", "classifier"),
    ("tap53_connect4", "cgroup/connect4"),
    ("tap53_connect6", "cgroup/connect6"),
    ("tap53_sendmsg4", "cgroup/sendmsg4"),
    ("tap53_sendmsg6", "cgroup/sendmsg6"),
];

/// Maps that the agent sizes, writes or reads.
const MAPS: &[&str] = &[
    "INTERFACES",
    "COUNTERS",
    "PORTS",
    "PROCESSES",
    "RINGS",
    "RING_LOST",
    "RING_WRITTEN",
    "AYA_LOGS",
];

/// Globals that the agent sets at load.
const GLOBALS: &[&str] = &["RING_COUNT", "WAKEUP_BYTES", "KERNEL_LOG"];

/// The section that states what the object was built from: `tap53_ebpf::INTERFACE`.
const INTERFACE_SECTION: &str = "interface";

/// Licences that let a program call the helpers for GPL programs (`license_is_gpl_compatible`,
/// `include/linux/license.h`).
const GPL_COMPATIBLE: &[&str] =
    &["GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"];

const INSTRUCTION_BYTES: u64 = 8;

/// The content of an object, and its faults.
pub(crate) struct Report {
    sections: Vec<(String, u64)>,
    /// Name → section and number of instructions.
    programs: BTreeMap<String, (String, u64)>,
    /// Functions that programs call, with their number of instructions.
    functions: Vec<(String, u64)>,
    maps: Vec<String>,
    globals: Vec<String>,
    license: Option<String>,
    has_btf: bool,
    faults: Vec<String>,
}

/// Prints the content of the object at `path`; returns an error if it has a fault.
pub(crate) fn run(path: &Path) -> Result<()> {
    let object = fs::read(path).with_context(|| {
        format!("cannot read {}: run `cargo xtask build-ebpf` first", path.display())
    })?;
    let report = Report::read(&object)?;
    println!("{report}");
    report.verdict()
}

impl Report {
    /// Reads an object file.
    pub(crate) fn read(object: &[u8]) -> Result<Self> {
        let file = object::File::parse(object).context("not an object file")?;
        ensure!(
            file.architecture() == Architecture::Bpf,
            "not a BPF object, but one for {:?}",
            file.architecture()
        );
        let mut report = Self {
            sections: Vec::new(),
            programs: BTreeMap::new(),
            functions: Vec::new(),
            maps: Vec::new(),
            globals: Vec::new(),
            license: None,
            has_btf: file.section_by_name(".BTF").is_some(),
            faults: Vec::new(),
        };
        for section in file.sections() {
            report.sections.push((section.name()?.to_owned(), section.size()));
        }
        if let Some(section) = file.section_by_name("license") {
            let text = section.data()?.split(|byte| *byte == 0).next();
            report.license = text.map(|text| String::from_utf8_lossy(text).into_owned());
        }
        for symbol in file.symbols() {
            report.place_symbol(&file, &symbol)?;
        }
        for section in file.sections() {
            if section.kind() == SectionKind::Text {
                report.check_code(&file, &section)?;
            }
        }
        report.check_contents();
        Ok(report)
    }

    /// An error that lists every fault.
    pub(crate) fn verdict(&self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        bail!("the BPF object is faulty:\n  {}", self.faults.join("\n  "));
    }

    fn place_symbol(&mut self, file: &object::File<'_>, symbol: &Symbol<'_, '_>) -> Result<()> {
        let Some(index) = symbol.section_index() else {
            return Ok(());
        };
        let section = file.section_by_index(index)?;
        let section = section.name()?;
        let name = symbol.name()?.to_owned();
        match (symbol.kind(), section) {
            (SymbolKind::Text, ".text") => {
                if name.contains("panic") {
                    self.faults.push(format!("code that may panic was not optimised away: {name}"));
                }
                self.functions.push((name, symbol.size() / INSTRUCTION_BYTES));
            }
            (SymbolKind::Text, section) => {
                let instructions = symbol.size() / INSTRUCTION_BYTES;
                self.programs.insert(name, (section.to_owned(), instructions));
            }
            (SymbolKind::Data, ".maps" | "maps") => self.maps.push(name),
            (SymbolKind::Data, ".rodata" | ".data" | ".bss") if symbol.is_global() => {
                self.globals.push(name);
            }
            _ => {}
        }
        Ok(())
    }

    /// Every call must lead somewhere, and every relocation to something that is defined.
    fn check_code(
        &mut self,
        file: &object::File<'_>,
        section: &object::Section<'_, '_>,
    ) -> Result<()> {
        let name = section.name()?;
        let mut relocated = Vec::new();
        for (offset, relocation) in section.relocations() {
            relocated.push(offset);
            let RelocationTarget::Symbol(index) = relocation.target() else {
                self.faults.push(format!("{name}+{offset:#x}: relocation to no symbol"));
                continue;
            };
            let symbol = file.symbol_by_index(index)?;
            if symbol.is_undefined() {
                self.faults.push(format!(
                    "{name}+{offset:#x}: `{}` is not defined",
                    symbol.name().unwrap_or("(unnamed)")
                ));
            }
        }
        for (position, instruction) in section.data()?.chunks_exact(8).enumerate() {
            let offset = position as u64 * INSTRUCTION_BYTES;
            if let Some(fault) = call_fault(instruction, relocated.contains(&offset)) {
                self.faults.push(format!("{name}+{offset:#x}: {fault}"));
            }
        }
        Ok(())
    }

    fn check_contents(&mut self) {
        for (program, section) in PROGRAMS {
            match self.programs.get(*program) {
                Some((found, _)) if found == section => {}
                Some((found, _)) => self
                    .faults
                    .push(format!("program {program} is in section {found} instead of {section}")),
                None => self.faults.push(format!("program {program} is missing")),
            }
        }
        for map in MAPS {
            if !self.maps.iter().any(|found| found == map) {
                self.faults.push(format!("map {map} is missing"));
            }
        }
        for global in GLOBALS {
            if !self.globals.iter().any(|found| found == global) {
                self.faults.push(format!("global {global} is missing"));
            }
        }
        match &self.license {
            None => self.faults.push("section license is missing".into()),
            Some(license) if !GPL_COMPATIBLE.contains(&license.as_str()) => {
                self.faults.push(format!(
                    "licence \"{license}\" does not let programs call helpers for GPL programs"
                ))
            }
            Some(_) => {}
        }
        if !self.sections.iter().any(|(name, _)| name == INTERFACE_SECTION) {
            self.faults.push(format!("section {INTERFACE_SECTION} is missing"));
        }
        if !self.has_btf {
            self.faults.push("section .BTF is missing".into());
        }
    }
}

/// Returns the fault of an instruction, if it is a call (opcode 0x85, `instruction-set.rst`).
fn call_fault(instruction: &[u8], relocated: bool) -> Option<String> {
    const CALL: u8 = 0x85;
    const HELPER: u8 = 0;
    const FUNCTION: u8 = 1;
    let [CALL, registers, _, _, immediate @ ..] = instruction else {
        return None;
    };
    let immediate = i32::from_le_bytes(immediate.try_into().ok()?);
    match registers >> 4 {
        HELPER if immediate > 0 => None,
        HELPER => Some(format!("call of helper {immediate}")),
        // Within a section the linker may resolve the distance itself.
        FUNCTION if relocated || immediate != -1 => None,
        FUNCTION => Some("call that leads nowhere".into()),
        other => Some(format!("call of kind {other}, which no kernel we support has")),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "programs")?;
        for (name, (section, instructions)) in &self.programs {
            writeln!(out, "  {name:<18} {section:<12} {instructions:>6} instructions")?;
        }
        let called: u64 = self.functions.iter().map(|(_, size)| size).sum();
        writeln!(
            out,
            "functions {} that programs may call, {called} instructions",
            self.functions.len()
        )?;
        writeln!(out, "maps      {}", self.maps.join(" "))?;
        writeln!(out, "globals   {}", self.globals.join(" "))?;
        writeln!(out, "licence   {}", self.license.as_deref().unwrap_or("none"))?;
        writeln!(out, "sections")?;
        for (name, bytes) in &self.sections {
            if !name.is_empty() {
                writeln!(out, "  {name:<18} {bytes:>8} bytes")?;
            }
        }
        write!(
            out,
            "verdict   {}",
            match self.faults.len() {
                0 => "good".to_owned(),
                count => format!("{count} faults"),
            }
        )
    }
}

#[cfg(test)]
mod tests;
