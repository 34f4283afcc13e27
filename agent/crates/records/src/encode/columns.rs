//! The columns of text and CSV.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

/// A column, which shows one property of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Time of the first query, or of a response without one.
    Time,
    /// The client's workload or pod with its namespace, or its address.
    Client,
    /// Address and port of the client.
    ClientAddress,
    /// Namespace and name of the client's pod.
    ClientPod,
    /// The server's workload, pod or service with its namespace, or its address.
    Server,
    /// Address and port of the server.
    ServerAddress,
    /// Namespace and name of the server's pod.
    ServerPod,
    /// Transport protocol.
    Proto,
    /// Query type.
    Type,
    /// Name of the question.
    Name,
    /// Response code, or the outcome without a response.
    Result,
    /// Time from the first query to the response.
    Latency,
    /// The interface, and the one of the response if it is another.
    Interface,
    /// Name of the node.
    Node,
    /// Number of copies at other interfaces.
    Copies,
    /// The answers.
    Answers,
    /// Unusual properties.
    Notes,
}

/// Properties of a column that its layout depends on.
pub(super) struct Properties {
    column: Column,
    /// Name in `--fields`, and in the first line of CSV.
    name: &'static str,
    /// Heading of text.
    pub(super) title: &'static str,
    /// Smallest width at which the column is useful.
    pub(super) min: usize,
    /// Width that fits most values.
    pub(super) ideal: usize,
    /// Columns with a higher rank are left out first on a narrow terminal; 0 is never left out.
    pub(super) rank: u8,
}

#[rustfmt::skip]
const PROPERTIES: [Properties; 17] = [
    of(Column::Time, "time", "TIME (UTC)", 8, 15, 0),
    of(Column::Client, "client", "CLIENT", 13, 28, 0),
    of(Column::ClientAddress, "client_address", "CLIENT ADDRESS", 15, 21, 5),
    of(Column::ClientPod, "client_pod", "CLIENT POD", 13, 32, 6),
    of(Column::Server, "server", "SERVER", 11, 24, 2),
    of(Column::ServerAddress, "server_address", "SERVER ADDRESS", 15, 18, 5),
    of(Column::ServerPod, "server_pod", "SERVER POD", 13, 32, 6),
    of(Column::Proto, "proto", "PROTO", 5, 5, 7),
    of(Column::Type, "type", "TYPE", 5, 5, 0),
    of(Column::Name, "name", "NAME", 18, 32, 0),
    of(Column::Result, "result", "RESULT", 10, 10, 0),
    of(Column::Latency, "latency", "LATENCY", 7, 10, 1),
    of(Column::Interface, "interface", "INTERFACE", 9, 16, 4),
    of(Column::Node, "node", "NODE", 8, 12, 4),
    of(Column::Copies, "copies", "COPIES", 6, 6, 4),
    of(Column::Answers, "answers", "ANSWERS", 12, 15, 8),
    of(Column::Notes, "notes", "", 1, 1, 0),
];

const fn of(
    column: Column,
    name: &'static str,
    title: &'static str,
    min: usize,
    ideal: usize,
    rank: u8,
) -> Properties {
    Properties { column, name, title, min, ideal, rank }
}

impl Column {
    /// All columns.
    pub fn all() -> impl Iterator<Item = Self> {
        PROPERTIES.iter().map(|properties| properties.column)
    }

    pub(super) const fn properties(self) -> &'static Properties {
        // A test compares the order.
        &PROPERTIES[self as usize]
    }

    /// Returns the name by which a user chooses the column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.properties().name
    }
}

impl Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::all().find(|column| column.name() == name);
        found.ok_or_else(|| {
            let known: Vec<_> = Self::all().map(Self::name).collect();
            format!("is not a column; there are {}", known.join(", "))
        })
    }
}

/// Columns in their order. Each appears at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    list: [Column; PROPERTIES.len()],
    count: u8,
    /// Set if a user has chosen them: none is left out on a narrow terminal then.
    is_chosen: bool,
}

impl Columns {
    /// Columns for people.
    pub const TEXT: Self = Self::default_of(&[
        Column::Time,
        Column::Client,
        Column::Server,
        Column::Proto,
        Column::Type,
        Column::Name,
        Column::Result,
        Column::Latency,
        Column::Answers,
        Column::Notes,
    ]);

