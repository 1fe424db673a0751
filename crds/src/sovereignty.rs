//! `SovereigntyPolicy`: where data may rest, whose law may reach them, and what they may pass.

use std::{fmt, str::FromStr};

use jiff::civil::Date;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    as_text::as_text,
    provider::ProviderSpec,
    text,
    units::{Days, Share},
};

/// Where tenants' data may rest, whose law may reach them, and what they may pass. One is in force for the whole
/// operator; a tenant may name a stricter one beside it. What is not known is refused.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "valv.eu",
    version = "v1alpha1",
    kind = "SovereigntyPolicy",
    plural = "sovereigntypolicies",
    shortname = "sp",
    category = "valv",
    cel,
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "Does it refuse, or only say what it would refuse?"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("a policy's name is a label of RFC 1123, a-z, 0-9 and '-', at most 63")
)]
#[serde(rename_all = "camelCase")]
pub struct SovereigntyPolicySpec {
    /// Whether it refuses, or only says what it would refuse.
    #[serde(default)]
    pub mode: Mode,

    /// Where data may rest: countries, or `EU` or `EEA` for all of them.
    #[schemars(schema_with = "text::territories")]
    pub countries: Vec<Territory>,

    /// Whose law may reach whoever holds the data.
    pub jurisdictions: Jurisdictions,

    /// How far a backup is from what it is a backup of.
    #[serde(default)]
    pub backups: Apart,

    /// Where images come from.
    pub images: Images,

    /// What volumes are like.
    #[serde(default)]
    pub storage: Storage,

    /// What tenants' traffic passes, and who runs it. What is not listed may not be passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = ("self.all(one, self.exists_one(other, other.kind == one.kind && other.name == one.name))", "something that is passed stands twice"))]
    pub passes: Vec<Passage>,

    /// Entries of the provider register that are to be believed in place of the catalogue's, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = ("self.all(one, self.exists_one(other, other.name == one.name))", "a provider stands twice"))]
    pub providers: Vec<RegisterEntry>,

    /// How old a fact of the register may be before it is a warning.
    #[serde(default = "default_fact_age")]
    pub facts_expire_after: Days,

    /// What is let through although a rule refuses it, by whom, why and until when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub exceptions: Vec<Exception>,
}

fn default_fact_age() -> Days {
    Days::new(365)
}

/// Whether a policy refuses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Mode {
    /// It refuses.
    #[default]
    Enforce,
    /// It lets through, and says what it would refuse: to take it into use.
    Audit,
}

/// Whose law may reach data.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Jurisdictions {
    /// Those that may: countries, or `EU` or `EEA` for all of them.
    #[schemars(schema_with = "text::territories")]
    pub allowed: Vec<Territory>,

    /// From which share on an owner counts. One whose share is not known counts.
    #[serde(default = "default_owners_from")]
    pub owners_from: Share,

    /// Whether the law of those counts whom a provider owns.
    #[serde(default)]
    pub subsidiaries: Subsidiaries,

    /// Whose sub-processors count.
    #[serde(default)]
    pub sub_processors: SubProcessors,
}

fn default_owners_from() -> Share {
    Share::percent(25)
}

/// Whether subsidiaries count.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Subsidiaries {
    /// They do not: an owner can make its subsidiary give, and hardly the other way round.
    #[default]
    Ignore,
    /// They do.
    Count,
}

/// Whose sub-processors count.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum SubProcessors {
    /// Theirs, and theirs again, to any depth.
    #[default]
    AllLevels,
    /// The provider's own only.
    Direct,
}

/// How far a backup is from what it is a backup of. Nothing said: in another country.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.otherCountry == 'Required' || has(self.distanceKm)", "backups: without another country a distance is needed, e.g. distanceKm: 300"))]
pub struct Apart {
    /// Whether it lies in another country.
    #[serde(default)]
    pub other_country: Need,

    /// How many kilometres it is away at least, by the positions in the register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5_000))]
    pub distance_km: Option<i32>,
}

impl Default for Apart {
    fn default() -> Self {
        Self { other_country: Need::Required, distance_km: None }
    }
}

/// Whether something must be.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Need {
    /// It must.
    #[default]
    Required,
    /// It need not.
    NotRequired,
}

/// Where images come from.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Registries, `host`, `host:port` or either with folders after it: images come from there or from below.
    #[schemars(schema_with = "text::registries")]
    pub registries: Vec<String>,
}

/// What volumes are like.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Whether they are encrypted at rest, as far as the register knows of their class.
    #[serde(default)]
    pub encryption_at_rest: Need,
}

/// Something that tenants' traffic passes.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Passage {
    /// What it is.
    pub kind: PassageKind,
    /// Its name, as whoever uses it has it: a class, an address, a host, an issuer.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Who runs it, by its name in the register.
    #[schemars(schema_with = "text::label_name")]
    pub provider: String,
}

/// What traffic passes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum PassageKind {
    /// An ingress class, or a class of gateways.
    IngressClass,
    /// A DNS resolver outside the cluster.
    Resolver,
    /// An issuer of certificates.
    CertificateIssuer,
    /// An issuer of log-ins.
    LoginIssuer,
    /// Whoever gets alerts.
    AlertReceiver,
}

