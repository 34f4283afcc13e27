//! The fields of a record that a question can name, and what kind of value each has.

use tap53_records::encode::Profile;

use crate::avro::{Scale, Shape, ShapeError};

/// Kind of a field's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Text, compared without regard to case.
    Text,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A time, microseconds since 1970 UTC.
    Time,
    /// Nanoseconds.
    Duration,
    /// An IP address.
    Address,
    /// Bytes, written in hexadecimal.
    Bytes,
    /// Several texts.
    Texts,
    /// Several IP addresses.
    Addresses,
    /// Texts by key.
    Labels,
    /// Records of these fields.
    Records(Vec<Field>),
}

/// A field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Kind of its values.
    pub kind: Kind,
    /// Shape in the current schema of the profile, without null.
    pub shape: Shape,
}

/// All fields of a profile.
#[derive(Clone, Debug)]
pub struct Catalogue {
    profile: Profile,
    fields: Vec<Field>,
}

impl Catalogue {
    /// Reads the fields of a profile from its current schema. A field that both profiles have is of one
    /// kind in both, except for records, which are text in the flat profile.
    ///
    /// # Errors
    /// Fails if the embedded schema does not parse, which is a defect of this program.
    pub fn new(profile: Profile) -> Result<Self, ShapeError> {
        let full = fields_of(Profile::Full)?;
        if profile == Profile::Full {
            return Ok(Self { profile, fields: full });
        }
        let mut fields = fields_of(profile)?;
        for field in &mut fields {
            match full.iter().find(|same| same.name == field.name) {
                // Text in this profile, which has no parts.
                Some(Field { kind: Kind::Records(_), .. }) | None => {}
                Some(same) => field.kind = same.kind.clone(),
            }
        }
        Ok(Self { profile, fields })
    }

    /// Returns the profile.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// Returns the fields, in the schema's order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Finds a field by its name. The endings `_address` and `_ns` may be left out: `client`, `latency`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Field> {
        let find = |name: &str| self.fields.iter().find(|field| field.name == name);
        find(name)
            .or_else(|| find(&format!("{name}_address")))
            .or_else(|| find(&format!("{name}_ns")))
    }

    /// Returns the known name that is most like `name`, if one is like it.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let short = |name: &'_ str| -> Option<usize> {
            ["_address", "_ns"].iter().find_map(|ending| name.strip_suffix(ending)).map(str::len)
        };
        let names = self.fields.iter().map(|field| field.name.as_str());
        let names = names.flat_map(|name| [Some(name), short(name).map(|length| &name[..length])]);
        let likeness = |known: &str| strsim::jaro_winkler(&name.to_ascii_lowercase(), known);
        let best = names.flatten().map(|known| (likeness(known), known));
        let best = best.max_by(|one, other| one.0.total_cmp(&other.0));
        best.filter(|(likeness, _)| *likeness > 0.8).map(|(_, known)| known)
    }
}

fn fields_of(profile: Profile) -> Result<Vec<Field>, ShapeError> {
    match Shape::parse(profile.schema_text())?.1 {
        Shape::Record(fields) => Ok(fields.into_iter().map(field).collect()),
        _ => Ok(Vec::new()),
    }
}

fn field((name, shape): (String, Shape)) -> Field {
    let shape = without_null(shape);
    let kind = match &shape {
        Shape::Boolean => Kind::Boolean,
        Shape::Long(Scale::Millis | Scale::Micros) => Kind::Time,
        Shape::Long(Scale::None) if name.ends_with("_ns") => Kind::Duration,
        Shape::Bytes | Shape::Fixed(_) => Kind::Bytes,
        Shape::Text if name.ends_with("_address") => Kind::Address,
        Shape::List(item) => match &**item {
            Shape::Record(fields) => Kind::Records(fields.iter().cloned().map(field).collect()),
            _ if name == "resolved_addresses" => Kind::Addresses,
            _ => Kind::Texts,
        },
        Shape::Map(_) => Kind::Labels,
        Shape::Text | Shape::Symbol(_) => Kind::Text,
        Shape::Long(Scale::None) | Shape::Null | Shape::Record(_) | Shape::Union(_) => Kind::Number,
    };
    Field { name, kind, shape }
}

/// Returns the only variant of a union besides null.
fn without_null(shape: Shape) -> Shape {
    match shape {
        Shape::Union(variants) => {
            let variant = variants.into_iter().find(|variant| *variant != Shape::Null);
            variant.unwrap_or(Shape::Null)
        }
        shape => shape,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> Kind {
        Catalogue::new(Profile::Full).unwrap().find(name).unwrap().kind.clone()
    }

    #[test]
    fn fields_have_the_kinds_that_their_values_have() {
        assert_eq!(kind("qname"), Kind::Text);
        assert_eq!(kind("outcome"), Kind::Text);
        assert_eq!(kind("latency"), Kind::Duration);
        assert_eq!(kind("client"), Kind::Address);
        assert_eq!(kind("query_time"), Kind::Time);
        assert_eq!(kind("record_id"), Kind::Bytes);
        assert_eq!(kind("resolved_addresses"), Kind::Addresses);
        assert_eq!(kind("anomalies"), Kind::Texts);
        assert_eq!(kind("client_labels"), Kind::Labels);
        let Kind::Records(fields) = kind("answers") else { panic!("no records") };
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["name", "type", "class", "ttl", "rdata"]);
    }

    #[test]
    fn both_profiles_have_one_kind_for_a_field_except_for_records() {
        let full = Catalogue::new(Profile::Full).unwrap();
        let flat = Catalogue::new(Profile::Flat).unwrap();
        for field in full.fields() {
            if matches!(field.kind, Kind::Records(_)) {
                assert_eq!(flat.find(&field.name).map(|flat| &flat.kind), Some(&Kind::Text));
                continue;
            }
            assert_eq!(flat.find(&field.name).map(|flat| &flat.kind), Some(&field.kind));
        }
        assert_eq!(flat.find("event_time").map(|field| &field.kind), Some(&Kind::Time));
    }

    #[test]
    fn a_misspelled_name_has_a_nearest_one() {
        let catalogue = Catalogue::new(Profile::Full).unwrap();
        assert_eq!(catalogue.nearest("rcod"), Some("rcode"));
        assert_eq!(catalogue.nearest("latncy"), Some("latency"));
        assert_eq!(catalogue.nearest("QNAME"), Some("qname"));
        assert_eq!(catalogue.nearest("zzz"), None);
    }
}
