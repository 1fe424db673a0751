//! `ExternalSystem`: a system outside that journals talk to. Whose it is, for what it is used, and where it is.
//!
//! A tenant reaches exactly those that it names: the list of recipients is the firewall.

use jiff::civil::Date;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{sovereignty::Need, text, units::Days};

/// A system outside the cluster that tenants' journals talk to. A tenant reaches those that its `externalSystems` name, at
/// these endpoints, and nothing else.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "valv.eu",
    version = "v1alpha1",
    kind = "ExternalSystem",
    category = "valv",
    cel,
    printcolumn(name = "System", type_ = "string", json_path = ".spec.displayName", description = "What people call it"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.name", description = "Who answers for it"),
    printcolumn(name = "Country", type_ = "string", json_path = ".spec.owner.country", description = "Under whose law the owner is"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role", description = "Does it hold data for the care provider, or receive them?"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("the name of an external system is a label of RFC 1123, a-z, 0-9 and '-', at most 63")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.role == 'Recipient' || has(self.agreement)", "a processor holds data for the care provider, which takes an agreement: say its reference and when it was reviewed"))]
pub struct ExternalSystemSpec {
    /// What people call it.
    #[schemars(length(min = 1, max = 200))]
    pub display_name: String,

    /// Who answers for it.
    pub owner: SystemOwner,

    /// What it is to the care provider whose journal talks to it.
    pub role: SystemRole,

    /// The agreement under which it processes data. A processor has one; a recipient may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,

    /// What it is used for: the purpose that a record of processing states.
    #[schemars(length(min = 4, max = 500))]
    pub purpose: String,

    /// The law or the decision on which that rests.
    #[schemars(length(min = 4, max = 500))]
    pub legal_basis: String,

    /// Where it is. None: nobody has said yet, and no tenant reaches it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub endpoints: Vec<SystemEndpoint>,

    /// Whether it wants a certificate of the journal. Then the journal needs a Secret with one.
    #[serde(default = "not_required")]
    pub client_certificate: Need,
}

fn not_required() -> Need {
    Need::NotRequired
}

/// Who answers for a system.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemOwner {
    /// Its full name.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,

    /// Under whose law it is, two letters of ISO 3166-1.
    #[schemars(schema_with = "text::country")]
    pub country: String,

    /// Its name in the provider register, if it is there: then those who own it count too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::label_name")]
    pub provider: Option<String>,
}

/// What a system is to the care provider.
///
/// # Source
/// Regulation (EU) 2016/679, article 4, points 7 to 9.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum SystemRole {
    /// It receives data, and answers for what it does with them.
    Recipient,
    /// It holds data for the care provider and does with them what that says.
    Processor,
}

/// An agreement with a processor.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// Where it can be found: a number of a register, the name of a document.
    #[schemars(length(min = 1, max = 200))]
    pub reference: String,

    /// When somebody last looked whether it still holds, `2026-11-22`.
    #[schemars(schema_with = "text::day")]
    pub reviewed_on: Date,

    /// After how long somebody has to look again.
    #[serde(default = "yearly")]
    pub review_every: Days,
}

fn yearly() -> Days {
    Days::new(365)
}

/// Where a system is: by names, or by addresses.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.names) != has(self.addresses)", "an endpoint has names or addresses, and not both: write two endpoints"))]
pub struct SystemEndpoint {
    /// Its names, each whole. Enforced where the cluster's network knows names (Cilium); elsewhere a tenant that needs it is
    /// told `Unenforceable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::host_names")]
    pub names: Vec<String>,

    /// Its addresses, as CIDR blocks: `203.0.113.7/32`. None of the cluster's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::networks")]
    pub addresses: Vec<String>,

    /// Its TCP ports.
    #[schemars(schema_with = "text::ports")]
    pub ports: Vec<u16>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pascal() -> Value {
        json!({
            "displayName": "Pascal",
            "owner": { "name": "Inera AB", "country": "SE" },
            "role": "Recipient",
            "purpose": "Prescribing and ordering medicines",
            "legalBasis": "PDL 2008:355",
            "endpoints": [{ "names": ["pascal.example"], "ports": [443] }],
            "clientCertificate": "Required",
        })
    }

    #[test]
    fn a_system_reads_back_as_it_was_written() {
        let spec: ExternalSystemSpec = serde_json::from_value(pascal()).unwrap();

        assert_eq!(serde_json::to_value(&spec).unwrap(), pascal());
    }

    #[test]
    fn a_system_of_the_catalogue_has_no_endpoints_until_somebody_says_where_it_is() {
        let mut written = pascal();
        let fields = written.as_object_mut().unwrap();
        fields.remove("endpoints");
        fields.remove("clientCertificate");

        let spec: ExternalSystemSpec = serde_json::from_value(written).unwrap();

        assert!(spec.endpoints.is_empty());
        assert_eq!(spec.client_certificate, Need::NotRequired);
    }

    #[test]
    fn an_agreement_is_reviewed_every_year_if_it_does_not_say_otherwise() {
        let agreement: Agreement =
            serde_json::from_value(json!({ "reference": "2026-114", "reviewedOn": "2026-09-01" })).unwrap();

        assert_eq!(agreement.review_every.to_string(), "365d");
    }
}