/// An entry of the provider register in a policy.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterEntry {
    /// Its name in the register.
    #[schemars(schema_with = "text::label_name")]
    pub name: String,
    /// All that is to be believed of it: nothing of the catalogue's entry is.
    pub entry: ProviderSpec,
}

/// What is let through although a rule refuses it.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// What: `store/…`, `image/…`, `node/…`, `class/…`, `tenant/…`, `provider/…`, `passage/…` or `system/…`, and its name.
    #[schemars(schema_with = "text::subject")]
    pub subject: String,
    /// Who answers for it.
    #[schemars(length(min = 3, max = 200))]
    pub owner: String,
    /// Why.
    #[schemars(length(min = 8, max = 500))]
    pub reason: String,
    /// The last day on which it holds, in UTC, `2026-12-31`.
    #[schemars(schema_with = "text::day")]
    pub until: Date,
}

/// A country, or a union of them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub enum Territory {
    /// The countries of the European Union.
    Eu,
    /// Those of the European Economic Area.
    Eea,
    /// One country.
    Country(Country),
}

/// A country: two letters of ISO 3166-1.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Country([u8; 2]);

/// A text is no country.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is no country of ISO 3166-1: two capital letters, e.g. FI")]
pub struct UnknownCountry {
    text: String,
}

/// The members of the European Union.
///
/// # Source
/// Article 52 of the Treaty on European Union, after the withdrawal of 2020-01-31.
const UNION: [&str; 27] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT",
    "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
];

/// Members of the European Economic Area that are not of the Union.
///
/// # Source
/// Agreement on the European Economic Area, article 126 with its amendments: Iceland, Liechtenstein, Norway.
const BESIDE_THE_UNION: [&str; 3] = ["IS", "LI", "NO"];

/// All codes that are assigned.
///
/// # Source
/// ISO 3166-1:2020, officially assigned alpha-2 code elements.
const ASSIGNED: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY \
    BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA \
    GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG \
    KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW \
    MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD \
    SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA \
    VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

impl Country {
    /// Its two letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Territory {
    /// Whether `country` is of it.
    pub fn has(self, country: Country) -> bool {
        match self {
            Self::Eu => UNION.contains(&country.code()),
            Self::Eea => UNION.iter().chain(&BESIDE_THE_UNION).any(|member| *member == country.code()),
            Self::Country(one) => one == country,
        }
    }

    /// Every country of it, by its letters.
    pub fn countries(self) -> Vec<Country> {
        let mut all: Vec<Country> =
            ASSIGNED.split_whitespace().filter_map(|code| code.parse().ok()).collect();
        all.retain(|country| self.has(*country));
        all
    }
}

impl FromStr for Country {
    type Err = UnknownCountry;

    fn from_str(text: &str) -> Result<Self, UnknownCountry> {
        let letters =
            text.as_bytes().try_into().ok().filter(|_| ASSIGNED.split_whitespace().any(|code| code == text));
        letters.map(Self).ok_or_else(|| UnknownCountry { text: text.to_owned() })
    }
}

impl fmt::Display for Country {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

impl FromStr for Territory {
    type Err = UnknownCountry;

    fn from_str(text: &str) -> Result<Self, UnknownCountry> {
        match text {
            "EU" => Ok(Self::Eu),
            "EEA" => Ok(Self::Eea),
            _ => text.parse().map(Self::Country),
        }
    }
}

impl fmt::Display for Territory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eu => out.write_str("EU"),
            Self::Eea => out.write_str("EEA"),
            Self::Country(country) => country.fmt(out),
        }
    }
}

as_text!(Country, { "type": "string", "minLength": 2, "maxLength": 2, "pattern": "^[A-Z]{2}$" });
as_text!(Territory, { "type": "string", "minLength": 2, "maxLength": 3, "pattern": "^([A-Z]{2}|EEA)$" });

#[cfg(test)]
mod tests {
    use super::*;

    fn country(code: &str) -> Country {
        code.parse().unwrap()
    }

    #[test]
    fn the_union_has_27_countries_and_the_area_three_more() {
        let (union, area) = (Territory::Eu.countries(), Territory::Eea.countries());

        assert_eq!((union.len(), area.len()), (27, 30));
        assert!(union.iter().all(|member| area.contains(member)));
        assert!(!union.contains(&country("NO")) && area.contains(&country("NO")));
        assert!(!area.contains(&country("CH")) && !area.contains(&country("GB")));
    }

    #[test]
    fn what_is_no_country_is_refused() {
        for text in ["", "UK", "EL", "EU", "XX", "se", "SWE", "S"] {
            assert!(text.parse::<Country>().is_err(), "{text:?} is no country");
        }
        assert_eq!(ASSIGNED.split_whitespace().count(), 249);
        for text in ["EU", "EEA", "SE"] {
            assert_eq!(text.parse::<Territory>().unwrap().to_string(), text);
        }
    }
}
