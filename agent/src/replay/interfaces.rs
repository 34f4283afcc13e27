//! Numbers the interfaces of capture files, as the kernel does with an ifindex.

use std::collections::HashMap;

use super::InterfaceOf;

/// Maximum number of interfaces that are distinguished; 64 KiB of names and some 8 MiB in all. Further
/// ones share the number 0.
const MAX_INTERFACES: usize = 65_536;

/// All interfaces so far.
///
/// Interfaces of the same name are one, so that a capture in several files is one capture. Interfaces
/// without a name are one as well, and have the name of the file.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    by_name: HashMap<Option<String>, u32>,
    /// Numbers by the interface of the file, and the index in the link layer (Linux cooked, version 2).
    by_index: HashMap<(u32, u32), u32>,
    names: HashMap<u32, String>,
    /// Name of interfaces without one.
    file: String,
    /// Numbers of the current section's interfaces.
    current: Vec<Option<u32>>,
    section: u64,
}

impl Interfaces {
    /// Starts another file.
    pub(super) fn begin(&mut self, file: &str) {
        self.current.clear();
        self.section = 0;
        file.clone_into(&mut self.file);
        let Some(unnamed) = self.by_name.get(&None).copied() else { return };
        self.names.insert(unnamed, file.to_owned());
        let indexed = self.by_index.iter().filter(|((of, _), _)| *of == unnamed);
        for ((_, index), number) in indexed {
            self.names.insert(*number, format!("{file}#{index}"));
        }
    }

    /// Returns the number of an interface, and true if the interface is new.
    pub(super) fn number(&mut self, of: &InterfaceOf<'_>, index: Option<u32>) -> (u32, bool) {
        let (number, is_new) = self.number_by_name(of);
        match index {
            None => (number, is_new),
            Some(index) => self.number_by_index(number, index),
        }
    }

    /// Returns the name of the current file.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Returns the names by number.
    pub(super) const fn names(&self) -> &HashMap<u32, String> {
        &self.names
    }

    /// Returns the name of an interface.
    pub(super) fn name(&self, number: u32) -> &str {
        self.names.get(&number).map_or("", String::as_str)
    }

    fn number_by_name(&mut self, of: &InterfaceOf<'_>) -> (u32, bool) {
        if of.section != self.section {
            self.current.clear();
            self.section = of.section;
        }
        if let Some(number) = self.current.get(of.number).copied().flatten() {
            return (number, false);
        }
        let name = of.name.map(str::to_owned);
        let (number, is_new) = match self.by_name.get(&name) {
            Some(number) => (*number, false),
            None => self.add(of.name.unwrap_or(&self.file).to_owned()),
        };
        if is_new {
            self.by_name.insert(name, number);
        }
        // The reader limits the interfaces of a section.
        if self.current.len() <= of.number {
            self.current.resize(of.number + 1, None);
        }
        self.current[of.number] = Some(number);
        (number, is_new)
    }

    fn number_by_index(&mut self, of: u32, index: u32) -> (u32, bool) {
        if let Some(number) = self.by_index.get(&(of, index)) {
            return (*number, false);
        }
        let (number, is_new) = self.add(format!("{}#{index}", self.name(of)));
        if is_new {
            self.by_index.insert((of, index), number);
        }
        (number, is_new)
    }

    fn add(&mut self, name: String) -> (u32, bool) {
        if self.names.len() >= MAX_INTERFACES {
            return (0, false);
        }
        // At most MAX_INTERFACES, from 1 on.
        let number = u32::try_from(self.names.len() + 1).unwrap_or(0);
        self.names.insert(number, name);
        (number, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(section: u64, number: usize, name: Option<&str>) -> InterfaceOf<'_> {
        InterfaceOf { section, number, name }
    }

    #[test]
    fn interfaces_of_one_name_are_one_whatever_the_file_and_section() {
        let mut interfaces = Interfaces::default();
        interfaces.begin("a.pcapng");
        let eth0 = interfaces.number(&of(1, 0, Some("eth0")), None);
        assert_eq!((eth0, interfaces.name(eth0.0)), ((1, true), "eth0"));
        assert_eq!(interfaces.number(&of(1, 0, Some("eth0")), None), (1, false));
        let unnamed = interfaces.number(&of(1, 7, None), None).0;
        assert_eq!(interfaces.name(unnamed), "a.pcapng");
        assert_eq!(interfaces.number(&of(2, 0, None), None).0, unnamed);
        let indexed = interfaces.number(&of(2, 0, None), Some(4)).0;
        assert_eq!(interfaces.name(indexed), "a.pcapng#4");
        interfaces.begin("b.pcap");
        assert_eq!(interfaces.number(&of(1, 9, Some("eth0")), None).0, eth0.0);
        assert_eq!(interfaces.number(&of(0, 0, None), None).0, unnamed);
        assert_eq!(interfaces.name(unnamed), "b.pcap");
        assert_eq!(interfaces.name(indexed), "b.pcap#4");
        assert_eq!(interfaces.names().len(), 3);
    }

    #[test]
    fn a_flood_of_interfaces_ends_at_the_limit() {
        let mut interfaces = Interfaces::default();
        interfaces.begin("flood.pcap");
        let unnamed = of(0, 0, None);
        for index in 0..u32::try_from(MAX_INTERFACES).unwrap() + 10 {
            interfaces.number(&unnamed, Some(index));
        }
        assert_eq!(interfaces.names().len(), MAX_INTERFACES);
        assert_eq!(interfaces.number(&unnamed, Some(u32::MAX)), (0, false));
    }
}