    /// The same with addresses, pods' interfaces and copies.
    pub const WIDE: Self = Self::default_of(&[
        Column::Time,
        Column::Client,
        Column::ClientAddress,
        Column::Server,
        Column::ServerAddress,
        Column::Proto,
        Column::Type,
        Column::Name,
        Column::Result,
        Column::Latency,
        Column::Interface,
        Column::Copies,
        Column::Answers,
        Column::Notes,
    ]);

    /// All columns, for programs.
    pub const CSV: Self = Self::default_of(&[
        Column::Time,
        Column::Node,
        Column::Interface,
        Column::Client,
        Column::ClientAddress,
        Column::ClientPod,
        Column::Server,
        Column::ServerAddress,
        Column::ServerPod,
        Column::Proto,
        Column::Type,
        Column::Name,
        Column::Result,
        Column::Latency,
        Column::Copies,
        Column::Answers,
        Column::Notes,
    ]);

    const fn default_of(columns: &[Column]) -> Self {
        let mut list = [Column::Time; PROPERTIES.len()];
        let mut at = 0;
        while at < columns.len() {
            list[at] = columns[at];
            at += 1;
        }
        Self { list, count: columns.len().to_le_bytes()[0], is_chosen: false }
    }

    /// Returns the columns that a user has chosen.
    ///
    /// # Errors
    /// When there is none, or one twice.
    pub fn chosen(columns: &[Column]) -> Result<Self, String> {
        if columns.is_empty() {
            return Err("needs at least one column".to_owned());
        }
        let mut chosen = Self { list: [Column::Time; _], count: 0, is_chosen: true };
        for column in columns {
            if chosen.as_slice().contains(column) {
                return Err(format!("has {column} twice"));
            }
            // Without repetitions there are no more than places.
            if let Some(place) = chosen.list.get_mut(usize::from(chosen.count)) {
                *place = *column;
                chosen.count += 1;
            }
        }
        Ok(chosen)
    }

    /// Returns the default columns with that of the node, for records of several nodes. Chosen columns stay
    /// as they are.
    #[must_use]
    pub fn with_node(self) -> Self {
        let columns = self.as_slice();
        if self.is_chosen || columns.contains(&Column::Node) {
            return self;
        }
        // After the time.
        let (time, others) = columns.split_at(1.min(columns.len()));
        Self::default_of(&[time, &[Column::Node], others].concat())
    }

    /// Returns the columns in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[Column] {
        self.list.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Returns true if a user has chosen them.
    #[must_use]
    pub const fn is_chosen(&self) -> bool {
        self.is_chosen
    }
}

impl FromStr for Columns {
    type Err = String;

    fn from_str(names: &str) -> Result<Self, String> {
        let column = |name: &str| {
            let name = name.trim();
            name.parse().map_err(|reason| format!("{name:?} {reason}"))
        };
        Self::chosen(&names.split(',').map(column).collect::<Result<Vec<_>, String>>()?)
    }
}

impl Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.as_slice().iter().map(|column| column.name()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_its_properties_and_its_name() {
        for column in Column::all() {
            assert_eq!(column.properties().column, column);
            assert_eq!(column.name().parse(), Ok(column));
        }
    }

    #[test]
    fn the_node_is_shown_after_the_time_unless_columns_are_chosen() {
        let text = Columns::TEXT.with_node();
        assert_eq!(text.as_slice()[..3], [Column::Time, Column::Node, Column::Client]);
        assert_eq!(text.as_slice().len(), Columns::TEXT.as_slice().len() + 1);
        assert_eq!(Columns::CSV.with_node(), Columns::CSV);
        let chosen: Columns = "name,time".parse().unwrap();
        assert_eq!(chosen.with_node(), chosen);
    }

    #[test]
    fn columns_are_chosen_in_their_order() {
        let columns: Columns = "name, time,client_address".parse().unwrap();
        assert_eq!(columns.as_slice(), [Column::Name, Column::Time, Column::ClientAddress]);
        assert_eq!(columns.to_string(), "name,time,client_address");
        assert!(columns.is_chosen() && !Columns::TEXT.is_chosen());
        for (wrong, part) in [
            ("", "\"\" is not a column"),
            ("name,qname", "\"qname\" is not a column; there are time, client,"),
            ("name,time,name", "has name twice"),
        ] {
            let error = wrong.parse::<Columns>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
