//! `Provider`: an entry of the provider register. Who somebody is, whose law binds them, and where they have what.
//!
//! Nothing here is concluded: what is absent is not known, and what is not known is refused.

use std::{fmt, str::FromStr};

use jiff::civil::Date;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{as_text::as_text, text, units::Share};

/// An organisation of the provider register: one that runs what data rest on or pass, or one that owns such a one.
/// What is absent is not known. The chart brings a catalogue of them; a `SovereigntyPolicy` may say other of each.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "valv.eu",
    version = "v1alpha1",
    kind = "Provider",
    category = "valv",
    cel,
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title", description = "Its full name"),
    printcolumn(name = "Seat", type_ = "string", json_path = ".spec.seat.country", description = "Under whose law it is; empty: not known"),
    printcolumn(name = "Known since", type_ = "string", json_path = ".spec.ownership.fact.date", description = "When its owners were looked up; empty: not known"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("a provider's name is a label of RFC 1123, a-z, 0-9 and '-', at most 63")
)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// Its full name, as its own register has it.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,

    /// Under whose law it is. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<Seat>,

    /// Who owns it. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,

    /// Whom it owns. Absent: not known. Heeded where a policy counts subsidiaries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsidiaries: Option<Others>,

    /// Who works for it on the data that it holds. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_processors: Option<Others>,

    /// Countries whose law reached or can reach it in some way besides seat and owners, e.g. by a court's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub reached_by: Vec<Reach>,

    /// Where it has its regions, by an explicit list: no name tells where something is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = ("self.all(one, self.exists_one(other, other.name == one.name))", "a region stands twice"))]
    pub regions: Vec<Region>,

    /// Where it has its zones, by an explicit list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = ("self.all(one, self.exists_one(other, other.name == one.name))", "a zone stands twice"))]
    pub zones: Vec<Zone>,

    /// Hosts of its object stores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub object_storage: Vec<StorageHost>,

    /// How its volumes are encrypted at rest. Absent: it is not known that they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub encrypted_volumes: Vec<EncryptedVolumes>,
}

/// Where something is known from.
#[derive(Clone, Debug, Deserialize, Eq, Hash, KubeSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// What somebody else can look up: an address, a register and its number, a document.
    #[schemars(length(min = 4, max = 500))]
    pub source: String,
    /// The day on which it was looked up, `2026-11-22`.
    #[schemars(schema_with = "text::day")]
    pub date: Date,
}

/// Under whose law an organisation is.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seat {
    /// The country, two letters of ISO 3166-1.
    #[schemars(schema_with = "text::country")]
    pub country: String,
    /// Known from where.
    pub fact: Fact,
}

/// Who owns an organisation.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// Each of weight. None: it is known that nobody holds a share of weight.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(validation = ("self.all(one, self.exists_one(other, other.name == one.name))", "an owner stands twice"))]
    pub owners: Vec<Owner>,
    /// Known from where.
    pub fact: Fact,
}

/// One who owns a share.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Its name in the register.
    #[schemars(schema_with = "text::label_name")]
    pub name: String,
    /// How much of it. Absent: not known, and taken for enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// Other organisations.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Others {
    /// Their names in the register. None: it is known that there are none.
    #[serde(default)]
    #[schemars(schema_with = "text::register_names")]
    pub names: Vec<String>,
    /// Known from where.
    pub fact: Fact,
}

/// A country whose law can reach an organisation, and why.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// The country, two letters of ISO 3166-1.
    #[schemars(schema_with = "text::country")]
    pub country: String,
    /// In which way.
    #[schemars(length(min = 8, max = 500))]
    pub why: String,
    /// Known from where.
    pub fact: Fact,
}

/// A region: what a provider calls so.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Region {
    /// The provider's name of it, e.g. `europe-1`.
    #[schemars(schema_with = "text::place_name")]
    pub name: String,
    /// The zone in which its data rest, by its name among `zones`. Absent: they rest in several, all in `country`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::place_name")]
    pub primary_zone: Option<String>,
    /// The country in which its data rest.
    #[schemars(schema_with = "text::country")]
    pub country: String,
    /// Known from where.
    pub fact: Fact,
}

/// A zone: what a provider calls so.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// The provider's name of it, e.g. `fi-hel2`.
    #[schemars(schema_with = "text::place_name")]
    pub name: String,
    /// The country in which it is.
    #[schemars(schema_with = "text::country")]
    pub country: String,
    /// Where it is, for distances: `60.17, 24.94`. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Known from where.
    pub fact: Fact,
}

