//! Inspects generated objects, valid ones and ones with a single flaw.

use object::{
    BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection},
};

use super::*;

/// A flaw of an otherwise valid object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    NoBtf,
    NoLicense,
    NoInterface,
    ProprietaryLicense,
    NoProgram,
    WrongSection,
    NoMap,
    NoGlobal,
    UndefinedFunction,
    CallOfNothing,
    CallOfNoHelper,
    Panic,
}

const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
/// `call -1` of kind "function", as a compiler leaves it for the linker.
const CALL_FUNCTION: [u8; 8] = [0x85, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff];
const CALL_HELPER_MINUS_1: [u8; 8] = [0x85, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

fn section(object: &mut Object<'_>, name: &str, kind: SectionKind, contents: &[u8]) -> SectionId {
    let id = object.add_section(Vec::new(), name.into(), kind);
    object.append_section_data(id, contents, 8);
    id
}

fn symbol(
    object: &mut Object<'_>,
    name: &str,
    kind: SymbolKind,
    section: SymbolSection,
    size: u64,
) -> SymbolId {
    object.add_symbol(Symbol {
        name: name.into(),
        value: 0,
        size,
        kind,
        scope: SymbolScope::Linkage,
        weak: false,
        section,
        flags: SymbolFlags::None,
    })
}

fn object_with(flaw: Flaw) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let call = match flaw {
        Flaw::CallOfNoHelper => CALL_HELPER_MINUS_1,
        Flaw::UndefinedFunction | Flaw::CallOfNothing => CALL_FUNCTION,
        _ => EXIT,
    };
    for (program, program_section) in PROGRAMS {
        let (mut program, mut program_section) = (*program, *program_section);
        if program == "tap53_tc_egress" {
            match flaw {
                Flaw::NoProgram => program = "something_else",
                Flaw::WrongSection => program_section = "socket",
                _ => {}
            }
        }
        let code = [call, EXIT].concat();
        let id = section(&mut object, program_section, SectionKind::Text, &code);
        symbol(&mut object, program, SymbolKind::Text, SymbolSection::Section(id), 16);
        if flaw == Flaw::UndefinedFunction {
            let missing =
                symbol(&mut object, "not_here", SymbolKind::Text, SymbolSection::Undefined, 0);
            let relocation = Relocation {
                offset: 0,
                symbol: missing,
                addend: 0,
                flags: object::RelocationFlags::Elf { r_type: object::elf::R_BPF_64_32 },
            };
            object.add_relocation(id, relocation).expect("relocation added");
        }
    }
    let maps = section(&mut object, ".maps", SectionKind::Data, &[0; 40]);
    for map in MAPS.iter().skip(usize::from(flaw == Flaw::NoMap)) {
        symbol(&mut object, map, SymbolKind::Data, SymbolSection::Section(maps), 40);
    }
    let rodata = section(&mut object, ".rodata", SectionKind::ReadOnlyData, &[0; 4]);
    for global in GLOBALS.iter().skip(usize::from(flaw == Flaw::NoGlobal)) {
        symbol(&mut object, global, SymbolKind::Data, SymbolSection::Section(rodata), 4);
    }
    if flaw == Flaw::Panic {
        let text = section(&mut object, ".text", SectionKind::Text, &EXIT);
        let name = "_ZN4core9panicking5panic17h0123456789abcdefE";
        symbol(&mut object, name, SymbolKind::Text, SymbolSection::Section(text), 8);
    }
    match flaw {
        Flaw::NoLicense => {}
        Flaw::ProprietaryLicense => {
            section(&mut object, "license", SectionKind::Data, b"Proprietary\0");
        }
        _ => {
            section(&mut object, "license", SectionKind::Data, b"GPL\0");
        }
    }
    if flaw != Flaw::NoInterface {
        section(&mut object, INTERFACE_SECTION, SectionKind::Data, &[0; 8]);
    }
    if flaw != Flaw::NoBtf {
        section(&mut object, ".BTF", SectionKind::Other, &[0; 24]);
    }
    object.write().expect("object written")
}

fn fault(flaw: Flaw) -> String {
    let report = Report::read(&object_with(flaw)).expect("object read");
    match report.verdict() {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_whole_object_is_good() {
    assert_eq!(fault(Flaw::None), "");
}

#[test]
fn each_missing_part_is_named() {
    for (flaw, expected) in [
        (Flaw::NoBtf, ".BTF is missing"),
        (Flaw::NoLicense, "license is missing"),
        (Flaw::NoInterface, "interface is missing"),
        (Flaw::NoProgram, "program tap53_tc_egress is missing"),
        (Flaw::NoMap, "map INTERFACES is missing"),
        (Flaw::NoGlobal, "global RING_COUNT is missing"),
    ] {
        let fault = fault(flaw);
        assert!(fault.contains(expected), "{expected}: {fault}");
    }
}

#[test]
fn each_wrong_part_is_named() {
    for (flaw, expected) in [
        (Flaw::ProprietaryLicense, "\"Proprietary\""),
        (Flaw::WrongSection, "in section socket instead of classifier"),
        (Flaw::UndefinedFunction, "xdp+0x0: `not_here` is not defined"),
        (Flaw::CallOfNothing, "xdp+0x0: call that leads nowhere"),
        (Flaw::CallOfNoHelper, "xdp+0x0: call of helper -1"),
        (Flaw::Panic, "may panic"),
    ] {
        let fault = fault(flaw);
        assert!(fault.contains(expected), "{expected}: {fault}");
    }
}

#[test]
fn other_files_are_refused() {
    let refusal = |object: &[u8]| match Report::read(object) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(refusal(b"#!/bin/sh"), "not an object file");
    let host = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    assert!(refusal(&host.write().expect("object written")).starts_with("not a BPF object"));
}

#[test]
fn debug_sections_are_stripped_and_the_rest_stays() {
    let plain = object_with(Flaw::None);
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let debug = section(&mut object, ".debug_info", SectionKind::Debug, &[1; 1000]);
    section(&mut object, ".BTF", SectionKind::Other, &[2; 24]);
    symbol(&mut object, "here", SymbolKind::Data, SymbolSection::Section(debug), 4);
    let with_debug = object.write().expect("object written");

    let stripped = crate::strip::strip_debug_sections(&with_debug).expect("stripped");
    let file = object::File::parse(&*stripped).expect("still an object");
    assert!(file.section_by_name(".debug_info").is_none());
    assert!(file.section_by_name(".BTF").is_some());

    let stripped = crate::strip::strip_debug_sections(&plain).expect("stripped");
    Report::read(&stripped).and_then(|report| report.verdict()).expect("as good as before");
}