/// A host of object stores.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageHost {
    /// The whole name, or `*.` and what it ends with: a `*` stands for any name below it, and nowhere else.
    #[schemars(schema_with = "text::host_pattern")]
    pub host: String,
    /// The region in which it is, by its name among `regions`. Absent: the name does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::place_name")]
    pub region: Option<String>,
    /// Known from where.
    pub fact: Fact,
}

/// What makes volumes be encrypted at rest.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EncryptedVolumes {
    /// The `provisioner` of the storage class.
    #[schemars(length(min = 1, max = 253))]
    pub provisioner: String,
    /// The parameter that says so. Absent: all that it makes is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<Parameter>,
    /// Known from where.
    pub fact: Fact,
}

/// A parameter of a storage class with the one value that counts: any other means that nothing is encrypted.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameter {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The value, letter for letter.
    #[schemars(length(min = 1, max = 253))]
    pub value: String,
}

/// A place on earth: latitude and longitude in degrees, north and east above zero, e.g. `60.17, 24.94`. To a thousandth,
/// which is some hundred metres.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Position {
    latitude_thousandths: i32,
    longitude_thousandths: i32,
}

/// A text is not a place.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("failed to read {text:?} as a place: latitude and longitude in degrees, e.g. 60.17, 24.94")]
pub struct PositionError {
    text: String,
}

impl Position {
    /// The mean radius of the earth.
    const RADIUS_KM: f64 = 6371.0;

    /// How far `other` is, along a great circle.
    pub fn kilometres_to(self, other: Self) -> f64 {
        let radians = |thousandths: i32| (f64::from(thousandths) / 1000.0).to_radians();
        let (here, there) = (radians(self.latitude_thousandths), radians(other.latitude_thousandths));
        let north = there - here;
        let east = radians(other.longitude_thousandths) - radians(self.longitude_thousandths);
        let chord = (north / 2.0).sin().powi(2) + here.cos() * there.cos() * (east / 2.0).sin().powi(2);
        2.0 * Self::RADIUS_KM * chord.sqrt().clamp(0.0, 1.0).asin()
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let error = || PositionError { text: text.to_owned() };
        let (latitude, longitude) = text.split_once(", ").ok_or_else(error)?;
        let thousandths = |degrees: &str, most: i32| {
            let (sign, digits) = degrees.strip_prefix('-').map_or((1, degrees), |digits| (-1, digits));
            let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
            let is_number =
                |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number(whole) || !is_number(part) {
                return None;
            }
            let whole: i32 = whole.parse().ok()?;
            let part: i32 = format!("{part:0<3}").parse().ok()?;
            let value = whole * 1000 + part;
            (value <= most * 1000).then_some(sign * value)
        };
        let latitude_thousandths = thousandths(latitude, 90).ok_or_else(error)?;
        let longitude_thousandths = thousandths(longitude, 180).ok_or_else(error)?;
        Ok(Self { latitude_thousandths, longitude_thousandths })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let degrees = |thousandths: i32| {
            let sign = if thousandths < 0 { "-" } else { "" };
            let part = format!("{:03}", thousandths.abs() % 1000);
            let part = part.trim_end_matches('0');
            let point = if part.is_empty() { "" } else { "." };
            format!("{sign}{}{point}{part}", thousandths.abs() / 1000)
        };
        write!(out, "{}, {}", degrees(self.latitude_thousandths), degrees(self.longitude_thousandths))
    }
}

as_text!(Position, {
    "type": "string",
    "minLength": 4,
    "maxLength": 17,
    "pattern": "^-?[0-9]{1,2}([.][0-9]{1,3})?, -?[0-9]{1,3}([.][0-9]{1,3})?$",
});

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Position {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_reads_back_as_it_was_written_and_nonsense_is_refused() {
        for text in ["60.17, 24.94", "-33.868, 151.207", "0, 0", "90, -180", "-0.5, 0.001"] {
            assert_eq!(at(text).to_string(), text);
        }
        for text in ["", "60.17", "60.17,24.94", "91, 0", "0, 181", "60.1234, 0", "x, y", "+1, 0", "1., 0"] {
            assert!(text.parse::<Position>().is_err(), "{text:?} is no place");
        }
    }

    #[test]
    fn distances_are_those_of_a_great_circle() {
        let (stockholm, helsinki, gothenburg) = (at("59.33, 18.07"), at("60.17, 24.94"), at("57.71, 11.97"));

        assert_eq!(stockholm.kilometres_to(stockholm), 0.0);
        assert!((stockholm.kilometres_to(helsinki) - 396.0).abs() < 3.0);
        assert!((stockholm.kilometres_to(gothenburg) - 397.0).abs() < 3.0);
        assert_eq!(helsinki.kilometres_to(stockholm), stockholm.kilometres_to(helsinki));
    }
}
